"""The executor `process`: the contract, and what a machine of its own must bear."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rainbow_prefect.errors import TaskFailed, TimedOut
from rainbow_prefect.executors import _disk, _folders, _spawn, process
from rainbow_prefect.executors.base import Executor
from rainbow_prefect.executors.process import Process
from rainbow_prefect.run import Command, FileMount

from .contract import Bench, ExecutorContract, wait_until


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Working directories of these tests are in a folder of their own."""
    folder = tmp_path_factory.mktemp("tmp")
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    _folders.close()
    yield folder
    _folders.close()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(Process(), tmp_path)


def marked(text: str) -> list[int]:
    """The processes whose command line holds this text."""
    found = []
    for one in psutil.process_iter(["cmdline", "status"]):
        if one.info["status"] != psutil.STATUS_ZOMBIE and text in (one.info["cmdline"] or []):
            found.append(one.pid)
    return found


_numbers = iter(range(1, 10_000))


def nap() -> str:
    """A length of sleep that no other test has, so that its process can be found."""
    return f"600.{os.getpid()}{next(_numbers):04d}"


class TestContract(ExecutorContract):
    @pytest.fixture
    def executor(self) -> Executor:
        return Process()


# -- nothing stays


def test_the_working_directory_is_removed(bench: Bench, temporary: Path) -> None:
    bench("pwd; mkdir -p a/b; touch a/b/c; chmod 0 a/b a")

    assert bench.lines[0].startswith(str(temporary))
    assert not Path(bench.lines[0]).exists()


def test_the_working_directory_of_a_failure_is_removed(bench: Bench) -> None:
    bench.failure("pwd; exit 1")

    assert not Path(bench.lines[0]).exists()


def test_temporary_files_are_removed(bench: Bench) -> None:
    bench.python("import tempfile; print(tempfile.mkdtemp())")

    assert not Path(bench.lines[0]).exists()


def test_the_working_directory_of_a_failure_is_kept_on_demand(bench: Bench) -> None:
    bench.failure("echo x > made; exit 1", executor=Process(keep_failed=True))

    kept = Path(bench.lines[-1].removeprefix("kept the working directory: "))
    assert (kept / "made").read_text() == "x\n"
    assert (kept / "rainbow_input.json").read_text() == "{}"


def test_this_process_leaves_no_folder(tmp_path: Path) -> None:
    text = """
        from pathlib import Path
        from tests.executors.contract import Bench
        from rainbow_prefect.executors.process import Process
        Bench(Process(), Path.cwd())("true")
    """

    child(text, tmp_path).wait(60)

    assert list(tmp_path.glob("rainbow-*/*")) == []


@pytest.mark.parametrize(
    "cmd",
    [
        "sleep {nap} & echo done",
        "(setsid sleep {nap} &); echo done",
        "trap '' TERM HUP; (trap '' TERM; sleep {nap}) & echo done",
        'python -c \'import os; os.fork() or os.setsid() or os.fork() or os.execvp("sleep", ["sleep", "{nap}"])\'',
        "env -i setsid sleep {nap} & echo done",
        "nohup sleep {nap} >/dev/null 2>&1 & echo done",
    ],
)
def test_what_a_command_leaves_is_ended(bench: Bench, cmd: str) -> None:
    name = nap()
    begun = time.monotonic()

    output = bench(cmd.replace("{nap}", name))

    assert output.status == 0
    assert marked(name) == []
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    "cmd",
    [
        "sleep {nap}",
        "trap '' TERM INT HUP; sleep {nap} & wait; sleep {nap}",
        "setsid sleep {nap} & (setsid env -i sleep {nap} &) ; exec sleep {nap}",
        "python -c 'import os, signal; os.fork(); os.setsid(); signal.signal(15, signal.SIG_IGN); os.fork(); "
        'os.execvp("sleep", ["sleep", "{nap}"])\'',
        "kill -STOP $$; sleep {nap}",
    ],
)
def test_a_timeout_ends_the_whole_tree(bench: Bench, cmd: str) -> None:
    name = nap()

    error = bench.failure(cmd.replace("{nap}", name), executor=Process(grace_seconds=0.5), seconds=1)

    assert isinstance(error, TimedOut)
    assert marked(name) == []


def test_a_fork_bomb_is_ended(bench: Bench) -> None:
    name = nap()
    cmd = f"f() {{ sleep {name} & (sleep 0.05; f) & (sleep 0.05; f) & }}; f; wait; sleep {name}"

    bench.failure(cmd, executor=Process(grace_seconds=0), seconds=0.7)

    assert marked(name) == []


def test_sigterm_comes_first(bench: Bench) -> None:
    bench.failure("trap 'echo tidy; exit 0' TERM; sleep 60 & wait", seconds=1)

    assert bench.lines == ["tidy"]


