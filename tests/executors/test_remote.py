"""Slices in containers that nothing is copied into or out of: real containers, without an orchestrator around them."""

from __future__ import annotations

import ast
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rainbow_prefect.errors import RunError, TaskFailed
from rainbow_prefect.executors import _aws, _bootstrap, _remote
from rainbow_prefect.executors._exchange import Exchange, ExchangeVolume
from rainbow_prefect.executors._remote import PARCEL, Remote, prepare
from rainbow_prefect.executors.base import StubExecutor
from rainbow_prefect.run import Command, FileMount, Output, Run
from rainbow_prefect.secrets import Secret, Secrets

from .contract import wait_until

HOST_LOG = "/handed/over"


@dataclass
class Ended:
    """How a container ended."""

    remote: Remote
    status: int
    lines: list[str]
    message: str | None

    def output(self) -> Output:
        outcome = self.remote.outcome(self.message)
        assert outcome is not None
        return self.remote.result(outcome, tuple(self.lines))

    def failure(self) -> TaskFailed:
        with pytest.raises(TaskFailed) as caught:
            self.output()
        return caught.value


@dataclass
class Box:
    """Starts containers as an orchestrator would."""

    engine: Any
    image: str
    folder: Path
    binds: dict[str, Any] = field(default_factory=dict)

    def run_of(self, **fields: Any) -> Run:
        return Run(
            **{
                "app": "app",
                "pipeline": "pipeline",
                "task": "task",
                "run_id": "run-1",
                "root": self.folder,
                "folder": self.folder / "run",
                "executor": StubExecutor(executor="stub"),
                "secrets": Secrets(environ={}),
                **fields,
            }
        )

    def prepared(self, command: Command, exchange: Exchange | None = None, **fields: Any) -> Remote:
        run = fields.pop("run", None) or self.run_of(input=fields.pop("input", None))
        settings = {"hides": True, "hand": "log", "inline_bytes": 100_000, "what": "the executor 'x'", **fields}
        return prepare(command, run, exchange, termination_path=HOST_LOG, **settings)

    def __call__(self, remote: Remote, *, during: Callable[[Any], None] = lambda _: None, **options: Any) -> Ended:
        handed = self.folder / "handed"
        handed.mkdir(exist_ok=True)
        handed.chmod(0o777)
        env = {**remote.env, **remote.secret_env, **options.pop("environment", {})}
        container = self.engine.containers.create(
            self.image,
            entrypoint=[remote.argv[0]],
            command=[*remote.argv[1:]],
            environment=env,
            volumes={str(handed): {"bind": "/handed", "mode": "rw"}, **self.binds},
            **{"network_mode": "none", "working_dir": "/tmp", **options},
        )
        try:
            container.start()
            during(container)
            status = container.wait(timeout=120)["StatusCode"]
            text = container.logs().decode("utf-8", "replace")
        finally:
            container.remove(force=True)
        shown = [remote.take(line) for line in text.split("\n")]
        message = handed / "over"
        return Ended(
            remote,
            status,
            [line for line in shown if line],
            message.read_text() if message.exists() else None,
        )


@pytest.fixture
def box(docker_engine: Any, base_image: str, tmp_path: Path) -> Box:
    return Box(docker_engine, base_image, tmp_path)


class Answers(ThreadingHTTPServer):
    """A bucket that answers what it is told to; `asked` has the methods."""

    daemon_threads = True

    def __init__(self, *answers: tuple[int, bytes]) -> None:
        self.answers = [*answers]
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/bucket/key?X-Amz-Signature=abcdef"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append(self.command)
        status, data = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_PUT = do_DELETE = do_GET

    def log_message(self, *_args: Any) -> None:
        pass


@contextlib.contextmanager
def answering(*answers: tuple[int, bytes]) -> Iterator[Answers]:
    server = Answers(*answers)
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


# -- the script


def test_the_script_is_python_3_6() -> None:
    ast.parse(Path(_bootstrap.__file__).read_text(), feature_version=(3, 6))


def test_the_command_gets_what_it_is_promised(box: Box) -> None:
    text = (
        'pwd; cat rainbow_input.json /rainbow_input.json "$RAINBOW_INPUT_PATH"; echo; '
        'echo "$RAINBOW_INPUT $A ${RAINBOW_PARCEL-none}"; echo err >&2; printf last; echo 1 > "$RAINBOW_OUTPUT_PATH"'
    )

    ended = box(box.prepared(Command(shell=text, env={"A": "a"}, output_path="/made/here/out.json"), input=[1]))

    assert ended.lines == ["/tmp", "[1][1][1]", "[1] a none", "err", "last"]
    assert (ended.status, ended.output().value) == (0, 1)


