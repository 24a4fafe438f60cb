"""The executor `docker` on a real engine: the contract, and what containers alone can do or suffer."""

from __future__ import annotations

import json
import resource
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rainbow_prefect.errors import Cancelled
from rainbow_prefect.executors._docker_engine import OWNER, engine
from rainbow_prefect.executors._docker_limits import size_bytes
from rainbow_prefect.executors._docker_stream import Frames
from rainbow_prefect.executors._docker_watch import owner
from rainbow_prefect.executors.base import Executor
from rainbow_prefect.executors.docker import Docker
from rainbow_prefect.run import Command, FileMount, Large, Run

from .contract import Bench, ExecutorContract, wait_until
from .images import Images


@pytest.fixture(scope="module")
def images(docker_engine: Any, base_image: str) -> Iterator[Images]:
    made = Images(docker_engine, base_image)
    yield made
    made.remove()


@pytest.fixture
def image_of(images: Images) -> Callable[[Path | None], str]:
    return images.of


class TestContract(ExecutorContract):
    time_to_start_seconds = 10.0

    @pytest.fixture
    def executor(self, docker_engine: Any) -> Executor:
        return Docker(stop_grace_seconds=2)

    @pytest.fixture
    def image_of(self, images: Images) -> Callable[[Path | None], str]:
        return images.of


@pytest.fixture
def bench(docker_engine: Any, image_of: Callable[[Path | None], str], tmp_path: Path) -> Bench:
    return Bench(Docker(stop_grace_seconds=2), tmp_path, image_of)


@pytest.fixture(autouse=True)
def none_stays(docker_engine: Any) -> Iterator[None]:
    """Whatever a test does, no container of this process is left."""
    yield
    assert docker_engine.containers.list(all=True, filters={"label": f"{OWNER}={owner()}"}) == []


# -- what is put in and taken out


def test_the_input_is_at_the_root_too(bench: Bench) -> None:
    bench("pwd; cat /rainbow_input.json; echo; echo $RAINBOW_INPUT_PATH", input=[1])

    assert bench.lines == ["/app", "[1]", "/app/rainbow_input.json"]


def test_a_large_input_is_at_the_root_too(bench: Bench) -> None:
    bench("wc -c < /rainbow_input.json; wc -c < rainbow_input.json", input="x" * 200_000)

    assert bench.lines == ["200002", "200002"]


@pytest.mark.parametrize("path", ["/app/out.json", "/some/where/out.json", "/out.json"])
def test_absolute_output_is_that_path_in_the_container(bench: Bench, path: str) -> None:
    command = Command(shell=f"echo $RAINBOW_OUTPUT_PATH; echo [1] > {path}", output_path=path)

    assert bench(command).value == [1]
    assert bench.lines == [path]


def test_absolute_output_of_an_image_without_a_working_directory(bench: Bench, base_image: str) -> None:
    command = Command(shell="echo [1] > /some/where/out.json", output_path="/some/where/out.json", image=base_image)

    assert bench(command).value == [1]


def test_absolute_output_that_is_missing_is_told(bench: Bench) -> None:
    error = bench.failure(Command(shell="true", output_path="/some/where/out.json"))

    assert error.message == (
        "output_path '/some/where/out.json' does not exist after the command; "
        "write JSON there (RAINBOW_OUTPUT_PATH is its path)"
    )


@pytest.mark.slow
@pytest.mark.parametrize("path", ["out.json", "/results/out.json"])
def test_output_of_100_mib_is_a_file(bench: Bench, path: str) -> None:
    text = f"open({path!r}, 'w').write('[\"' + 'x' * (100 << 20) + '\"]')"

    value = bench.python(text, output_path=path).value

    assert isinstance(value, Large)
    assert value.size_bytes == (100 << 20) + 4
    assert value.items == 1
    assert [one.name for one in (bench.folder / "run").iterdir()] == ["output-task-0-1.json"]


@pytest.mark.slow
def test_function_returns_100_mib_by_file_in_flat_memory(bench: Bench) -> None:
    source = bench.code({"m.py": "def f(x): return ['x' * (100 << 20)]"})
    bench(Command(call="m:f", source=bench.code({"m.py": "def f(): return 1"}, "warm")))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    value = bench(Command(call="m:f", source=source)).value

    assert isinstance(value, Large)
    assert value.size_bytes == (100 << 20) + 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_a_link_below_the_working_directory_is_followed(bench: Bench) -> None:
    command = Command(shell="mkdir r; echo 1 > r/real.json; ln -s r/real.json out.json", output_path="out.json")

    assert bench(command).value == 1


