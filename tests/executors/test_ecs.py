"""The executor `ecs`: the contract and all that AWS may say, against moto with real containers (see `ecs_stub`)."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rainbow_prefect.errors import MissingExtra, RunError, TaskFailed, TimedOut
from rainbow_prefect.executors import _aws, _ecs_definition, _ecs_task, ecs
from rainbow_prefect.executors._exchange import Exchange, ExchangeVolume
from rainbow_prefect.executors.base import Executor
from rainbow_prefect.executors.ecs import Ecs
from rainbow_prefect.run import Command, FileMount
from rainbow_prefect.secrets import Secret, Secrets

from ..conftest import RAINBOW, Project, Rainbow
from .contract import Bench, ExecutorContract, wait_until
from .ecs_stub import KEYS, Fate, Stub, moto_server
from .images import Images

BUCKET = "rainbow-exchange"


@dataclass(frozen=True)
class Cloud:
    """A cluster, a subnet and a bucket of moto."""

    url: str
    subnet: str


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    import boto3

    with moto_server() as url:
        session = boto3.Session("testing", "testing-secret", region_name="eu-west-1")
        session.client("ecs", endpoint_url=url).create_cluster(clusterName="default")
        session.client("s3", endpoint_url=url).create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
        )
        subnets = session.client("ec2", endpoint_url=url).describe_subnets()["Subnets"]
        yield Cloud(url, subnets[0]["SubnetId"])


@pytest.fixture(scope="module")
def images(docker_engine: Any, base_image: str) -> Iterator[Images]:
    made = Images(docker_engine, base_image)
    yield made
    made.remove()


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="module")
def _stub(cloud: Cloud, docker_engine: Any) -> Iterator[Stub]:
    made = Stub(cloud.url, docker_engine)
    yield made
    made.close()


@pytest.fixture
def stub(_stub: Stub) -> Iterator[Stub]:
    yield _stub
    _stub.forget()


@pytest.fixture
def executor(stub: Stub, cloud: Cloud) -> Ecs:
    return Ecs(
        executor="cloud",
        subnets=(cloud.subnet,),
        endpoint_url=stub.url,
        poll_seconds=0.2,
        stop_grace_seconds=2,
        exchange=Exchange(bucket=f"s3://{BUCKET}/runs", endpoint_url=cloud.url),
    )


class TestContract(ExecutorContract):
    @pytest.fixture
    def executor(self, executor: Ecs) -> Executor:
        return executor

    @pytest.fixture
    def image_of(self, images: Images) -> Callable[[Path | None], str]:
        return images.of

    def test_lines_come_one_by_one(self, bench: Bench) -> None:
        """CloudWatch is asked every now and then, and shows lines late."""
        bench("for i in 1 2 3; do echo $i; sleep 3; done")

        assert bench.lines == ["1", "2", "3"]
        assert bench.times[2] - bench.times[0] > 1

    def test_a_timeout_ends_the_command(self, bench: Bench) -> None:
        """The time includes that in which ECS finds a machine."""
        bench.image_of = lambda _: "python:3.11-slim"

        error = bench.failure("echo begun; sleep 120", seconds=20)

        assert isinstance(error, TimedOut)
        assert re.fullmatch(r"timed out after \d+\.\d s; its ECS task was stopped", error.message)
        assert error.tail == ("begun",)

    def test_clean_ends_what_runs(self, bench: Bench, stub: Stub) -> None:
        run = bench.run()

        def clean() -> None:
            assert wait_until(lambda: any(one.status == "RUNNING" for one in stub.tasks.values()), 60)
            bench.executor.clean(run.run_id)

        threading.Thread(target=clean).start()
        error = bench.failure("sleep 120", run)

        assert error.message == "somebody stopped the task: rainbow: the run ended"
        assert [one.status for one in stub.tasks.values()] == ["STOPPED"]

    def test_a_folder_is_seen_and_kept(self, bench: Bench) -> None:
        """A task of ECS sees no folder of this machine."""
        mount = FileMount("/data", source=bench.folder)

        error = bench.failure(Command(shell="ls /data", mounts=(mount,)))

        assert error.message == (
            "the volume at /data is a folder of this machine; ECS has no such thing: give the volume "
            "`claim_name: NAME`, and NAME a file system in `volumes` of the executor's `task_definition`"
        )


# -- through the exchange


@pytest.fixture
def bench(executor: Ecs, tmp_path: Path, base_image: str) -> Bench:
    return Bench(executor, tmp_path, lambda _: base_image)


def objects(cloud: Cloud) -> list[str]:
    import boto3

    s3 = boto3.client("s3", endpoint_url=cloud.url)
    return [one["Key"] for one in s3.list_objects_v2(Bucket=BUCKET).get("Contents", ())]


def seen(stub: Stub) -> str:
    """All that ECS was told."""
    return json.dumps([request for name, request in stub.calls if name != "GetLogEvents"])


def test_nothing_stays_in_the_bucket(bench: Bench, cloud: Cloud) -> None:
    text = "import json; json.dump(['x' * 1000] * 1000, open('out.json', 'w'))"

    output = bench(Command(argv=("python", "-c", text), output_path="out.json"), input=["y" * 300_000])

    assert output.value == ["x" * 1000] * 1000
    assert objects(cloud) == []


def test_the_input_is_removed_once_it_is_read(bench: Bench, cloud: Cloud) -> None:
    found: list[list[str]] = []
    run = bench.run(write=lambda line: found.append(objects(cloud)) if line == "begun" else None)

    bench("echo begun; sleep 2", run)

    assert [[key for key in one if key.endswith("parcel")] for one in found] == [[]]


def test_secrets_are_never_told_to_ecs(bench: Bench, stub: Stub, cloud: Cloud) -> None:
    secrets = Secrets([Secret(secret="key", env="KEY")], environ={"KEY": "hunter2-hunter2"})
    value = secrets.get("key")
    command = Command(
        shell='echo "$KEY" | wc -c; stat -c %a /secret/key; wc -c < /secret/key; echo "it is $KEY"; env',
        env={"KEY": value},
        mounts=(FileMount("/secret/key", text=f"{value}\n", secret=True),),
    )
    lines: list[str] = []
    run = bench.run(secrets=secrets, write=lines.append)

    output = bench(command, run)

    assert [line.strip() for line in lines[:3]] == ["16", "400", "16"]
    assert "hunter2" not in seen(stub)
    assert "it is ********" in output.tail or "it is ********" in [secrets.mask(line) for line in lines]
    assert "X-Amz-Signature" not in "".join(lines)
    assert "RAINBOW_PARCEL" not in "".join(lines)


def test_a_url_with_a_signature_is_seen_nowhere_but_in_the_overrides(bench: Bench, stub: Stub, cloud: Cloud) -> None:
    error = bench.failure("echo x; exit 3")

    (request,) = stub.requests("RunTask")
    environment = request["overrides"]["containerOverrides"][0].pop("environment")
    assert [one["name"] for one in environment] == ["RAINBOW_PARCEL"]
    assert "X-Amz-Signature" in environment[0]["value"]
    assert "X-Amz-Signature" not in seen(stub)
    assert (error.message, error.status) == ("exit status 3: x", 3)


def test_without_an_exchange_small_things_come_by_the_log(bench: Bench, executor: Ecs, stub: Stub) -> None:
    alone = executor.model_copy(update={"exchange": None})
    text = "import json; print('hello'); json.dump(list(range(20_000)), open('out.json', 'w'))"
    command = Command(argv=("python", "-c", text), output_path="out.json")

    output = bench(command, bench.run(alone, input=[1]))

    assert output.value == list(range(20_000))
    assert bench.lines == ["hello"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"input": "hunter2-hunter2"},
            "the executor 'ecs' has no safe way for secrets into the container; "
            "name a bucket or a volume in `exchange` of the executor",
        ),
        (
            {"input": [os.urandom(9000).hex()]},
            "the executor 'ecs' cannot pass a command, variables and an input of 18004 bytes without an exchange; "
            "name a bucket or a volume in `exchange` of the executor",
        ),
    ],
)
def test_what_needs_an_exchange_is_told(bench: Bench, executor: Ecs, fields: dict[str, Any], message: str) -> None:
    alone = executor.model_copy(update={"exchange": None})
    secrets = Secrets([Secret(secret="key", env="KEY")], environ={"KEY": "hunter2-hunter2"})
    secrets.get("key")

    error = bench.failure("true", bench.run(alone, secrets=secrets, **fields))

    assert error.message == message


def test_a_large_output_without_an_exchange_is_told(bench: Bench, executor: Ecs) -> None:
    alone = executor.model_copy(update={"exchange": None})
    text = "import json, os; json.dump(os.urandom(400_000).hex(), open('out.json', 'w'))"

    error = bench.failure(Command(argv=("python", "-c", text), output_path="out.json"), bench.run(alone))

    assert error.message == (
        "output_path 'out.json' has 800002 bytes, more than can come back without an `exchange`; "
        "name a bucket or a volume in `exchange` of the executor"
    )


def test_a_volume_serves_as_the_exchange(bench: Bench, executor: Ecs, stub: Stub, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    volume = ExchangeVolume(path=str(shared), mount="/mnt/shared", file_system="fs-1", sub_path="rainbow")
    stub.volumes["rainbow-exchange"] = str(shared)
    text = "import json; json.dump(['x' * 1000] * 2000, open('out.json', 'w'))"
    command = Command(argv=("python", "-c", text), output_path="out.json")

    output = bench(command, bench.run(executor.model_copy(update={"exchange": Exchange(volume=volume)})))

    assert output.value.load() == ["x" * 1000] * 2000
    assert [*shared.iterdir()] == []
    (request,) = stub.requests("RegisterTaskDefinition")
    assert request["volumes"] == [
        {
            "name": "rainbow-exchange",
            "efsVolumeConfiguration": {
                "fileSystemId": "fs-1",
                "transitEncryption": "ENABLED",
                "rootDirectory": "/rainbow",
            },
        }
    ]


def test_a_bucket_that_is_missing_is_told(bench: Bench, executor: Ecs, cloud: Cloud, stub: Stub) -> None:
    exchange = Exchange(bucket="s3://no-such-bucket/x", endpoint_url=cloud.url)

    error = bench.failure("true", bench.run(executor.model_copy(update={"exchange": exchange})))

    assert error.message == (
        "the exchange s3://no-such-bucket/x cannot be written: NoSuchBucket: The specified bucket does not exist"
    )
    assert stub.requests("RunTask") == []


# -- what AWS may say


@pytest.mark.parametrize(
    ("fate", "message", "status"),
    [
        (
            Fate(
                "EssentialContainerExited",
                reason="OutOfMemoryError: Container killed due to memory usage",
                exit_code=137,
            ),
            "out of memory: it needed more than the container may use; raise `memory` of the executor",
            137,
        ),
        (
            Fate(stopped_reason="CannotPullContainerError: pull image manifest has been retried 5 time(s): not found"),
            "the image 'python:3.11-slim' cannot be pulled: CannotPullContainerError: pull image manifest has been "
            "retried 5 time(s): not found; push it (rainbow build --push), let `execution_role` pull it, and give the "
            "subnets a way to the registry (`assign_public_ip`, a NAT or VPC endpoints)",
            None,
        ),
        (
            Fate(stopped_reason="ResourceInitializationError: failed to validate logger args: timeout"),
            "ECS could not prepare the task: ResourceInitializationError: failed to validate logger args: timeout; "
            "check `execution_role` and the way of the subnets to AWS (`assign_public_ip`, a NAT or VPC endpoints)",
            None,
        ),
        (
            Fate(stopped_reason="CannotStartContainerError: exec: /bin/sh: no such file or directory"),
            "the image 'python:3.11-slim' has no /bin/sh; its code needs sh and Python 3.6 or newer: "
            "CannotStartContainerError: exec: /bin/sh: no such file or directory",
            None,
        ),
        (
            Fate("SpotInterruption", "Your Spot Task was interrupted.", exit_code=143),
            "AWS took the spot capacity back: Your Spot Task was interrupted.; set `retries`, "
            "or use `capacity_provider: FARGATE`",
            143,
        ),
        (
            Fate("TerminationNotice", "Host EC2 (instance i-1) terminated."),
            "the machine that it ran on went away: Host EC2 (instance i-1) terminated.; set `retries`",
            None,
        ),
        (
            Fate("UserInitiated", "Task stopped by user", exit_code=143),
            "somebody stopped the task: Task stopped by user",
            143,
        ),
        (
            Fate("EssentialContainerExited", "Essential container in task exited", exit_code=137),
            "killed (exit status 137), perhaps for want of memory; raise `memory` of the executor",
            137,
        ),
        (
            Fate("EssentialContainerExited", "Essential container in task exited", exit_code=2),
            "exit status 2",
            2,
        ),
        (
            Fate(stopped_reason="Unexpected EC2 error while attempting to tag the network interface"),
            "the task did not start: Unexpected EC2 error while attempting to tag the network interface",
            None,
        ),
    ],
    ids=lambda value: (value.reason or value.stopped_reason)[:30] if isinstance(value, Fate) else "",
)
def test_ends_are_told_apart(
    bench: Bench, stub: Stub, fate: Fate, message: str, status: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ecs_task, "QUIET_SECONDS", 0.5)
    monkeypatch.setattr(_ecs_task, "LATE_LOG_SECONDS", 1.0)
    stub.fates.append(fate)

    error = bench.failure("true")

    assert (error.message, error.status) == (message, status)


def test_memory_that_runs_out_in_the_container_is_told(bench: Bench, executor: Ecs) -> None:
    small = executor.model_copy(update={"launch_type": "FARGATE", "memory": 512})
    text = "print('filling'); data = b'x' * (3 << 30)"

    error = bench.failure(Command(argv=("python", "-u", "-c", text)), bench.run(small))

    assert error.message == (
        "out of memory: it needed more than the container may use; raise `memory` of the executor: filling"
    )


def test_an_image_that_does_not_exist_is_told(bench: Bench) -> None:
    error = bench.failure(Command(shell="true", image="no-such-image.invalid/x:1"))

    assert error.message.startswith(
        "the image 'no-such-image.invalid/x:1' cannot be pulled: CannotPullContainerError: "
    )


def test_no_room_is_waited_for(bench: Bench, stub: Stub) -> None:
    stub.failures = [{"arn": "arn:x", "reason": "RESOURCE:MEMORY"}]

    bench("echo done")

    assert bench.lines == ["waiting for ECS to take the task: RESOURCE:MEMORY", "done"]


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (
            {"reason": "RESOURCE:MEMORY"},
            "no machine of the cluster 'default' had enough memory left within 2 s; add machines, "
            "lower `cpu` and `memory` of the executor, or use `launch_type: FARGATE`",
        ),
        (
            {"reason": "Capacity is unavailable at this time. Please try again later"},
            "AWS had no capacity for the task within 2 s: Capacity is unavailable at this time. Please try again later; "
            "try later, add subnets in other availability zones, or use another `capacity_provider`",
        ),
        (
            {"reason": "ATTRIBUTE", "detail": "ecs.cpu-architecture"},
            "no machine of the cluster 'default' has what the task needs: ATTRIBUTE (ecs.cpu-architecture); "
            "correct `cpu`, `task_definition`",
        ),
    ],
)
def test_no_room_is_told(bench: Bench, executor: Ecs, stub: Stub, failure: dict[str, str], message: str) -> None:
    stub.failures = [failure] * 20

    error = bench.failure("true", bench.run(executor.model_copy(update={"startup_timeout_seconds": 2})))

    assert error.message == message


def deregister_all(executor: Ecs) -> list[str]:
    """The families of the definitions that are gone now."""
    found = ecs.definitions(executor)
    for one in found:
        ecs.deregister(executor, one)
    return [one.name.rpartition("/")[2].partition(":")[0] for one in found]


def test_throttled_calls_are_made_again(bench: Bench, executor: Ecs, stub: Stub) -> None:
    deregister_all(executor)
    stub.errors = {
        name: [("ThrottlingException", "Rate exceeded")]
        for name in ("RegisterTaskDefinition", "RunTask", "DescribeTasks", "GetLogEvents")
    }

    bench("echo done")

    assert bench.lines == ["done"]
    assert all(not left for left in stub.errors.values())


def test_what_is_not_allowed_is_told(bench: Bench, stub: Stub) -> None:
    stub.errors = {"RunTask": [("AccessDeniedException", "User is not authorized to perform: ecs:RunTask")]}

    error = bench.failure("true")

    assert error.message == (
        "the task cannot be started: AccessDeniedException: User is not authorized to perform: ecs:RunTask; "
        "allow it to the credentials (docs/ecs.md has the policy)"
    )


def test_a_cluster_that_is_missing_is_told(bench: Bench, executor: Ecs) -> None:
    error = bench.failure("true", bench.run(executor.model_copy(update={"cluster": "nowhere"})))

    assert error.message == (
        "the task cannot be started: ClusterNotFoundException: Cluster not found.; correct `cluster`"
    )


def test_a_task_that_does_not_start_is_stopped(bench: Bench, executor: Ecs, stub: Stub) -> None:
    stub.fates.append(Fate(after=600))

    error = bench.failure("true", bench.run(executor.model_copy(update={"startup_timeout_seconds": 1.5})))

    assert error.message == (
        "the task did not start within 1.5 s, its state is PENDING; raise `startup_timeout_seconds`, "
        "or look at the task in the ECS console"
    )
    assert len(stub.requests("StopTask")) == 1


# -- the log


def test_no_line_is_lost_or_doubled(bench: Bench, stub: Stub) -> None:
    stub.late_seconds = 2.0

    bench("seq 1 12000")

    assert bench.lines == [str(number) for number in range(1, 12_001)]


def test_too_many_lines_end_the_command(bench: Bench, executor: Ecs) -> None:
    error = bench.failure("seq 1 50; sleep 300", bench.run(executor.model_copy(update={"max_lines": 10})))

    assert error.message == (
        "it printed more than 10 lines and was ended; print less, or raise `max_lines` of the executor"
    )


def test_an_output_of_100_mib_comes_through_the_bucket(bench: Bench, cloud: Cloud) -> None:
    text = "open('out.json', 'w').write('[\"' + 'x' * (100 << 20) + '\"]')"

    value = bench(Command(argv=("python", "-c", text), output_path="out.json")).value

    assert (value.size_bytes, value.items) == ((100 << 20) + 4, 1)
    assert objects(cloud) == []


# -- the task definition


def test_a_definition_is_registered_once_for_its_content(bench: Bench, executor: Ecs, stub: Stub) -> None:
    bench("true")
    bench("false || true")
    bench("true", bench.run(executor.model_copy(update={"cpu": 512, "memory": 1024})))

    requests = stub.requests("RegisterTaskDefinition")
    assert [(one["cpu"], one["memory"]) for one in requests] in ([("256", "512"), ("512", "1024")], [("512", "1024")])
    assert all(one["family"].startswith("rainbow-") for one in requests)


def test_a_task_carries_its_run(bench: Bench, executor: Ecs, stub: Stub) -> None:
    bench(
        Command(shell="true", labels={"team": "sales & more"}),
        bench.run(executor, task_run_id="task-run-1", index=2, count=3),
    )

    (request,) = stub.requests("RunTask")
    assert request["startedBy"] == "rainbow-run-1"
    assert {one["key"]: one["value"] for one in request["tags"]} == {
        "team": "sales _ more",
        "rainbow.flow-run": "run-1",
        "rainbow.task-run": "task-run-1",
        "rainbow.app": "app",
        "rainbow.pipeline": "pipeline",
        "rainbow.task": "task",
        "rainbow.slice": "2",
    }


def test_orphans_are_found_and_removed(bench: Bench, executor: Ecs, stub: Stub) -> None:
    stub.fates.append(Fate(after=600))
    ended: list[TaskFailed] = []
    thread = threading.Thread(target=lambda: ended.append(bench.failure("sleep 600")))
    thread.start()
    assert wait_until(lambda: bool(ecs.orphans(executor)), 60)

    (orphan,) = ecs.orphans(executor)
    ecs.remove(executor, orphan)
    thread.join(60)

    assert (orphan.run_id, orphan.task, orphan.is_running) == ("run-1", "task", False)
    assert [one.message for one in ended] == ["somebody stopped the task: rainbow: gc"]
    assert ecs.orphans(executor) == []


def test_definitions_are_deregistered(bench: Bench, executor: Ecs, stub: Stub) -> None:
    deregister_all(executor)
    bench("true")

    gone = deregister_all(executor)

    assert [one.startswith("rainbow-") for one in gone] == [True]
    assert ecs.definitions(executor) == []


def test_a_definition_that_is_not_tagged_as_ours_is_left(executor: Ecs) -> None:
    deregister_all(executor)
    client = executor.aws().ecs
    made = client.register_task_definition(
        family="rainbow-of-somebody", containerDefinitions=[{"name": "task", "image": "a", "memory": 128}]
    )

    assert ecs.definitions(executor) == []
    client.deregister_task_definition(taskDefinition=made["taskDefinition"]["taskDefinitionArn"])


@pytest.mark.parametrize("reason", ["TaskDefinition is inactive", "TaskDefinition not found."])
def test_a_definition_that_was_deregistered_meanwhile_is_registered_again(
    bench: Bench, executor: Ecs, stub: Stub, reason: str
) -> None:
    bench("true")
    for one in ecs.definitions(executor):  # as another process does it
        executor.aws().ecs.deregister_task_definition(taskDefinition=one.name)
    stub.errors = {"RunTask": [("ClientException", reason)]}

    bench("echo done")

    assert bench.lines == ["done"]
    assert len(ecs.definitions(executor)) == 1


def test_a_definition_that_stays_away_is_told(bench: Bench, stub: Stub) -> None:
    stub.errors = {"RunTask": [("ClientException", "TaskDefinition is inactive")] * 2}

    error = bench.failure("true")

    assert error.message == "the task cannot be started: ClientException: TaskDefinition is inactive"


def test_a_definition_of_the_user_is_kept_around_ours(executor: Ecs) -> None:
    mine = executor.model_copy(
        update={
            "task_definition": {
                "ephemeralStorage": {"sizeInGiB": 50},
                "volumes": [{"name": "models", "efsVolumeConfiguration": {"fileSystemId": "fs-2"}}],
                "containerDefinitions": [{"name": "task", "user": "1000"}, {"name": "proxy", "image": "proxy:1"}],
            }
        }
    )
    command = Command(shell="true", image="app:1", mounts=(FileMount("/models", claim_name="models"),))

    made = _ecs_definition.definition(mine, command, ("sh", "-c", "a", "b"), base=None, region="eu-west-1")

    task, proxy = made["containerDefinitions"]
    assert (task["user"], task["image"], task["entryPoint"], task["command"]) == (
        "1000",
        "app:1",
        ["sh", "-c"],
        ["a", "b"],
    )
    assert task["mountPoints"] == [{"sourceVolume": "models", "containerPath": "/models", "readOnly": True}]
    assert proxy == {"name": "proxy", "image": "proxy:1"}
    assert made["ephemeralStorage"] == {"sizeInGiB": 50}
    assert (made["cpu"], made["memory"], made["networkMode"]) == ("256", "512", "awsvpc")


def test_a_family_of_the_user_is_read_once_and_merged(bench: Bench, executor: Ecs, stub: Stub, cloud: Cloud) -> None:
    import boto3

    boto3.client("ecs", endpoint_url=cloud.url).register_task_definition(
        family="mine",
        containerDefinitions=[
            {"name": "task", "image": "any", "memory": 64, "environment": [{"name": "MINE", "value": "yes"}]}
        ],
    )
    run = bench.run(executor.model_copy(update={"task_definition": "mine", "memory": 1024}))

    bench('echo "$MINE"', run)
    bench("true", run)

    assert bench.lines == ["yes"]
    assert [one["taskDefinition"] for one in stub.requests("DescribeTaskDefinition")].count("mine") == 1


def test_a_family_that_is_missing_is_told(bench: Bench, executor: Ecs) -> None:
    error = bench.failure("true", bench.run(executor.model_copy(update={"task_definition": "nowhere"})))

    assert error.message == (
        "the task definition 'nowhere' cannot be read: ClientException: Unable to describe task definition.; "
        "correct `task_definition` of the executor"
    )


@pytest.mark.parametrize(
    ("fields", "resources", "size"),
    [
        ({}, {}, (256, 512)),
        ({"cpu": 1000, "memory": 1500}, {}, (1024, 2048)),
        ({}, {"limit_memory": "9Gi"}, (2048, 9216)),
        ({}, {"request_cpu": "500m", "request_memory": "1G"}, (512, 1024)),
        ({}, {"limit_cpu": "3"}, (4096, 8192)),
        ({"launch_type": "EC2", "subnets": ()}, {"request_cpu": "0.1", "limit_memory": "100Mi"}, (102, 100)),
    ],
)
def test_sizes(executor: Ecs, fields: dict[str, Any], resources: dict[str, str], size: tuple[int, int]) -> None:
    assert _ecs_definition.size(executor.model_copy(update=fields), resources) == size


def test_a_size_that_fargate_does_not_have_is_told(executor: Ecs) -> None:
    with pytest.raises(TaskFailed) as caught:
        _ecs_definition.size(executor, {"limit_memory": "200Gi"})

    assert caught.value.message == (
        "Fargate has no size for 256 CPU units and 204800 MiB; the largest is 16384 units and 122880 MiB"
    )


# -- its fields


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "Fargate needs `subnets`"),
        (
            {"subnets": ["subnet-1"], "launch_type": "EC2", "capacity_provider": "x"},
            "`launch_type` and `capacity_provider` exclude each other",
        ),
        ({"subnets": ["subnet-1"], "log_group": None}, "without a log and an exchange nothing can come back"),
        ({"subnets": ["subnet-1"], "credentials": "AKIA"}, "does not name a block of credentials"),
        ({"subnets": ["subnet-1"], "stop_grace_seconds": 1}, "must be from 2 to 120, got 1"),
        ({"subnets": ["subnet-1"], "exchange": {}}, "an exchange is a bucket or a volume"),
        ({"subnets": ["subnet-1"], "exchange": {"bucket": "my-bucket"}}, "'my-bucket' is not a bucket"),
    ],
)
def test_fields_that_are_wrong_are_told(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Ecs(executor="cloud", **fields)

    assert [one["msg"] for one in caught.value.errors()] == [message]


def test_credentials_that_are_missing_are_told(bench: Bench, executor: Ecs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    alone = executor.model_copy(update={"exchange": None})

    error = bench.failure("true", bench.run(alone))

    assert error.message == (
        "the log group '/rainbow/ecs' cannot be made: no credentials were found; name a block in `credentials`, "
        "or set AWS_ACCESS_KEY_ID and its secret"
    )


def test_a_region_that_is_missing_is_told(bench: Bench, executor: Ecs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")

    with pytest.raises(RunError) as caught:
        bench("true")

    assert str(caught.value) == "the executor 'ecs': no AWS region is known; write `region`, or set AWS_DEFAULT_REGION"


def test_a_missing_extra_is_told(bench: Bench, executor: Ecs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.setattr(_aws, "_clients", {})

    with pytest.raises(MissingExtra) as caught:
        bench("true", bench.run(executor.model_copy(update={"exchange": None})))

    assert str(caught.value) == (
        "the executor 'ecs' needs the extra 'aws'; install it: pip install 'rainbow-prefect[aws]'"
    )


# -- a whole pipeline


@pytest.mark.slow
def test_a_pipeline_runs_its_slices_as_tasks(
    project: Project, rainbow: Rainbow, prefect_server: str, stub: Stub, cloud: Cloud, base_image: str
) -> None:
    folder = project(
        {
            "key.txt": "hunter2-hunter2",
            "rainbow.yml": f"""
                name: cloudy
                secrets: [{{secret: key, local_path_file: key.txt}}]
                executors:
                  - executor: cloud
                    type: ecs
                    subnets: [{cloud.subnet}]
                    endpoint_url: {stub.url}
                    poll_seconds: 0.3
                    stop_grace_seconds: 2
                    exchange: {{bucket: "s3://{BUCKET}/runs", endpoint_url: "{cloud.url}"}}
                pipelines:
                  - pipeline: numbers
                    executor: cloud
                    timeout_minutes: 5
                    tasks:
                      - task: double
                        type: python
                        image: {base_image}
                        input: [1, 2, 3, 4, 5]
                        split_input: true
                        executors: 3
                        secrets: [{{secret: key, env: KEY}}]
                        cmd: >-
                          echo "the key is $KEY";
                          python -c "import json; print(json.dumps([2 * x for x in json.load(open('rainbow_input.json'))]))"
                          > out.json
                        output_path: out.json
                      - task: stumble
                        type: python
                        image: {base_image}
                        input: task:double
                        cmd: "cat rainbow_input.json; exit 4"
                """,
        }
    )

    done = rainbow("run", folder, "--json", code=1)

    double, stumble = done.json["tasks"]
    assert double["output"] == [[2, 4], [6, 8], [10]]
    assert double["log_tail"] == ["the key is ********"] * 3
    assert stumble["message"] == "exit status 4: [[2, 4], [6, 8], [10]]"
    assert "hunter2" not in seen(stub) + done.out + done.err
    assert {one["startedBy"] for one in stub.requests("RunTask")} == {f"rainbow-{done.json['flow_run_id']}"}
    assert objects(cloud) == []
    assert {one.status for one in stub.tasks.values()} == {"STOPPED"}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_stops_its_tasks(
    project: Project, prefect_server: str, stub: Stub, cloud: Cloud, base_image: str, number: int
) -> None:
    folder = project(
        {
            "rainbow.yml": f"""
                name: cloudy
                executors:
                  - executor: cloud
                    type: ecs
                    subnets: [{cloud.subnet}]
                    endpoint_url: {stub.url}
                    stop_grace_seconds: 2
                    exchange: {{bucket: "s3://{BUCKET}/runs", endpoint_url: "{cloud.url}"}}
                pipelines:
                  - pipeline: sleepy
                    executor: cloud
                    tasks: [{{task: sleep, type: python, image: "{base_image}", executors: 2, cmd: sleep 600}}]
                """,
        }
    )
    run = subprocess.Popen([RAINBOW, "run", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert wait_until(lambda: sum(one.status == "RUNNING" for one in stub.tasks.values()) == 2, 150)
        run.send_signal(number)
        out, _ = run.communicate(timeout=120)
    finally:
        run.kill()
        run.wait()

    assert "cancelled" in out or number == signal.SIGKILL
    assert wait_until(lambda: {one.status for one in stub.tasks.values()} == {"STOPPED"}, 90)
    assert wait_until(lambda: objects(cloud) == [], 60)
