"""What a cluster may say instead of running a slice: states of pods and answers of the API as real ones write them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rainbow_prefect.errors import Cancelled, TaskFailed, TimedOut
from rainbow_prefect.executors import _kubernetes_follow as follow
from rainbow_prefect.executors._kubernetes_api import connect
from rainbow_prefect.executors.kubernetes import Kubernetes, Resources, orphans, remove
from rainbow_prefect.run import Command

from .contract import Bench, wait_until
from .kubernetes_api import Api, Fault, Json

Make = Callable[..., Bench]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    made = Api(tmp_path)
    yield made
    made.close()


@pytest.fixture
def make(api: Api, tmp_path: Path) -> Make:
    def make(**fields: Any) -> Bench:
        kubeconfig = api.kubeconfig(tmp_path / "kubeconfig")
        return Bench(Kubernetes(**{"kubeconfig": str(kubeconfig), **fields}), tmp_path)

    return make


def task(state: Json, **more: Any) -> Json:
    return {"name": "task", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state, **more}


def waiting(reason: str, message: str = "") -> Json:
    return {"phase": "Pending", "containerStatuses": [task({"waiting": {"reason": reason, "message": message}})]}


def ended(exit_code: int, reason: str, message: str = "", **pod: Any) -> Json:
    state = {"terminated": {"exitCode": exit_code, "reason": reason, **({"message": message} if message else {})}}
    return {"phase": "Failed", "containerStatuses": [task(state)], **pod}


RUNNING: Json = {"phase": "Running", "containerStatuses": [task({"running": {"startedAt": "2026-01-01T00:00:00Z"}})]}
AGAIN = "give the task `retries`"
NO_NODE = "0/3 nodes are available: 1 node(s) had untolerated taint {gpu: true}, 2 Insufficient memory."


# -- states of pods


@pytest.mark.parametrize(
    ("statuses", "message", "status"),
    [
        (
            [waiting("ErrImagePull", "rpc error: connection reset"), waiting("ImagePullBackOff", "Back-off: not found")],
            "the image 'team/app:1' cannot be pulled: Back-off: not found; push it (`rainbow build --push`), correct "
            "`image`, or name the Secret of the registry in `image_pull_secrets`",
            None,
        ),
        (
            [waiting("ErrImagePull", 'failed to pull and unpack image "team/app:1": pull access denied')],
            "the image 'team/app:1' cannot be pulled: failed to pull and unpack image \"team/app:1\": pull access denied; "
            "push it (`rainbow build --push`), correct `image`, or name the Secret of the registry in `image_pull_secrets`",
            None,
        ),
        (
            [waiting("ErrImageNeverPull", "Container image is not present with pull policy of Never")],
            "the image 'team/app:1' is not on the node, and `image_pull_policy` is Never; load it there first",
            None,
        ),
        (
            [waiting("InvalidImageName", "couldn't parse image reference")],
            "'team/app:1' is not the name of an image; correct `image`",
            None,
        ),
        (
            [
                waiting(
                    "CreateContainerConfigError",
                    "container has runAsNonRoot and image has non-numeric user (app), cannot verify user is non-root",
                )
            ],
            "the container cannot be made: container has runAsNonRoot and image has non-numeric user (app), cannot verify "
            "user is non-root; set `user` of the executor to the number of a user of the image",
            None,
        ),
        (
            [ended(128, "StartError", 'exec: "/bin/sh": stat /bin/sh: no such file or directory: unknown')],
            'the container could not start: exec: "/bin/sh": stat /bin/sh: no such file or directory: unknown; the image '
            "needs a shell and Python: rainbow's own program, which hands over inputs and outputs, runs with them",
            128,
        ),
        (
            [RUNNING, ended(137, "OOMKilled")],
            "out of memory: it needed more than its limit of 256Mi; raise `limit_memory`, or make its slices smaller: two",
            137,
        ),
        (
            [
                RUNNING,
                {
                    **ended(137, "Error"),
                    "reason": "Evicted",
                    "message": "The node was low on resource: memory. Threshold quantity: 100Mi, available: 52Mi. "},
            ],
            "its node evicted the pod: The node was low on resource: memory. Threshold quantity: 100Mi, available: 52Mi; "
            f"ask for what it needs by `request_memory`, and {AGAIN}",
            137,
        ),
        (
            [{"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: ephemeral-storage. "}],
            "its node evicted the pod: The node was low on resource: ephemeral-storage; write less to its disk, "
            f"and {AGAIN}",
            None,
        ),
        (
            [RUNNING, {"phase": "Failed", "reason": "DeadlineExceeded", "message": "Pod was active on the node longer"}],
            "the pod ran longer than the Job may; raise `active_deadline_seconds`",
            None,
        ),
        (
            [RUNNING, {"phase": "Failed", "reason": "NodeLost", "message": "Node node-1 which was running pod is unresponsive"}],
            "its node 'node-1' was lost or shut down (NodeLost): Node node-1 which was running pod is unresponsive; "
            f"{AGAIN}",
            None,
        ),
        (
            [
                RUNNING,
                {
                    **ended(143, "Error"),
                    "conditions": [
                        {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "x"}
                    ],
                },
            ],
            f"the cluster ended the pod: a pod of a higher priority took its place; {AGAIN}",
            143,
        ),
        (
            [{"phase": "Failed", "reason": "OutOfmemory", "message": "Node didn't have enough resource: memory"}],
            "its node 'node-1' did not take the pod (OutOfmemory): Node didn't have enough resource: memory; "
            f"{AGAIN}",
            None,
        ),
        ([RUNNING, ended(3, "Error")], "exit status 3: two", 3),
        (
            [RUNNING, ended(137, "Error")],
            "ended by signal 9 (SIGKILL) (perhaps it needed more memory than there was): two",
            137,
        ),
        ([RUNNING, ended(125, "Error")], "exit status 125: two", 125),
        (
            [RUNNING, {"gone": True}],
            f"its pod was deleted while it ran (`kubectl delete`, or its node was drained); {AGAIN}",
            None,
        ),
    ],
)  # fmt: skip
def test_failures_are_told_apart(api: Api, make: Make, statuses: list[Json], message: str, status: int | None) -> None:
    api.play(*statuses, printed=[b"one\n", b"two\n"])
    bench = make(resources=Resources(limit_memory="256Mi"))

    error = bench.failure(Command(shell="true", image="team/app:1"))

    assert (error.message, error.status) == (message, status)
    assert api.of("jobs") == [] or wait_until(lambda: api.of("jobs") == [])


def test_what_the_bootstrap_says_of_itself_is_told(api: Api, make: Make) -> None:
    api.play(
        RUNNING, ended(125, "Error"), printed=[b"rainbow: the image has no Python 3.6 or newer on its PATH; add it\n"]
    )

    error = make().failure("true")

    assert error.message == (
        "the container could not run the command: the image has no Python 3.6 or newer on its PATH; add it"
    )


def test_output_that_did_not_arrive_is_told(api: Api, make: Make) -> None:
    forbidden = 'pods "x" is forbidden: User "u" cannot get resource "pods/log" in API group "" in the namespace "team"'
    api.refuse("GET", "/log", Fault(403, "Forbidden", forbidden))
    api.play(RUNNING, ended(0, "Completed"))

    error = make().failure("true")

    assert error.message == (
        "the command ended well, but what it left did not arrive: its log cannot be read (403 Forbidden: "
        f"{forbidden}); give the account the role of docs/kubernetes.md, or name an `exchange` in the executor"
    )


def test_a_pod_that_never_starts_is_told_with_its_reason(api: Api, make: Make) -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": NO_NODE}
    api.play({"phase": "Pending", "conditions": [condition]})

    error = make(startup_timeout_seconds=4).failure("true")

    assert error.message == (
        "its pod did not start within 4 s (`startup_timeout_seconds` of the executor): no node takes the pod: "
        f"{NO_NODE.rstrip('.')}; ask for less by `request_cpu` and `request_memory`, or correct `node_selector` and "
        "`tolerations`"
    )


def test_a_pull_that_may_pass_is_waited_for(api: Api, make: Make) -> None:
    slow = 'Back-off pulling image "i": dial tcp: i/o timeout'
    api.play(
        waiting("ErrImagePull", "dial tcp: i/o timeout"), waiting("ImagePullBackOff", slow), RUNNING, ended(4, "Error")
    )

    assert make().failure("true").message == "exit status 4"


def test_a_timeout_while_it_waits_says_for_what(api: Api, make: Make) -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": NO_NODE}
    api.play({"phase": "Pending", "conditions": [condition]})

    error = make().failure("true", seconds=4)

    assert isinstance(error, TimedOut)
    assert f"while it waited to start: no node takes the pod: {NO_NODE.rstrip('.')}" in error.message
    assert error.message.endswith("; its pod was deleted")


def test_a_quota_that_lets_no_pod_through_is_told(api: Api, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    quota = (
        "exceeded quota: team, requested: requests.memory=1Gi, used: requests.memory=8Gi, limited: requests.memory=8Gi"
    )
    monkeypatch.setattr(follow, "EVENTS_SECONDS", 0.1)
    api.script = lambda api, job: api.tell_event(job, "FailedCreate", f'Error creating: pods "x" is forbidden: {quota}')

    error = make(startup_timeout_seconds=4).failure("true")

    assert error.message == (
        "its pod did not start within 4 s (`startup_timeout_seconds` of the executor): the quota of namespace 'team' is "
        f"used up: {quota}; wait until other pods have ended, ask for less by `request_cpu` and `request_memory`, or "
        "have the quota raised"
    )


def test_a_job_that_the_cluster_ended_is_told(api: Api, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "EVENTS_SECONDS", 0.1)

    def script(api: Api, job: Json) -> None:
        condition = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "too long"}
        api.put("jobs", {**job, "status": {"conditions": [condition]}}, "MODIFIED")

    api.script = script

    error = make(active_deadline_seconds=7).failure("true")

    assert error.message == (
        "the cluster ended the Job after 7 s; raise `active_deadline_seconds` of the executor, or `timeout_minutes`"
    )


def test_a_deleted_job_is_told(api: Api, make: Make) -> None:
    api.play(RUNNING)
    bench = make()
    threading.Thread(target=lambda: (wait_until(lambda: bool(api.of("pods"))), delete_jobs(api))).start()

    assert bench.failure("true").message == (f"its Job was deleted while it ran; run it again, or {AGAIN}")


def delete_jobs(api: Api) -> None:
    time.sleep(0.5)
    for job in api.of("jobs"):
        api.delete_job("team", job["metadata"]["name"], "Background")


# -- answers of the API


FORBIDDEN = (
    'jobs.batch is forbidden: User "system:serviceaccount:team:flows" cannot create resource "jobs" in API group "batch" '
    'in the namespace "team"'
)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            Fault(403, "Forbidden", FORBIDDEN),
            f"the Job cannot be created: this account may not create jobs in namespace 'team' (403): {FORBIDDEN}; "
            "give it the role of docs/kubernetes.md",
        ),
        (
            Fault(403, "Forbidden", 'jobs.batch "a" is forbidden: exceeded quota: few, requested: count/jobs.batch=1'),
            "the Job cannot be created: the quota of namespace 'team' is used up: exceeded quota: few, requested: "
            "count/jobs.batch=1; wait until other pods have ended, ask for less by `request_cpu` and `request_memory`, or "
            "have the quota raised",
        ),
        (
            Fault(401, "Unauthorized", "Unauthorized"),
            "the Job cannot be created: the cluster does not accept the credentials (401); log in again, or renew the "
            "token of the kubeconfig",
        ),
        (
            Fault(404, "NotFound", 'namespaces "team" not found'),
            'the Job cannot be created: there is no such thing (404): namespaces "team" not found; correct `namespace` of '
            "the executor, or make it",
        ),
        (
            Fault(422, "Invalid", "Job.batch is invalid: spec.template: Invalid value"),
            "the Job cannot be created: the cluster finds it wrong (422): Job.batch is invalid: spec.template: Invalid "
            "value; correct the fields of the executor or `pod_template`",
        ),
        (
            Fault(403, "Forbidden", 'admission webhook "policy" denied the request: no'),
            'the Job cannot be created: the cluster forbids it (403): admission webhook "policy" denied the request: no',
        ),
    ],
)
def test_refusals_say_what_to_do(api: Api, make: Make, fault: Fault, message: str) -> None:
    api.refuse("POST", "/jobs", fault)

    assert make().failure("true").message == message


def test_a_secret_that_is_refused_leaves_no_job(api: Api, make: Make) -> None:
    text = 'secrets is forbidden: User "u" cannot create resource "secrets" in API group "" in the namespace "team"'
    api.refuse("POST", "/secrets", Fault(403, "Forbidden", text))
    api.play(RUNNING)

    error = make().failure("true")

    assert error.message == (
        f"the Secret of the Job cannot be created: this account may not create secrets in namespace 'team' (403): {text}; "
        "give it the role of docs/kubernetes.md"
    )
    assert wait_until(lambda: api.of("jobs") == [] and api.of("pods") == [])


def test_an_api_that_is_away_is_told(api: Api, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rainbow_prefect.executors._kubernetes_api.TRIES_SECONDS", 1.0)
    bench = make()
    api.close()

    assert bench.failure("true").message == (
        f"the Job cannot be created: the Kubernetes API at {api.url} cannot be reached: Connection refused; "
        "see that it is up, and reachable from where the flow runs"
    )


def test_an_answer_that_was_lost_makes_no_second_job(api: Api, make: Make) -> None:
    create = api.create
    answers: list[str] = []

    def once(kind: str, namespace: str, thing: Json) -> Json:
        made = create(kind, namespace, thing)
        answers.append(kind)
        if len(answers) == 1:
            raise ConnectionResetError
        return made

    api.create = once  # type: ignore[method-assign]
    api.play(RUNNING, ended(3, "Error"))

    assert make().failure("true").message == "exit status 3"
    assert [one["kind"] for one in api.seen] == ["Job", "Secret"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_api_that_is_busy_is_asked_again(api: Api, make: Make, status: int) -> None:
    api.refuse("POST", "/jobs", Fault(status, "Busy", "later"), times=2)
    api.play(RUNNING, ended(3, "Error"))

    assert make().failure("true").message == "exit status 3"


def test_a_watch_that_is_too_old_begins_again(api: Api, make: Make) -> None:
    api.refuse("GET", "watch=True|watch=true", Fault(410, "Expired", "too old resource version: 1 (2)"), times=3)
    api.play(RUNNING, ended(3, "Error"))

    assert make().failure("true").message == "exit status 3"


def test_an_expired_event_of_a_watch_begins_again(api: Api, make: Make) -> None:
    api.expire = 2
    api.play(RUNNING, ended(3, "Error"))

    assert make().failure("true").message == "exit status 3"


def test_an_answer_like_none_before_ends_the_slice(api: Api, make: Make) -> None:
    api.script = lambda api, job: api.put(
        "pods", {**api.pod_of(job), "status": {"containerStatuses": ["odd"]}}, "MODIFIED"
    )

    with pytest.raises(AttributeError):
        make()("true")
    assert wait_until(lambda: api.of("jobs") == [])


def test_connections_that_drop_are_made_again(api: Api, make: Make) -> None:
    for path in ("/jobs", "/secrets", "/pods", "/log"):
        for method in ("GET", "POST", "DELETE"):
            api.refuse(method, path, "drop", times=2)
    api.play(RUNNING, ended(3, "Error"), printed=[b"one\n"])
    bench = make()

    assert bench.failure("true").message == "exit status 3: one"
    assert bench.lines == ["one"]
    assert wait_until(lambda: api.of("jobs") == [])


def test_a_running_job_outlives_an_api_that_is_away(api: Api, make: Make) -> None:
    bench = make()

    def script(api: Api, job: Json) -> None:
        pod = api.pod_of(job)
        pod = api.put("pods", {**pod, "status": RUNNING}, "MODIFIED")
        time.sleep(1)
        api.is_down = True
        time.sleep(2)
        api.printed[pod["metadata"]["name"]].add(b"after\n")
        api.printed[pod["metadata"]["name"]].end()
        api.put("pods", {**pod, "status": ended(3, "Error")}, "MODIFIED")
        api.is_down = False

    api.script = script

    assert bench.failure("true").message == "exit status 3: after"


def test_an_api_that_stays_away_ends_the_slice(api: Api, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "AWAY_SECONDS", 0.5)
    monkeypatch.setattr("rainbow_prefect.executors._kubernetes_api.TRIES_SECONDS", 0.5)

    def script(api: Api, job: Json) -> None:
        api.put("pods", {**api.pod_of(job), "status": RUNNING}, "MODIFIED")
        time.sleep(0.5)
        api.is_down = True

    api.script = script
    bench = make()

    error = bench.failure("true")

    assert error.message.startswith(f"the pod cannot be watched: the Kubernetes API at {api.url} cannot be reached: ")
    assert "could not be deleted" in bench.lines[-1]
    [job] = api.of("jobs")
    assert bench.lines[-1].endswith(f"kubectl -n team delete job {job['metadata']['name']}")


def test_a_cluster_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    error = Bench(Kubernetes(kubeconfig="nowhere", context="c"), tmp_path).failure("true")

    assert error.message == (
        f"no Kubernetes cluster can be used: the kubeconfig {tmp_path}/nowhere and its context 'c' cannot be loaded: "
        "Invalid kube-config file. No configuration found; set `kubeconfig` and `context` of the executor, or KUBECONFIG"
    )


def test_outside_of_a_cluster_without_a_kubeconfig_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    error = Bench(Kubernetes(), tmp_path).failure("true")

    assert error.message == (
        "no Kubernetes cluster can be used: there is no kubeconfig, and this is no pod of a cluster: Service host/port is "
        "not set; set `kubeconfig` and `context` of the executor, or KUBECONFIG"
    )


def test_in_a_pod_the_account_of_the_pod_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kubernetes.config import incluster_config

    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    for name, text in (("token", "a-token"), ("ca.crt", "a certificate"), ("namespace", "from-the-pod")):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setattr("rainbow_prefect.executors._kubernetes_api._NAMESPACE_FILE", tmp_path / "namespace")

    found = [
        connect(kubeconfig=None, context=None, in_cluster=asked, namespace=namespace)
        for asked, namespace in ((None, None), (True, None), (None, "written"))
    ]

    assert [one.host for one in found] == ["https://10.0.0.1:443"] * 3
    assert [one.namespace for one in found] == ["from-the-pod", "from-the-pod", "written"]


def test_the_namespace_is_that_of_the_context(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "from-the-environment", namespace="of-context")))

    found = [
        connect(kubeconfig=None, context=context, in_cluster=None, namespace=namespace)
        for context, namespace in ((None, None), ("fake", None), ("fake", "written"))
    ]

    assert [one.namespace for one in found] == ["of-context", "of-context", "written"]
    assert {one.host for one in found} == {api.url}


def test_a_missing_client_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "kubernetes", None)

    error = Bench(Kubernetes(kubeconfig="another"), tmp_path).failure("true")

    assert error.message == (
        "the executor 'kubernetes' needs the extra 'kubernetes'; install it: pip install 'rainbow-prefect[kubernetes]'"
    )


# -- lines


def test_no_line_is_lost_or_doubled_however_the_stream_breaks(api: Api, make: Make) -> None:
    lines = [b"%d\n" % number for number in range(3000)]
    api.cuts = [0, 1, 7, 500, 501, 1200, 2, 2999]
    bench = make()

    def script(api: Api, job: Json) -> None:
        pod = api.pod_of(job)
        log = api.printed[pod["metadata"]["name"]]
        pod = api.put("pods", {**pod, "status": RUNNING}, "MODIFIED")
        began = time.time()
        for index, line in enumerate(lines):
            log.add(line, began + index // 400 + (index % 400 // 40) / 1000)  # forty lines have the same time
            if index % 500 == 0:
                time.sleep(0.1)
        log.end()
        api.put("pods", {**pod, "status": ended(3, "Error")}, "MODIFIED")

    api.script = script

    bench.failure("true")

    assert bench.lines == [str(number) for number in range(3000)]
    assert api.cuts == []


def test_a_last_line_without_a_newline_is_told(api: Api, make: Make) -> None:
    bench = make()
    api.play(RUNNING, ended(3, "Error"), printed=[b"one\n", b"two"])

    assert bench.failure("true").message == "exit status 3: two"
    assert bench.lines == ["one", "two"]


def test_lines_beyond_the_limit_end_the_slice(api: Api, make: Make) -> None:
    api.play(RUNNING, printed=[b"x\n"] * 200)

    assert make(max_lines=100).failure("true").message == (
        "it printed more than 100 lines and was ended; print less, or raise `max_lines` of the executor"
    )


def test_lines_of_a_log_that_is_not_wanted_are_not_read(api: Api, make: Make) -> None:
    api.play(RUNNING, ended(3, "Error"), printed=[b"one\n"])
    bench = make(get_logs=False)

    assert bench.failure("true").message == "exit status 3"
    assert bench.lines == []
    assert not any("/log" in path for _, path in api.requests)


# -- its end


def test_a_stop_deletes_the_job(api: Api, make: Make) -> None:
    api.play(RUNNING)
    bench = make()
    run = bench.run()
    threading.Timer(1, run.stop.set).start()

    error = bench.failure("true", run)

    assert isinstance(error, Cancelled)
    assert error.message == "cancelled; its pod was deleted"
    assert api.of("pods") == []
    assert wait_until(lambda: api.of("jobs") == [] and api.of("secrets") == [])


def test_a_timeout_deletes_the_job(api: Api, make: Make) -> None:
    api.play(RUNNING)

    error = make().failure("true", seconds=4)

    assert isinstance(error, TimedOut)
    assert error.message.endswith(" s; its pod was deleted")
    assert api.of("pods") == []


def test_what_fails_in_our_own_code_leaves_no_job(api: Api, make: Make) -> None:
    api.play(RUNNING, printed=[b"one\n"])

    def broken(line: str) -> None:
        raise RuntimeError("the log is full")

    with pytest.raises(RuntimeError, match="the log is full"):
        make()("true", write=broken)
    assert wait_until(lambda: api.of("jobs") == [] and api.of("pods") == [])


def test_a_failed_job_is_kept_on_demand(api: Api, make: Make) -> None:
    api.play(RUNNING, ended(3, "Error"))
    bench = make(keep_failed=True)

    bench.failure("true")

    [job] = api.of("jobs")
    assert bench.lines[-1] == (
        f"kept the Job {job['metadata']['name']}; look at it: kubectl -n team describe job,pod "
        f"-l job-name={job['metadata']['name']}"
    )


def test_clean_deletes_what_belongs_to_the_run(api: Api, make: Make) -> None:
    api.play(RUNNING)
    bench = make()
    leave(api, bench, "run-1", "a")
    leave(api, bench, "run-2", "b")

    bench.executor.clean("run-1")

    assert wait_until(lambda: [one["metadata"]["labels"]["rainbow.flow-run"] for one in api.of("jobs")] == ["run-2"])
    assert wait_until(lambda: len(api.of("pods")) == len(api.of("secrets")) == 1)


def test_clean_without_a_cluster_is_no_failure(tmp_path: Path) -> None:
    Kubernetes(kubeconfig=str(tmp_path / "nowhere")).clean("a-run-that-started-nothing-here")


def test_clean_tells_that_it_could_not(api: Api, make: Make) -> None:
    api.play(RUNNING, ended(3, "Error"))
    bench = make()
    bench.failure("true", run_id="run-9")
    api.refuse("GET", "/jobs", Fault(403, "Forbidden", 'cannot list resource "jobs" in API group "batch"'))

    with pytest.raises(TaskFailed) as caught:
        bench.executor.clean("run-9")

    assert caught.value.message == (
        "the Jobs of the run cannot be deleted: this account may not list jobs in namespace 'team' (403): cannot list "
        'resource "jobs" in API group "batch"; give it the role of docs/kubernetes.md'
    )


def leave(api: Api, bench: Bench, run_id: str, name: str, task: str = "task") -> None:
    """A Job as a flow leaves it that is killed."""
    from rainbow_prefect.executors import _kubernetes_manifest as manifest

    run = bench.run(run_id=run_id, task=task)
    one = manifest.Slice(f"job-{name}", "i", ["true"], hidden={"A": "secret"})
    job = api.create("jobs", "team", manifest.job(bench.executor, one, run))  # type: ignore[arg-type]
    api.create("secrets", "team", manifest.secret(one, run, owner=job))
    assert wait_until(lambda: len(api.of("pods")) == len(api.of("jobs")))


def test_what_a_killed_run_left_of_a_task_goes_when_it_is_run_again(api: Api, make: Make) -> None:
    api.play(RUNNING)
    bench = make()
    leave(api, bench, "run-1", "a")
    leave(api, bench, "run-2", "b")
    leave(api, bench, "run-1", "c", task="task_")  # its label is the same

    bench.executor.prepare(Command(shell="true"), bench.run())

    assert wait_until(lambda: sorted(one["metadata"]["name"] for one in api.of("jobs")) == ["job-b", "job-c"])


def test_orphans_are_found_and_removed(api: Api, make: Make, tmp_path: Path) -> None:
    api.play(RUNNING)
    bench = make()
    leave(api, bench, "run-1", "a")
    assert isinstance(bench.executor, Kubernetes)

    [found] = orphans(bench.executor, tmp_path)
    remove(bench.executor, tmp_path, found)
    remove(bench.executor, tmp_path, found)

    assert (found.name, found.namespace, found.run_id, found.task) == ("job-a", "team", "run-1", "task")
    assert wait_until(lambda: api.of("jobs") == [] and api.of("pods") == [] and api.of("secrets") == [])
    assert orphans(bench.executor, tmp_path) == []


def test_a_job_that_cannot_be_deleted_is_told(api: Api, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'jobs.batch "x" is forbidden: User "u" cannot delete resource "jobs" in API group "batch"'
    api.refuse("DELETE", "/jobs", Fault(403, "Forbidden", text))
    api.play(RUNNING, ended(3, "Error"))
    bench = make()

    assert bench.failure("true").message == "exit status 3"
    [job] = api.of("jobs")
    name = job["metadata"]["name"]
    assert bench.lines[-1] == (
        f"the Job {name} could not be deleted (403 Forbidden: {text}); the cluster removes it when it has ended, or: "
        f"kubectl -n team delete job {name}"
    )


def test_a_stop_before_the_start_makes_no_job(api: Api, make: Make) -> None:
    bench = make()
    run = bench.run()
    run.stop.set()

    with pytest.raises(TaskFailed):
        bench("true", run)
    assert api.requests == []
