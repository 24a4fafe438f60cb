"""`rainbow gc`: what is an orphan, and what is not; on a real engine, a fake cluster, and moto as AWS."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from rainbow_prefect.executors._docker_engine import FLOW_RUN, KEEP, OWNER
from rainbow_prefect.executors._docker_watch import owner
from tests.commands.conftest import Call
from tests.conftest import Done, Project, free_port, once
from tests.executors.ecs_stub import KEYS, Fate, Stub, moto_server
from tests.executors.kubernetes_api import Api, Fault

GONE = f"{owner().split(':')[0]}:1:0"
ELSEWHERE = "another-host:1:0"
ANOTHER_NAMESPACE = f"{socket.gethostname()}/1:1:0"


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """One test at a time: each would remove the orphans of the others."""
    with once("gc"):
        yield


@pytest.fixture
def make(docker_engine: Any, base_image: str) -> Iterator[Callable[..., str]]:
    """A container with these labels, not started; its id."""
    made: list[str] = []

    def container(owner: str, run: str | None = None, *, starts: str = "", **labels: str) -> str:
        given = {FLOW_RUN: run or str(uuid4()), OWNER: owner, "rainbow.task": "t", **labels}
        one = docker_engine.containers.create(base_image, starts or "true", labels=given, network_mode="none")
        made.append(one.id)
        if starts:
            one.start()
            one.wait()
        return str(one.id)

    yield container
    for one in made:
        docker_engine.api.remove_container(one, force=True) if _is_there(docker_engine, one) else None


def _is_there(docker_engine: Any, container: str) -> bool:
    return any(one["Id"] == container for one in docker_engine.api.containers(all=True))


@pytest.fixture
def run_of(prefect_api: str) -> Callable[[str], str]:
    """A flow run in a state: its id."""
    from prefect import Flow
    from prefect.client.orchestration import get_client
    from prefect.states import Completed, Running

    def made(state: str) -> str:
        with get_client(sync_client=True) as client:
            states = {"completed": Completed(), "running": Running()}
            return str(client.create_flow_run(Flow(lambda: None, name="gc"), state=states[state]).id)

    return made


def removed(call: Call, *words: str | Path) -> dict[str, str]:
    """What `rainbow gc` removed, with the reasons; other tests may have containers too."""
    return {one["id"]: one["reason"] for one in call("gc", "--json", *words).json["removed"]}


def row(done: Done, word: str) -> list[str]:
    """The cells of the line with this word, with any age."""
    (line,) = [line for line in done.out.splitlines() if word in line]
    return [re.sub(r"[\d.]+ (s|min|h \d+ min|min \d+ s) old", "old", one) for one in re.split(r"  +", line)]


def test_what_is_an_orphan(call: Call, make: Any, run_of: Any, docker_engine: Any) -> None:
    gone = make(GONE)
    over = make(ELSEWHERE, run_of("completed"))
    live = make(ELSEWHERE, run_of("running"))
    mine = make(owner())
    beside = make(ANOTHER_NAMESPACE)
    unknown = make(ELSEWHERE)

    found = removed(call)

    assert found[gone] == "the process that started it is gone"
    assert found[over] == "its run is over (completed)"
    assert not {live, mine, beside, unknown} & set(found)
    assert [_is_there(docker_engine, one) for one in (gone, over)] == [False, False]
    assert all(_is_there(docker_engine, one) for one in (live, mine, beside, unknown))


def test_dry_run_removes_nothing(call: Call, make: Any, docker_engine: Any) -> None:
    gone = make(GONE)

    done = call("gc", "--dry-run")

    assert row(done, gone[:12]) == [
        "would remove",
        "docker",
        f"container {gone[:12]}",
        "t",
        "old",
        "the process that started it is gone",
    ]
    assert _is_there(docker_engine, gone)


def test_older_than_leaves_what_is_young(call: Call, make: Any) -> None:
    gone, unknown = make(GONE), make(ELSEWHERE)

    assert not {gone, unknown} & set(removed(call, "--older-than", "1h"))
    assert removed(call, "--older-than", "0s")[unknown] == "its run is not known to the Prefect server"


def test_what_was_kept_goes_on_demand_only(call: Call, make: Any) -> None:
    kept = make(GONE, starts="true", **{KEEP: "true"})

    assert kept not in removed(call)
    assert removed(call, "--kept")[kept] == "it was kept by keep_failed"


def test_an_age_that_is_none_is_told(call: Call) -> None:
    done = call("gc", "--older-than", "old", code=2)

    assert "'old' is not an age; write e.g. 30m, 12h or 2d" in done.err


def test_an_engine_that_does_not_answer_is_told(call: Call) -> None:
    done = call("gc", "--host", "unix:///nowhere/docker.sock", code=1)

    assert done.err == (
        "Error: the Docker engine at unix:///nowhere/docker.sock does not answer (no such file or directory); start it, "
        "or name another one in DOCKER_HOST or the executor's `host`\n"
    )


# -- clusters


@pytest.fixture
def cluster(docker_engine: Any, tmp_path: Path) -> Iterator[Api]:
    """A cluster whose pods wait for ever."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    made = Api(folder)
    made.play()
    made.kubeconfig(tmp_path / "kubeconfig")
    yield made
    made.close()


