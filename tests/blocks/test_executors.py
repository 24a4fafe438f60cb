"""Executors that are saved in Prefect: registered, edited as the UI does, named by files, run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rainbow_prefect.blocks
from rainbow_prefect import check, engine, registry
from rainbow_prefect.blocks import executor
from rainbow_prefect.blocks.executors import BLOCKS, ExecutorBlock, ProcessExecutor
from rainbow_prefect.blocks.sql import SINKS, SOURCES
from rainbow_prefect.errors import CallError, RunError
from rainbow_prefect.executors.kubernetes import Kubernetes
from rainbow_prefect.executors.process import Process
from rainbow_prefect.proofs import _SLUGS
from tests.blocks.conftest import Api, Named, prefect
from tests.conftest import Project, Rainbow

TELL = """
    name: shop
    {root}
    pipelines:
      - pipeline: tell
        tasks: [{{task: tell, type: python, executor: {executor}, cmd: 'echo "mode $MODE"'}}]
"""

UNIX = "unix:///var/run/docker.sock"


def printed(report: Any) -> list[str]:
    return [line for one in report.tasks for line in one.log_tail]


def test_every_executor_of_a_file_can_be_a_block() -> None:
    built_in = [one for one in registry.executors if registry.executors.origin(one) == "rainbow-prefect itself"]

    assert sorted(BLOCKS) == [f"{one}-executor" for one in built_in if one != "block"]
    assert sorted(_SLUGS) == sorted(BLOCKS)
    assert {getattr(rainbow_prefect.blocks, one.__name__) for one in BLOCKS.values()} == set(BLOCKS.values())


@pytest.mark.parametrize("slug", sorted(BLOCKS))
def test_a_block_has_the_fields_of_its_executor(slug: str) -> None:
    kind = BLOCKS[slug]
    plain = registry.executors[slug.removesuffix("-executor")]

    form = kind.model_json_schema()

    assert set(form["properties"]) == set(plain.model_fields) - {"executor", "type"}
    assert all(one.get("description") for one in form["properties"].values())


@pytest.mark.parametrize("slug", sorted(BLOCKS))
def test_the_form_of_a_block_asks_for_no_types(slug: str) -> None:
    form = BLOCKS[slug].model_json_schema()

    for one in (form, *form.get("definitions", {}).values()):
        for field in one.get("properties", {}).values():
            assert {"type": "null"} not in field.get("anyOf", ()), field


@pytest.mark.parametrize("slug", sorted(BLOCKS))
def test_the_defaults_of_a_form_are_valid(slug: str) -> None:
    form = BLOCKS[slug].model_json_schema()
    defaults = {name: one["default"] for name, one in form["properties"].items() if "default" in one}
    needed = {"subnets": ["subnet-1"]} if slug == "ecs-executor" else {}

    assert BLOCKS[slug].model_validate(defaults | needed) == BLOCKS[slug].model_validate(needed)


def test_prefect_registers_and_lists_the_blocks(prefect_server: str) -> None:
    text = prefect("block", "register", "-m", "rainbow_prefect.blocks")

    slugs = [*BLOCKS, *SOURCES, *SINKS]
    assert f"Successfully registered {len(slugs)} block" in text
    listed = prefect("block", "type", "ls")
    assert all(slug in listed for slug in slugs)


def test_prefect_finds_the_blocks_as_a_collection() -> None:
    code = (
        "from prefect.blocks.core import Block\nprint(Block.get_block_class_from_key('process-executor').__module__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180)

    assert done.stdout.splitlines()[-1:] == ["rainbow_prefect.blocks.executors"], done.stdout + done.stderr


def test_a_schema_is_the_same_in_every_process() -> None:
    code = (
        "from rainbow_prefect.blocks.executors import BLOCKS\n"
        "print(*(BLOCKS[one]._calculate_schema_checksum() for one in sorted(BLOCKS)))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=180,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }

    assert len(seen) == 1


def test_registering_again_adds_no_schema(api: Api) -> None:
    before = len(api.schemas("process-executor"))

    ProcessExecutor.register_type_and_schema(_sync=True)  # type: ignore[call-arg]

    assert len(api.schemas("process-executor")) == before


def test_the_type_says_what_it_does_and_how_a_file_names_it(api: Api) -> None:
    kind = api.type("process-executor")

    assert kind["name"] == "Process Executor"
    assert kind["description"] == "Runs each slice of a task in a child process of the machine that runs the pipeline."
    assert "executor: block:process-executor/BLOCK_NAME" in kind["code_example"]
    assert kind["logo_url"]


def test_a_block_is_saved_and_read(api: Api, named: Named) -> None:
    name = named("saved")
    block = ProcessExecutor(env_vars={"MODE": "fast"}, keep_failed=True)

    block.save(name, _sync=True)  # type: ignore[call-arg]

    assert ProcessExecutor.load(name, _sync=True) == block  # type: ignore[call-arg]
    assert not {"executor", "type"} & set(api.read("process-executor", name)["data"])
    assert executor(f"process-executor/{name}", name="big") == Process(
        executor="big", env_vars={"MODE": "fast"}, keep_failed=True
    )


def test_fields_that_the_form_left_empty_have_their_defaults(api: Api, named: Named) -> None:
    name = named("form")
    api.create("process-executor", name, {"env_vars": {"MODE": "fast"}, "clean_env": False, "grace_seconds": None})

    assert executor(f"process-executor/{name}") == Process(env_vars={"MODE": "fast"})


def test_a_part_that_the_form_sent_as_it_was_is_left_out(api: Api, named: Named) -> None:
    name = named("form")
    data = {"resources": {}, "exchange": {"volume": {"mount": "/rainbow-exchange"}, "bucket": None}, "user": None}
    api.create("kubernetes-executor", name, data)

    assert executor(f"kubernetes-executor/{name}") == Kubernetes(user=None)


def test_a_field_that_is_gone_is_no_mistake_when_nobody_changed_it(
    prefect_api: str, named: Named, monkeypatch: Any
) -> None:
    word = named("aged")

    class Old(ExecutorBlock, Process):
        """An executor before an upgrade."""

        _block_type_slug = word
        colour: str = "red"
        shapes: tuple[str, ...] = ()

    with pytest.warns(UserWarning, match="existing registered type"):

        class New(ExecutorBlock, Process):
            """The same after it."""

            _block_type_slug = word

    Old(keep_failed=True).save("same", _sync=True)  # type: ignore[call-arg]
    Old(colour="blue").save("changed", _sync=True)  # type: ignore[call-arg]
    monkeypatch.setitem(BLOCKS, word, New)

    assert executor(f"{word}/same") == Process(keep_failed=True)
    assert "it has no field 'colour', or has it no longer" in wrong(f"{word}/changed")


def test_a_task_runs_on_a_block(api: Api, named: Named, project: Project) -> None:
    name = named("fast")
    api.create("process-executor", name, {"env_vars": {"MODE": "fast"}})
    folder = project({"rainbow.yml": TELL.format(root="", executor=f"block:process-executor/{name}")})

    report = check.load(folder).pipeline("tell").run()

    assert (report.state, printed(report)) == ("completed", ["mode fast"])


def test_an_executor_of_the_file_may_be_a_block(api: Api, named: Named, project: Project) -> None:
    name = named("fast")
    api.create("process-executor", name, {"env_vars": {"MODE": "fast"}})
    root = f"executors: [{{executor: big, type: block, block: process-executor/{name}}}]"
    folder = project({"rainbow.yml": TELL.format(root=root, executor="big")})
    pipeline = check.load(folder).pipeline("tell")

    report = pipeline.run()

    assert (report.state, printed(report)) == ("completed", ["mode fast"])
    assert [one["executor"] for one in pipeline.plan().as_dict()["steps"]] == ["big"]


def test_the_command_line_runs_everything_on_a_block(
    api: Api, named: Named, project: Project, rainbow: Rainbow
) -> None:
    name = named("fast")
    api.create("process-executor", name, {"env_vars": {"MODE": "fast"}})
    folder = project({"rainbow.yml": TELL.format(root="", executor="process")})

    done = rainbow("run", folder, "--executor", f"block:process-executor/{name}")

    assert "mode fast" in done.out + done.err


def test_each_block_is_read_once_a_run(api: Api, named: Named, project: Project, monkeypatch: Any) -> None:
    name = named("once")
    api.create("process-executor", name, {})
    folder = project(
        {
            "rainbow.yml": f"""
        name: shop
        executor: block:process-executor/{name}
        pipelines:
          - pipeline: two
            tasks:
              - {{task: one, type: python, cmd: 'true'}}
              - {{task: two, type: python, cmd: 'true'}}
    """
        }
    )
    reads: list[str] = []
    real = rainbow_prefect.blocks.executor
    monkeypatch.setattr(
        rainbow_prefect.blocks, "executor", lambda block, *, name: [reads.append(block), real(block, name=name)][1]
    )

    assert check.load(folder).pipeline("two").run().state == "completed"
    assert reads == [f"process-executor/{name}"]


def test_secrets_in_an_executor_are_put_in_and_masked(
    api: Api, named: Named, project: Project, monkeypatch: Any
) -> None:
    monkeypatch.setenv("DB", "db-s3cret-value")
    name = named("secret")
    env = {"MODE": "{{secret.db}}", "API_TOKEN": "t0ken-of-the-block"}
    api.create("process-executor", name, {"env_vars": env})
    root = "secrets: [{secret: db, env: DB}]"
    yaml = TELL.format(root=root, executor=f"block:process-executor/{name}")
    folder = project({"rainbow.yml": yaml.replace("$MODE", "${#MODE} $MODE $API_TOKEN")})

    report = check.load(folder).pipeline("tell").run()

    assert printed(report) == ["mode 15 ******** ********"]


def test_secrets_in_an_executor_of_the_file_are_put_in(project: Project, prefect_api: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("DB", "db-s3cret-value")
    root = """secrets: [{secret: db, env: DB}]
    executors: [{executor: own, type: process, env_vars: {MODE: "{{secret.db}}"}}]"""
    folder = project({"rainbow.yml": TELL.format(root=root, executor="own").replace("$MODE", "${#MODE}")})

    assert printed(check.load(folder).pipeline("tell").run()) == ["mode 15"]


def test_a_task_runs_in_a_container_on_a_block(
    api: Api, named: Named, project: Project, docker_engine: Any, base_image: str
) -> None:
    name, host = named("box"), named("engine")
    api.create("docker-host", host, {"base_url": os.environ.get("DOCKER_HOST", UNIX)})
    data = {
        "host": f"block:docker-host/{host}",
        "image": base_image,
        "env_vars": {"MODE": "boxed"},
        "resources": {"memory": "300Mi"},
        "network": "none",
        "read_only": False,
        "stop_grace_seconds": 1,
    }
    api.create("docker-executor", name, data)
    tell = TELL.format(root="", executor=f"block:docker-executor/{name}")
    folder = project({"rainbow.yml": tell.replace("$MODE", "$MODE on $(ls /sys/class/net)")})

    report = check.load(folder).pipeline("tell").run()

    assert (report.state, printed(report)) == ("completed", ["mode boxed on lo"])
    assert docker_engine.containers.list(all=True, filters={"label": f"rainbow.flow-run={report.flow_run_id}"}) == []


# -- what is wrong


def wrong(reference: str) -> str:
    with pytest.raises(CallError) as told:
        executor(reference)
    return str(told.value)


def test_an_unknown_block_is_told_with_the_nearest(api: Api, named: Named) -> None:
    name = named("near")
    api.create("process-executor", name, {})

    assert wrong(f"process-executor/{name}x") == (
        f"the executor 'block:process-executor/{name}x': there is no block '{name}x' of type 'process-executor'; "
        f"did you mean '{name}'?"
    )


def test_an_unknown_block_of_an_unregistered_type_is_told_with_what_to_do(api: Api, monkeypatch: Any) -> None:
    class Rare(ExecutorBlock, Process):
        """An executor whose block is not registered."""

        _block_type_slug = "rare-executor"

    monkeypatch.setitem(BLOCKS, "rare-executor", Rare)
    ui = os.environ["PREFECT_API_URL"].removesuffix("/api")

    assert wrong("rare-executor/x") == (
        "the executor 'block:rare-executor/x': there is no block 'x' of type 'rare-executor'; "
        "run `prefect block register -m rainbow_prefect.blocks` and make it in the Prefect UI: "
        f"{ui}/blocks/catalog/rare-executor/create"
    )


def test_an_unknown_type_is_told_with_the_nearest() -> None:
    assert wrong("proces-executor/x") == (
        "the executor 'block:proces-executor/x': unknown block type 'proces-executor'; did you mean 'process-executor'?"
    )


def test_a_block_of_another_kind_is_told() -> None:
    assert wrong("secret/x") == (
        "the executor 'block:secret/x': a block of type 'secret' is no executor; "
        f"use one of type {', '.join(sorted(BLOCKS))}"
    )


def test_a_block_with_a_wrong_value_is_told(api: Api, named: Named) -> None:
    name = named("wrong")
    api.create("process-executor", name, {"grace_seconds": -1})

    assert wrong(f"process-executor/{name}") == (
        f"the executor 'block:process-executor/{name}' cannot be used: "
        "'grace_seconds': Input should be greater than or equal to 0; "
        "correct it in the Prefect UI, or delete it there and make it again"
    )


def test_a_block_with_a_field_that_is_gone_is_told(api: Api, named: Named) -> None:
    name, empty = named("old"), named("old")
    api.create("process-executor", name, {"colour": "red"})
    api.create("process-executor", empty, {"colour": None})

    assert wrong(f"process-executor/{name}") == (
        f"the executor 'block:process-executor/{name}' cannot be used: it has no field 'colour', or has it no longer; "
        "correct it in the Prefect UI, or delete it there and make it again"
    )
    assert executor(f"process-executor/{empty}") == Process()


def test_a_server_that_is_away_is_told(prefect_api: str) -> None:
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}),
        pytest.raises(RunError, match=r"the block 'process-executor/x' cannot be read, the Prefect API did not answer"),
    ):
        executor("process-executor/x")


def test_an_unknown_docker_host_is_told(prefect_api: str, project: Project) -> None:
    root = "executors: [{executor: box, type: docker, host: 'block:docker-host/nowhere'}]"
    folder = project({"rainbow.yml": TELL.format(root=root, executor="box")})

    with pytest.raises(CallError) as told:
        check.load(folder).pipeline("tell").run()

    assert str(told.value) == (
        "the host 'block:docker-host/nowhere': there is no block 'nowhere' of type 'docker-host'; "
        "make it in the Prefect UI under Blocks"
    )


def test_a_docker_host_with_more_than_an_address_is_told(api: Api, named: Named) -> None:
    name = named("tls")
    api.create("docker-host", name, {"base_url": "tcp://far:2376", "client_kwargs": {"tls": True}})

    with pytest.raises(CallError) as told:
        rainbow_prefect.blocks.docker_host(f"docker-host/{name}")

    assert str(told.value) == (
        f"the host 'block:docker-host/{name}': its additional configuration cannot be used; "
        "certificates are those of DOCKER_CERT_PATH"
    )


def test_a_run_on_an_unknown_block_starts_no_task(api: Api, named: Named, project: Project, rainbow: Rainbow) -> None:
    name = named("nowhere")
    api.create("process-executor", named("there"), {})
    folder = project({"rainbow.yml": TELL.format(root="", executor=f"block:process-executor/{name}")})
    plan = check.load(folder).pipeline("tell").plan()
    runs: list[str] = []

    with pytest.raises(CallError, match=f"there is no block '{name}'") as told:
        engine.run(plan, on_started=lambda run_id, link: runs.append(run_id))

    state = api.ask("GET", f"/flow_runs/{runs[0]}")["state"]
    assert (state["type"], state["message"]) == ("FAILED", str(told.value))
    done = rainbow("run", folder, code=2)
    assert f"there is no block '{name}' of type 'process-executor'" in done.err


def test_a_block_may_have_the_code_in_its_image(project: Project) -> None:
    text = """
        name: shop
        executors: [{{executor: big, type: block, block: {slug}/x}}]
        pipelines:
          - pipeline: p
            tasks: [{{task: t, type: python, module: work, function: do, image: shop, executor: {name}}}]
    """
    told = {}
    for slug in BLOCKS:
        for name in ("big", f"block:{slug}/x"):
            folder = project({"rainbow.yml": text.format(slug=slug, name=name)})
            told[slug, name] = [one.message for one in check.check(folder).problems]

    flaw = ["the folder with module 'work' is not known: there is no `source`"]
    assert {key: value for key, value in told.items() if value} == {
        ("process-executor", "big"): flaw,
        ("process-executor", "block:process-executor/x"): flaw,
    }


@pytest.mark.parametrize("command", ["check", "plan", "show"])
def test_no_block_is_read_before_a_run(command: str, project: Project) -> None:
    root = "executors: [{executor: big, type: block, block: docker-executor/nowhere}]"
    folder = project({"rainbow.yml": TELL.format(root=root, executor="block:process-executor/nowhere")})
    code = f"""
