"""`rainbow run` against a real Prefect server: what it prints, its exit status, parameters, Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.commands.conftest import Call, api, sales
from tests.conftest import RAINBOW, Project, Rainbow

SHOP = sales("""
    - {task: make, type: python, cmd: "echo making; echo '[1, 2, 3]' > out.json", output_path: out.json}
    - task: add
      type: python
      cmd: cp rainbow_input.json out.json
      output_path: out.json
      input: task:make
      split_input: true
      executors: 2
    - {task: report, type: python, cmd: echo reported}
""")

BROKEN = sales("""
    - task: add
      type: python
      cmd: "if grep -q 3 rainbow_input.json; then echo no such customer; exit 3; fi"
      input: [1, 2, 3]
      split_input: true
      executors: 3
    - {task: report, type: python, cmd: echo reported}
    - {task: mend, type: python, cmd: "echo it is; echo too late; exit 4", when: always}
""")

PARAMETERS = """
    name: shop
    pipelines:
      - pipeline: sales
        parameters:
          - {name: day, type: date}
          - {name: best, type: int, default: 2}
        tasks:
          - task: show
            type: python
            cmd: 'echo "{\\"day\\": \\"{{day}}\\", \\"next\\": $(({{best}} + 1))}" > out.json'
            output_path: out.json
"""

SLOW = sales("""
    - {task: wait, type: python, cmd: "echo here > $HERE/begun; exec sleep 301"}
    - {task: report, type: python, cmd: echo reported}
