"""A command of its own: arguments from parameters, input and output as JSON files."""

import argparse
import json
import os

parser = argparse.ArgumentParser()
parser.add_argument("--since", required=True)
parser.add_argument("--best", type=int, required=True)
wanted = parser.parse_args()

with open(os.environ["RAINBOW_INPUT_PATH"]) as file:
    rows = [row for row in json.load(file) if row["day"] >= wanted.since]

best = sorted(rows, key=lambda row: -row["amount"])[: wanted.best]
for row in best:
    print(f"{row['day']}: {row['amount']:.2f} {os.environ['CURRENCY']}")

with open(os.environ["RAINBOW_OUTPUT_PATH"], "w") as file:
    json.dump([row["day"] for row in best], file)