import sys
from rainbow_prefect.cli import main
sys.argv = ["rainbow", {command!r}, {str(folder)!r}]
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
print(sorted(one for one in ("prefect", "rainbow_prefect.blocks", "docker") if one in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)

    assert done.stdout.splitlines()[-1:] == ["[]"], done.stdout + done.stderr


def test_a_reference_that_is_none_is_told(rainbow: Rainbow, project: Project, prefect_server: str) -> None:
    folder = project({"rainbow.yml": TELL.format(root="", executor="process")})

    done = rainbow("run", folder, "--executor", "block:big", code=2)

    assert "'block:big' is not a reference to a block; write `block:TYPE/NAME`" in done.err


def test_an_entry_that_is_no_reference_is_told(project: Project) -> None:
    root = "executors: [{executor: big, type: block, block: big}]"
    folder = project({"rainbow.yml": TELL.format(root=root, executor="big")})

    (problem,) = check.check(folder).problems

    assert (str(problem.mark), problem.message, problem.hint) == (
        "rainbow.yml:2:49",
        "'big' is not a reference to a block",
        "write `TYPE/NAME`, e.g. `docker-executor/big`",
    )


@pytest.mark.parametrize(
    ("root", "name", "place"),
    [
        ("", "block:docker-excutor/x", "rainbow.yml:5:50"),
        ("executors: [{executor: big, type: block, block: docker-excutor/x}]", "big", "rainbow.yml:2:49"),
    ],
)
def test_a_type_that_is_misspelt_is_a_warning(root: str, name: str, place: str, project: Project) -> None:
    folder = project({"rainbow.yml": TELL.format(root=root, executor=name)})

    (problem,) = check.check(folder).problems

    assert (str(problem.mark), problem.severity, problem.message, problem.hint) == (
        place,
        "warning",
        "unknown block type 'docker-excutor'",
        "did you mean 'docker-executor'?",
    )


@pytest.mark.parametrize("root", ["", "executors: [{executor: big, type: block, block: process-executor/x}]"])
def test_a_type_that_needs_settings_is_told_where_it_is_used_alone(root: str, project: Project) -> None:
    folder = project({"rainbow.yml": TELL.format(root=root, executor="block")})

    (problem,) = check.check(folder).problems

    assert (str(problem.mark), problem.message) == (
        "rainbow.yml:5:50",
        "executor type 'block' needs an entry in `executors`: `block` is missing",
    )


def test_a_type_of_another_package_is_not_told(project: Project) -> None:
    folder = project({"rainbow.yml": TELL.format(root="", executor="block:nomad/x")})

    assert check.check(folder).problems == []


# -- blocks of other packages


def test_another_package_may_bring_an_executor_as_a_block(prefect_api: str, named: Named) -> None:
    word = named("ssh")

    class Ssh(Process):
        """An executor of another package."""

        host: str

    class SshExecutor(ExecutorBlock, Ssh):
        """Runs elsewhere."""

        _block_type_slug = word

    SshExecutor(host="here").save("mine", _sync=True)  # type: ignore[call-arg]

    found = executor(f"{word}/mine", name="far")

    assert (type(found), found) == (Ssh, Ssh(executor="far", host="here"))


def test_the_module_has_only_its_names() -> None:
    with pytest.raises(AttributeError, match=r"module 'rainbow_prefect.blocks' has no attribute 'nothing'"):
        _ = rainbow_prefect.blocks.nothing
    assert set(dir(rainbow_prefect.blocks)) >= {one.__name__ for one in BLOCKS.values()}
    assert json.dumps(sorted(BLOCKS)) and Path(rainbow_prefect.blocks.__file__ or "").name == "__init__.py"
