"""The benchmark harness counts what it should and fails when a bar is missed; the bars are measured by `make bench`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import etl, measure, run, table
from benchmarks.cases import CASES, WITH_DOCKER

from .conftest import ROOT

SERVING = ("serve", "serve_memory")
BURN = "import time\nwhile time.process_time() < 0.3: pass"


def test_cpu_of_a_child_of_a_child_counts() -> None:
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN!r}])"

    usage = measure.run([sys.executable, "-c", nested])

    assert usage.code == 0
    assert 0.3 <= usage.cpu_seconds < 3


def test_cpu_of_other_processes_does_not_count() -> None:
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])

    usage = measure.run([sys.executable, "-c", BURN])
    other.kill()
    other.wait()

    assert 0.3 <= usage.cpu_seconds < 0.9


def test_peak_memory_is_that_of_the_command() -> None:
    usage = measure.run([sys.executable, "-c", "text = 'x' * 300_000_000"])

    assert 300_000_000 <= usage.peak_bytes < 400_000_000


def test_a_command_that_does_not_end_is_killed() -> None:
    usage = measure.run([sys.executable, "-c", "import time; time.sleep(60)"], timeout_seconds=1)

    assert usage.code == -9
    assert usage.wall_seconds < 20


def test_commands_take_turns() -> None:
    turns: list[str] = []

    def one(name: str) -> measure.Usage:
        turns.append(name)
        return measure.Usage(1, 1, 1, 0, "", "")

    measure.interleaved({"ours": lambda: one("ours"), "peer": lambda: one("peer")}, repeats=2)

    assert turns == ["ours", "peer", "ours", "peer"]


def test_a_command_that_fails_stops_the_benchmark() -> None:
    failed = measure.Usage(1, 1, 1, 3, "", "no such file")

    with pytest.raises(RuntimeError, match="ours: exit status 3\n\nno such file"):
        measure.interleaved({"ours": lambda: failed}, repeats=1)


def test_a_bar_is_a_ratio_when_there_is_a_peer() -> None:
    assert table.Row("run", 1.2, "CPU s", 1.2, 1.0, "flow").is_met
    assert not table.Row("run", 1.21, "CPU s", 1.2, 1.0, "flow").is_met


def test_a_bar_is_an_amount_when_there_is_none() -> None:
    assert table.Row("check", 0.9, "CPU s", 1.0).is_met
    assert not table.Row("check", 1.1, "CPU s", 1.0).is_met
    assert table.Row("told only", 99, "s").is_met


def test_table_is_markdown() -> None:
    rows = [table.Row("run", 1.5, "CPU s", 1.2, 1.0, "flow"), table.Row("check", 0.5, "CPU s", 1.0)]

    assert table.markdown(rows) == (
        "| what  | rainbow    | peer              | ratio | bar     |        |\n"
        "|-------|------------|-------------------|-------|---------|--------|\n"
        "| run   | 1.50 CPU s | 1.00 CPU s (flow) | 1.50  | 1.2 x   | MISSED |\n"
        "| check | 0.50 CPU s |                   |       | 1 CPU s | met    |"
    )


def test_table_is_written_between_its_markers(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")

    table.write(file, "new")

    assert file.read_text() == f"before\n{table.BEGIN}\n\nnew\n\n{table.END}\nafter\n"


def test_readme_of_the_benchmarks_has_a_table_and_names_every_case() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text()

    measured, _, after = text.partition(table.BEGIN)[2].partition(table.END)
    rows = [[cell.strip() for cell in line.split("|")] for line in measured.splitlines() if line.startswith("|")][2:]
    assert len(rows) > len(CASES)
    assert {row[-2] for row in rows if row[-3]} <= {"met", "MISSED"}
    assert all(f"- {row[1]}: " in after for row in rows if row[-2] == "MISSED"), "each missed bar is explained"
    assert all(f"`{name}`" in text for name in CASES)


def test_unknown_case_is_a_call_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        run.main(["--only", "speed"])

    assert raised.value.code == 2
    assert f"no such case: speed (known: {', '.join(CASES)})" in capsys.readouterr().err


def test_a_missed_bar_is_exit_status_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(CASES, "check", lambda bench: [table.Row("check", 1.1, "CPU s", 1.0)])

    code = run.main(["--only", "check"])

    assert code == 1
    assert capsys.readouterr().err.endswith("MISSED: check | 1.10 CPU s | 1 CPU s | MISSED\n")


def test_what_a_run_without_rows_costs_is_taken_off() -> None:
    def usage(wall: float, cpu: float, peak: int) -> measure.Usage:
        return measure.Usage(wall, cpu, peak, 0, "", "")

    found = etl.net([usage(5, 3, 90), usage(6, 4, 100), usage(9, 9, 110)], [usage(2, 1, 80)])

    assert found == etl.Net(cpu_seconds=3, wall_seconds=4, peak_bytes=20)
    assert etl.net([usage(1, 1, 1)], [usage(2, 2, 2)]) == etl.Net(0.001, 0.001, 0)


def test_readme_names_every_case_of_sql_etl_and_explains_missed_bars() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text()

    measured, _, after = text.partition(etl.MARKERS[0])[2].partition(etl.MARKERS[1])
    rows = [[cell.strip() for cell in line.split("|")] for line in measured.splitlines() if line.startswith("|")][2:]
    assert {row[-2] for row in rows if row[-3]} <= {"met", "MISSED"} and rows
    assert all(f"- {row[1]}: " in after for row in rows if row[-2] == "MISSED"), "each missed bar is explained"
    assert all(f"`{name}`" in after for name in etl.CASES)


def test_unknown_case_of_sql_etl_is_a_call_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        etl.main(["--only", "speed"])

    assert raised.value.code == 2
    assert f"no such case: speed (known: {', '.join(etl.CASES)})" in capsys.readouterr().err


@pytest.mark.slow
def test_every_case_runs_in_small() -> None:
    assert len(rows_of(*(name for name in CASES if name not in {*WITH_DOCKER, *SERVING}))) == 17


@pytest.mark.slow
def test_every_case_of_services_runs_in_small() -> None:
    assert len(rows_of(*SERVING)) == 7


@pytest.mark.slow
@pytest.mark.usefixtures("base_image")
def test_every_case_with_docker_runs_in_small() -> None:
    assert len(rows_of(*WITH_DOCKER)) == 10


def rows_of(*names: str) -> list[str]:
    """The rows of these cases and the head; all commands and peers really run, how long they take is not judged here."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.run", "--repeats", "1", "--scale", "0.004", "--only", ",".join(names)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )

    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("| ")]
