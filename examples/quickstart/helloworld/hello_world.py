"""Says hello to its input. Where the task has an output_path, it leaves a result there."""

import json
import os

with open(os.environ["RAINBOW_INPUT_PATH"]) as file:
    given = json.load(file)

print(f"hello from {os.environ['RAINBOW_TASK']}, env1={os.environ['env1']} env2={os.environ['env2']}")
print(f"my input is {json.dumps(given)}")

# Only a task with an output_path is told where its output goes.
output = os.environ.get("RAINBOW_OUTPUT_PATH")
if output:
    result = {"greeted": len(given), "who": [item["foo"] for item in given]}
    with open(output, "w") as file:
        json.dump(result, file)
    print(f"my output is {json.dumps(result)}")
