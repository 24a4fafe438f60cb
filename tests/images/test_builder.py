"""What the output of a build tells, and the programs that it is asked from; no engine here."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from rainbow_prefect.errors import Cancelled, RunError
from rainbow_prefect.images.builder import Steps, run
from rainbow_prefect.images.dockerfile import dockerfile
from rainbow_prefect.images.packages import Packages
from rainbow_prefect.images.recipes import Recipe
from tests.executors.contract import wait_until

KIT = """\
#1 [internal] load build definition from Dockerfile
#1 transferring dockerfile: 94B done
#1 DONE 0.1s
#4 [stage-0 1/3] FROM docker.io/library/python:3.11-slim
#4 CACHED
#5 [stage-0 2/3] RUN --mount=type=cache,target=/root/.cache/pip PIP_A=1 PIP_B=2 python3 -m pip install -r requirements.txt
#5 sha256:17e86ee1177be7e41b8ec142c075ce49e1e7d6f38fb250e90f5addae02ba0dc6
#5 0.534 Collecting nothing
#5 0.600 \x1b[31mERROR: No matching distribution\x1b[0m
#5 ERROR: executor failed running [/bin/sh -c python3 -m pip install]: exit code: 1
------
 > [stage-0 2/3] RUN python3 -m pip install:
------
executor failed running [/bin/sh -c python3 -m pip install]: exit code: 1
"""

CLASSIC = """\
Sending build context to Docker daemon  2.048kB
Step 1/2 : FROM python:3.11-slim
 ---> 35d367459f37
Step 2/2 : RUN echo hi; exit 3
 ---> Running in c25e978b3e08
hi
The command '/bin/sh -c echo hi; exit 3' returned a non-zero code: 3
"""


OLD = """\
DEPRECATED: The legacy builder is deprecated and will be removed in a future release.
            BuildKit is currently disabled; enable it by removing the DOCKER_BUILDKIT=0
            environment-variable.

DEPRECATED: The legacy builder is deprecated and will be removed in a future release.
            Install the buildx component to build images with BuildKit:
            https://docs.docker.com/go/buildx/