def test_a_pipe_that_stays_open_holds_nobody(bench: Bench) -> None:
    name = nap()
    begun = time.monotonic()

    bench(f"(trap '' TERM; exec setsid sleep {name}) & echo done")

    assert bench.lines == ["done"]
    assert time.monotonic() - begun < 10


def test_a_guard_that_is_killed_is_told(bench: Bench) -> None:
    name = nap()

    error = bench.failure(f"(setsid sleep {name} &); sleep 0.2; kill -9 $PPID; sleep {name}")

    assert error.message == "the process that watched the command was killed; the command was ended with it"
    assert wait_until(lambda: marked(name) == [])


def test_a_spawner_that_is_killed_is_replaced(bench: Bench) -> None:
    bench("true")
    assert _spawn._spawner is not None
    _spawn._spawner.process.kill()
    _spawn._spawner.process.wait()

    assert bench("echo again").status == 0


# -- the death of the parent


def child(text: str, tmp: Path) -> subprocess.Popen[bytes]:
    """A Python process that runs this, with its temporary files in `tmp`."""
    import textwrap

    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(text)],
        cwd=tmp,
        env={**os.environ, "TMPDIR": str(tmp), "PYTHONPATH": str(Path(__file__).parents[2])},
    )


RUNS_200 = """
    import threading
    from pathlib import Path
    from tests.executors.contract import Bench
    from rainbow_prefect.executors.process import Process
    bench = Bench(Process(), Path.cwd())
    source = bench.code({"a.txt": "x" * 1000})
    from rainbow_prefect.run import Command
    def one():
        bench(Command(shell="touch $RAINBOW_SPLIT_ID; trap '' TERM; (setsid sleep NAP &); sleep NAP", source=source))
    threads = [threading.Thread(target=one) for _ in range(COUNT)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
"""


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.15, 0.3, 0.6, 1.0, 2.0])
def test_kill_of_the_parent_leaves_nothing(tmp_path: Path, delay: float) -> None:
    name = nap()
    parent = child(RUNS_200.replace("NAP", name).replace("COUNT", "20"), tmp_path)
    wait_until(lambda: any(tmp_path.glob("rainbow-*/*/lock")))
    time.sleep(delay)

    parent.send_signal(signal.SIGKILL)
    parent.wait()

    assert wait_until(lambda: marked(name) == [] and spawners(tmp_path) == [], 60)
    subprocess.run([sys.executable, "-c", "from rainbow_prefect.executors import _folders as f; f.area()"],
                   env={**os.environ, "TMPDIR": str(tmp_path)}, check=True)  # fmt: skip
    assert list(tmp_path.glob("rainbow-*/*")) == []


def spawners(tmp: Path) -> list[int]:
    """The spawners and guards of a parent with its temporary files in `tmp`."""
    found = []
    for pid in marked(str(_spawn._SCRIPT)):
        with contextlib.suppress(psutil.Error):
            if psutil.Process(pid).environ().get("TMPDIR") == str(tmp):
                found.append(pid)
    return found


def test_kill_of_the_parent_removes_the_working_directories(tmp_path: Path) -> None:
    name = nap()
    parent = child(RUNS_200.replace("NAP", name).replace("COUNT", "3"), tmp_path)
    wait_until(lambda: len(marked(name)) == 6)

    parent.kill()
    parent.wait()

    assert wait_until(lambda: not any(path.is_dir() for path in tmp_path.glob("rainbow-*/*/*")), 60)
    assert marked(name) == []


@pytest.mark.slow
def test_200_slices_at_once(tmp_path: Path) -> None:
    name = nap()
    parent = child(RUNS_200.replace("NAP", name).replace("COUNT", "200"), tmp_path)

    assert wait_until(lambda: len(marked(name)) == 400, 120)
    parent.kill()
    parent.wait()

    assert wait_until(lambda: marked(name) == [], 60)


def test_folders_of_living_runs_are_left_alone(bench: Bench, temporary: Path) -> None:
    name = nap()
    parent = child(RUNS_200.replace("NAP", name).replace("COUNT", "1"), temporary)
    try:
        wait_until(lambda: len(marked(name)) == 2)
        bench("true")
        others = [path for path in temporary.glob("rainbow-*/*/1-*") if path.parent != _folders.area()]
        assert len(others) == 1
    finally:
        parent.kill()
        parent.wait()


# -- what it prints


@pytest.mark.slow
def test_a_line_of_2_gb_is_cut(bench: Bench) -> None:
    begun = psutil.Process().memory_info().rss

    bench("head -c 2000000000 /dev/zero | tr '\\0' x; echo; echo next")

    assert bench.lines == ["x" * 16384 + " ... (1999983616 more bytes in this line)", "next"]
    assert psutil.Process().memory_info().rss - begun < 50_000_000


