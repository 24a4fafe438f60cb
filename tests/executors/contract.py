"""What every executor promises to user code and to the engine: subclass, give the fixture `executor`, inherit the tests.

Commands use `sh` and `python` only, so that the smallest image can run them.
"""

from __future__ import annotations

import json
import textwrap
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from rainbow_prefect.errors import Cancelled, TaskFailed, TimedOut
from rainbow_prefect.executors.base import Executor
from rainbow_prefect.run import Command, FileMount, Large, Output, Run
from rainbow_prefect.secrets import Secret, Secrets


@dataclass
class Bench:
    """Runs commands with an executor and remembers what they printed.

    `image_of` makes the image with the code of a folder, for executors that run images.
    """

    executor: Executor
    folder: Path
    image_of: Callable[[Path | None], str] | None = None
    lines: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def write(self, line: str) -> None:
        self.lines.append(line)
        self.times.append(time.monotonic())

    def code(self, files: Mapping[str, str], name: str = "code") -> Path:
        for path, text in files.items():
            file = self.folder / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(textwrap.dedent(text).lstrip("\n"))
        return self.folder / name

    def run(self, executor: Executor | None = None, *, seconds: float | None = None, **fields: Any) -> Run:
        return Run(
            **{
                "app": "app",
                "pipeline": "pipeline",
                "task": "task",
                "run_id": "run-1",
                "root": self.folder,
                "folder": self.folder / "run",
                "executor": executor or self.executor,
                "secrets": Secrets(environ={}),
                "write": self.write,
                "deadline": None if seconds is None else time.monotonic() + seconds,
                **fields,
            }
        )

    def __call__(self, command: Command | str, run: Run | None = None, **fields: Any) -> Output:
        run = run or self.run(**fields)
        command = Command(shell=command) if isinstance(command, str) else command
        if self.image_of is not None and command.image is None:
            command = replace(command, image=self.image_of(command.source))
        return run.executor.run(command, run)

    def python(self, text: str, *, output_path: str | None = None, **fields: Any) -> Output:
        """Run a Python program."""
        source = self.code({"main.py": text})
        return self(Command(shell="python -u main.py", source=source, output_path=output_path), **fields)

    def failure(self, command: Command | str, run: Run | None = None, **fields: Any) -> TaskFailed:
        with pytest.raises(TaskFailed) as caught:
            self(command, run, **fields)
        return caught.value


def wait_until(is_so: Callable[[], bool], seconds: float = 15) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if is_so():
            return True
        time.sleep(0.02)
    return is_so()


