"""The one-task pipeline in Metaflow: one step that starts a child process, beside the two that every flow has."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from metaflow import FlowSpec, step


class OneTask(FlowSpec):
    """Start, work, end."""

    @step
    def start(self):
        with tempfile.TemporaryDirectory() as folder:
            given_path, output_path = Path(folder, "input.json"), Path(folder, "output.json")
            given_path.write_text(json.dumps({"who": "world"}))
            env = {**os.environ, "RAINBOW_INPUT_PATH": str(given_path), "RAINBOW_OUTPUT_PATH": str(output_path)}
            subprocess.run([sys.executable, "-u", os.environ["BENCH_CODE"]], env=env, check=True)
            self.output = json.loads(output_path.read_text())
        self.next(self.end)

    @step
    def end(self):
        assert self.output == {"greeted": "world"}


if __name__ == "__main__":
    OneTask()
