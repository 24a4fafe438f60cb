"""One YAML, two executors: what runs in a process and in a container gives the same."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import Done, Project, Rainbow

if TYPE_CHECKING:
    import docker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

YAML = """
    name: {app}
    env_vars: {{LEVEL: app, OF_APP: "yes"}}
    variables: {{word: "żółw \\"🐢\\" $HOME", sizes: [10, 20, 30, 40, 50, 60, 70]}}
    secrets:
      - {{secret: file, local_path_file: keys/file.txt}}
      - {{secret: variable, env: CASES_VALUE}}
    volumes:
      - {{volume: data, local: {{path: ./data}}}}
    task_defaults:
      python: {{source: code, image: "rainbow-tests/{app}:1"}}
    pipelines:
      - pipeline: gives
        env_vars: {{LEVEL: pipeline}}
        tasks:
          - {{task: static, cmd: python give.py, input: {{a: [1, null, 2.5, "{{{{word}}}}"]}}, output_path: out.json, type: python}}
          - {{task: even, cmd: python give.py, input: "{{{{sizes}}}}", split_input: true, executors: 3, output_path: out.json, type: python}}
          - {{task: empty_ones, cmd: python give.py, input: [1, 2], split_input: true, executors: 4, output_path: out.json, type: python}}
          - {{task: by_size, cmd: python give.py, input: "{{{{sizes}}}}", split_size: 3, executors: 2, output_path: out.json, type: python}}
          - {{task: copies, cmd: python give.py, executors: 2, output_path: out.json, type: python}}
          - {{task: of_task, cmd: python give.py, input: "task:even", output_path: deep/er/out.json, type: python}}
          - {{task: of_task_split, module: calls, function: doubled, input: "task:doubled", split_input: true, executors: 2, type: python, depends_on: [doubled]}}
          - {{task: doubled, module: calls, function: doubled, input: "{{{{sizes}}}}", type: python, depends_on: []}}
          - {{task: no_arguments, module: pkg.calls, function: nothing, input: 5, type: python}}
          - {{task: later, module: calls, function: later, input: [1], type: python}}
          - {{task: json_file, cmd: python give.py, input: "file:data/*.json", output_path: out.json, type: python}}
          - {{task: csv_file, cmd: python give.py, input: "file:data/rows.csv", split_input: true, executors: 2, output_path: out.json, type: python}}
          - {{task: none, cmd: "echo nothing && echo too >&2", type: python}}
          - {{task: absolute, cmd: "echo '[7]' > \\"$RAINBOW_OUTPUT_PATH\\"", output_path: /results/out.json, type: python}}
          - {{task: variables, cmd: python variables.py, env_vars: {{LEVEL: task, MINE: "{{{{word}}}}"}}, output_path: out.json, type: python}}
          - {{task: large, module: calls, function: large, input: 300000, type: python}}
          - {{task: of_large, module: calls, function: count, input: "task:large", type: python}}
          - task: secret
            type: python
            cmd: python secret.py
            env_vars: {{IN_VARIABLE: "{{{{secret.file}}}}"}}
            secrets: [{{secret: file, remote_path: keys}}, {{secret: variable, env: GIVEN}}, {{secret: variable, remote_path: keys, sub_path: v/key}}]
            output_path: out.json
          - task: mounted
            type: python
            cmd: python mounted.py
            mounts: [{{mount: all, volume: data, path: all}}, {{mount: part, volume: data, path: some/part, sub_path: sub, read_only: true}}]
            output_path: out.json
          - {{task: again, type: python, cmd: python again.py, retries: 2, mounts: [{{mount: m, volume: data, path: state}}], output_path: out.json}}
          - {{task: partly, type: python, cmd: "test $RAINBOW_SPLIT_ID != 1 && echo $RAINBOW_SPLIT_ID > out.json", executors: 3, on_failure: continue, output_path: out.json}}
      - pipeline: fails
        tasks:
          - {{task: status, type: python, cmd: "echo one; echo two >&2; exit 3", depends_on: []}}
          - {{task: killed, type: python, cmd: "echo dying; kill -9 $$", depends_on: []}}
          - {{task: no_output, type: python, cmd: "true", output_path: out.json, depends_on: []}}
          - {{task: no_json, type: python, cmd: "echo {{ > out.json", output_path: out.json, depends_on: []}}
          - {{task: no_program, type: python, cmd: no-such-program, depends_on: []}}
          - {{task: raised, type: python, module: calls, function: bad, input: {{a: 1}}, depends_on: []}}
          - {{task: left, type: python, module: calls, function: leave, depends_on: []}}
          - {{task: no_json_back, type: python, module: calls, function: no_json, depends_on: []}}
          - {{task: too_long, type: python, cmd: "echo begun; sleep 600", timeout_minutes: 0.05, depends_on: []}}
          - {{task: one_of_three, type: python, cmd: "test $RAINBOW_SPLIT_ID != 1", executors: 3, retries: 1, depends_on: []}}
          - {{task: told, type: python, cmd: "echo '{{}}' > out.json", when: on_failure, depends_on: [status], output_path: out.json}}
          - {{task: not_told, type: python, cmd: "true", depends_on: [status]}}
          - {{task: shows, type: python, cmd: "cat keys/credentials; exit 1", secrets: [{{secret: file, remote_path: keys}}], depends_on: []}}
