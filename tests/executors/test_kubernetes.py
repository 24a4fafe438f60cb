"""The executor `kubernetes`: the contract and all that a cluster may say, against a fake API server with real containers."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rainbow_prefect.errors import TaskFailed
from rainbow_prefect.executors._exchange import Exchange, ExchangeVolume
from rainbow_prefect.executors.base import Executor
from rainbow_prefect.executors.kubernetes import Kubernetes, Resources, orphans, remove
from rainbow_prefect.run import Command, FileMount, Large
from rainbow_prefect.secrets import Secret, Secrets

from ..conftest import ROOT, Project, Rainbow
from .contract import Bench, ExecutorContract, wait_until
from .ecs_stub import KEYS, moto_server
from .images import Images
from .kubernetes_api import Api

USER = 10001


@pytest.fixture(scope="module")
def images(docker_engine: Any, base_image: str) -> Iterator[Images]:
    made = Images(docker_engine, base_image)
    yield made
    made.remove()


@pytest.fixture(scope="module")
def of_user(images: Images, base_image: str) -> Callable[[Path | None], str]:
    """The image with the code of a folder in /app, which belongs to the user that runs it."""

    def image_of(source: Path | None) -> str:
        text = f"FROM {base_image}\nRUN mkdir /app && chown {USER}:{USER} /app\nWORKDIR /app\n"
        text += f"COPY --chown={USER}:{USER} . .\nUSER {USER}\n"
        digest = hashlib.blake2b(text.encode(), digest_size=9)
        for path in sorted(source.rglob("*")) if source is not None else ():
            if path.is_file():
                digest.update(f"{path.relative_to(source)}\0{path.stat().st_mode}\0".encode() + path.read_bytes())
        return images.built(text, source, tag=digest.hexdigest())

    return image_of


@pytest.fixture
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    made = Api(tmp_path_factory.mktemp("cluster"))
    yield made
    made.close()


def executor_of(api: Api, **fields: Any) -> Kubernetes:
    kubeconfig = api.kubeconfig(api.folder / "kubeconfig")
    return Kubernetes(**{"kubeconfig": str(kubeconfig), "stop_grace_seconds": 2, **fields})


def through_a_volume(api: Api) -> Exchange:
    """An exchange that this machine and the pods see."""
    folder = api.folder / "exchange"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    api.claims["exchange"] = folder
    return Exchange(volume=ExchangeVolume(path=str(folder), claim_name="exchange"))


class TestContract(ExecutorContract):
    time_to_start_seconds = 15.0

    @pytest.fixture
    def executor(self, api: Api) -> Executor:
        return executor_of(api, exchange=through_a_volume(api))

    @pytest.fixture
    def image_of(self, of_user: Callable[[Path | None], str]) -> Callable[[Path | None], str]:
        return of_user

    def test_clean_ends_what_runs(self, bench: Bench, api: Api) -> None:
        run = bench.run()

        def clean() -> None:
            assert wait_until(lambda: any(one["status"].get("phase") == "Running" for one in api.of("pods")), 60)
            bench.executor.clean(run.run_id)

        threading.Thread(target=clean).start()
        error = bench.failure("sleep 120", run)

        assert error.message in (
            "the run ended, and its pod was deleted",
            "its Job was deleted while it ran; run it again, or give the task `retries`",
        )
        assert wait_until(lambda: api.of("jobs") == [] and api.of("pods") == [], 60)

    def test_a_folder_is_seen_and_kept(self, bench: Bench, api: Api) -> None:
        """A volume is a claim of the cluster, not a folder of this machine."""
        api.claims["data-pvc"] = bench.code({"a.txt": "one\n"}, "data")
        api.claims["data-pvc"].chmod(0o777)
        mount = FileMount("/mnt/data", claim_name="data-pvc", read_only=False)

        bench(Command(shell="cat /mnt/data/a.txt; echo two > /mnt/data/b.txt", mounts=(mount,)))

        assert bench.lines == ["one"]
        assert (api.claims["data-pvc"] / "b.txt").read_text() == "two\n"


@pytest.fixture
def make(api: Api, of_user: Callable[[Path | None], str], tmp_path: Path) -> Callable[..., Bench]:
    return lambda **fields: Bench(executor_of(api, **fields), tmp_path, of_user)


@pytest.fixture(autouse=True)
def none_stays(api: Api) -> Iterator[None]:
    """Whatever a test does, nothing of it is left in the cluster."""
    yield
    assert wait_until(lambda: not (api.of("jobs") or api.of("pods") or api.of("secrets")), 60)


Make = Callable[..., Bench]


# -- what is put in and taken out


def test_the_input_is_at_the_root_too(make: Make) -> None:
    bench = make()

    bench("pwd; id -u; cat /rainbow_input.json; echo; echo $RAINBOW_INPUT_PATH", input=[1])

    assert bench.lines == ["/app", "10001", "[1]", "/app/rainbow_input.json"]


def test_a_large_input_is_at_the_root_too(make: Make, api: Api) -> None:
    bench = make(exchange=through_a_volume(api))

    bench("wc -c < /rainbow_input.json; wc -c < rainbow_input.json", input="x" * 2_000_000)

    assert bench.lines == ["2000002", "2000002"]
    assert list((api.folder / "exchange").iterdir()) == []


@pytest.mark.parametrize("path", ["/app/out.json", "/some/where/out.json", "/out.json", "/tmp/out.json"])
def test_absolute_output_is_that_path_in_the_container(make: Make, path: str) -> None:
    bench = make()

    assert bench(Command(shell=f"echo $RAINBOW_OUTPUT_PATH; echo [1] > {path}", output_path=path)).value == [1]
    assert bench.lines == [path]


def test_an_absolute_output_that_was_not_written_is_told(make: Make) -> None:
    assert make().failure(Command(shell="true", output_path="/out.json")).message == (
        "output_path '/out.json' does not exist after the command; write JSON there (RAINBOW_OUTPUT_PATH is its path)"
    )


def test_without_an_image_it_runs_in_that_of_the_executor(api: Api, tmp_path: Path, base_image: str) -> None:
    bench = Bench(executor_of(api, image=base_image), tmp_path)

    assert bench(Command(shell="echo hi; cp rainbow_input.json out.json", output_path="out.json"), input=[7]).value == [
        7
    ]
    assert bench.lines == ["hi"]


def test_a_template_may_make_the_user_root(api: Api, tmp_path: Path, base_image: str) -> None:
    template = {"spec": {"securityContext": {"runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": False}}}
    bench = Bench(executor_of(api, image=base_image, pod_template=template), tmp_path)

    bench("id -u; cat rainbow_input.json; echo; cat /rainbow_input.json", input=[7])

    assert bench.lines == ["0", "[7]", "[7]"]


def test_outputs_of_256_kib_need_no_exchange(make: Make) -> None:
    text = "import json, random; json.dump([random.random() for _ in range(12_000)], open('out.json', 'w'))"
    bench = make()

    value = bench.python(text, output_path="out.json").value

    assert len(value) == 12_000
    assert bench.lines == []


def test_outputs_of_100_mib_come_through_the_exchange(make: Make, api: Api) -> None:
    text = "open('out.json', 'w').write('[\"' + 'x' * (100 << 20) + '\"]')"

    value = make(exchange=through_a_volume(api)).python(text, output_path="out.json").value

    assert isinstance(value, Large)
    assert value.size_bytes == (100 << 20) + 4


def test_a_bucket_may_be_the_exchange(
    api: Api, of_user: Callable[[Path | None], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    api.network = "host"
    with moto_server() as url:
        s3 = boto3.Session("testing", "testing-secret", region_name="us-east-1").client("s3", endpoint_url=url)
        s3.create_bucket(Bucket="exchange")
        exchange = Exchange(bucket="s3://exchange/runs", endpoint_url=url, region="us-east-1")
        bench = Bench(executor_of(api, exchange=exchange), tmp_path, of_user)

        value = bench(Command(shell="cp /rainbow_input.json o.json", output_path="o.json"), input="y" * 3_000_000).value

        assert isinstance(value, Large)
        assert value.load() == "y" * 3_000_000
        assert "Contents" not in s3.list_objects_v2(Bucket="exchange")
    assert not any("Signature" in line for line in bench.lines)


# -- secrets


def test_secrets_are_files_that_only_the_code_reads(make: Make, api: Api) -> None:
    mounts = (FileMount("/secret/credentials", text="hush-hush-1\n", secret=True),)
    bench = make()

    bench(Command(shell="stat -c '%a %g' -L /secret/credentials; cat /secret/credentials", mounts=mounts))

    # The node gives files of a Secret to root and the group of the pod: 0400 becomes readable for that group.
    assert bench.lines == ["440 10001", "hush-hush-1"]
    assert all("hush-hush" not in json.dumps(one) for one in api.seen if one["kind"] == "Job")


def test_secret_variables_are_masked_and_not_in_the_job(make: Make, api: Api) -> None:
    secrets = Secrets([Secret(secret="key", env="KEY")], environ={"KEY": "hunter2-hunter2"})
    env = {"KEY": secrets.get("key"), "PLAIN": "a $(KEY) b $HOME"}

    bench = make()
    error = bench.failure(Command(shell='echo "$KEY / $PLAIN"; exit 4', env=env), secrets=secrets)

    assert error.message == "exit status 4: ******** / a $(KEY) b $HOME"
    [job] = [one for one in api.seen if one["kind"] == "Job"]
    assert "hunter2" not in json.dumps(job)


# -- failures


def test_out_of_memory_is_told(make: Make) -> None:
    bench = make(resources=Resources(limit_memory="64Mi"))

    error = bench.failure(Command(shell="echo begun; python -c 'print(len(bytearray(512 << 20)))'"))

    told = "out of memory: it needed more than its limit of 64Mi; raise `limit_memory`, or make its slices smaller"
    assert error.message.startswith(f"{told}: ")


def test_a_missing_image_is_told(make: Make) -> None:
    error = make().failure(Command(shell="true", image="nowhere.invalid/no/such:1"))

    assert error.message == (
        "the image 'nowhere.invalid/no/such:1' cannot be pulled: Back-off pulling image \"nowhere.invalid/no/such:1\": not "
        "found; push it (`rainbow build --push`), correct `image`, or name the Secret of the registry in "
        "`image_pull_secrets`"
    )


def test_an_image_without_python_is_told(make: Make, images: Images, base_image: str) -> None:
    image = images.built(
        f"FROM {base_image}\nUSER root\nRUN rm -f /bin/python* /usr/bin/python* /usr/local/bin/python*\n"
    )

    error = make().failure(Command(shell="true", image=image))

    assert error.message == (
        "the container could not run the command: the image has no Python 3.6 or newer on its PATH; add python3 to it"
    )


def test_a_program_that_is_missing_is_told(make: Make) -> None:
    error = make().failure(Command(argv=("no-such-program",)))

    assert error.message == "the program 'no-such-program' is not on the PATH; install it, or name it with its folder"


def test_a_cancel_lets_the_code_finish_first(make: Make) -> None:
    text = """
        import signal, sys, time

        def end(number, frame):
            print("tidied up")
            sys.exit(0)

        signal.signal(signal.SIGTERM, end)
        print("begun")
        time.sleep(120)
    """
    bench = make(stop_grace_seconds=20)
    run = bench.run()

    def stop() -> None:
        wait_until(lambda: "begun" in bench.lines, 60)
        run.stop.set()

    threading.Thread(target=stop).start()
    begun = time.monotonic()
    with pytest.raises(TaskFailed):
        bench.python(text, run=run)

    assert "tidied up" in bench.lines
    assert time.monotonic() - begun < 60


def test_many_lines_come_in_order(make: Make) -> None:
    bench = make()

    bench("seq 1 200000")

    assert bench.lines == [str(number) for number in range(1, 200_001)]


# -- whole runs


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_pipeline_runs_in_the_cluster(
    api: Api, rainbow: Rainbow, project: Project, prefect_server: str, base_image: str
) -> None:
    api.kubeconfig(api.folder / "kubeconfig")
    folder = project(
        {
            "rainbow.yml": f"""
            name: shop
            executors:
              - {{executor: cluster, type: kubernetes, kubeconfig: {api.folder}/kubeconfig, image: "{base_image}"}}
            pipelines:
              - pipeline: in-the-cluster
                executor: cluster
                tasks:
                  - task: make
                    type: python
                    cmd: echo '[1, 2, 3]' > out.json
                    output_path: out.json
                  - task: double
                    type: python
                    input: task:make
                    split_input: true
                    executors: 3
                    cmd: python -c 'import json; print(2 * json.load(open("rainbow_input.json"))[0])' | tee out.json
                    output_path: out.json
            """
        }
    )

    report = rainbow("run", folder, "--pipeline", "in-the-cluster", "--json").json

    double = next(one for one in report["tasks"] if one["task"] == "double")
    assert (report["state"], double["output"]) == ("completed", [2, 4, 6])
    labels = [one["metadata"]["labels"] for one in api.seen if one["kind"] == "Job"]
    assert {one["rainbow.flow-run"] for one in labels} == {report["flow_run_id"]}
    assert sorted(f"{one['rainbow.task']}/{one['rainbow.slice']}" for one in labels) == [
        *("double/0", "double/1", "double/2", "make/0")
    ]
    assert len({one["rainbow.task-run"] for one in labels}) == 4


# -- a flow that is killed


def test_what_a_killed_process_leaves_is_found_and_removed(api: Api, tmp_path: Path, base_image: str) -> None:
    kubeconfig = api.kubeconfig(api.folder / "kubeconfig")
    script = tmp_path / "flow.py"
    script.write_text(
        "from pathlib import Path\n"
        "from tests.executors.contract import Bench\n"
        "from rainbow_prefect.executors.kubernetes import Kubernetes\n"
        f"Bench(Kubernetes(kubeconfig={str(kubeconfig)!r}, image={base_image!r}), Path.cwd())('sleep 300')\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, str(script)], cwd=tmp_path, env=env)
    assert wait_until(lambda: any(one["status"].get("phase") == "Running" for one in api.of("pods")), 90)
    process.kill()
    process.wait(30)

    executor = Kubernetes(kubeconfig=str(kubeconfig))
    [job] = api.of("jobs")
    [found] = orphans(executor, tmp_path)
    remove(executor, tmp_path, found)

    assert (found.run_id, found.task) == ("run-1", "task")
    assert job["spec"]["ttlSecondsAfterFinished"] == 600
    assert job["spec"]["activeDeadlineSeconds"] == 86_400