"""


@pytest.mark.parametrize(
    ("output", "told", "step", "lines"),
    [
        (
            KIT,
            ["[stage-0 1/3] FROM docker.io/library/python:3.11-slim"]
            + ["[stage-0 2/3] RUN python3 -m pip install -r requirements.txt"],
            "[stage-0 2/3] RUN python3 -m pip install -r requirements.txt",
            ["Collecting nothing", "ERROR: No matching distribution", "exit code: 1"],
        ),
        (
            CLASSIC,
            ["[1/2] FROM python:3.11-slim", "[2/2] RUN echo hi; exit 3"],
            "[2/2] RUN echo hi; exit 3",
            ["hi", "The command '/bin/sh -c echo hi; exit 3' returned a non-zero code: 3"],
        ),
        ("it is broken\n", [], "", ["it is broken"]),
        ('time="2026-01-01T00:00:00Z" level=error msg="closed pipe"\nno engine\n', [], "", ["no engine"]),
        (f"{OLD}it is broken\n", [], "", ["it is broken"]),
        ("", [], "", ["exit status 1"]),
    ],
)
def test_steps(output: str, told: list[str], step: str, lines: list[str]) -> None:
    heard: list[str] = []
    steps = Steps(heard.append)

    for line in output.splitlines():
        steps.take(line)

    assert heard == told
    assert steps.why(1) == (step, lines)


def test_lines_of_a_program() -> None:
    seen: list[str] = []

    status = run(
        ["sh", "-c", "printf 'a\\nb\\rc\\n\\303\\n'; echo err >&2; printf end; exit 3"],
        os.environ,
        seen.append,
        lambda line: None,
        threading.Event(),
    )

    assert (status, seen) == (3, ["a", "b", "c", "\ufffd", "err", "end"])


def test_a_program_that_is_stopped_is_gone(tmp_path: Path) -> None:
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    begun = time.monotonic()

    with pytest.raises(Cancelled):
        run(["sh", "-c", f"echo $$ > {tmp_path}/pid; sleep 600"], os.environ, print, lambda line: None, stop)

    assert time.monotonic() - begun < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


KILLED = """
import sys, threading
from rainbow_prefect.images.builder import run
run(["sh", "-c", "echo $$; sleep 600 & wait"], {}, lambda line: None, lambda line: print(line, flush=True), threading.Event())
"""


def test_a_program_ends_when_this_process_is_killed() -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())

    process.kill()
    process.wait()

    assert wait_until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie", 30)
    assert process.stdout.read() == ""  # which would not end while a process of the group has it
    process.stdout.close()


def test_a_program_that_is_missing_is_told() -> None:
    with pytest.raises(RunError) as raised:
        run(["/nothing"], {}, print, print, threading.Event())

    assert str(raised.value) == "/nothing cannot be started: No such file or directory"


# -- the Dockerfile


def lines(recipe: Recipe, packages: Packages, *, buildkit: bool = True) -> list[str]:
    text = dockerfile(recipe, packages, buildkit=buildkit)
    return [line for line in text.splitlines() if "mkdir" not in line and not line.startswith("LABEL")]


def test_code_alone() -> None:
    assert lines(Recipe("i"), Packages()) == [
        "FROM python:3.11-slim",
        "USER root",
        "ENV PYTHONUNBUFFERED=1",
        "WORKDIR /app",
        'COPY --chown=10001:10001 [".", "/app/"]',
        "USER 10001:10001",
    ]


def test_packages_come_before_the_code() -> None:
    text = lines(Recipe("i"), Packages(copied=("a b.txt",), file="a b.txt", is_empty=False))

    assert text[4] == 'COPY ["a b.txt", "/app/a b.txt"]'
    assert text[5].startswith("RUN --mount=type=cache,target=/root/.cache/pip PIP_")
    assert text[5].endswith(" python3 -m pip install -r 'a b.txt'")
    assert text[6] == 'COPY --chown=10001:10001 [".", "/app/"]'


def test_packages_that_need_the_code_come_after_it() -> None:
    text = lines(Recipe("i"), Packages(is_empty=False, with_code=True, is_project=True))

    assert [line.split()[0] for line in text[4:]] == ["COPY", "RUN", "RUN", "USER"]
    assert text[6].endswith("pip install --no-deps .")


def test_commands_of_the_user_come_last_and_give_away_what_they_make() -> None:
    text = lines(Recipe("i", build_cmd=("echo 'a'\necho \"b\"",), build_args={"A": "1"}), Packages())

    assert text[4:] == [
        "ARG A",
        'COPY --chown=10001:10001 [".", "/app/"]',
        'RUN ["/bin/sh", "-ec", "export HOME=/home/app\\necho \'a\'\\necho \\"b\\"\\n"]',
        "RUN find /app /home/app ! -user 10001 -exec chown -h 10001:10001 {} +",
        "USER 10001:10001",
    ]


@pytest.mark.parametrize("buildkit", [True, False])
def test_pip_conf_is_only_where_pip_is(buildkit: bool) -> None:
    text = lines(Recipe("i", pip_conf=Path("pip.conf")), Packages(is_empty=False), buildkit=buildkit)

    last = max(index for index, line in enumerate(text) if line.startswith("FROM"))
    used = [index for index, line in enumerate(text) if "pip.conf" in line]
    if buildkit:
        assert [text[index].count("--mount=type=secret,id=pip.conf ") for index in used] == [1]
    else:
        assert max(used) < last
        assert text[last + 4 :][0] == 'COPY --from=packages ["/packages/", "/"]'


def test_an_image_that_serves_has_a_server() -> None:
    text = "\n".join(lines(Recipe("i", type="python_server", service={"served": [{"port": 8123}]}), Packages()))

    assert "pip install -r requirements.txt 'fastapi>=0.139,<0.151' 'uvicorn>=0.30,<1' 'uvloop" in text
    assert "EXPOSE 8123" in text
    assert "HEALTHCHECK" in text
    assert text.rstrip().endswith('"--folder", "/app"]')
    assert text.index("USER 10001:10001") < text.index("CMD")


def test_an_image_for_spark_finds_spark() -> None:
    text = lines(Recipe("i", type="spark"), Packages())

    assert ["ENV PATH=/opt/spark/bin:$PATH", "ENTRYPOINT []"] == text[3:5]
