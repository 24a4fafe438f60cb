"""The objects that the executor `kubernetes` makes: each is checked strictly against the schema of Kubernetes."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from pydantic import ValidationError

import rainbow_prefect
from rainbow_prefect.errors import TaskFailed
from rainbow_prefect.executors import _kubernetes_manifest as manifest
from rainbow_prefect.executors.kubernetes import Kubernetes, Resources
from rainbow_prefect.run import Command, FileMount, Large, Run
from rainbow_prefect.secrets import Secret, Secrets
from tests.conftest import ROOT

from .contract import Bench
from .kubernetes_api import Api, Json

VERSION = kubernetes_validate.latest_version()
Made = Callable[..., tuple[Json, Json]]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    """The Job and the Secret of a command: `made(Command(...), settings={...}, **fields of the run)`."""
    api = Api(tmp_path)
    api.play(
        {
            "phase": "Failed",
            "containerStatuses": [
                {
                    "name": "task",
                    "image": "i",
                    "imageID": "",
                    "ready": False,
                    "restartCount": 0,
                    "state": {"terminated": {"exitCode": 1, "reason": "Error"}},
                }
            ],
        }
    )

    def make(command: Command, *, settings: dict[str, Any] | None = None, **run: Any) -> tuple[Json, Json]:
        kubeconfig = api.kubeconfig(tmp_path / "kubeconfig")
        bench = Bench(Kubernetes(**{"kubeconfig": str(kubeconfig), **(settings or {})}), tmp_path)
        api.seen.clear()
        bench.failure(command, bench.run(**run))
        return checked(api)

    yield make
    api.close()


def checked(api: Api) -> tuple[Json, Json]:
    job, secret = api.seen
    for one in (job, secret):
        kubernetes_validate.validate(one, VERSION, strict=True)
    return job, secret


def pod(job: Json) -> Json:
    spec: Json = job["spec"]["template"]["spec"]
    return spec


def container(job: Json) -> Json:
    [one] = pod(job)["containers"]
    return dict(one)


def data(secret: Json) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


# -- a pod as it should be


def test_a_job_is_tried_once_bounded_and_removed(made: Made) -> None:
    job, _ = made(Command(shell="true"))

    spec = job["spec"]
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert (spec["backoffLimit"], spec["completions"], spec["parallelism"]) == (0, 1, 1)
    assert (spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (86_400, 600)
    assert pod(job)["restartPolicy"] == "Never"


def test_the_deadline_of_the_task_bounds_the_job(made: Made) -> None:
    job, _ = made(Command(shell="true"), deadline=time.monotonic() + 100)

    assert 150 <= job["spec"]["activeDeadlineSeconds"] <= 170


def test_a_pod_has_no_more_rights_than_it_needs(made: Made) -> None:
    job, _ = made(Command(shell="true"))

    assert pod(job)["securityContext"] == {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "fsGroupChangePolicy": "OnRootMismatch",
    }
    assert container(job)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod(job)["automountServiceAccountToken"] is False
    assert pod(job)["enableServiceLinks"] is False


def test_without_a_user_that_of_the_image_runs_it(made: Made) -> None:
    job, _ = made(Command(shell="true"), settings={"user": None})

    assert pod(job)["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_labels_find_it_and_annotations_say_it_unchanged(made: Made) -> None:
    job, secret = made(
        Command(shell="true", labels={"team": "data", "what for?": "x", "a.b/c": "d", "/": "e"}),
        settings={"labels": {"cost": "centre 7"}, "annotations": {"note": "any: text"}},
        app="My App!",
        run_id="6f1f0f9e-0000-4000-8000-1234567890ab",
        task_run_id="7a",
        index=3,
    )

    labels = {
        "app.kubernetes.io/managed-by": "rainbow-prefect",
        "rainbow.flow-run": "6f1f0f9e-0000-4000-8000-1234567890ab",
        "rainbow.task-run": "7a",
        "rainbow.app": "My_App",
        "rainbow.pipeline": "pipeline",
        "rainbow.task": "task",
        "rainbow.slice": "3",
    }
    both = {"team": "data", "what_for": "x", "a.b/c": "d", "cost": "centre_7", **labels}
    assert job["metadata"]["labels"] == job["spec"]["template"]["metadata"]["labels"] == both
    assert secret["metadata"]["labels"] == labels
    annotations = job["spec"]["template"]["metadata"]["annotations"]
    assert (annotations["rainbow.app"], annotations["note"]) == ("My App!", "any: text")


@pytest.mark.parametrize(
    ("pipeline", "task", "start"),
    [
        ("sales", "load", "sales-load-0-"),
        ("Sales_2024", "_x_", "sales-2024-x-0-"),
        ("p" * 200, "t" * 200, "p" * 46 + "-"),
        ("___", "---", "0-"),
    ],
)
def test_names_of_jobs_are_names_of_hosts(pipeline: str, task: str, start: str) -> None:
    run = Bench(Kubernetes(), Path()).run(pipeline=pipeline, task=task)

    names = {manifest.name_of(run) for _ in range(20)}

    assert len(names) == 20
    for name in names:
        assert name.startswith(start)
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
        assert len(name) <= 57  # a pod has six characters more


def test_settings_of_the_cluster_are_in_the_pod(made: Made) -> None:
    toleration = {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}
    job, _ = made(
        Command(shell="true", image="team/app:1"),
        settings={
            "namespace": "jobs",
            "service_account": "loader",
            "image_pull_secrets": "regcred, other",
            "image_pull_policy": "Never",
            "node_selector": {"disk": "ssd", "zone": 7},
            "tolerations": [toleration],
            "ttl_seconds": 5,
            "stop_grace_seconds": 1.5,
            "name": "nightly",
        },
    )

    assert job["metadata"]["name"].startswith("nightly-")
    assert job["spec"]["ttlSecondsAfterFinished"] == 5
    assert pod(job)["serviceAccountName"] == "loader"
    assert pod(job)["automountServiceAccountToken"] is True
    assert pod(job)["imagePullSecrets"] == [{"name": "regcred"}, {"name": "other"}]
    assert pod(job)["nodeSelector"] == {"disk": "ssd", "zone": "7"}
    assert pod(job)["tolerations"] == [toleration]
    assert pod(job)["terminationGracePeriodSeconds"] == 2
    assert (container(job)["image"], container(job)["imagePullPolicy"]) == ("team/app:1", "Never")


def test_a_task_without_an_image_runs_in_that_of_the_executor(made: Made) -> None:
    job, _ = made(Command(shell="true"), settings={"image": "python:3.12-slim"})

    assert container(job)["image"] == "python:3.12-slim"
    assert "imagePullPolicy" not in container(job)


def test_what_the_task_asks_for_wins(made: Made) -> None:
    job, _ = made(
        Command(shell="true", resources={"request_memory": "1Gi", "limit_cpu": "2"}),
        settings={"resources": {"request_memory": "128Mi", "request_cpu": 0.5}},
    )

    assert container(job)["resources"] == {
        "requests": {"memory": "1Gi", "cpu": "0.5"},
        "limits": {"cpu": "2"},
    }


def test_a_task_that_asks_for_no_quantity_is_told(tmp_path: Path) -> None:
    api = Api(tmp_path)
    bench = Bench(Kubernetes(kubeconfig=str(api.kubeconfig(tmp_path / "kubeconfig"))), tmp_path)

    error = bench.failure(Command(shell="true", resources={"limit_memory": "1GB"}))

    api.close()
    assert error.message == ("limit_memory: '1GB' is not a quantity of Kubernetes; write e.g. 500m, 2, 512Mi or 4Gi")


# -- secrets


def secrets(value: str = "AKIAFAKE-1234") -> Secrets:
    return Secrets([Secret(secret="key", env="KEY")], environ={"KEY": value})


def test_secret_variables_come_from_the_secret_of_the_job(made: Made) -> None:
    known = secrets()
    known.get("key")

    job, secret = made(
        Command(shell="echo $A", env={"A": "plain $HOME $(X)", "TOKEN": "hush-hush", "URL": "s3://AKIAFAKE-1234@x"}),
        env={"B": "run"},
        secrets=known,
        settings={"env_vars": {"C": "executor", "B": "executor"}},
    )

    env = {one["name"]: one for one in container(job)["env"]}
    assert env["A"] == {"name": "A", "value": "plain $$HOME $$(X)"}
    assert (env["B"]["value"], env["C"]["value"]) == ("run", "executor")
    name = job["metadata"]["name"]
    for variable, value in (("TOKEN", "hush-hush"), ("URL", "s3://AKIAFAKE-1234@x")):
        reference = env[variable]["valueFrom"]["secretKeyRef"]
        assert reference["name"] == secret["metadata"]["name"] == name
        assert data(secret)[reference["key"]] == value
    assert "AKIAFAKE" not in json.dumps(job)
    assert "hush-hush" not in json.dumps(job)
    assert "AKIAFAKE" not in json.dumps([secret["metadata"], secret["type"]])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("labels", {"a": "AKIAFAKE-1234"}),
        ("annotations", {"a": "b AKIAFAKE-1234"}),
        (
            "pod_template",
            {"spec": {"containers": [{"name": "task", "env": [{"name": "A", "value": "AKIAFAKE-1234"}]}]}},
        ),
    ],
)
def test_a_secret_that_the_job_would_show_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    known = secrets()
    known.get("key")
    bench = Bench(Kubernetes(**{key: value}), tmp_path)

    assert bench.failure("true", bench.run(secrets=known)).message == (
        f"`{key}` of the executor holds a secret, which the Job would show; give it to the task by `secrets`"
    )


def test_a_template_without_a_secret_is_not_refused(made: Made) -> None:
    known = secrets()
    known.get("key")

    made(
        Command(shell="true"),
        settings={"pod_template": {"spec": {"containers": [{"name": "task", "env": [], "tty": False}]}}},
        secrets=known,
    )


def test_the_secret_goes_with_its_job(made: Made) -> None:
    job, secret = made(Command(shell="true"))

    [owner] = secret["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Job", job["metadata"]["name"], job["metadata"]["uid"])
    assert secret["immutable"] is True


def test_secret_files_are_of_mode_0400(made: Made) -> None:
    mounts = (
        FileMount("/secret/credentials", text="one", secret=True),
        FileMount("/secret/other", text="two", secret=True),
        FileMount("/credentials", text="three", secret=True),
    )
    job, secret = made(Command(shell="true", mounts=mounts))

    volumes = {one["name"]: one["secret"] for one in pod(job)["volumes"] if one["name"].startswith("secret-")}
    assert [one["defaultMode"] for one in volumes.values()] == [0o400, 0o400]
    assert all(one["secretName"] == job["metadata"]["name"] for one in volumes.values())
    files = {}
    for mount in container(job)["volumeMounts"]:
        if mount["name"] in volumes:
            assert mount["readOnly"] is True
            for item in volumes[mount["name"]]["items"]:
                below = "" if "subPath" in mount else f"/{item['path']}"
                files[f"{mount['mountPath']}{below}"] = data(secret)[item["key"]]
    assert files == {"/secret/credentials": "one", "/secret/other": "two", "/credentials": "three"}


def test_two_secrets_in_one_file_are_told(tmp_path: Path) -> None:
    mounts = (FileMount("/s/a", text="1"), FileMount("/s/a", text="2"))

    with pytest.raises(TaskFailed) as caught:
        manifest.job(Kubernetes(), manifest.Slice("a", "i", ["x"], mounts=mounts), run_of(tmp_path))

    assert caught.value.message == "two secrets are the file /s/a; give them different `remote_path` or `sub_path`"


def test_a_relative_path_is_told(tmp_path: Path) -> None:
    mounts = (FileMount("data", claim_name="c"),)

    with pytest.raises(TaskFailed) as caught:
        manifest.job(Kubernetes(), manifest.Slice("a", "i", ["x"], mounts=mounts), run_of(tmp_path))

    assert caught.value.message == "the path 'data' of a mount or secret must be absolute in a cluster; write /data"


def run_of(folder: Path) -> Run:
    return Bench(Kubernetes(), folder).run()


# -- volumes, input, output


def test_volumes_are_claims(made: Made) -> None:
    mounts = (
        FileMount("/mnt/data", source=Path("/here"), claim_name="data-pvc", read_only=False),
        FileMount("/mnt/shared", claim_name="team-pvc", sub_path="sub", read_only=True),
        FileMount("/mnt/again", claim_name="data-pvc", read_only=True),
    )
    job, _ = made(Command(shell="true", mounts=mounts))

    assert [one for one in pod(job)["volumes"] if "persistentVolumeClaim" in one] == [
        {"name": "volume-0", "persistentVolumeClaim": {"claimName": "data-pvc"}},
        {"name": "volume-1", "persistentVolumeClaim": {"claimName": "team-pvc"}},
    ]
    assert [one for one in container(job)["volumeMounts"] if one["name"].startswith("volume")] == [
        {"name": "volume-0", "mountPath": "/mnt/data"},
        {"name": "volume-1", "mountPath": "/mnt/shared", "subPath": "sub", "readOnly": True},
        {"name": "volume-0", "mountPath": "/mnt/again", "readOnly": True},
    ]


def test_a_small_input_is_a_file_of_the_secret(made: Made) -> None:
    job, secret = made(Command(shell="true"), input=[1, {"a": "ż"}])

    [mount] = [one for one in container(job)["volumeMounts"] if one["mountPath"] == "/rainbow_input.json"]
    assert (mount["subPath"], mount["readOnly"]) == ("input.json", True)
    assert json.loads(data(secret)["input"]) == [1, {"a": "ż"}]
    assert "initContainers" not in pod(job)


def test_a_large_input_has_an_empty_file_to_be_written_to(made: Made) -> None:
    job, secret = made(Command(shell="true"), input="x" * 70_000)

    [first] = pod(job)["initContainers"]
    assert first["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert first["command"] == ["sh", "-c", "umask 0; for file in /rainbow/files/0; do : > $file; done"]
    assert {"name": "files", "mountPath": "/rainbow_input.json", "subPath": "0"} in container(job)["volumeMounts"]
    assert "input" not in secret["data"]


@pytest.mark.parametrize(
    ("path", "has_file"),
    [
        ("/output.json", True),
        ("/data/out.json", True),
        ("/tmp/out.json", False),
        ("/mnt/a/out.json", False),
        ("o", False),
    ],
)
def test_an_absolute_output_path_can_be_written(made: Made, path: str, has_file: bool) -> None:
    mounts = (FileMount("/mnt/a", claim_name="a", read_only=False),)
    job, _ = made(Command(shell="true", output_path=path, mounts=mounts))

    assert (path in [one["mountPath"] for one in container(job)["volumeMounts"]]) is has_file


def test_an_exchange_volume_is_mounted(made: Made, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    volume = {"path": str(tmp_path / "shared"), "mount": "/exchange", "claim_name": "shared", "sub_path": "rainbow"}
    job, _ = made(Command(shell="true"), settings={"exchange": {"volume": volume}})

    assert {"name": "volume-0", "mountPath": "/exchange", "subPath": "rainbow"} in container(job)["volumeMounts"]


def test_a_large_input_without_an_exchange_is_told(tmp_path: Path) -> None:
    file = tmp_path / "large.json"
    file.write_text(json.dumps("x" * 2_000_000))
    api = Api(tmp_path)
    kubeconfig = api.kubeconfig(tmp_path / "kubeconfig")
    bench = Bench(Kubernetes(kubeconfig=str(kubeconfig)), tmp_path)

    error = bench.failure("true", input=Large(file, file.stat().st_size))

    api.close()
    assert error.message == (
        "executor 'kubernetes' cannot pass a command, variables and an input of 2000002 bytes without an exchange; "
        "name a bucket or a volume in `exchange` of the executor"
    )
    assert api.requests == []


# -- the template


def test_a_template_is_laid_over_by_the_names_of_containers(made: Made) -> None:
    template = {
        "metadata": {"labels": {"rainbow.task": "stolen", "mesh": "off"}, "annotations": {"a": "b"}},
        "spec": {
            "restartPolicy": "OnFailure",
            "nodeName": "node-7",
            "enableServiceLinks": None,
            "containers": [
                {
                    "name": "task",
                    "workingDir": "/code",
                    "env": [{"name": "A", "value": "template"}, {"name": "B", "value": "more"}],
                    "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
                    "resources": {"limits": {"nvidia.com/gpu": "1"}},
                },
                {"name": "proxy", "image": "proxy:1", "volumeMounts": []},
            ],
            "volumes": [{"name": "cache", "emptyDir": {"medium": "Memory"}}],
            "tolerations": [{"operator": "Exists"}],
        },
    }
    job, _ = made(
        Command(shell="true", env={"A": "task"}),
        settings={"pod_template": template, "tolerations": [{"key": "x"}], "resources": {"limit_cpu": 1}},
    )

    spec, labels = pod(job), job["spec"]["template"]["metadata"]["labels"]
    task, proxy = spec["containers"]
    assert (labels["rainbow.task"], labels["mesh"]) == ("task", "off")
    assert (spec["restartPolicy"], spec["nodeName"]) == ("Never", "node-7")
    assert "enableServiceLinks" not in spec
    assert spec["tolerations"] == [{"key": "x"}, {"operator": "Exists"}]
    assert (task["name"], task["workingDir"], proxy["image"]) == ("task", "/code", "proxy:1")
    env = {one["name"]: one.get("value") for one in task["env"]}
    assert (env["A"], env["B"]) == ("template", "more")
    assert task["resources"] == {"limits": {"cpu": "1", "nvidia.com/gpu": "1"}}
    assert [one["mountPath"] for one in task["volumeMounts"]] == ["/rainbow_input.json", "/cache"]
    assert {"name": "cache", "emptyDir": {"medium": "Memory"}} in spec["volumes"]
    assert task["command"][:2] == ["/bin/sh", "-c"]


@pytest.mark.parametrize(
    ("base", "extra", "result"),
    [
        ({"a": 1, "b": 2}, {"b": 3, "c": 4}, {"a": 1, "b": 3, "c": 4}),
        ({"a": {"b": 1}}, {"a": {"c": 2}}, {"a": {"b": 1, "c": 2}}),
        ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
        ({"args": [1, 2]}, {"args": [3]}, {"args": [3]}),
        (
            {"containers": [{"name": "a", "x": 1}, {"name": "b"}]},
            {"containers": [{"name": "a", "y": 2}, {"name": "c"}]},
            {"containers": [{"name": "a", "x": 1, "y": 2}, {"name": "b"}, {"name": "c"}]},
        ),
        ({"a": [1]}, {"a": {"b": 1}}, {"a": {"b": 1}}),
    ],
)
def test_merging(base: Json, extra: Json, result: Json) -> None:
    assert manifest.merged(base, extra) == result


# -- what people write


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"resources": {"limit_memory": "512MB"}}, "'512MB' is not a quantity of Kubernetes"),
        ({"pod_template": {"containers": []}}, "'containers' is no part of a pod template"),
        ({"volumes": []}, "'volumes' is no key of this executor"),
        ({"affinity": {}}, "'affinity' is no key of this executor"),
        ({"user": 0}, "Input should be greater than or equal to 1"),
        ({"nodes": 1}, "Extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_is_told(written: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Kubernetes.model_validate(written)

    assert caught.value.errors()[0]["msg"] == message


def test_keys_of_the_predecessor_are_understood() -> None:
    made = Kubernetes.model_validate(
        {
            "type": "kubernetes",
            "name": "app",
            "namespace": "team",
            "get_logs": True,
            "is_delete_operator_pod": False,
            "startup_timeout_seconds": 300,
            "image_pull_secrets": "regcred",
            "cluster_context": "kind",
            "config_file": "~/.kube/config",
            "service_account_name": "loader",
            "node_selectors": {"a": "b"},
            "in_cluster": False,
            "resources": {"request_memory": "128Mi", "limit_cpu": 1},
        }
    )

    assert (made.context, made.kubeconfig, made.service_account) == ("kind", "~/.kube/config", "loader")
    assert (made.keep_failed, made.node_selector, made.image_pull_secrets) == (True, {"a": "b"}, ("regcred",))
    assert made.resources == Resources(request_memory="128Mi", limit_cpu="1")


def test_image_pull_secrets_may_be_written_as_in_a_pod() -> None:
    assert Kubernetes(image_pull_secrets=[{"name": "a"}, "b"]).image_pull_secrets == ("a", "b")  # type: ignore[arg-type]


def test_a_pod_of_a_whole_file(tmp_path: Path) -> None:
    """Volumes, mounts and secrets of a file as people write it, down to what the cluster is given."""
    api = Api(tmp_path)
    kubeconfig = api.kubeconfig(tmp_path / "kubeconfig")
    (tmp_path / "creds").mkdir()
    (tmp_path / "creds/cloud.txt").write_text("key=AKIAFAKE0123456789\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "rainbow.yml").write_text(f"""
