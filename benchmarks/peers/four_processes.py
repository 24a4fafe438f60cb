"""What a person writes without any tool for 10,000 items: four child processes, side by side."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

code, count = sys.argv[1], int(sys.argv[2])
with tempfile.TemporaryDirectory() as folder:
    children = []
    for index in range(4):
        given, output = Path(folder, f"input-{index}.json"), Path(folder, f"output-{index}.json")
        given.write_text(json.dumps(list(range(index * count // 4, (index + 1) * count // 4))))
        env = {**os.environ, "RAINBOW_INPUT_PATH": str(given), "RAINBOW_OUTPUT_PATH": str(output)}
        children.append((subprocess.Popen([sys.executable, "-u", code], env=env), output))
    results = []
    for child, output in children:
        if child.wait():
            sys.exit(child.returncode)
        results += json.loads(output.read_text())
assert len(results) == count