""")

STUBBORN = SLOW.replace("exec sleep 301", "trap '' TERM; while true; do sleep 0.1; done")


def lines(text: str) -> list[str]:
    """The lines without times, ids and addresses, which differ each time."""
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", text)
    text = re.sub(r"\b[0-9a-f]{8}\b", "ID", text)
    text = re.sub(r"\d\d:\d\d:\d\d|http://\S+", "X", text)
    text = re.sub(r"(\d+ min )?[\d.]+ s\b", "N s", text)
    return [re.sub(r" {2,}", "  ", line) for line in text.splitlines()]


def test_run_ends_with_the_result_of_each_task_the_link_and_the_next_command(
    call: Call, project: Project, prefect_api: str
) -> None:
    done = call("run", project({"rainbow.yml": SHOP}))

    assert lines(done.out) == [
        "",
        "✓ make  completed  N s  [1, 2, 3]",
        "✓ add  completed  N s  [[1, 2], [3]]",
        "✓ report  completed  N s",
        "",
        "sales completed in N s",
        "run  X",
        "next  rainbow logs ID",
    ]
    link = re.search(r"^run +(http://127\.0\.0\.1:\d+)/runs/flow-run/[0-9a-f-]{36}$", done.out, re.M)
    assert link and prefect_api == f"{link[1]}/api"


def test_events_and_output_are_plain_lines_on_stderr_without_a_terminal(call: Call, project: Project) -> None:
    done = call("run", project({"rainbow.yml": SHOP}))

    told = lines(done.err)
    assert told[:4] == [
        "X pipeline sales started, run ID",
        "X make: started",
        "X make | making",
        "X make: completed in N s",
    ]
    assert sorted(told[4:]) == sorted(
        [
            "X add: started with 2 slices",
            "X add[0]: completed in N s",
            "X add[1]: completed in N s",
            "X add: completed in N s",
            "X report: started",
            "X report | reported",
            "X report: completed in N s",
        ]
    )


def test_run_that_fails_tells_the_slices_and_their_input_and_how_to_go_on(call: Call, project: Project) -> None:
    folder = project({"rainbow.yml": BROKEN})

    done = call("run", folder.name, cwd=folder.parent, code=1)

    assert lines(done.out) == [
        "",
        "✗ add  failed  N s  1 of 3 slices did not complete",
        "✗ mend  failed  N s  exit status 4: too late",
        "- report  not run",
        "",
        "add[2] failed: exit status 3: no such customer",
        "  its input: [3]",
        "",
        "the last lines of mend:",
        "  it is",
        "  too late",
        "",
        "sales failed in N s",
        "run  X",
        "next  rainbow logs ID --task add; when it is mended: rainbow retry ID",
    ]


def test_run_that_goes_on_tells_the_slices_that_failed_too(call: Call, project: Project) -> None:
    text = BROKEN.replace("executors: 3", "executors: 3\n        on_failure: continue").partition(
        "      - {task: mend"
    )[0]

    done = call("run", project({"rainbow.yml": text}))

    assert lines(done.out) == [
        "",
        "✓ add  completed  N s  1 of 3 slices did not complete",
        "✓ report  completed  N s",
        "",
        "add[2] failed: exit status 3: no such customer",
        "  its input: [3]",
        "",
        "sales completed in N s",
        "run  X",
        "next  rainbow logs ID",
    ]


def test_quiet_shows_the_end_only(call: Call, project: Project) -> None:
    done = call("run", project({"rainbow.yml": SHOP}), "--quiet")

    assert done.err == ""
    assert "sales completed" in done.out


def test_json_is_the_report_alone_whatever_prints(rainbow: Rainbow, project: Project, prefect_server: str) -> None:
    plugin = """
        import os
        import subprocess
        from typing import Any, Literal

        from rainbow_prefect.run import Run
        from rainbow_prefect.tasks.base import Task


        class Loud(Task):
            type: Literal["loud"] = "loud"

            def run(self, run: Run) -> Any:
                print("printed")
                os.write(1, b"written\\n")
                subprocess.run(["echo", "echoed"], check=True)
                return {"loud": True}
    """
    config = """
        name: shop
        plugins: [plugins]
        pipelines:
          - pipeline: sales
            tasks: [{task: shout, type: loud}]
    """

    done = rainbow("run", project({"rainbow.yml": config, "plugins/loud.py": plugin}), "--json")

    report = done.json
    assert (report["pipeline"], report["state"], report["message"]) == ("sales", "completed", "")
    assert report["tasks"][0]["output"] == {"loud": True}
    assert set(report) >= {"flow_run_id", "seconds", "metrics", "link", "warnings"}
    assert {"printed", "written", "echoed"} <= set(done.err.splitlines())


def test_json_of_a_run_that_fails(call: Call, project: Project) -> None:
    report = call("run", project({"rainbow.yml": BROKEN}), "--json", code=1).json

    assert report["state"] == "failed"
    assert [(one["task"], one["state"]) for one in report["tasks"]] == [
        ("add", "failed"),
        ("mend", "failed"),
        ("report", "not_run"),
    ]
    assert [(one["input"], one["state"], one["exit_code"]) for one in report["tasks"][0]["partitions"]] == [
        ([1], "completed", 0),
        ([2], "completed", 0),
        ([3], "failed", 3),
    ]
    assert report["tasks"][1]["log_tail"] == ["it is", "too late"]


# -- parameters


def test_parameters_have_the_types_of_the_pipeline(call: Call, project: Project, prefect_api: str) -> None:
    words = ["--param", "day=2024-01-31", "--param", "best=41"]

    report = call("run", project({"rainbow.yml": PARAMETERS}), *words, "--json").json

    assert report["tasks"][0]["output"] == {"day": "2024-01-31", "next": 42}
    flow_run = api(prefect_api, f"flow_runs/{report['flow_run_id']}")
    assert flow_run["parameters"] == {"day": "2024-01-31", "best": 41}


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            ["--param", "dya=2024-01-31"],
            "there is no parameter 'dya' in pipeline 'sales'; did you mean 'day'?\n"
            "pipeline 'sales' needs a value for parameter 'day' (a date such as 2024-01-31)",
        ),
        (
            ["--param", "day=2024-01-31", "--param", "best=many"],
            "parameter 'best' must be a whole number, got 'many'",
        ),
        ([], "pipeline 'sales' needs a value for parameter 'day' (a date such as 2024-01-31)"),
        (["--param", "day"], "--param day: write it as KEY=VALUE"),
        (["--param", "=3"], "--param =...: write it as KEY=VALUE"),
        (["--param", "day=2024-01-31", "--param", "day=2024-02-01"], "--param day is given twice"),
        (["--pipeline", "sale"], "there is no pipeline 'sale'; did you mean 'sales'?"),
        (
            ["--param", "day=2024-01-31", "--executor", "proces"],
            "there is no executor 'proces' in rainbow.yml; did you mean 'process'?",
        ),
    ],
)
def test_wrong_call_starts_nothing(call: Call, project: Project, words: list[str], error: str) -> None:
    folder = project({"rainbow.yml": PARAMETERS})

    done = call("run", folder, *words, code=2)

    assert (done.out, done.err) == ("", f"Error: {error}\n")


def test_wrong_call_is_json_too(call: Call, project: Project) -> None:
    done = call("run", project({"rainbow.yml": SHOP}), "--pipeline", "sale", "--json", code=2)

    assert done.json == {"error": "there is no pipeline 'sale'; did you mean 'sales'?"}


def test_wrong_file_starts_nothing(call: Call, project: Project) -> None:
    done = call("run", project({"rainbow.yml": SHOP.replace("python", "pyton", 1)}), code=2)

    assert done.out == ""
    assert done.err.startswith("rainbow.yml:5:28: pipeline 'sales', task 'make': unknown task type 'pyton'")


def test_another_file_may_be_wrong(call: Call, project: Project) -> None:
    folder = project({"rainbow.yml": SHOP, "other/rainbow.yml": "name: [\n"})

    done = call("run", folder, "--pipeline", "sales")

    assert "sales completed" in done.out
    assert done.err.startswith("other/rainbow.yml:")


# -- variables


VARIABLES = """
    name: shop
    pipelines:
      - pipeline: sales
        tasks:
          - {task: show, type: python, cmd: "echo {{rainbow_test_region}}"}