def test_only_what_the_task_says_is_in_the_environment(bench: Bench) -> None:
    bench(Command(shell="env", env={"MINE": "1"}))

    names = {line.partition("=")[0] for line in bench.lines}
    assert {"MINE", "RAINBOW_INPUT", "RAINBOW_TASK"} <= names
    assert not {"TINI_KILL_PROCESS_GROUP", "PREFECT_HOME", "RAINBOW_TEST_HOME"} & names


# -- images


def test_an_image_with_an_entrypoint(bench: Bench, images: Images, base_image: str) -> None:
    image = images.built(f'FROM {base_image}\nWORKDIR /app\nENTRYPOINT ["echo", "never"]\nCMD ["never"]\n')

    bench(Command(shell="echo shell", image=image))
    bench(Command(argv=("echo", "argv"), image=image))

    assert bench.lines == ["shell", "argv"]


def test_an_image_whose_working_directory_is_the_root(bench: Bench, base_image: str) -> None:
    command = Command(shell="pwd; cat rainbow_input.json; echo 2 > out.json", image=base_image, output_path="out.json")

    assert bench(command, input=1).value == 2
    assert bench.lines == ["/", "1"]


@pytest.mark.parametrize("user", ["app", "10001", "10001:10001", "nobody"])
@pytest.mark.parametrize("work", ["/app", "/"])
def test_an_image_of_another_user(bench: Bench, images: Images, base_image: str, user: str, work: str) -> None:
    text = f"FROM {base_image}\nRUN echo app:x:10001:10001::/app:/bin/sh >> /etc/passwd\nWORKDIR {work}\n"
    image = images.built(f"{text}USER {user}\n")
    secret = FileMount("/run/secret/credentials", text="key", secret=True)

    for output in ("out.json", "/results/out.json"):
        command = Command(
            shell=f"cat rainbow_input.json /run/secret/credentials; stat -c ' %a' /run/secret/credentials; id -u > {output}",
            image=image,
            output_path=output,
            mounts=(secret,),
        )
        assert bench(command, input=1).value == {"nobody": 65534}.get(user, 10001)

    assert bench.lines == ["1key 400"] * 2


def test_a_user_of_the_executor(bench: Bench) -> None:
    command = Command(shell="id -u; id -g; cat rainbow_input.json; echo 1 > out.json", output_path="out.json")

    assert bench(command, executor=Docker(user="1234:99")).value == 1
    assert bench.lines == ["1234", "99", "{}"]


def test_a_user_who_is_not_in_the_image_is_told(bench: Bench) -> None:
    error = bench.failure("true", executor=Docker(user="nobody_here"))

    assert error.message.startswith("the image has no user 'nobody_here' in its /etc/passwd; correct `user`")


def test_a_function_in_an_image_without_python_is_told(bench: Bench, bare: str) -> None:
    error = bench.failure(Command(call="m:f", image=bare))

    assert error.message == (
        f"the image '{bare}' has no `python`, which a function needs; use an image with Python, or `cmd`"
    )


def test_a_shell_line_in_an_image_without_a_shell_is_told(bench: Bench, images: Images) -> None:
    image = images.built("FROM scratch\nLABEL nothing=inside\n")

    error = bench.failure(Command(shell="true", image=image))

    assert error.message == f"the image '{image}' has no shell `sh`, which `cmd` needs; use an image that has one"


def test_a_program_that_the_image_does_not_have_is_told(bench: Bench) -> None:
    image = bench.image_of(None) if bench.image_of else ""

    error = bench.failure(Command(argv=("no-such-program", "x"), image=image))

    assert error.message == (
        f"the program 'no-such-program' cannot be started in the image '{image}': No such file or directory"
    )
    assert error.status == 127


@pytest.fixture
def bare(images: Images, base_image: str) -> str:
    """An image with a shell and no Python."""
    return images.built(f"FROM {base_image}\nWORKDIR /app\nRUN rm -rf /usr/local/bin/python* /usr/bin/python*\n")


