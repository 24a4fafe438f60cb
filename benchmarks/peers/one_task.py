"""What a person writes in plain Prefect for the one-task pipeline: a child process, its lines in the logs, its output."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from prefect import flow, task


@task(name="hello")
def hello(given: dict[str, str]) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        given_path, output_path = Path(folder, "input.json"), Path(folder, "output.json")
        given_path.write_text(json.dumps(given))
        env = {**os.environ, "RAINBOW_INPUT_PATH": str(given_path), "RAINBOW_OUTPUT_PATH": str(output_path)}
        child = subprocess.Popen([sys.executable, "-u", sys.argv[1]], env=env, stdout=subprocess.PIPE, text=True)
        for line in child.stdout or ():
            print(line, end="")
        if child.wait():
            raise RuntimeError(f"exit status {child.returncode}")
        return json.loads(output_path.read_text())


@flow(name="peer_one_task", log_prints=True)
def one_task() -> dict[str, str]:
    return hello({"who": "world"})


assert one_task() == {"greeted": "world"}
