"""The work of the one-task pipeline: read the input, print a line, leave an output."""

import json
import os

with open(os.environ["RAINBOW_INPUT_PATH"]) as file:
    given = json.load(file)
print("hello", given["who"])
with open(os.environ["RAINBOW_OUTPUT_PATH"], "w") as file:
    json.dump({"greeted": given["who"]}, file)