def test_an_image_without_bash_and_stat(bench: Bench, images: Images, base_image: str) -> None:
    image = images.built(f"FROM {base_image}\nWORKDIR /app\nRUN rm -f /bin/bash /usr/bin/bash /usr/bin/stat\n")

    output = bench(Command(shell='echo "$0"; echo 1 > out.json', image=image, output_path="out.json"))

    assert (output.value, bench.lines) == (1, ["sh"])


def test_a_missing_image_that_may_not_be_pulled_is_told(bench: Bench) -> None:
    error = bench.failure(Command(shell="true", image="rainbow-test/none:1"), executor=Docker(pull_policy="never"))

    assert error.message == (
        "the image 'rainbow-test/none:1' is not on the engine at unix:///var/run/docker.sock; build it (rainbow build), "
        "or let it be pulled (`pull_policy: missing`)"
    )


def test_a_missing_image_is_told(bench: Bench) -> None:
    error = bench.failure(Command(shell="true", image="127.0.0.1:1/rainbow-test/none:1"))

    assert error.message.startswith(
        "the image '127.0.0.1:1/rainbow-test/none:1' is not on the engine and cannot be pulled: "
    )
    assert error.message.endswith("; build it (rainbow build), or correct `image`")
    assert bench.lines == ["pulling the image 127.0.0.1:1/rainbow-test/none:1"]


def test_an_image_is_pulled_from_a_registry(bench: Bench, docker_engine: Any, base_image: str, registry: str) -> None:
    name = f"{registry}/rainbow-test/pulled"
    docker_engine.images.get(base_image).tag(name, "1")
    docker_engine.images.push(name, "1")
    docker_engine.images.remove(f"{name}:1")

    bench(Command(shell="echo ran", image=f"{name}:1"))
    bench(Command(shell="echo again", image=f"{name}:1"), executor=Docker(pull_policy="always"), run_id="run-2")

    docker_engine.images.remove(f"{name}:1")
    assert bench.lines == [f"pulling the image {name}:1", "ran", f"pulling the image {name}:1", "again"]


def test_an_engine_that_does_not_answer_is_told(bench: Bench) -> None:
    error = bench.failure("true", executor=Docker(host="unix:///nowhere/docker.sock"))

    assert error.message == (
        "the Docker engine at unix:///nowhere/docker.sock does not answer (no such file or directory); start it, "
        "or name another one in DOCKER_HOST or the executor's `host`"
    )


def test_the_name_and_password_of_an_engine_are_not_told(bench: Bench) -> None:
    error = bench.failure("true", executor=Docker(host="tcp://me:hunter2@127.0.0.1:1"))

    assert "hunter2" not in error.message
    assert error.message.startswith("the Docker engine at tcp://127.0.0.1:1 does not answer")


def test_an_engine_at_no_port_is_told(bench: Bench) -> None:
    error = bench.failure("true", executor=Docker(host="tcp://127.0.0.1:99999"))

    assert error.message.startswith("the Docker engine at tcp://127.0.0.1:99999 does not answer")


# -- limits


def test_too_much_memory_is_told_as_oom(bench: Bench) -> None:
    source = bench.code({"main.py": "print('begun', flush=True)\nx = bytearray(400_000_000)"})
    command = Command(shell="python main.py", source=source, resources={"limit_memory": "64Mi"})

    error = bench.failure(command)

    assert error.message.startswith("it needed more memory than its limit of 64 MiB (OOM) and was ended: ")
    assert error.message.endswith("; raise `limit_memory`, or use less")


def test_the_memory_of_the_executor_is_a_limit_too(bench: Bench) -> None:
    source = bench.code({"m.py": "def f(): return len(bytearray(400_000_000))"})

    error = bench.failure(Command(call="m:f", source=source), executor=Docker(resources={"memory": "64m"}))

    assert (
        error.message
        == "it needed more memory than its limit of 64 MiB (OOM) and was ended; raise `limit_memory`, or use less"
    )
    assert error.status == 137