class ExecutorContract:
    """The tests that every executor passes."""

    time_to_start_seconds = 1.0
    """So long after its start a command has surely begun, also on a busy machine."""

    @pytest.fixture
    def executor(self) -> Executor:
        raise TypeError(f"{type(self).__name__} says which executor it tests, in a fixture `executor`")

    @pytest.fixture
    def image_of(self) -> Callable[[Path | None], str] | None:
        """Makes the image with the code of a folder; None for an executor that runs no images."""
        return None

    @pytest.fixture
    def bench(self, executor: Executor, image_of: Callable[[Path | None], str] | None, tmp_path: Path) -> Bench:
        return Bench(executor, tmp_path, image_of)

    # -- input

    def test_input_is_in_the_file(self, bench: Bench) -> None:
        bench("cat rainbow_input.json", input=[1, {"a": None}])

        assert json.loads(bench.lines[0]) == [1, {"a": None}]

    def test_input_path_names_the_file(self, bench: Bench) -> None:
        bench('cat "$RAINBOW_INPUT_PATH"', input="x")

        assert bench.lines == ['"x"']

    def test_input_is_in_the_environment(self, bench: Bench) -> None:
        bench('echo "$RAINBOW_INPUT"', input={"a": 1})

        assert json.loads(bench.lines[0]) == {"a": 1}

    def test_no_input_is_an_empty_object(self, bench: Bench) -> None:
        bench('echo "$RAINBOW_INPUT"; cat rainbow_input.json')

        assert bench.lines == ["{}", "{}"]

    @pytest.mark.parametrize("value", ['one\ntwo\tthree "q" $HOME `id` \\ back', "żółw 🐢", "\x00", "%s %n", "'", ""])
    def test_input_arrives_unchanged(self, bench: Bench, value: str) -> None:
        text = """
            import json, os
            with open("out.json", "w") as out:
                json.dump([json.load(open("rainbow_input.json")), json.loads(os.environ["RAINBOW_INPUT"])], out)
        """

        assert bench.python(text, output_path="out.json", input=value).value == [value, value]

    def test_input_with_half_a_surrogate_pair_arrives(self, bench: Bench) -> None:
        output = bench(Command(shell="cp rainbow_input.json out.json; wc -c < out.json"), input="\ud800")

        assert output.status == 0
        assert bench.lines[0].strip() == "8"

    def test_input_above_64_kib_is_in_the_file_only(self, bench: Bench) -> None:
        bench('echo "${RAINBOW_INPUT-left out}"; wc -c < rainbow_input.json', input="x" * 65_535)

        assert [line.strip() for line in bench.lines] == ["left out", "65537"]

    def test_input_of_64_kib_is_in_the_environment(self, bench: Bench) -> None:
        bench('printf "%s" "$RAINBOW_INPUT" | wc -c', input="x" * 65_534)

        assert bench.lines[0].strip() == "65536"

    def test_large_input_is_copied_from_its_file(self, bench: Bench) -> None:
        file = bench.folder / "large.json"
        file.write_text("[1, 2]")

        bench("cat rainbow_input.json; echo >> rainbow_input.json", input=Large(file, 6, 2))

        assert bench.lines == ["[1, 2]"]
        assert file.read_text() == "[1, 2]"

    # -- variables

    def test_variables_of_the_contract(self, bench: Bench) -> None:
        bench(
            'echo "$RAINBOW_SPLIT_ID/$RAINBOW_NUM_SPLITS $LIMINAL_SPLIT_ID/$LIMINAL_NUM_SPLITS '
            '$RAINBOW_PIPELINE $RAINBOW_TASK $RAINBOW_ATTEMPT $run_id ${RAINBOW_OUTPUT_PATH-none}"',
            index=2,
            count=5,
            attempt=3,
        )

        assert bench.lines == ["2/5 2/5 pipeline task 3 run-1 none"]

    def test_variables_of_the_task_win_over_those_of_the_run(self, bench: Bench) -> None:
        bench(Command(shell='echo "$A $B"', env={"A": "task"}), env={"A": "run", "B": "run"})

        assert bench.lines == ["task run"]

    def test_a_variable_with_any_character_arrives(self, bench: Bench) -> None:
        bench(Command(shell='printf "%s" "$A" | od -An -tx1 | tr -d " \\n"', env={"A": "a\n'\"$x\\ ż"}))

        assert bytes.fromhex(bench.lines[0]).decode() == "a\n'\"$x\\ ż"

    def test_a_variable_with_a_nul_is_told(self, bench: Bench) -> None:
        error = bench.failure(Command(shell="true", env={"A": "x\0y"}))

        assert error.message == "the environment variable 'A' cannot be set: its name or value holds a NUL or a '='"

    # -- code

    def test_code_is_in_the_working_directory(self, bench: Bench) -> None:
        source = bench.code({"a.txt": "one\n", "inner/b.txt": "two\n"})

        bench(Command(shell="cat a.txt inner/b.txt", source=source))

        assert bench.lines == ["one", "two"]

    def test_the_source_stays_as_it_is(self, bench: Bench) -> None:
        source = bench.code({"a.txt": "one\n"})

        bench(Command(shell="echo two > a.txt; echo new > b.txt; rm -f a.txt", source=source))

        assert [path.name for path in source.iterdir()] == ["a.txt"]
        assert (source / "a.txt").read_text() == "one\n"

    def test_slices_do_not_see_each_other(self, bench: Bench) -> None:
        source = bench.code({"a.txt": ""})
        command = Command(
            shell='echo "[$RAINBOW_SPLIT_ID]" > out.json; sleep 0.5', source=source, output_path="out.json"
        )
        values: dict[int, Any] = {}

        def one(index: int) -> None:
            values[index] = bench(command, index=index, count=4).value

        threads = [threading.Thread(target=one, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert values == {0: [0], 1: [1], 2: [2], 3: [3]}

    def test_cmd_is_a_shell_line(self, bench: Bench) -> None:
        bench("A=x; echo $A | tr x y && echo z; (exit 0)")

        assert bench.lines == ["y", "z"]

    def test_argv_meets_no_shell(self, bench: Bench) -> None:
        bench(Command(argv=("echo", "$HOME", "a  b", ";", "*")))

        assert bench.lines == ["$HOME a  b ; *"]

    # -- output

    def test_output_is_the_json_of_the_file(self, bench: Bench) -> None:
        assert bench(Command(shell="echo '{\"a\": [1]}' > out.json", output_path="out.json")).value == {"a": [1]}

    def test_without_output_path_there_is_no_output(self, bench: Bench) -> None:
        assert bench("echo 1 > out.json").value is None

    def test_output_path_may_be_in_a_folder(self, bench: Bench) -> None:
        assert bench(Command(shell="mkdir r; echo 1 > r/out.json", output_path="r/out.json")).value == 1

    def test_absolute_output_path_is_below_the_working_directory(self, bench: Bench) -> None:
        command = Command(shell='echo 1 > "$RAINBOW_OUTPUT_PATH"', output_path="/some/where/out.json")

        assert bench(command).value == 1

    def test_missing_output_is_told(self, bench: Bench) -> None:
        error = bench.failure(Command(shell="true", output_path="out.json"))

        assert error.message == (
            "output_path 'out.json' does not exist after the command; "
            "write JSON there (RAINBOW_OUTPUT_PATH is its path)"
        )

    def test_a_file_of_the_source_is_no_output(self, bench: Bench) -> None:
        source = bench.code({"out.json": "[1]"})

        error = bench.failure(Command(shell="true", source=source, output_path="out.json"))

        assert error.message == (
            "output_path 'out.json' was not written; the file of that name was there before the command started"
        )

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "is empty; write JSON into it"),
            (" \n", "is empty; write JSON into it"),
            ('{"a": 1', "is not valid JSON: Expecting ',' delimiter at line 1, column 8"),
            ("[1,\n2\nx", "is not valid JSON: Expecting ',' delimiter at line 3, column 1"),
            ("[NaN]", "is not valid JSON: NaN is not JSON; write null or text instead"),
            ("-Infinity", "is not valid JSON: -Infinity is not JSON; write null or text instead"),
            ('"\\ud800"', "is not valid JSON: it holds half of a surrogate pair (\\ud800 to \\udfff)"),
            ("[" * 100_000, "is not valid JSON: it is nested too deeply"),
            ("hello", "is not valid JSON: Expecting value at line 1, column 1"),
        ],
    )
    def test_output_that_is_not_json_is_told(self, bench: Bench, text: str, message: str) -> None:
        source = bench.code({"made": text})
        (source / "made").write_text(text)

        error = bench.failure(Command(shell="cp made out.json", source=source, output_path="out.json"))

        assert error.message == f"output_path 'out.json' {message}"

    def test_output_that_is_not_utf8_is_told(self, bench: Bench) -> None:
        error = bench.failure(Command(shell="printf '\"\\377\"' > out.json", output_path="out.json"))

        assert error.message == "output_path 'out.json' is not UTF-8 text (byte 1); write JSON as UTF-8"

    def test_output_with_a_byte_order_mark_is_read(self, bench: Bench) -> None:
        assert bench(Command(shell="printf '\\357\\273\\277[1]' > out.json", output_path="out.json")).value == [1]

    def test_output_that_is_a_folder_is_told(self, bench: Bench) -> None:
        error = bench.failure(Command(shell="mkdir out.json", output_path="out.json"))

        assert error.message == "output_path 'out.json' is a folder, not a file; write JSON into a file"

    def test_output_that_is_a_pipe_is_told(self, bench: Bench) -> None:
        error = bench.failure(Command(shell="mkfifo out.json", output_path="out.json"), seconds=20)

        assert error.message == "output_path 'out.json' is a pipe, not a file; write JSON into a file"

    def test_output_that_leads_outside_is_told(self, bench: Bench) -> None:
        error = bench.failure(Command(shell="ln -s /etc/hostname out.json", output_path="out.json"))

        assert error.message == (
            "output_path 'out.json' is a link to a place outside of the working directory; write the file itself"
        )

    def test_output_that_is_a_link_to_itself_is_told(self, bench: Bench) -> None:
        error = bench.failure(Command(shell="ln -s out.json out.json", output_path="out.json"))

        assert error.message in (
            "output_path 'out.json' is a link to itself; write the file itself",
            "output_path 'out.json' cannot be read: Too many levels of symbolic links",
        )

    def test_output_above_1_mib_stays_a_file(self, bench: Bench) -> None:
        text = "import json; json.dump(['x' * 1000] * 2000, open('out.json', 'w'))"

        value = bench.python(text, output_path="out.json").value

        assert isinstance(value, Large)
        assert value.items == 2000
        assert value.size_bytes == value.path.stat().st_size
        assert value.path.is_relative_to(bench.folder / "run")
        assert value.load() == ["x" * 1000] * 2000

    @pytest.mark.parametrize(
        ("end", "message"),
        [
            ('"x"', "is not valid JSON: Expecting ',' delimiter at line 1, column 2000005"),
            ("NaN]", "is not valid JSON: Expecting ',' delimiter at line 1, column 2000005"),
            (', "\\\\ud800"]', "is not valid JSON: it holds half of a surrogate pair (\\ud800 to \\udfff)"),
        ],
    )
    def test_large_output_that_is_not_json_is_told(self, bench: Bench, end: str, message: str) -> None:
        text = f"open('out.json', 'w').write('[\"' + 'x' * 2_000_000 + '\" ' + '{end}')"

        with pytest.raises(TaskFailed) as caught:
            bench.python(text, output_path="out.json")

        assert caught.value.message == f"output_path 'out.json' {message}"

    def test_huge_output_is_told(self, bench: Bench) -> None:
        error = bench.failure(Command(shell="truncate -s 9G out.json", output_path="out.json"))

        assert error.message == (
            "output_path 'out.json' has 9216 MiB; an output may have 1024 MiB: "
            "write large data to a store and give its address"
        )

    def test_output_of_a_failed_command_is_not_read(self, bench: Bench) -> None:
        error = bench.failure(Command(shell="echo 1 > out.json; exit 3", output_path="out.json"))

        assert (error.message, error.status) == ("exit status 3", 3)

    # -- functions

    def call(self, bench: Bench, text: str, function: str = "f", module: str = "m", **fields: Any) -> Any:
        return bench(Command(call=f"{module}:{function}", source=bench.code({"m.py": text})), **fields).value

    def test_function_is_given_the_input(self, bench: Bench) -> None:
        assert self.call(bench, "def f(x): return {'got': x}", input=[1]) == {"got": [1]}

    def test_function_without_arguments_is_called(self, bench: Bench) -> None:
        assert self.call(bench, "def f(): return [1]", input=[1]) == [1]

    def test_async_function_is_awaited(self, bench: Bench) -> None:
        text = "import asyncio\nasync def f(x):\n    await asyncio.sleep(0)\n    return x"

        assert self.call(bench, text, input=7) == 7

    def test_function_is_found_from_beside_its_folder(self, bench: Bench) -> None:
        assert self.call(bench, "def f(): return 1", module="code.m") == 1

    def test_function_that_returns_what_holds_itself_is_told(self, bench: Bench) -> None:
        with pytest.raises(TaskFailed) as caught:
            self.call(bench, "def f():\n    items = []\n    items.append(items)\n    return items")

        assert caught.value.message == (
            "what function 'f' returned is not JSON: it is nested too deeply, or holds itself"
        )
        assert bench.lines == []

    def test_all_lines_of_what_a_function_raises_are_told(self, bench: Bench) -> None:
        with pytest.raises(TaskFailed) as caught:
            self.call(bench, "def f():\n    raise ValueError('one\\n  two\\nthree')")

        assert caught.value.message == "ValueError: one two three (m.py:2)"

    def test_function_that_raises_is_told_with_its_place(self, bench: Bench) -> None:
        with pytest.raises(TaskFailed) as caught:
            self.call(bench, "def f():\n    raise ValueError('bad price')")

        assert caught.value.message == "ValueError: bad price (m.py:2)"
        assert caught.value.status == 1
        assert caught.value.tail[-1] == "ValueError: bad price"
        assert not any("_call.py" in line for line in bench.lines)

    def test_function_that_returns_no_json_is_told(self, bench: Bench) -> None:
        with pytest.raises(TaskFailed) as caught:
            self.call(bench, "import datetime\ndef f(): return [{'day': datetime.date(2024, 1, 1)}]")

        assert caught.value.message == (
            "what function 'f' returned is not JSON: result[0]['day'] is a date; return its isoformat()"
        )

    def test_function_that_ends_the_process_is_told(self, bench: Bench) -> None:
        with pytest.raises(TaskFailed) as caught:
            self.call(bench, "import os\ndef f(): os._exit(0)")

        assert caught.value.message == "m:f ended the process before it returned"

    def test_module_that_is_missing_is_told(self, bench: Bench) -> None:
        with pytest.raises(TaskFailed) as caught:
            self.call(bench, "import nothing_of_that_name\ndef f(): return 1")

        assert caught.value.message == (
            "module 'm' cannot be imported: ModuleNotFoundError: No module named 'nothing_of_that_name' (m.py:1); "
            "add it to requirements.txt beside the code"
        )

    def test_function_never_sees_our_modules(self, bench: Bench) -> None:
        text = """
            import sys

            def f():
                return [sys.argv, any("rainbow_prefect" in one for one in sys.path), "prefect" in sys.modules]
        """

        assert self.call(bench, text) == [["m"], False, False]

    def test_function_may_print_and_use_processes(self, bench: Bench) -> None:
        text = """
            import concurrent.futures, multiprocessing

            def twice(x):
                return 2 * x

            def f(numbers):
                print("hello")
                with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
                    return list(pool.map(twice, numbers))
        """

        assert self.call(bench, text, input=[1, 2]) == [2, 4]
        assert bench.lines == ["hello"]

    # -- lines

    def test_lines_come_one_by_one(self, bench: Bench) -> None:
        bench("for i in 1 2 3; do echo $i; sleep 0.4; done")

        assert bench.lines == ["1", "2", "3"]
        assert bench.times[1] - bench.times[0] > 0.2
        assert bench.times[2] - bench.times[1] > 0.2

    def test_stderr_is_read_too(self, bench: Bench) -> None:
        bench("echo out; echo err >&2; printf last")

        assert bench.lines == ["out", "err", "last"]

    def test_carriage_returns_end_lines(self, bench: Bench) -> None:
        bench("printf '10%%\\r20%%\\r\\ndone\\r\\n'")

        assert [line for line in bench.lines if line] == ["10%", "20%", "done"]

    def test_bytes_that_are_no_text_are_replaced(self, bench: Bench) -> None:
        bench("printf 'a\\377b\\000c\\n'")

        assert bench.lines == ["a\ufffdb\ufffdc"]

    def test_a_long_line_is_cut(self, bench: Bench) -> None:
        bench("head -c 100000 /dev/zero | tr '\\0' x; echo; echo next")

        assert bench.lines == ["x" * 16384 + " ... (83616 more bytes in this line)", "next"]

    def test_secrets_are_masked_in_the_tail(self, bench: Bench) -> None:
        secrets = Secrets([Secret(secret="key", env="KEY")], environ={"KEY": "hunter2-hunter2"})
        secrets.get("key")

        error = bench.failure("echo my hunter2-hunter2; exit 1", secrets=secrets)

        assert error.message == "exit status 1: my ********"
        assert error.tail == ("my ********",)

    # -- failures

    def test_exit_status_and_last_line_are_told(self, bench: Bench) -> None:
        error = bench.failure("echo first; echo about to fail >&2; exit 3")

        assert error.message == "exit status 3: about to fail"
        assert error.status == 3
        assert error.tail == ("first", "about to fail")

    def test_a_timeout_ends_the_command(self, bench: Bench) -> None:
        begun = time.monotonic()

        error = bench.failure("echo begun; sleep 60", seconds=self.time_to_start_seconds)

        assert isinstance(error, TimedOut)
        assert error.tail == ("begun",)
        assert time.monotonic() - begun < self.time_to_start_seconds + 20

    def test_a_stop_ends_the_command(self, bench: Bench) -> None:
        run = bench.run()
        threading.Timer(0.5, run.stop.set).start()
        begun = time.monotonic()

        error = bench.failure("sleep 60", run)

        assert isinstance(error, Cancelled)
        assert time.monotonic() - begun < 10

    def test_a_stop_for_a_timeout_is_a_timeout(self, bench: Bench) -> None:
        run = bench.run(timed_out=True)
        run.stop.set()

        assert isinstance(bench.failure("sleep 60", run), TimedOut)

    def test_clean_ends_what_runs(self, bench: Bench) -> None:
        run = bench.run()
        begun: list[float] = []

        def clean() -> None:
            wait_until(lambda: bool(bench.lines), 60)
            begun.append(time.monotonic())
            bench.executor.clean(run.run_id)

        thread = threading.Thread(target=clean)
        thread.start()
        with pytest.raises(TaskFailed):
            bench("echo begun; sleep 60", run)
        ended = time.monotonic()
        thread.join()

        assert ended - begun[0] < 20

    # -- files

    def test_a_secret_file_is_in_the_working_directory(self, bench: Bench) -> None:
        mount = FileMount("/secret/credentials", text="key=1\n", secret=True)

        bench(Command(shell="cat secret/credentials || cat /secret/credentials", mounts=(mount,)))

        assert bench.lines[-1] == "key=1"

    def test_a_folder_is_seen_and_kept(self, bench: Bench) -> None:
        data = bench.code({"a.txt": "one\n"}, "data")

        mount = FileMount("mnt/data", source=data, read_only=False)

        bench(Command(shell="cat mnt/data/a.txt; echo two > mnt/data/b.txt", mounts=(mount,)))

        assert bench.lines == ["one"]
        assert (data / "b.txt").read_text() == "two\n"
