"""The one-task pipeline in Dagster: one op that starts a child process."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from dagster import Definitions, get_dagster_logger, job, op


@op
def hello() -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        given_path, output_path = Path(folder, "input.json"), Path(folder, "output.json")
        given_path.write_text(json.dumps({"who": "world"}))
        env = {**os.environ, "RAINBOW_INPUT_PATH": str(given_path), "RAINBOW_OUTPUT_PATH": str(output_path)}
        code = os.environ["BENCH_CODE"]
        done = subprocess.run([sys.executable, "-u", code], env=env, stdout=subprocess.PIPE, text=True, check=True)
        for line in done.stdout.splitlines():
            get_dagster_logger().info(line)
        return json.loads(output_path.read_text())


@job
def one_task():
    hello()


definitions = Definitions(jobs=[one_task])