def inspected(bench: Bench, docker_engine: Any, executor: Docker, command: Command) -> dict[str, Any]:
    """What the engine says of the container of a command that waits until this has been asked."""
    run = bench.run(executor)
    thread = threading.Thread(target=lambda: bench.failure(replace(command, shell="sleep 60"), run))
    thread.start()
    try:
        label = {"label": [f"{OWNER}={owner()}"], "status": ["running"]}
        assert wait_until(lambda: bool(docker_engine.containers.list(filters=label)), 60)
        found: dict[str, Any] = docker_engine.containers.list(filters=label)[0].attrs
        return found
    finally:
        run.stop.set()
        thread.join()


def test_what_is_asked_of_the_engine(bench: Bench, docker_engine: Any) -> None:
    executor = Docker(
        resources={"cpu": "1", "memory": "1g", "shm": "128m"},
        network="none",
        labels={"team": "a", "rainbow.task": "not mine"},
        pids=50,
        stop_grace_seconds=1,
    )
    command = Command(
        resources={"limit_cpu": "500m", "request_cpu": "250m", "request_memory": "100Mi"}, labels={"tier": "b"}
    )

    found = inspected(bench, docker_engine, executor, command)

    host = found["HostConfig"]
    assert (host["NanoCpus"], host["CpuShares"]) == (500_000_000, 256)
    assert (host["Memory"], host["MemoryReservation"], host["ShmSize"]) == (1 << 30, 100 << 20, 128 << 20)
    assert (host["NetworkMode"], host["PidsLimit"], host["Init"]) == ("none", 50, True)
    assert (host["CapDrop"], host["SecurityOpt"]) == (["ALL"], ["no-new-privileges:true"])
    labels = {key: value for key, value in found["Config"]["Labels"].items() if key not in (OWNER, "rainbow.test-base")}
    assert labels == {
        "rainbow.app": "app",
        "rainbow.flow-run": "run-1",
        "rainbow.pipeline": "pipeline",
        "rainbow.slice": "0",
        "rainbow.task": "task",
        "rainbow.task-run": "",
        "team": "a",
        "tier": "b",
    }


def test_capabilities_are_dropped(bench: Bench) -> None:
    bench("grep -E 'CapEff|NoNewPrivs' /proc/self/status")
    bench("grep CapEff /proc/self/status", executor=Docker(cap_add=["CHOWN"]))

    assert [line.split()[1] for line in bench.lines] == ["0000000000000000", "1", "0000000000000001"]


def test_a_network_that_is_missing_is_told(bench: Bench) -> None:
    error = bench.failure("true", executor=Docker(network="no-such-network"))

    assert error.message == "the container could not be started: network no-such-network not found"


def test_a_little_of_a_cpu_is_enough(bench: Bench) -> None:
    bench("echo ran", executor=Docker(resources={"cpu": "1m"}))

    assert bench.lines == ["ran"]


def test_an_amount_that_is_none_is_told(bench: Bench) -> None:
    error = bench.failure(Command(shell="true", resources={"limit_memory": "much"}))

    assert error.message == "'much' is not an amount of memory; correct it in the task or the executor"