def test_an_outcome_of_many_lines_is_put_together(box: Box) -> None:
    text = "import json, random; json.dump([random.random() for _ in range(4000)], open('out.json', 'w'))"
    command = Command(argv=("python", "-c", f"print('hello'); {text}"), output_path="out.json")

    ended = box(box.prepared(command))

    assert ended.lines == ["hello"]
    assert len(ended.remote._chunks) > 1
    assert len(ended.output().value) == 4000


def test_the_outcome_may_be_the_termination_message(box: Box) -> None:
    ended = box(box.prepared(Command(shell="echo 7 > out.json", output_path="out.json"), hand="termination"))

    assert ended.message is not None
    assert len(ended.message) < 300
    assert ended.lines == []
    assert ended.output().value == 7


def test_a_message_of_somebody_else_is_no_outcome(box: Box) -> None:
    remote = box.prepared(Command(shell="true"), hand="termination")

    assert remote.outcome("Error: something") is None
    assert remote.outcome('{"status": 0, "token": "of another slice"}') is None
    assert remote.outcome(None) is None


def test_a_signal_is_told(box: Box) -> None:
    ended = box(box.prepared(Command(shell="echo before; kill -9 $$")))

    error = ended.failure()
    assert ended.status == 137
    assert (error.message, error.status) == (
        "ended by signal 9 (SIGKILL) (perhaps it needed more memory than there was): before",
        -9,
    )


def test_sigterm_reaches_the_command(box: Box) -> None:
    text = "trap 'echo stopping; exit 7' TERM; echo begun; while :; do sleep 0.1; done"

    def stop(container: Any) -> None:
        assert wait_until(lambda: b"begun" in container.logs(), 60)
        container.stop(timeout=60)

    ended = box(box.prepared(Command(shell=text)), during=stop)

    assert (ended.lines[0], ended.lines[-1]) == ("begun", "stopping")  # bash may tell of its `sleep` between them
    assert ended.failure().status == 7


def test_a_container_that_nobody_stops_ends_after_its_deadline(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_remote, "_UNSTOPPED_SECONDS", 0)
    run = box.run_of(deadline=time.monotonic() + 8)

    ended = box(box.prepared(Command(shell="echo begun; sleep 300"), run=run))

    assert ended.lines[0] == "begun"
    assert ended.failure().status in (-15, 143)


def test_memory_that_runs_out_is_told(box: Box) -> None:
    """The control group ends the largest process, which is the command and not the script around it."""
    command = Command(argv=("python", "-c", "print('filling', flush=True); data = b'x' * (1 << 30)"))

    ended = box(box.prepared(command), mem_limit="128m", memswap_limit="128m")

    assert ended.failure().message == (
        "out of memory: it needed more than the container may use; raise `memory` of the executor: filling"
    )


def test_an_image_without_python_is_told(box: Box) -> None:
    ended = box(box.prepared(Command(shell="true")), environment={"PATH": "/nowhere"})

    assert ended.status == _remote.BROKEN
    assert ended.lines == ["rainbow: the image has no Python 3.6 or newer on its PATH; add python3 to it"]
    assert ended.remote.outcome(ended.message) is None


def test_a_program_that_is_missing_is_told(box: Box) -> None:
    error = box(box.prepared(Command(argv=("no-such-program",)))).failure()

    assert error.message == "the program 'no-such-program' is not on the PATH; install it, or name it with its folder"


def test_modules_of_the_user_do_not_disturb_the_script(box: Box) -> None:
    (box.folder / "code").mkdir()
    (box.folder / "code" / "json.py").write_text("raise SystemExit('mine')")
    box.binds = {str(box.folder / "code"): {"bind": "/code", "mode": "rw"}}

    ended = box(box.prepared(Command(shell="echo fine")), working_dir="/code", environment={"PYTHONPATH": "/code"})

    assert ended.lines == ["fine"]


def test_a_user_who_may_write_nowhere_but_tmp_is_served(box: Box) -> None:
    secret = FileMount("/secret/key", text="abc", secret=True)
    text = 'id -u; cat "$RAINBOW_INPUT_PATH"; echo; cat secret/key; echo; echo 1 > "$RAINBOW_OUTPUT_PATH"'

    ended = box(
        box.prepared(Command(shell=text, mounts=(secret,), output_path="/out.json"), input=[2]),
        working_dir="/",
        user="10001:10001",
    )

    assert ended.lines == ["10001", "[2]", "abc"]
    assert ended.output().value == 1