name: vol
volumes:
  - {{volume: data, local: {{path: ./data}}}}
  - {{volume: shared, claim_name: team-pvc}}
secrets:
  - {{secret: cloud, local_path_file: creds/cloud.txt}}
executors:
  - executor: k8s
    type: kubernetes
    kubeconfig: {kubeconfig.name}
    resources: {{request_memory: 128Mi}}
    startup_timeout_seconds: 60
pipelines:
  - pipeline: vol
    tasks:
      - task: k
        type: python
        image: i
        executor: k8s
        cmd: python k.py
        mounts:
          - {{mount: m1, volume: data, path: /mnt/data}}
          - {{mount: m2, volume: shared, path: /mnt/shared, sub_path: sub, read_only: true}}
        secrets:
          - {{secret: cloud, remote_path: /secret}}
""")
    [app] = rainbow_prefect.load(tmp_path / "rainbow.yml").apps
    executor = app.executor_named("k8s")
    assert isinstance(executor, Kubernetes)
    assert executor.startup_timeout_seconds == 60
    api.play({"phase": "Failed", "reason": "Evicted", "message": "the end"})
    bench = Bench(executor, tmp_path)
    run = bench.run(
        secrets=Secrets(app.secrets, app.root),
        volumes={one.volume: app.root / one.local.path if one.local else None for one in app.volumes},
        claims={one.volume: one.claim for one in app.volumes},
    )

    with pytest.raises(TaskFailed):
        app.pipeline("vol").task("k").run(run)

    api.close()
    job, secret = checked(api)
    for version in kubernetes_validate.utils.all_versions():
        kubernetes_validate.validate(job, version, strict=True)
        kubernetes_validate.validate(secret, version, strict=True)
    claims = {
        one["name"]: one["persistentVolumeClaim"]["claimName"]
        for one in pod(job)["volumes"]
        if "persistentVolumeClaim" in one
    }
    mounts = {one["mountPath"]: one for one in container(job)["volumeMounts"]}
    assert set(mounts) == {"/mnt/data", "/mnt/shared", "/secret", "/rainbow_input.json"}
    assert claims[mounts["/mnt/data"]["name"]] == "data-pvc"
    assert "readOnly" not in mounts["/mnt/data"]
    assert claims[mounts["/mnt/shared"]["name"]] == "team-pvc"
    assert (mounts["/mnt/shared"]["subPath"], mounts["/mnt/shared"]["readOnly"]) == ("sub", True)
    [volume] = [one["secret"] for one in pod(job)["volumes"] if one["name"] == mounts["/secret"]["name"]]
    [item] = volume["items"]
    assert (item["path"], volume["defaultMode"]) == ("credentials", 0o400)
    assert data(secret)[item["key"]] == "key=AKIAFAKE0123456789\n"
    assert container(job)["resources"] == {"requests": {"memory": "128Mi"}}
    assert container(job)["image"] == "i"
    assert "AKIAFAKE" not in json.dumps(job)


def test_the_role_of_the_docs_is_among_the_deployments() -> None:
    written = (ROOT / "deployments/kubernetes/role.yaml").read_text().partition("\n")[2]

    assert f"```yaml\n{written}```" in (ROOT / "docs/kubernetes.md").read_text()