"""


def test_prefect_variables_count_when_nothing_else_has_the_name(
    call: Call, project: Project, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project({"rainbow.yml": VARIABLES})

    unknown = call("run", folder, code=2)
    monkeypatch.setenv("rainbow_test_region", "environment")
    of_environment = call("run", folder, "--json").json
    created = api(prefect_api, "variables/", {"name": "rainbow_test_region", "value": "prefect"})
    before_environment = call("run", folder, "--json").json
    monkeypatch.delenv("rainbow_test_region")
    only = call("run", folder, "--json").json
    from urllib.request import Request, urlopen

    urlopen(Request(f"{prefect_api}/variables/{created['id']}", method="DELETE")).close()

    assert "variable 'rainbow_test_region' is not defined; looked in " in unknown.err
    tails = [one["tasks"][0]["log_tail"] for one in (of_environment, before_environment, only)]
    assert tails == [["environment"], ["prefect"], ["prefect"]]


# -- the server


def test_server_that_does_not_answer_is_told(rainbow: Rainbow, project: Project) -> None:
    folder = project({"rainbow.yml": SHOP})

    done = rainbow("run", folder, env={"PREFECT_API_URL": "http://127.0.0.1:9/api"}, code=1)

    assert done.err == (
        "Error: the Prefect server at http://127.0.0.1:9/api does not answer (connection refused); "
        "start it, or unset PREFECT_API_URL to use a local one\n"
    )


# -- stopping


def test_ctrl_c_cancels_the_run(start: Any, project: Project, prefect_server: str) -> None:
    folder = project({"rainbow.yml": SLOW})
    run = start("run", "--json", cwd=folder, env={"HERE": str(folder)})
    run.wait_for("begun")

    run.send(signal.SIGINT)
    done = run.end()

    assert done.code == 1
    report = done.json
    assert (report["state"], report["message"]) == ("cancelled", "interrupted")
    assert [(one["task"], one["state"]) for one in report["tasks"]] == [("wait", "failed"), ("report", "not_run")]
    assert report["tasks"][0]["partitions"][0]["state"] == "cancelled"
    assert "stopping what runs; Ctrl-C once more ends it at once" in done.err
    assert run.left_over() == []
    assert api(prefect_server, f"flow_runs/{report['flow_run_id']}")["state"]["type"] == "CANCELLED"


def test_ctrl_c_twice_ends_at_once(start: Any, project: Project, prefect_server: str) -> None:
    folder = project({"rainbow.yml": STUBBORN})
    run = start("run", cwd=folder, env={"HERE": str(folder)})
    run.wait_for("begun")

    run.send(signal.SIGINT)
    time.sleep(0.5)
    began = time.monotonic()
    run.send(signal.SIGINT)
    done = run.end()

    assert done.code == 130
    assert time.monotonic() - began < 5
    assert run.left_over() == []
    (run_id,) = re.findall(r"started, run (\S+)", done.err)
    assert api(prefect_server, f"flow_runs/{run_id}")["state"]["type"] == "CANCELLED"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_cancel_the_run_too(
    start: Any, project: Project, prefect_server: str, number: signal.Signals
) -> None:
    folder = project({"rainbow.yml": SLOW})
    run = start("run", "--json", cwd=folder, env={"HERE": str(folder)})
    run.wait_for("begun")

    run.send(number)
    done = run.end()

    assert (done.code, done.json["state"]) == (1, "cancelled")
    assert run.left_over() == []


# -- a terminal


def in_terminal(folder: Path, env: dict[str, str]) -> tuple[int, str, str]:
    """`rainbow run` with a terminal of 70 x 20 as its stderr; its status, what came on stdout, what the terminal got."""
    master, slave = pty.openpty()
    words = [RAINBOW, "run", folder]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=slave, env={**os.environ, **env}) as process:
        os.close(slave)
        shown = b""
        while True:
            if select.select([master], [], [], 60)[0]:
                try:
                    data = os.read(master, 65536)
                except OSError:
                    break
                if not data:
                    break
                shown += data
        assert process.stdout is not None
        out = process.stdout.read()
    os.close(master)
    return process.returncode, out.decode(), shown.decode()


TERMINAL = {"TERM": "xterm", "COLUMNS": "70", "LINES": "20", "CI": ""}


def test_terminal_shows_a_live_tree(project: Project, prefect_server: str) -> None:
    folder = project({"rainbow.yml": SHOP.replace("echo making;", "echo making; sleep 1;")})

    code, out, shown = in_terminal(folder, TERMINAL)

    assert code == 0
    assert "· add  0/2  waits for make" in re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert "| making" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert "✓ make    completed" in out


def test_ci_has_plain_lines_even_in_a_terminal(project: Project, prefect_server: str) -> None:
    folder = project({"rainbow.yml": SHOP})

    code, _, shown = in_terminal(folder, {**TERMINAL, "CI": "true"})

    assert code == 0
    assert "\x1b" not in shown
    assert "make: started" in shown


# -- large things


def test_large_output_is_told_by_its_size(call: Call, project: Project) -> None:
    config = sales("""
        - task: make
          type: python
          cmd: "python -c 'import json; print(json.dumps([1] * 700000))' > out.json"
          output_path: out.json
    """)

    done = call("run", project({"rainbow.yml": config}), "--quiet")

    assert lines(done.out)[1] == "✓ make  completed  N s  output of 2.1 MB"


def test_long_messages_are_cut(call: Call, project: Project) -> None:
    config = sales("""
        - {task: shout, type: python, cmd: "printf 'x%.0s' $(seq 1000); echo; exit 1"}
    """)

    done = call("run", project({"rainbow.yml": config}), "--quiet", code=1)

    assert max(len(line) for line in done.out.splitlines()[:3]) < 170


def test_warnings_are_told_once_on_stderr(call: Call, project: Project) -> None:
    config = SHOP.replace("- pipeline: sales", "- pipeline: sales\n    metrics: {namespace: N, backends: [cloudwatch]}")

    done = call("run", project({"rainbow.yml": config}), "--quiet")

    assert done.err == (
        "warning: metrics were not sent to cloudwatch: no AWS settings found; "
        "set AWS_DEFAULT_REGION and credentials (aws configure)\n"
    )


def test_report_is_json_whatever_the_output_holds(call: Call, project: Project) -> None:
    config = sales("""
        - task: make
          type: python
          cmd: "printf '{\\"a\\": \\"\\\\\\\\u2028 \\\\\\\\ud83d\\\\\\\\ude00\\"}' > out.json; printf '\\\\377\\\\n'"
          output_path: out.json
    """)

    report = json.loads(call("run", project({"rainbow.yml": config}), "--json").out)

    assert report["tasks"][0]["output"] == {"a": "\u2028 \U0001f600"}
    assert report["tasks"][0]["log_tail"] == ["\ufffd"]