def test_a_secret_file_is_for_its_owner_only(box: Box) -> None:
    secret = FileMount("/secret/key", text="abc", secret=True)

    ended = box(box.prepared(Command(shell="stat -c '%a %U' /secret/key; cat secret/key", mounts=(secret,))))

    assert ended.lines == ["400 root", "abc"]


def test_what_the_command_leaves_running_ends_with_it(box: Box) -> None:
    begun = time.monotonic()

    ended = box(box.prepared(Command(shell="sleep 300 & echo done")))

    assert ended.lines == ["done"]
    assert ended.output().status == 0
    assert time.monotonic() - begun < 60


# -- the bucket


ERROR = (
    b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Request has expired</Message>"
    b"<StringToSign>X-Amz-Signature=abcdef</StringToSign></Error>"
)


def test_a_refusal_of_the_bucket_is_told_without_its_url(box: Box) -> None:
    remote = box.prepared(Command(shell="true"))
    with answering((403, ERROR)) as bucket:
        ended = box(remote, network_mode="host", environment={PARCEL: bucket.url})

    assert ended.status == _remote.BROKEN
    assert ended.lines == [
        f"rainbow: the exchange bucket at 127.0.0.1:{bucket.server_port} cannot be used for the input: "
        "it answered 403 (AccessDenied)"
    ]
    assert bucket.asked == ["GET"]


def test_a_bucket_that_is_busy_is_asked_again(box: Box) -> None:
    remote = box.prepared(Command(shell="echo hello"))
    text = remote.secret_env[PARCEL].encode()
    with answering((503, b"<Code>SlowDown</Code>"), (500, b""), (200, text)) as bucket:
        ended = box(remote, network_mode="host", environment={PARCEL: bucket.url})

    assert ended.lines == ["hello"]
    assert bucket.asked == ["GET"] * 3


