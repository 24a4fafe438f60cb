"""The work of 10,000 items: about 4 ms of CPU for each; a line for every hundredth; a result for each."""

import hashlib
import json
import os

with open(os.environ["RAINBOW_INPUT_PATH"]) as file:
    items = json.load(file)
results = []
for done, item in enumerate(items):
    text = str(item).encode()
    results.append(hashlib.pbkdf2_hmac("sha256", text, b"salt", 12_000).hex()[:16])
    if done % 100 == 0:
        print(f"{done} of {len(items)}", flush=True)
with open(os.environ["RAINBOW_OUTPUT_PATH"], "w") as file:
    json.dump(results, file)
