"""One slice of a split input: says which slice it is and what it was given."""

import json
import os

items = json.loads(os.environ["RAINBOW_INPUT"])
index, count = int(os.environ["RAINBOW_SPLIT_ID"]), int(os.environ["RAINBOW_NUM_SPLITS"])

print(f"slice {index + 1} of {count} got {json.dumps(items)}")