@pytest.fixture
def job(cluster: Api) -> Callable[..., str]:
    """A Job as a flow leaves it: NAMESPACE/NAME."""

    def made(run: str | None = None, *, days: float = 0, failed: bool = False) -> str:
        labels = {
            "app.kubernetes.io/managed-by": "rainbow-prefect",
            "rainbow.flow-run": run or str(uuid4()),
            "rainbow.task": "t",
        }
        name = f"job-{uuid4().hex[:8]}"
        pod = {"restartPolicy": "Never", "containers": [{"name": "task", "image": "i", "volumeMounts": []}]}
        thing = cluster.create(
            "jobs",
            "team",
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {"name": name, "labels": labels},
                "spec": {"template": {"metadata": {"labels": labels}, "spec": pod}},
            },
        )
        created = (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata = {**thing["metadata"], "creationTimestamp": created}
        cluster.put("jobs", {**thing, "metadata": metadata, "status": {"failed": 1} if failed else {}}, "MODIFIED")
        return f"team/{name}"

    return made


CLUSTER = """
    name: shop
    executors:
      - {executor: far, type: kubernetes, kubeconfig: ../kubeconfig}
"""


def jobs(cluster: Api) -> set[str]:
    return {f"{one['metadata']['namespace']}/{one['metadata']['name']}" for one in cluster.of("jobs")}


def test_what_is_an_orphan_in_a_cluster(call: Call, project: Project, cluster: Api, job: Any, run_of: Any) -> None:
    folder = project({"rainbow.yml": CLUSTER})
    run = run_of("completed")
    over, live, young, old = job(run), job(run_of("running"), days=3), job(), job(days=2)

    found = [one for one in call("gc", folder, "--json").json["removed"] if one["kind"] == "job"]

    (first,) = [one for one in found if one["id"] == over]
    assert first | {"age_seconds": 0} == {
        "executor": "far",
        "kind": "job",
        "id": over,
        "task": "t",
        "flow_run_id": run,
        "age_seconds": 0,
        "reason": "its run is over (completed)",
    }
    assert {one["id"]: one["reason"] for one in found} == {
        over: "its run is over (completed)",
        old: "its run is not known to the Prefect server",
    }
    assert jobs(cluster) == {live, young}
    assert removed(call, folder, "--older-than", "0s")[young] == "its run is not known to the Prefect server"
    assert jobs(cluster) == {live}


def test_dry_run_removes_no_job(call: Call, project: Project, cluster: Api, job: Any) -> None:
    old = job(days=2)
    folder = project({"rainbow.yml": CLUSTER})

    done = call("gc", "--dry-run", cwd=folder)

    name = old.removeprefix("team/")
    assert row(done, name) == [
        "would remove",
        "far",
        f"Job {name}",
        "t",
        "old",
        "its run is not known to the Prefect server",
    ]
    assert jobs(cluster) == {old}


def test_a_job_that_was_kept_goes_on_demand_only(call: Call, project: Project, cluster: Api, job: Any) -> None:
    text = CLUSTER + "      - {executor: keeps, type: kubernetes, kubeconfig: ../kubeconfig, keep_failed: true}\n"
    folder = project({"rainbow.yml": text})
    kept, old = job(days=2, failed=True), job(days=2)

    assert {one for one in removed(call, folder) if one.startswith("team/")} == {old}
    assert removed(call, folder, "--kept")[kept] == "it was kept by keep_failed"
    assert jobs(cluster) == set()


def test_a_cluster_is_looked_at_once(call: Call, project: Project, cluster: Api, job: Any) -> None:
    text = CLUSTER + "      - {executor: again, type: kubernetes, kubeconfig: ../kubeconfig, namespace: team}\n"
    folder = project({"rainbow.yml": text, "other/rainbow.yml": CLUSTER.replace("../", "../../").replace("shop", "b")})
    old = job(days=2)

    found = call("gc", folder, "--dry-run", "--json").json["removed"]

    assert [one["executor"] for one in found if one["id"] == old] == ["far"]


def test_a_cluster_that_says_no_is_told_and_the_rest_is_done(
    call: Call, project: Project, cluster: Api, make: Any, docker_engine: Any
) -> None:
    folder = project({"rainbow.yml": CLUSTER})
    gone = make(GONE)
    text = 'cannot list resource "jobs" in API group "batch"'
    cluster.refuse("GET", "/jobs", Fault(403, "Forbidden", text))

    done = call("gc", folder, code=1)

    assert done.err == (
        "Error: executor 'far': the Jobs cannot be listed: this account may not list jobs in namespace 'team' (403): "
        f"{text}; give it the role of docs/kubernetes.md\n"
    )
    assert not _is_there(docker_engine, gone)


def test_a_job_that_cannot_be_deleted_is_told(call: Call, project: Project, cluster: Api, job: Any) -> None:
    folder = project({"rainbow.yml": CLUSTER})
    old = job(days=2)
    text = 'cannot delete resource "jobs" in API group "batch"'
    cluster.refuse("DELETE", "/jobs", Fault(403, "Forbidden", text))

    done = call("gc", folder, "--json", code=1)

    assert old not in [one["id"] for one in done.json["removed"]]
    assert done.json["problems"] == [
        f"the Job {old.removeprefix('team/')} cannot be deleted: this account may not delete jobs in namespace 'team' "
        f"(403): {text}; give it the role of docs/kubernetes.md"
    ]


def test_a_cluster_that_does_not_answer_is_told(call: Call, project: Project, tmp_path: Path, cluster: Api) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    config = json.loads((tmp_path / "kubeconfig").read_text())
    config["clusters"][0]["cluster"]["server"] = nowhere
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    folder = project({"rainbow.yml": CLUSTER})

    (line,) = call("gc", folder, code=1).err.splitlines()

    assert line.startswith(
        f"Error: executor 'far': the Jobs cannot be listed: the Kubernetes API at {nowhere} cannot be reached: "
    )


def test_who_has_clusters_only_needs_no_engine(
    call: Call, project: Project, cluster: Api, job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project({"rainbow.yml": CLUSTER})
    old = job(days=2)

    with monkeypatch.context() as here:
        here.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
        assert removed(call, folder) == {old: "its run is not known to the Prefect server"}
        assert call("gc", folder).out == "there is nothing to remove\n"


@pytest.mark.parametrize(
    "text",
    [
        "name: shop\nexecutors: [{executor: far, type: block, block: kubernetes-executor/%s}]\n",
        "name: shop\nexecutor: block:kubernetes-executor/%s\n"
        "pipelines: [{pipeline: sales, tasks: [{task: a, type: python, cmd: 'true'}]}]\n",
    ],
    ids=["entry", "reference"],
)
def test_an_executor_may_be_a_block(call: Call, project: Project, tmp_path: Path, job: Any, text: str) -> None:
    from rainbow_prefect.blocks import KubernetesExecutor

    name = f"far-{uuid4().hex[:8]}"
    KubernetesExecutor.register_type_and_schema(_sync=True)  # type: ignore[call-arg]
    KubernetesExecutor(kubeconfig=str(tmp_path / "kubeconfig")).save(name, _sync=True)  # type: ignore[call-arg]
    old = job(days=2)

    assert removed(call, project({"rainbow.yml": text % name}))[old] == "its run is not known to the Prefect server"


def test_a_block_that_is_not_there_is_told(call: Call, project: Project, make: Any) -> None:
    folder = project(
        {"rainbow.yml": "name: a\nexecutors: [{executor: far, type: block, block: docker-executor/none}]\n"}
    )
    gone = make(GONE)

    done = call("gc", folder, "--json", code=1)

    assert gone in [one["id"] for one in done.json["removed"]]
    (problem,) = done.json["problems"]
    assert problem.startswith(
        "executor 'far': the executor 'block:docker-executor/none': there is no block 'none' of type 'docker-executor'"
    )


def test_secrets_are_put_into_the_fields(
    call: Call, project: Project, job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = CLUSTER.replace("../kubeconfig", "'{{secret.place}}'") + "    secrets: [{secret: place, env: GC_PLACE}]\n"
    folder = project({"rainbow.yml": text})
    old = job(days=2)

    assert call("gc", folder, "--json", code=1).json["problems"] == [
        "executor 'far': secret 'place': the environment variable GC_PLACE is not set; set it before the run"
    ]
    monkeypatch.setenv("GC_PLACE", "../nowhere-to-tell")
    (line,) = call("gc", folder, code=1).err.splitlines()
    assert line.startswith("Error: executor 'far': no Kubernetes cluster can be used: the kubeconfig ")
    assert "nowhere-to-tell" not in line
    monkeypatch.setenv("GC_PLACE", "../kubeconfig")
    assert removed(call, folder)[old] == "its run is not known to the Prefect server"


# -- engines


def test_the_engines_of_executors_are_looked_at(call: Call, project: Project, make: Any) -> None:
    address = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    text = f"name: a\nexecutors: [{{executor: other, type: docker, host: '{address}'}}]\n"
    gone = make(GONE)

    done = call("gc", project({"rainbow.yml": text}), "--host", "unix:///nowhere/docker.sock", "--json", code=1)

    assert [one["executor"] for one in done.json["removed"] if one["id"] == gone] == ["other"]
    assert done.json["problems"] == [
        "the Docker engine at unix:///nowhere/docker.sock does not answer (no such file or directory); start it, "
        "or name another one in DOCKER_HOST or the executor's `host`"
    ]


def test_an_engine_of_an_executor_that_does_not_answer_is_told(call: Call, project: Project, make: Any) -> None:
    text = "name: a\nexecutors: [{executor: other, type: docker, host: 'unix:///nowhere/docker.sock'}]\n"
    gone = make(GONE)

    done = call("gc", project({"rainbow.yml": text}), code=1)

    assert gone[:12] in done.out
    assert done.err == (
        "Error: executor 'other': the Docker engine at unix:///nowhere/docker.sock does not answer (no such file or "
        "directory); start it, or name another one in DOCKER_HOST or the executor's `host`\n"
    )


def test_a_file_that_is_wrong_is_told(call: Call, project: Project, make: Any) -> None:
    folder = project({"rainbow.yml": CLUSTER.replace("kubeconfig", "kubeconfi")})
    gone = make(GONE)

    done = call("gc", cwd=folder, code=1)

    assert gone[:12] in done.out
    assert done.err == (
        "Error: rainbow.yml has errors, which `rainbow check` tells: what its executors left was not looked for\n"
    )


def test_a_path_that_is_not_there_is_told(call: Call) -> None:
    assert call("gc", "nowhere", code=2).err == "Error: 'nowhere' does not exist\n"


# -- AWS


@pytest.fixture(scope="module")
def _stub(docker_engine: Any) -> Iterator[Stub]:
    import boto3

    with moto_server() as url:
        session = boto3.Session("testing", "testing-secret", region_name="eu-west-1")
        session.client("ecs", endpoint_url=url).create_cluster(clusterName="default")
        made = Stub(url, docker_engine)
        yield made
        made.close()


@pytest.fixture
def aws(_stub: Stub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of an ECS without any task and definition."""
    import boto3

    for name in [one for one in os.environ if one.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("ecs", endpoint_url=_stub.url)
    yield client
    _stub.forget()
    for arn in client.list_task_definitions(status="ACTIVE")["taskDefinitionArns"]:
        client.deregister_task_definition(taskDefinition=arn)


@pytest.fixture
def cloud(project: Project, _stub: Stub, aws: Any) -> Path:
    """A folder whose file has an executor `cloud`."""
    entry = f"{{executor: cloud, type: ecs, launch_type: EC2, endpoint_url: '{_stub.url}'}}"
    return project({"rainbow.yml": f"name: shop\nexecutors: [{entry}]\n"})


def registered(aws: Any, family: str = "", *, is_ours: bool = True) -> str:
    containers = [{"name": "task", "image": "i", "memory": 64}]
    tags = [{"key": "rainbow.made", "value": "yes"}] if is_ours else []
    made = aws.register_task_definition(
        family=family or f"rainbow-{uuid4().hex[:20]}", containerDefinitions=containers, tags=tags
    )
    return str(made["taskDefinition"]["taskDefinitionArn"])


def started(aws: Any, stub: Stub, run: str) -> str:
    """A task as a flow leaves it."""
    stub.fates.append(Fate(after=600))
    tags = [{"key": "rainbow.flow-run", "value": run}, {"key": "rainbow.task", "value": "t"}]
    answer = aws.run_task(
        taskDefinition=registered(aws), launchType="FARGATE", tags=tags, overrides={"containerOverrides": []}
    )
    return str(answer["tasks"][0]["taskArn"])


def test_what_is_an_orphan_at_aws(call: Call, cloud: Path, aws: Any, _stub: Stub, run_of: Any) -> None:
    run = run_of("completed")
    over, live, young = (started(aws, _stub, one) for one in (run, run_of("running"), str(uuid4())))

    def left() -> set[str]:
        return set(aws.list_tasks()["taskArns"])

    assert row(call("gc", cloud, "--dry-run"), "ECS task") == [
        "would remove",
        "cloud",
        f"ECS task {over.rpartition('/')[2]}",
        "t",
        "old",
        "its run is over (completed)",
    ]
    assert left() == {over, live, young}

    (found,) = [one for one in call("gc", cloud, "--json").json["removed"] if one["kind"] != "container"]

    assert found | {"age_seconds": 0} == {
        "executor": "cloud",
        "kind": "ecs_task",
        "id": over,
        "task": "t",
        "flow_run_id": run,
        "age_seconds": 0,
        "reason": "its run is over (completed)",
    }
    assert left() == {live, young}
    assert removed(call, cloud, "--older-than", "0s")[young] == "its run is not known to the Prefect server"
    assert left() == {live}


def test_definitions_are_deregistered_on_demand(call: Call, cloud: Path, aws: Any) -> None:
    mine, other = registered(aws), registered(aws, "rainbow-of-somebody", is_ours=False)

    def left() -> set[str]:
        return set(aws.list_task_definitions(status="ACTIVE")["taskDefinitionArns"])

    assert mine not in removed(call, cloud)
    assert removed(call, cloud, "--deregister", "--dry-run")[mine] == "it is registered again when a slice needs it"
    assert left() == {mine, other}
    cells = row(call("gc", cloud, "--deregister"), "task definition")
    assert cells[:3] == ["removed", "cloud", f"task definition {mine.rpartition('/')[2]}"]
    assert left() == {other}


def test_what_aws_refuses_is_told(call: Call, cloud: Path, _stub: Stub) -> None:
    _stub.errors = {"ListTasks": [("AccessDeniedException", "User is not authorized to perform: ecs:ListTasks")]}

    assert call("gc", cloud, code=1).err == (
        "Error: executor 'cloud': the tasks of the cluster cannot be listed: AccessDeniedException: User is not "
        "authorized to perform: ecs:ListTasks; allow it to the credentials (docs/ecs.md has the policy)\n"
    )
