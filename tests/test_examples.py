"""Every example runs and gives what its README says; the quickstart runs as `make quickstart` does it."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
import yaml

from .conftest import RAINBOW, ROOT, Rainbow, free_port

EXAMPLES = ROOT / "examples"


def output_of(report: dict, task: str) -> object:
    return {one["task"]: one["output"] for one in report["tasks"]}[task]


def states(report: dict) -> dict[str, str]:
    return {one["task"]: one["state"] for one in report["tasks"]}


def test_every_example_is_in_the_list_and_has_its_own_words() -> None:
    listed = set(re.findall(r"\]\((\w+)\)", (EXAMPLES / "README.md").read_text()))

    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}

    assert listed == folders
    assert all((EXAMPLES / name / "README.md").exists() for name in folders)


def test_all_examples_are_free_of_problems(rainbow: Rainbow) -> None:
    checked = rainbow("check", EXAMPLES, "--json").json

    errors = [one for one in checked["problems"] if one["severity"] == "error"]
    assert errors == []
    assert sorted(checked["apps"]) == ["Branches", "MapReduce", "MyPipeline", "Parameters", "Warehouse"]


def test_readme_shows_the_quickstart_file_as_it_is() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.S)

    assert (EXAMPLES / "quickstart" / "rainbow.yml").read_text() in blocks


def test_quickstart_is_the_readme_example_of_rainbow() -> None:
    config = yaml.safe_load((EXAMPLES / "quickstart" / "rainbow.yml").read_text())

    pipeline = config["pipelines"][0]
    first, second, third = pipeline["tasks"]
    static = '[ { "foo": "bar" }, { "foo": "baz" } ]'
    assert (config["name"], config["owner"]) == ("MyPipeline", "Bosco Albert Baracus")
    assert pipeline["metrics"] == {"namespace": "TestNamespace", "backends": ["cloudwatch"]}
    assert (pipeline["timeout_minutes"], pipeline["schedule"]) == (45, "0 * 1 * *")
    assert (first["input_path"], first["output_path"]) == (static, "/output.json")
    assert (second["input_path"], second["cmd"], second["executors"]) == (static, "python -u helloworld.py", 2)
    assert "source" not in second
    assert (third["input_type"], third["input_path"]) == ("task", "my_static_input_task")
    assert config["services"][0]["endpoints"] == [
        {"endpoint": "/myendpoint1", "module": "myserver.my_server", "function": "myendpoint1func"}
    ]


def test_quickstart_example(rainbow: Rainbow, prefect_server: str) -> None:
    report = rainbow("run", EXAMPLES / "quickstart", "--json").json

    assert states(report) == {
        "my_static_input_task": "completed",
        "my_parallelized_static_input_task": "completed",
        "my_task_output_input_task": "completed",
    }
    assert output_of(report, "my_static_input_task") == {"greeted": 2, "who": ["bar", "baz"]}
    slices = report["tasks"][1]["partitions"]
    assert [one["input"] for one in slices] == [[{"foo": "bar"}], [{"foo": "baz"}]]
    assert report["tasks"][2]["log_tail"][-1] == 'my input is {"greeted": 2, "who": ["bar", "baz"]}'


def test_map_reduce_example(rainbow: Rainbow, prefect_server: str) -> None:
    report = rainbow("run", EXAMPLES / "map_reduce", "--json").json

    count = report["tasks"][0]
    assert [len(one["input"]) for one in count["partitions"]] == [3, 3, 2, 2]
    merged = output_of(report, "merge")
    assert merged["words"] == sum(sum(one.values()) for one in count["output"])
    assert merged["top"][:2] == [{"word": "the", "times": 11}, {"word": "soup", "times": 8}]


def test_branches_example_when_all_is_well(rainbow: Rainbow, prefect_server: str) -> None:
    report = rainbow("run", EXAMPLES / "branches", "--json").json

    assert states(report) == {
        "fetch": "completed",
        "validate": "completed",
        "total": "completed",
        "publish": "completed",
        "call_for_help": "skipped",
        "tidy": "completed",
    }
    assert output_of(report, "publish") == "published a total of 37"


def test_branches_example_when_an_order_is_wrong(rainbow: Rainbow, prefect_server: str) -> None:
    report = rainbow("run", EXAMPLES / "branches", "--param", "spoil=true", "--json", code=1).json

    assert states(report) == {
        "fetch": "completed",
        "validate": "failed",
        "total": "completed",
        "publish": "not_run",
        "call_for_help": "completed",
        "tidy": "completed",
    }


@pytest.mark.parametrize(
    ("parameters", "days"),
    [
        ([], ["2024-01-03", "2024-01-01"]),
        (["region=south", "best=1", "since=2024-01-02"], ["2024-01-02"]),
    ],
)
def test_parameters_example(rainbow: Rainbow, prefect_server: str, parameters: list[str], days: list[str]) -> None:
    words = [word for one in parameters for word in ("--param", one)]

    report = rainbow("run", EXAMPLES / "parameters", *words, "--json").json

    assert output_of(report, "best_days") == days


def test_warehouse_example(rainbow: Rainbow, prefect_server: str, tmp_path: Path) -> None:
    """Two days are sold and loaded; a night in which nothing happened writes nothing."""
    folder = tmp_path / "warehouse"
    shutil.copytree(EXAMPLES / "warehouse", folder)

    def nightly() -> dict[str, int]:
        report = rainbow("run", folder, "--pipeline", "nightly", "--json").json
        return {one["task"]: one["output"]["rows"] for one in report["tasks"]}

    rainbow("run", folder, "--pipeline", "sell")
    first = nightly()
    rainbow("run", folder, "--pipeline", "sell", "--param", "day=2024-05-02")
    second, third = nightly(), nightly()

    assert first == {"dim_product": 40, "dim_customer": 20, "fact_sales": 498, "sales_by_country": 6}
    assert second == {"dim_product": 0, "dim_customer": 20, "fact_sales": 498, "sales_by_country": 6}
    assert third == {"dim_product": 0, "dim_customer": 0, "fact_sales": 0, "sales_by_country": 6}
    with sqlite3.connect(folder / "data" / "reports.db") as reports:
        orders, amount = reports.execute("select sum(orders), sum(amount) from sales_by_country").fetchone()
    with sqlite3.connect(folder / "data" / "shop.db") as shop:
        sold = shop.execute("select count(*), sum(quantity * price) from orders where quantity > 0").fetchone()
    reports.close()
    shop.close()
    assert (orders, round(float(amount), 2)) == (sold[0], round(sold[1], 2)) == (996, round(sold[1], 2))


@pytest.mark.slow
def test_make_quickstart_works_with_an_empty_environment(tmp_path: Path) -> None:
    """As a person runs it: nothing but HOME and PATH; a server of its own, whose usual port is taken."""
    import socket

    env = {"HOME": str(tmp_path), "PATH": f"{RAINBOW.parent}:{os.environ['PATH']}"}
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 4200 if port_is_free(4200) else free_port()))
        taken.listen()
        try:
            done = subprocess.run(
                [ROOT / "scripts" / "quickstart.sh"], env=env, capture_output=True, text=True, timeout=280, check=False
            )
        finally:
            subprocess.run([RAINBOW, "server", "stop"], env=env, capture_output=True, timeout=60, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    for task in ("my_static_input_task", "my_parallelized_static_input_task", "my_task_output_input_task"):
        assert re.search(rf"{task}.*completed", done.stdout), done.stdout
    assert '{"greeted": 2, "who": ["bar", "baz"]}' in done.stdout
    assert re.search(r"http://127\.0\.0\.1:\d+/runs/flow-run/[0-9a-f-]{36}", done.stdout)
    assert "rainbow init my_project && rainbow run my_project" in done.stdout


def port_is_free(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