def test_an_output_that_the_bucket_refuses_is_told(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering((403, ERROR)) as bucket:
        monkeypatch.setattr("rainbow_prefect.executors._exchange.BucketPlace.url", lambda *_: bucket.url)
        exchange = Exchange(bucket="s3://bucket", region="eu-west-1", endpoint_url="http://127.0.0.1:1")
        command = Command(shell="head -c 300000 /dev/zero | tr '\\0' 1 > out.json; echo done", output_path="out.json")
        ended = box(box.prepared(command, exchange, inline_bytes=100), network_mode="host")

    error = ended.failure()
    assert ended.lines == ["done"]
    assert (error.message, error.status) == (
        f"the container could not run the command: the exchange bucket at 127.0.0.1:{bucket.server_port} cannot be "
        "used for the output: it answered 403 (AccessDenied)",
        _remote.BROKEN,
    )


def test_reasons_never_hold_urls() -> None:
    class EndpointConnectionError(Exception):
        pass

    assert _aws.reason(EndpointConnectionError("https://x?X-Amz-Signature=1")) == (
        "it cannot be reached; check `endpoint_url`, `region` and the network"
    )
    assert _aws.reason(ValueError("https://x?X-Amz-Signature=1")) == "ValueError"
    assert _aws.reason(ValueError("no such thing")) == "ValueError: no such thing"


# -- the volume


def volume_of(box: Box) -> tuple[Path, Exchange]:
    shared = box.folder / "shared"
    shared.mkdir()
    box.binds = {str(shared): {"bind": "/mnt/shared", "mode": "rw"}}
    return shared, Exchange(volume=ExchangeVolume(path=str(shared), mount="/mnt/shared"))


def test_a_volume_carries_it_all_for_any_user(box: Box) -> None:
    shared, exchange = volume_of(box)
    text = "import json; json.dump(json.load(open('rainbow_input.json')) * 2, open('out.json', 'w'))"
    value = ["x" * 1000] * 1500
    remote = box.prepared(
        Command(argv=("python", "-c", text), output_path="out.json"),
        exchange,
        hides=False,
        hand="exchange",
        input=value,
    )

    ended = box(remote, user="10001:10001")

    assert remote.env[PARCEL].startswith("file:/mnt/shared/run-1/task-0-1-")
    assert ended.output().value.load() == value * 2
    assert not [*shared.rglob("parcel")]
    remote.clean()
    assert [*shared.iterdir()] == []


def test_a_link_in_the_volume_is_not_followed(box: Box) -> None:
    shared, exchange = volume_of(box)
    remote = box.prepared(Command(shell="true"), exchange, hides=False, hand="exchange")
    (folder,) = (shared / "run-1").iterdir()
    (box.folder / "mine").write_text("{}")
    (folder / "outcome").symlink_to(box.folder / "mine")
    (folder / "output").symlink_to(box.folder / "mine")

    assert remote.place is not None
    with pytest.raises(TaskFailed) as outcome:
        remote.outcome()
    with pytest.raises(TaskFailed) as output:
        remote.place.fetch("output", box.folder / "taken")

    assert outcome.value.message == (f"the exchange volume {shared} cannot be used: Too many levels of symbolic links")
    assert output.value.message == "output of the exchange volume is a link; only the container's own file is read"


def test_a_volume_that_is_not_there_is_told(box: Box) -> None:
    exchange = Exchange(volume=ExchangeVolume(path="/no/such/folder"))

    with pytest.raises(TaskFailed) as caught:
        box.prepared(Command(shell="true"), exchange)

    assert caught.value.message == "the exchange volume /no/such/folder is not a folder of this machine; mount it here"


def test_clean_removes_what_a_killed_run_left(box: Box) -> None:
    shared, exchange = volume_of(box)
    box.prepared(Command(shell="true"), exchange, hides=False, hand="exchange")

    exchange.clean("run-1")

    assert [*shared.iterdir()] == []


# -- fields and credentials


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "an exchange is a bucket or a volume"),
        ({"bucket": "s3://a", "volume": {"path": "/a"}}, "an exchange is a bucket or a volume"),
        ({"bucket": "gs://a"}, "'gs://a' is not a bucket"),
        ({"bucket": "s3:///a"}, "'s3:///a' is not a bucket"),
        ({"volume": {"path": "/a"}, "region": "x"}, "`region`, `endpoint_url` and `credentials` belong to a bucket"),
        ({"volume": {"path": "/a", "mount": "a"}}, "'a' is not an absolute path"),
        ({"bucket": "s3://a", "credentials": "AKIA"}, "does not name a block of credentials"),
    ],
)
def test_fields_that_are_wrong_are_told(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Exchange(**fields)

    assert [one["msg"] for one in caught.value.errors()] == [message]


def test_credentials_come_from_a_block(prefect_api: str) -> None:
    from prefect_aws import AwsCredentials
    from pydantic import SecretStr

    block = AwsCredentials(
        aws_access_key_id="AKIAEXAMPLE", aws_secret_access_key=SecretStr("secret-of-the-block"), region_name="eu-west-3"
    )
    block.save("exchange", overwrite=True)
    learned: list[str] = []

    for _ in range(2):  # of another run in the same process, too
        made = _aws.client(
            "s3",
            credentials="block:aws-credentials/exchange",
            region=None,
            endpoint_url=None,
            what="the exchange",
            learn=learned.append,
        )

    assert learned == ["secret-of-the-block"] * 2
    assert made.meta.region_name == "eu-west-3"
    assert made._request_signer._credentials.access_key == "AKIAEXAMPLE"


def test_a_block_that_is_missing_is_told(prefect_api: str) -> None:
    with pytest.raises(RunError) as caught:
        _aws.client(
            "s3",
            credentials="block:aws-credentials/nowhere",
            region=None,
            endpoint_url=None,
            what="the exchange s3://a",
        )

    assert str(caught.value) == (
        "the exchange s3://a: cannot read the Prefect block aws-credentials/nowhere (ValueError); "
        "create it in the Prefect UI under Blocks"
    )


# -- what is secret


def test_only_what_holds_a_secret_is_one(box: Box) -> None:
    secrets = Secrets([Secret(secret="key", env="KEY")], environ={"KEY": "hunter2-hunter2"})
    secrets.get("key")
    run = box.run_of(secrets=secrets, input={"a": [1, (2, 3)]})

    remote = box.prepared(Command(argv=("echo", "x")), hides=False, run=run)
    with pytest.raises(TaskFailed) as caught:
        box.prepared(Command(argv=("echo", "x hunter2-hunter2 y")), hides=False, run=run)

    assert [*remote.env] == [PARCEL]
    assert caught.value.message == (
        "the executor 'x' has no safe way for secrets into the container; "
        "name a bucket or a volume in `exchange` of the executor"
    )
    assert json.dumps({**remote.env}).count("hunter2") == 0