"""
FILES = {
    "keys/file.txt": "in-a-file-Kk1\n",
    "data/a.json": "[1, 2]",
    "data/b.json": "[3]",
    "data/rows.csv": "name,n\nx,1\ny,2\nz,3\n",
    "data/sub/inner.txt": "inner",
    "code/give.py": """
        import json
        import os

        given = json.load(open("rainbow_input.json"))
        assert given == json.loads(os.environ["RAINBOW_INPUT"])
        assert given == json.load(open(os.environ["RAINBOW_INPUT_PATH"]))
        os.makedirs(os.path.dirname(os.environ["RAINBOW_OUTPUT_PATH"]), exist_ok=True)
        slice_ = [os.environ[name] for name in ("RAINBOW_SPLIT_ID", "RAINBOW_NUM_SPLITS", "LIMINAL_SPLIT_ID")]
        json.dump({"given": given, "slice": slice_}, open(os.environ["RAINBOW_OUTPUT_PATH"], "w"))
        print("gave", json.dumps(given, ensure_ascii=False))
    """,
    "code/calls.py": """
        import sys


        def doubled(given):
            return [2 * one for one in given]


        async def later(given):
            return {"later": given}


        def large(length):
            return {"text": "ü" * length, "items": list(range(1000))}


        def count(given):
            return [len(given["text"]), given["text"][-1], sum(given["items"])]


        def bad(given):
            raise ValueError(f"cannot use {given['a']}: ż")


        def leave():
            print("leaving")
            sys.exit("no more of this")


        def no_json():
            return {1, 2}
    """,
    "code/pkg/__init__.py": "",
    "code/pkg/calls.py": "def nothing():\n    print('nothing given')\n    return None\n",
    "code/variables.py": """
        import json
        import os

        names = ("LEVEL", "OF_APP", "MINE", "RAINBOW_TASK", "RAINBOW_PIPELINE", "RAINBOW_ATTEMPT", "RAINBOW_INPUT")
        found = {name: os.environ[name] for name in names}
        found["names"] = sorted(name for name in os.environ if name.startswith(("RAINBOW_", "LIMINAL_")) and name not in ("RAINBOW_KILL_GROUP", "RAINBOW_SLICE", "RAINBOW_TEST_HOME"))
        found["files"] = sorted(name for name in os.listdir(".") if not name.startswith((".", "__", "requirements")))
        found["run_id"] = len(os.environ["run_id"])
        json.dump(found, open("out.json", "w"))
    """,
    "code/secret.py": """
        import json
        import os

        values = [open("keys/credentials").read(), open("keys/v/key").read(), os.environ["GIVEN"], os.environ["IN_VARIABLE"]]
        modes = [oct(os.stat(name).st_mode & 0o777) for name in ("keys/credentials", "keys/v/key")]
        mine = [os.stat(name).st_uid == os.getuid() for name in ("keys/credentials", "keys/v/key")]
        print(*values)
        json.dump({"lengths": [len(one) for one in values], "modes": modes, "mine": mine}, open("out.json", "w"))
    """,
    "code/mounted.py": """
        import json
        import os

        open("all/written.txt", "w").write("by the task")
        json.dump([sorted(os.listdir("all/sub")), open("some/part/inner.txt").read(), open("all/a.json").read()], open("out.json", "w"))
    """,
    "code/again.py": """
        import json
        import os
        import sys

        with open("state/attempts", "a") as attempts:
            attempts.write(os.environ["RAINBOW_ATTEMPT"])
        done = open("state/attempts").read()
        if len(done) < 3:
            sys.exit(f"not yet: {done}")
        json.dump(done, open("out.json", "w"))
    """,
}


@pytest.fixture
def root(docker_engine: docker.DockerClient, base_image: str, project: Project) -> Iterator[Path]:
    app = f"cases-{secrets.token_hex(4)}"
    root = project({**FILES, "rainbow.yml": YAML.format(app=app)})
    yield root
    for image in docker_engine.images.list(f"rainbow-tests/{app}"):
        docker_engine.images.remove(image.id, force=True)


def run(rainbow: Rainbow, root: Path, pipeline: str, executor: str, code: int) -> Done:
    for folder in (root / "data", root / "data/sub"):
        folder.chmod(0o777)  # the user of a container is another one
    for name in ("attempts", "written.txt"):
        (root / "data" / name).unlink(missing_ok=True)
    env = {"CASES_VALUE": "in-a-variable-Vv2"}
    return rainbow(
        "run", root, "--pipeline", pipeline, "--executor", executor, "--json", env=env, code=code, timeout=700
    )


def comparable(report: dict[str, Any]) -> dict[str, Any]:
    """A report by task, without what is never twice the same."""
    return {
        task["task"]: {
            "state": task["state"],
            "message": _neutral(task["message"]),
            "output": task["output"],
            "log": sorted(map(_neutral, task["log_tail"])),
            "slices": [
                [one["index"], one["input"], one["state"], one["output"], _status(one), one["attempts"]]
                for one in task["partitions"]
            ],
        }
        for task in report["tasks"]
    }


def _neutral(text: str) -> str:
    """The text without the folders of this machine."""
    return re.sub(r'File ".*/', 'File "', text).replace("/bin/bash: ", "bash: ")


def _status(partition: dict[str, Any]) -> Any:
    """How its process ended by itself; not what a timeout made of it."""
    return None if partition["state"] == "timed_out" else partition["exit_code"]


def test_outputs_are_the_same(
    root: Path, rainbow: Rainbow, prefect_server: str, docker_engine: docker.DockerClient
) -> None:
    process = run(rainbow, root, "gives", "process", 0)
    container = run(rainbow, root, "gives", "docker", 0)

    assert (process.json["state"], container.json["state"]) == ("completed", "completed")
    wanted, found = comparable(process.json), comparable(container.json)
    for task in wanted:
        assert found[task] == wanted[task], json.dumps([task, found[task], wanted[task]])
    assert found["even"]["output"] == [
        {"given": [10, 20, 30], "slice": ["0", "3", "0"]},
        {"given": [40, 50], "slice": ["1", "3", "1"]},
        {"given": [60, 70], "slice": ["2", "3", "2"]},
    ]
    assert found["of_large"]["output"] == [300000, "ü", 499500]
    assert found["secret"]["output"] == {"lengths": [14, 17, 17, 13], "modes": ["0o400", "0o400"], "mine": [True, True]}
    assert found["mounted"]["output"] == [["inner.txt"], "inner", "[1, 2]"]
    assert found["again"]["output"] == "123"
    assert (root / "data/written.txt").read_text() == "by the task"
    for text in (process.out, process.err, container.out, container.err):
        assert "in-a-file-Kk1" not in text and "in-a-variable-Vv2" not in text
    assert left_of(docker_engine, container.json["flow_run_id"]) == []


def test_failures_are_the_same(
    root: Path, rainbow: Rainbow, prefect_server: str, docker_engine: docker.DockerClient
) -> None:
    process = run(rainbow, root, "fails", "process", 1)
    container = run(rainbow, root, "fails", "docker", 1)

    assert (process.json["state"], container.json["state"]) == ("failed", "failed")
    wanted, found = comparable(process.json), comparable(container.json)
    for task in set(wanted) - {"killed"}:
        assert found[task] == wanted[task], json.dumps([task, found[task], wanted[task]])
    assert [one["killed"]["slices"][0][4] for one in (wanted, found)] == [-9, 137]  # an engine tells it as shells do
    assert found["status"]["slices"] == [[0, None, "failed", None, 3, 1]]
    assert found["told"]["state"] == "completed"
    assert found["not_told"]["state"] == "not_run"
    assert "in-a-file-Kk1" not in json.dumps([process.json, container.json])
    assert left_of(docker_engine, container.json["flow_run_id"]) == []


def left_of(engine: docker.DockerClient, run_id: str) -> list[str]:
    """The containers of a run that are still there."""
    found = engine.containers.list(all=True, filters={"label": f"rainbow.flow-run={run_id}"}, ignore_removed=True)
    return [one.name for one in found]