def test_output_without_end_is_ended(bench: Bench) -> None:
    error = bench.failure("yes", executor=Process(max_lines=100_000))

    assert error.message == (
        "it printed more than 100000 lines and was ended; print less, or raise `max_lines` of the executor"
    )


def test_output_without_lines_is_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rainbow_prefect.executors._watch.MAX_PRINTED_BYTES", 1 << 30)

    error = bench.failure("cat /dev/zero")

    assert error.message == "it printed more than 1 GiB and was ended; print less, or write to a file instead"


def test_the_log_ends_with_a_word(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LOG_LINES", 3)

    output = bench("for i in 1 2 3 4 5; do echo $i; done")

    assert bench.lines == ["1", "2", "3", "... the log ends here: more than 3 lines; later ones are not kept"]
    assert output.tail == ("1", "2", "3", "4", "5")


# -- the machine


def test_no_bash_on_the_machine(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None if name == "bash" else f"/usr/bin/{name}")

    bench("echo $0")

    assert bench.lines == ["/bin/sh"]


def test_a_program_that_is_missing_is_told(bench: Bench) -> None:
    error = bench.failure(Command(argv=("no-such-program", "x")))

    assert error.message == "the program 'no-such-program' is not on the PATH; install it, or name it with its folder"


def test_a_program_that_may_not_run_is_told(bench: Bench) -> None:
    source = bench.code({"a.sh": "echo"})

    error = bench.failure(Command(argv=("./a.sh",), source=source))

    assert error.message == "the program './a.sh' may not be executed; make it executable (chmod +x)"


def test_too_much_environment_is_told(bench: Bench) -> None:
    error = bench.failure(Command(shell="true", env={"A": "x" * 3_000_000}))

    assert error.message == (
        "the command and its environment variables are too long for this system; pass large values as files"
    )


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of 20 MiB; where none can be mounted, one that says it is full."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        monkeypatch.setattr(_disk, "LOW_BYTES", 1 << 62)
        monkeypatch.setattr(_disk, "LOW_SHARE", 1)
        monkeypatch.setattr(_disk, "LARGE_BYTES", 1 << 24)
        monkeypatch.setattr(_folders, "_copy_bytes", full)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    _folders.close()
    yield folder
    _folders.close()
    if mounted.returncode == 0:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def full(*_: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_command_on_a_full_disk_is_told(bench: Bench, small_disk: Path) -> None:
    error = bench.failure("head -c 50000000 /dev/zero > big; echo > /dev/full")

    assert "No space left on device" in error.message
    assert bench("echo fine > small").status == 0


def test_an_output_that_a_full_disk_left_empty_is_told(bench: Bench, small_disk: Path) -> None:
    (small_disk / "of somebody else").write_bytes(bytes((20 << 20) - 200_000))

    error = bench.failure(Command(shell=": > out.json", output_path="out.json"))

    assert error.message == (
        "output_path 'out.json' is empty, for the disk is full; free some space, or set TMPDIR to a larger disk"
    )


def test_a_source_too_large_for_the_disk_is_told(bench: Bench, small_disk: Path) -> None:
    source = bench.code({"big": "x" * 30_000_000})

    error = bench.failure(Command(shell="true", source=source))

    assert error.message == "the working directory cannot be made: No space left on device"
    assert bench("true").status == 0


def test_who_fills_the_disk_is_ended_and_others_go_on(bench: Bench, small_disk: Path) -> None:
    errors: list[TaskFailed] = []
    fill = "while true; do head -c 1000000 /dev/zero >> big 2>/dev/null; done"
    thread = threading.Thread(target=lambda: errors.append(bench.failure(fill)))

    thread.start()
    output = bench(Command(shell="sleep 4; echo '[1]' > out.json", output_path="out.json"))
    thread.join()

    assert output.value == [1]
    assert errors[0].message.startswith("it filled the disk and was ended: ")
    assert errors[0].message.endswith(" MiB are in its working directory; write less, or set TMPDIR to a larger disk")


def test_a_source_that_is_missing_is_told(bench: Bench) -> None:
    error = bench.failure(Command(shell="true", source=bench.folder / "nothing"))

    assert error.message == f"the source folder {bench.folder}/nothing does not exist; correct `source`"


def test_a_volume_without_a_folder_is_told(bench: Bench) -> None:
    error = bench.failure(Command(shell="true", mounts=(FileMount("/data", claim_name="c"),)))

    assert error.message == (
        "the volume at /data is a claim of a cluster; the executor 'process' has no such thing: "
        "give the volume `local: {path: ...}`"
    )


def test_a_mount_stays_below_the_working_directory(bench: Bench) -> None:
    error = bench.failure(Command(shell="true", mounts=(FileMount("../../x", text="x"),)))

    assert error.message == "the mount ../../x leads out of the working directory; correct `path`"


# -- the copy of the code


def test_what_is_no_code_is_not_copied(bench: Bench) -> None:
    source = bench.code({"a.txt": "", "node_modules/b": "", ".git/c": "", "__pycache__/d": "", "env/pyvenv.cfg": ""})
    os.mkfifo(source / "pipe")

    bench(Command(shell="find . -mindepth 1 | sort", source=source))

    assert bench.lines == ["./a.txt", "./rainbow_input.json"]


def test_modes_times_and_links_are_copied(bench: Bench) -> None:
    source = bench.code({"run.sh": "#!/bin/sh\necho ran\n", "inner/a.txt": "one\n"})
    bench.code({"b.txt": "two\n"}, "beside")
    (source / "run.sh").chmod(0o755)
    os.utime(source / "run.sh", (1, 1_000_000_000))
    (source / "near").symlink_to("inner/a.txt")
    (source / "far").symlink_to("../beside/b.txt")
    (source / "dead").symlink_to("nothing")

    bench(Command(shell="./run.sh; cat near far; readlink near; date -r run.sh +%s", source=source))

    assert bench.lines == ["ran", "one", "two", "inner/a.txt", "1000000000"]


def test_a_file_named_as_the_input_is_replaced(bench: Bench) -> None:
    outside = bench.folder / "outside"
    outside.write_text("mine")
    source = bench.code({"a": ""})
    (source / "rainbow_input.json").symlink_to(outside)

    bench(Command(shell="cat rainbow_input.json", source=source), input=1)

    assert bench.lines == ["1"]
    assert outside.read_text() == "mine"


def test_a_source_that_holds_the_working_directories_is_copied_once(bench: Bench, temporary: Path) -> None:
    (temporary / "a.txt").write_text("one\n")

    bench(Command(shell="cat a.txt; find . -name 1-task-0", source=temporary))

    assert bench.lines == ["one"]


# -- absolute outputs


def test_absolute_output_is_read_where_it_was_written(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "out.json"

    assert bench(Command(shell=f"echo 1 > {path}", output_path=str(path))).value == 1


def test_an_old_absolute_output_is_not_taken(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("1")

    error = bench.failure(Command(shell="true", output_path=str(path)))

    assert error.message == (
        f"output_path '{path}' was not written; the file of that name was there before the command started"
    )


def test_absolute_output_of_many_slices_is_their_own_only(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "out.json"

    error = bench.failure(Command(shell=f"echo 1 > {path}", output_path=str(path)), count=2)

    assert error.message == (
        f"output_path '{path}' does not exist after the command; write JSON there (RAINBOW_OUTPUT_PATH is its path)"
    )


# -- the environment


def test_the_environment_is_passed_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_PARENT", "yes")

    bench('echo "$OF_THE_PARENT"', executor=Process())
    bench('echo "${OF_THE_PARENT-no}"', executor=Process(clean_env=True))

    assert bench.lines == ["yes", "no"]


def test_variables_of_a_run_around_this_one_are_not_seen(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAINBOW_INPUT", "old")
    monkeypatch.setenv("RAINBOW_OUTPUT_PATH", "old")

    bench('echo "${RAINBOW_INPUT-none} ${RAINBOW_OUTPUT_PATH-none}"', input="x" * 70_000)

    assert bench.lines == ["none none"]


def test_variables_of_the_executor_lose_to_those_of_the_task(bench: Bench) -> None:
    executor = Process(env_vars={"A": "executor", "B": "executor"})

    bench(Command(shell='echo "$A $B"', env={"A": "task"}), executor=executor)

    assert bench.lines == ["task executor"]


def test_python_is_the_one_that_runs_rainbow(bench: Bench) -> None:
    bench.python("import sys; print(sys.executable)")

    assert bench.lines == [sys.executable]


def test_a_python_of_ones_own(bench: Bench) -> None:
    system = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    python = system or sys.executable

    bench.python("import sys; print(sys.prefix)", executor=Process(python=python))

    want = subprocess.run([python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True)
    assert bench.lines == [want.stdout.strip()]


def test_a_python_that_is_missing_is_told(bench: Bench) -> None:
    error = bench.failure("true", executor=Process(python="python2.1"))

    assert error.message == "the Python 'python2.1' of the executor does not exist; correct `python`"


# -- speed


@pytest.mark.slow
def test_a_slice_costs_little_more_than_a_process(bench: Bench) -> None:
    """Alternating, so that a busy machine is busy for both; the bar leaves room for noise."""
    ours: list[float] = []
    plain: list[float] = []
    bench("true")

    for _ in range(30):
        begun = time.perf_counter()
        bench("exit 0")
        ours.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        subprocess.run(["bash", "-c", "exit 0"], check=True, stdout=subprocess.PIPE)
        plain.append(time.perf_counter() - begun)

    assert sorted(ours)[10] - sorted(plain)[10] < 0.05