@pytest.mark.parametrize(
    ("text", "size"), [("512Mi", 512 << 20), ("2g", 2 << 30), ("1.5G", 3 << 29), ("100MB", 100 << 20), ("64k", 65536)]
)
def test_amounts_of_memory(text: str, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resources": {"memory": "x"}}, "'x' is not an amount of memory"),
        ({"resources": {"memory": "99999999999t"}}, "'99999999999t' is not an amount of memory"),
        ({"resources": {"cpu": "0"}}, "'0' is not a number of CPUs"),
        ({"mounts": ["data"]}, "'data' is not a mount"),
    ],
)
def test_fields_that_are_wrong_are_told(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Docker(**fields)

    assert [one["msg"] for one in caught.value.errors()] == [message]


# -- files


def test_a_volume_that_is_read_only(bench: Bench) -> None:
    data = bench.code({"a.txt": "one\n"}, "data")

    error = bench.failure(Command(shell="cat /data/a.txt; echo x > /data/b", mounts=(FileMount("/data", source=data),)))

    assert bench.lines[0] == "one"
    assert "Read-only file system" in error.message
    assert [one.name for one in data.iterdir()] == ["a.txt"]


def test_a_volume_whose_folder_is_missing_is_told(bench: Bench) -> None:
    error = bench.failure(Command(shell="true", mounts=(FileMount("/data", source=bench.folder / "nothing"),)))

    assert error.message == f"the volume at /data: {bench.folder}/nothing does not exist; make that folder"


def test_a_volume_that_is_a_claim_is_told(bench: Bench) -> None:
    error = bench.failure(Command(shell="true", mounts=(FileMount("/data", claim_name="c"),)))

    assert error.message == (
        "the volume at /data is a claim of a cluster; the executor 'docker' has no such thing: "
        "give the volume `local: {path: ...}`"
    )


def test_output_in_a_volume(bench: Bench) -> None:
    data = bench.code({"a.txt": ""}, "data")
    command = Command(
        shell="echo [7] > /data/out.json",
        output_path="/data/out.json",
        mounts=(FileMount("/data", source=data, read_only=False),),
    )

    assert bench(command).value == [7]
    assert (data / "out.json").read_text() == "[7]\n"


def test_mounts_and_env_file_of_the_executor(bench: Bench) -> None:
    bench.code({"a.txt": "one\n"}, "shared")
    (bench.folder / "more.env").write_text("# comment\n\nA=file\nB=file=2\nC=file\n")
    executor = Docker(mounts=["shared:/shared:ro"], env_file="more.env", env_vars={"A": "executor"})

    bench(Command(shell="cat /shared/a.txt; echo $A $B $C", env={"C": "task"}), executor=executor)

    assert bench.lines == ["one", "executor file=2 task"]


@pytest.mark.parametrize("line", ["hunter2", "export B=hunter2", "=hunter2"])
def test_an_env_file_that_is_wrong_is_told_without_what_it_holds(bench: Bench, line: str) -> None:
    (bench.folder / "more.env").write_text(f"A=1\n{line}\n")

    error = bench.failure("true", executor=Docker(env_file="more.env"))

    assert error.message == f"{bench.folder}/more.env:2: this line is not NAME=value; correct it"


def test_an_env_file_of_other_bytes_is_told(bench: Bench) -> None:
    (bench.folder / "more.env").write_bytes(b"A=\xff\n")

    error = bench.failure("true", executor=Docker(env_file="more.env"))

    assert error.message == f"the env_file {bench.folder}/more.env is not UTF-8 text (byte 2)"


def test_an_env_file_may_begin_with_a_mark(bench: Bench) -> None:
    (bench.folder / "more.env").write_bytes(b"\xef\xbb\xbfA=marked\r\n")

    bench("echo $A", executor=Docker(env_file="more.env"))

    assert bench.lines == ["marked"]


def test_a_command_that_is_too_long_is_told(bench: Bench) -> None:
    error = bench.failure(f": {'x' * 140_000}")

    assert error.message == (
        "the command and its environment variables are too long for a container; pass large values as files"
    )


def test_a_secret_is_a_file_of_its_own_and_nowhere_else(bench: Bench, docker_engine: Any) -> None:
    secret = FileMount("/secrets/credentials", text="hunter2-hunter2", secret=True)

    bench(Command(shell="stat -c '%a %u' /secrets/credentials", mounts=(secret,)))
    found = inspected(bench, docker_engine, Docker(stop_grace_seconds=1), Command(mounts=(secret,)))

    assert bench.lines == ["400 0"]
    assert "hunter2" not in json.dumps(found)


def test_read_only(bench: Bench) -> None:
    secret = FileMount("/secrets/credentials", text="key", secret=True)
    shell = (
        "cat rainbow_input.json /secrets/credentials; echo; echo 1 > /tmp/x && echo tmp; "
        "echo [1] > {0}; echo x > /etc/x || echo refused"
    )
    values = []
    for path, mounts in (("out.json", ()), ("/results/out.json", (secret,)), ("/results/out.json", ())):
        text = shell.format(path) if mounts else shell.format(path).replace(" /secrets/credentials", "")
        command = Command(shell=text, output_path=path, mounts=mounts)
        values.append(bench(command, executor=Docker(read_only=True)).value)

    assert values == [[1]] * 3
    assert [line for line in bench.lines if "Read-only" not in line] == [
        *["{}", "tmp", "refused"],
        *["{}key", "tmp", "refused"],
        *["{}", "tmp", "refused"],
    ]


def test_read_only_with_a_link_as_working_directory_is_told(bench: Bench, images: Images, base_image: str) -> None:
    image = images.built(
        f"FROM {base_image}\nRUN mkdir -p /srv/real && ln -s /srv/real /work\nWORKDIR /work\nUSER 1234\n"
    )

    error = bench.failure(Command(shell="true", image=image), executor=Docker(read_only=True))

    assert error.message == (
        "the working directory /work of the image is a link, where a container with `read_only` cannot write; "
        "name the folder itself as WORKDIR"
    )


def test_read_only_needs_a_working_directory(bench: Bench, base_image: str) -> None:
    error = bench.failure(Command(shell="true", image=base_image), executor=Docker(read_only=True))

    assert error.message == (
        "a container with `read_only` cannot write to `/`; use an image with a WORKDIR, "
        "and folders for secrets and the output"
    )


def test_no_volume_stays(bench: Bench, docker_engine: Any) -> None:
    before = {one.id for one in docker_engine.volumes.list()}

    bench("true", executor=Docker(read_only=True))

    assert {one.id for one in docker_engine.volumes.list()} <= before


# -- how it ends


def test_a_container_that_is_removed_by_others_is_told(bench: Bench, docker_engine: Any) -> None:
    def remove() -> None:
        label = {"label": f"{OWNER}={owner()}"}
        wait_until(lambda: bool(bench.lines), 60)
        docker_engine.containers.list(filters=label)[0].remove(force=True)

    thread = threading.Thread(target=remove)
    thread.start()
    error = bench.failure("echo begun; sleep 60")
    thread.join()

    assert error.message.startswith(
        ("its container was removed while it ran (", "exit status 137 (ended by SIGKILL): begun")
    )


def test_a_removal_that_another_began_is_waited_for(docker_engine: Any, base_image: str) -> None:
    many = "import os; os.mkdir('/many'); [open(f'/many/{n}', 'w').close() for n in range(20_000)]; print('made')"
    one = docker_engine.containers.run(
        base_image, ["python", "-uc", f"{many}; import time; time.sleep(60)"], detach=True
    )
    wait_until(lambda: b"made" in one.logs(), 60)
    seen: list[bool] = []

    def remove() -> None:
        engine(None).remove(one.id)
        seen.append(bool(docker_engine.containers.list(all=True, filters={"id": one.id})))

    threads = [threading.Thread(target=remove) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert seen == [False] * 3


def test_a_signal_is_told(bench: Bench) -> None:
    error = bench.failure("kill -SEGV $$")

    assert error.message.startswith("exit status 139 (ended by SIGSEGV)")


def test_a_command_is_given_time_to_end(bench: Bench) -> None:
    source = bench.code(
        {
            "main.py": """
                import signal, sys, time
                signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), print("tidied", flush=True), sys.exit(0)))
                print("begun", flush=True)
                time.sleep(60)
                """
        }
    )
    run = bench.run(Docker(stop_grace_seconds=30))
    stop_when(run, lambda: bool(bench.lines))

    error = bench.failure(Command(shell="python main.py; echo after", source=source), run)

    assert isinstance(error, Cancelled)
    assert error.message == "cancelled; its container was stopped"
    assert bench.lines[:2] == ["begun", "tidied"]


def test_a_command_that_does_not_end_is_killed(bench: Bench) -> None:
    run = bench.run(Docker(stop_grace_seconds=1))
    stop_when(run, lambda: bool(bench.lines))
    begun = time.monotonic()

    error = bench.failure("trap '' TERM; echo begun; while true; do sleep 0.1; done", run)

    assert isinstance(error, Cancelled)
    assert time.monotonic() - begun < 60


def test_a_command_that_closed_its_output_is_waited_for(bench: Bench) -> None:
    command = Command(argv=("sh", "-c", "exec >&- 2>&-; sleep 4; exit 3"), image=image(bench))

    assert bench.failure(command).message == "exit status 3"


def test_too_many_lines_end_it(bench: Bench) -> None:
    begun = time.monotonic()

    error = bench.failure("yes", executor=Docker(max_lines=1000))

    assert error.message == (
        "it printed more than 1000 lines and was ended; print less, or raise `max_lines` of the executor"
    )
    assert time.monotonic() - begun < 60  # the engine does not answer while nobody reads what it has to give


def test_a_command_that_prints_on_and_on_is_killed_at_once(bench: Bench) -> None:
    executor = Docker(stop_grace_seconds=1, max_lines=1_000_000_000)
    begun = time.monotonic()

    error = bench.failure("trap : TERM; (trap '' TERM; exec yes)", bench.run(executor, seconds=3))

    assert error.message.startswith("timed out after ")
    assert time.monotonic() - begun < 60


def test_an_output_for_which_the_disk_has_no_room_is_told(bench: Bench) -> None:
    run = bench.run()
    run.folder.mkdir(parents=True)
    (run.folder / "output-task-0-1.part").symlink_to("/dev/full")

    error = bench.failure(Command(shell="head -c 3000000 /dev/zero > out.json", output_path="out.json"), run)

    assert error.message == (
        f"the disk is full ({run.folder}): the files of the slice cannot be kept there; free some space, "
        "or set TMPDIR to a larger disk"
    )


def test_a_failed_container_is_kept_on_demand(bench: Bench, docker_engine: Any) -> None:
    executor = Docker(keep_failed=True)

    bench("echo fine", executor=executor)
    bench.failure("echo broken; exit 3", executor=executor)

    (kept,) = docker_engine.containers.list(all=True, filters={"label": f"{OWNER}={owner()}"})
    told = f"kept the container: docker logs {kept.id[:12]}; `rainbow gc --kept` removes it"
    logs = kept.logs()
    executor.clean("run-1")
    still_there = docker_engine.containers.list(all=True, filters={"label": f"{OWNER}={owner()}"})
    kept.remove(v=True)
    assert logs == b"broken\n"
    assert bench.lines[-1] == told
    assert len(still_there) == 1


def test_a_cancelled_container_is_not_kept(bench: Bench) -> None:
    run = bench.run(Docker(keep_failed=True, stop_grace_seconds=1))
    stop_when(run, lambda: bool(bench.lines))

    assert isinstance(bench.failure("echo begun; sleep 60", run), Cancelled)


# -- lines


def test_streams_of_a_program_do_not_run_into_each_other(bench: Bench) -> None:
    text = "for i in 1 2 3; do printf out; printf err >&2; sleep 0.3; printf '%s\\n' $i; printf '%s\\n' $i >&2; done"

    bench(Command(argv=("sh", "-c", text), image=image(bench)))

    assert sorted(bench.lines) == ["err1", "err2", "err3", "out1", "out2", "out3"]


@pytest.mark.slow
def test_a_million_lines_come_in_order_in_flat_memory(bench: Bench) -> None:
    seen = Counted()
    run = bench.run(Docker(max_lines=3_000_000), write=seen)
    bench("true")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    bench("seq 1000001", run)

    assert (seen.count, seen.wrong) == (1_000_001, [])
    assert seen.last == "... the log ends here: more than 1000000 lines; later ones are not kept"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # KiB


class Counted:
    """Takes lines that must be 1, 2, 3 ..."""

    def __init__(self) -> None:
        self.count = 0
        self.wrong: list[str] = []
        self.last = ""

    def __call__(self, line: str) -> None:
        self.count += 1
        self.last = line
        if line != str(self.count) and self.count <= 1_000_000:
            self.wrong.append(line)


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40)), max_size=12), st.integers(1, 50))
def test_frames_cut_anywhere_give_the_same_bytes(frames: list[tuple[int, bytes]], size: int) -> None:
    data = b"".join(bytes([kind, 0, 0, 0]) + len(text).to_bytes(4, "big") + text for kind, text in frames)
    first, second = Kept(), Kept()
    taken = Frames(first, second)  # type: ignore[arg-type]

    for start in range(0, len(data), size):
        taken.feed(data[start : start + size])

    assert first.data == b"".join(text for kind, text in frames if kind == 1)
    assert second.data == b"".join(text for kind, text in frames if kind == 2)


class Kept:
    def __init__(self) -> None:
        self.data = b""

    def feed(self, data: bytes) -> None:
        self.data += data


def image(bench: Bench) -> str:
    assert bench.image_of is not None
    return bench.image_of(None)


def stop_when(run: Run, is_so: Callable[[], bool]) -> None:
    """Cancel a run once something is so."""

    def wait() -> None:
        wait_until(is_so, 60)
        run.stop.set()

    threading.Thread(target=wait, daemon=True).start()
