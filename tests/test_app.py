from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from rainbow_prefect import registry
from rainbow_prefect.app import App, Parameter, Pipeline
from rainbow_prefect.check import check, load
from rainbow_prefect.errors import CallError, ConfigError

from .conftest import Project, Rainbow

SALES = """
    name: shop
    owner: data
    executor: quick
    executors:
      - {executor: quick, type: process}
      - {executor: slow, type: process, env_vars: {A: b}}
    images:
      - {image: base, source: code}
    pipelines:
      - pipeline: sales
        schedule: {cron: 0 6 * * *, timezone: Europe/Berlin}
        start_date: 2024-01-31 12:30:00
        parameters:
          - {name: day, type: date}
          - {name: parts, default: 4}
        tasks:
          - {task: own, type: python, source: code, cmd: "echo {{day}} {{parts}}", executors: '{{parts}}'}
          - {task: other, type: python, image: base, executor: slow, cmd: echo}
          - {task: third, type: python, cmd: echo}
      - pipeline: plain
        schedule: 0 1 * * *
        tasks: [{task: a, type: python, cmd: echo}]
    services:
      - service:
        name: web
"""


@pytest.fixture
def sales(project: Project) -> Path:
    return project({"rainbow.yml": SALES, "code/a.py": ""})


def told(root: Path, *, severity: str = "error") -> list[str]:
    """What a check tells."""
    return [str(one) for one in check(root, cache=False).problems if one.severity == severity]


def one_task(keys: str) -> dict[str, str]:
    return {"rainbow.yml": f"name: a\npipelines:\n  - pipeline: p\n    tasks:\n      - {{{keys}}}\n"}


# -- what was loaded


def test_a_project_has_its_pipelines_and_services_by_name(sales: Path) -> None:
    project = load(sales)

    assert project.pipeline("sales").pipeline == "sales"
    assert project.service("web").service == "web"
    assert [app.name for app in project] == ["shop"]


def test_an_unknown_pipeline_is_told_with_the_near_one(sales: Path) -> None:
    project = load(sales)

    with pytest.raises(CallError) as caught:
        project.pipeline("sails")
    assert str(caught.value) == "there is no pipeline 'sails'; did you mean 'sales'?"
    with pytest.raises(CallError) as caught:
        project.service("wob")
    assert str(caught.value) == "there is no service 'wob'; did you mean 'web'?"
    with pytest.raises(CallError) as caught:
        project.pipeline("sales").task("owns")
    assert str(caught.value) == "there is no task 'owns' in pipeline 'sales'; did you mean 'own'?"


def test_an_app_knows_its_file(sales: Path) -> None:
    app = load(sales).pipeline("sales").app

    assert app.file == sales / "rainbow.yml"
    assert app.shown == "rainbow.yml"
    assert app.root == sales
    assert app.data["owner"] == "data"


def test_the_code_of_a_task_is_its_own_or_that_of_its_image(sales: Path) -> None:
    pipeline = load(sales).pipeline("sales")

    assert [pipeline.app.source_of(task) for task in pipeline.tasks] == [sales / "code", sales / "code", None]


def test_the_executor_of_a_task(sales: Path) -> None:
    pipeline = load(sales).pipeline("sales")
    app = pipeline.app

    assert [app.executor_name(pipeline, task) for task in pipeline.tasks] == ["quick", "slow", "quick"]
    assert app.executor_named("slow").env_vars == {"A": "b"}  # type: ignore[attr-defined]
    assert app.executor_named("process").type == "process"
    with pytest.raises(CallError) as caught:
        app.executor_named("quik")
    assert str(caught.value) == "there is no executor 'quik' in rainbow.yml; did you mean 'quick'?"


def test_a_schedule_is_text_or_a_mapping(sales: Path) -> None:
    project = load(sales)

    assert (project.pipeline("sales").cron, project.pipeline("sales").timezone) == ("0 6 * * *", "Europe/Berlin")
    assert (project.pipeline("plain").cron, project.pipeline("plain").timezone) == ("0 1 * * *", "UTC")


def test_a_start_date_keeps_its_time(sales: Path) -> None:
    assert load(sales).pipeline("sales").start_date == datetime(2024, 1, 31, 12, 30)


def test_a_start_date_may_be_text(project: Project) -> None:
    root = project({"rainbow.yml": "name: a\npipelines: [{pipeline: p, start_date: '2024-01-31'}]"})

    assert load(root).pipeline("p").start_date == date(2024, 1, 31)


def test_metrics_may_be_one_or_many(project: Project) -> None:
    text = "name: a\nmetrics: [{metric: x, namespace: X}, {namespace: Y, backends: [{type: log}]}]\n"

    (app,) = check(project({"rainbow.yml": text}), cache=False).apps

    assert [one.namespace for one in app.metrics] == ["X", "Y"]
    assert app.metrics[1].backends[0].type == "log"  # type: ignore[union-attr]


def test_there_must_be_a_file(tmp_path: Path) -> None:
    with pytest.raises(CallError) as caught:
        check(tmp_path)
    assert str(caught.value) == f"there is no rainbow.yml in '{tmp_path}' or below; `rainbow init` writes one"


def test_load_raises_all_problems(project: Project) -> None:
    root = project({"rainbow.yml": "name: a\nownr: x\nexecutr: y\n"})

    with pytest.raises(ConfigError) as caught:
        load(root)

    assert [one.message for one in caught.value.problems] == ["unknown key 'ownr'", "unknown key 'executr'"]


def test_warnings_do_not_stop_a_load(project: Project) -> None:
    text = "name: a\npipelines: [{pipeline: p, schedule: 0 1 * * *, schedule_interval: 0 2 * * *}]"

    loaded = load(project({"rainbow.yml": text}))

    assert loaded.pipeline("p").cron == "0 2 * * *"
    assert [str(one) for one in loaded.warnings] == [
        "rainbow.yml:2:27: warning: pipeline 'p': `schedule` is not used: `schedule_interval` wins; remove one of them"
    ]


# -- parameters


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        ("str", 5, "5"),
        ("int", "5", 5),
        ("int", 5.0, 5),
        ("float", "1.5", 1.5),
        ("float", 2, 2.0),
        ("bool", "yes", True),
        ("bool", "False", False),
        ("date", "2024-01-31", date(2024, 1, 31)),
        ("date", datetime(2024, 1, 31), date(2024, 1, 31)),
        ("datetime", "2024-01-31T08:00:00", datetime(2024, 1, 31, 8)),
        ("datetime", date(2024, 1, 31), datetime(2024, 1, 31)),
        ("list", "[1, 2]", [1, 2]),
        ("list", (1, 2), [1, 2]),
        ("dict", '{"a": 1}', {"a": 1}),
    ],
)
def test_values_become_their_type(kind: Any, given: Any, value: Any) -> None:
    found = Parameter(name="p", type=kind).value_of(given)

    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "given", "text"),
    [
        ("int", "x", "must be a whole number, got 'x'"),
        ("int", 1.5, "must be a whole number, got 1.5"),
        ("int", True, "must be a whole number, got true or false"),
        ("float", "x", "must be a number, got 'x'"),
        ("bool", "maybe", "must be true or false, got 'maybe'"),
        ("date", "2024-02-30", "must be a date such as 2024-01-31, got '2024-02-30'"),
        ("datetime", 5, "must be a time such as 2024-01-31T08:00:00, got 5"),
        ("list", "{}", "must be a list, got '{}'"),
        ("dict", [1], "must be a mapping, got a list"),
        ("str", [1], "must be text, got a list"),
    ],
)
def test_other_values_are_told(kind: Any, given: Any, text: str) -> None:
    with pytest.raises(ValueError) as caught:
        Parameter(name="p", type=kind).value_of(given)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("default", "kind"),
    [(1, "int"), (1.5, "float"), (True, "bool"), ("a", "str"), ([], "list"), (date(2024, 1, 1), "date")],
)
def test_the_type_of_a_parameter_is_that_of_its_default(default: Any, kind: str) -> None:
    assert Parameter(name="p", default=default).type == kind


def test_a_default_must_fit(project: Project) -> None:
    root = project(
        {
            "rainbow.yml": """
            name: a
            pipelines:
              - pipeline: p
                parameters:
                  - name: parts
                    type: int
                    default: many
                  - name: class
            """
        }
    )

    assert told(root) == [
        "rainbow.yml:7:18: pipeline 'p', parameter 'parts': `default` must be a whole number, got 'many'; the type is int",
        "rainbow.yml:8:15: pipeline 'p', parameter 'class': 'class' is not a valid name of a parameter; "
        "use letters, digits and '_' only",
    ]


def test_bind_renders_with_the_parameters(sales: Path) -> None:
    bound = load(sales).pipeline("sales").bind({"day": "2024-05-01", "parts": 2})

    assert bound.tasks[0].cmd == "echo 2024-05-01 2"  # type: ignore[attr-defined]
    assert bound.tasks[0].executors == 2
    assert bound.app.root == sales
    assert bound.app.pipeline("sales") is bound


def test_bind_uses_the_defaults(sales: Path) -> None:
    assert load(sales).pipeline("sales").bind({"day": date(2024, 5, 1)}).tasks[0].executors == 4


def test_bind_tells_all_that_is_wrong_with_the_call(sales: Path) -> None:
    pipeline = load(sales).pipeline("sales")

    with pytest.raises(CallError) as caught:
        pipeline.bind({"parts": "x", "dya": 1})

    assert str(caught.value) == (
        "there is no parameter 'dya' in pipeline 'sales'; did you mean 'day'?\n"
        "pipeline 'sales' needs a value for parameter 'day' (a date such as 2024-01-31)\n"
        "parameter 'parts' must be a whole number, got 'x'"
    )


def test_bind_tells_what_a_value_breaks(sales: Path) -> None:
    pipeline = load(sales).pipeline("sales")

    with pytest.raises(ConfigError) as caught:
        pipeline.bind({"day": "2024-05-01", "parts": 0})

    assert [str(one) for one in caught.value.problems] == [
        "rainbow.yml:17:91: pipeline 'sales', task 'own': `executors` must be a whole number of at least 1, got 0"
    ]


def test_a_pipeline_without_a_file_cannot_run() -> None:
    with pytest.raises(CallError) as caught:
        Pipeline(pipeline="p").plan()
    assert str(caught.value) == "pipeline 'p' is not part of a file; use rainbow_prefect.load"


# -- words of errors


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ("task: t, type: pyhton", "unknown task type 'pyhton'; did you mean 'python'? (known: python, spark, sql, sql_etl, update_service)"),
        ("task: t, tpye: python", "unknown key 'tpye'; did you mean 'type'?"),
        ("task: t, cmd: x", "the key 'type' is missing; known: python, spark, sql, sql_etl, update_service"),
        ("type: python, cmd: x", "the key 'task' is missing; add `task: ...`"),
        ("task: t, type: python, cmd: x, retires: 1", "unknown key 'retires'; did you mean 'retries'?"),
        ("task: t, type: python, cmd: x, zzz: 1", "unknown key 'zzz'; remove it, or write 'x-zzz' to keep it for yourself"),
        ("task: t, type: python, cmd: x, executors: 0", "`executors` must be a whole number of at least 1, got 0"),
        ("task: t, type: python, cmd: x, executors: 2.0", "must be a whole number, got 2.0"),
        ("task: t, type: python, cmd: x, executors: true", "must be a whole number, got true"),
        ("task: t, type: python, cmd: x, executors: [2]", "`executors` must be a whole number, got a list"),
        ("task: t, type: python, cmd: x, when: alway", "unknown when 'alway'; did you mean 'always'?"),
        ("task: t, type: python, cmd: x, when: [always]", "`when` must be one of on_success, on_failure, always, got a list"),
        ("task: t, type: python, cmd: [x]", "`cmd` must be text, got a list"),
        ("task: t, type: python, cmd: x, env_vars: [A]", "`env_vars` must be a mapping, got a list"),
        ("task: t, type: python, cmd: x, depends_on: a", "`depends_on` must be a list, got 'a'; write [...] around it"),
        ("task: t, type: python, cmd: x, variables: 5", "`variables` must be a mapping or text, got 5"),
        ("task: t, type: python, cmd: x, split_input: maybe", "`split_input` must be true or false, got 'maybe'"),
        ("task: t, type: python, cmd: x, timeout_minutes: soon", "`timeout_minutes` must be a number, got 'soon'"),
        ("task: t, type: python, cmd: x, mounts: [{mount: m, volum: v, path: /}]", "unknown key 'volum'; did you mean 'volume'?"),
        ("task: '', type: python, cmd: x", "`task` must not be empty"),
    ],
)  # fmt: skip
def test_words(project: Project, keys: str, text: str) -> None:
    (line,) = told(project(one_task(keys)))

    assert text in line
    assert line.startswith("rainbow.yml:5:")
    assert ": pipeline 'p', task " in line


def test_a_value_under_a_secret_name_is_never_shown(project: Project) -> None:
    text = """
    name: a
    variables: {db_password: hunter2secret}
    pipelines:
      - pipeline: p
        timeout_minutes: '{{db_password}}'
        executor: '{{db_password}}'
    """

    lines = told(project({"rainbow.yml": text}))

    assert len(lines) == 2
    assert "hunter2secret" not in "\n".join(lines)


def test_a_password_in_a_url_is_never_shown(project: Project) -> None:
    lines = told(project(one_task("task: t, type: python, cmd: x, retries: 'postgres://me:hunter2@db/x'")))

    assert lines == [
        "rainbow.yml:5:50: pipeline 'p', task 't': `retries` must be a whole number, got 'postgres://me:********@db/x'"
    ]


def test_all_problems_of_all_files_are_told(project: Project) -> None:
    root = project(
        {
            "b/rainbow.yml": "name: b\npipelines: [{pipeline: p, retries: -1, tasks: [{task: t, type: nope}]}]\n",
            "a/rainbow.yml": "name: a\nownr: x\n",
            "c/rainbow.yml": "name: c\nexecutors: [{executor: q, type: proces}]\nservices: [{service: s, prt: 1}]\n",
            "d/rainbow.yml": "name: d\n",
        }
    )

    checked = check(root, cache=False)

    assert [(one.mark.file, one.mark.line, one.message) for one in checked.problems] == [
        ("a/rainbow.yml", 2, "unknown key 'ownr'"),
        ("b/rainbow.yml", 2, "`retries` must be a whole number of at least 0, got -1"),
        ("b/rainbow.yml", 2, "unknown task type 'nope'"),
        ("c/rainbow.yml", 2, "unknown executor type 'proces'"),
        ("c/rainbow.yml", 3, "unknown key 'prt'"),
    ]
    assert checked.app_names == ["d"]


def test_what_is_inherited_is_told_once_where_it_is_written(project: Project) -> None:
    root = project(
        {
            "base/rainbow.yml": "name: common\ntype: super\ntask_defaults: {python: {retires: 1}}\n",
            "app/rainbow.yml": """
            name: app
            super: common
            pipelines:
              - pipeline: p
                tasks: [{task: a, type: python, cmd: x}, {task: b, type: python, cmd: x}]
            """,
        }
    )

    assert told(root) == ["base/rainbow.yml:3:26: `task_defaults`: unknown key 'retires'; did you mean 'retries'?"]


def test_unused_defaults_are_told(project: Project) -> None:
    root = project(
        {
            "base/rainbow.yml": """
            name: common
            type: super
            task_defaults:
              pythn: {retries: 1}
              python:
                cmdd: x
                x-note: mine
                mounts: [{mount: m, pth: x}]
                env_vars: '{{nothing}}'
              spark: [1]
            service_defaults:
              prt: 1
              endpoints: [{endpoint: /a, modul: m}]
            pipeline_defaults:
              timeout: 1
              before_tasks: [{task: a, type: pyton}, {task: b, type: python, cmdd: x}, {type: job_start}]
              after_task: []
              after_tasks: 3
              tasks: [{type: pipeline}, {task: '{{t}}', type: '{{kind}}', none: 1}]
            """,
            "app/rainbow.yml": "name: app\n",
        }
    )

    assert [one.removeprefix("base/rainbow.yml:").partition(" (known: ")[0] for one in told(root)] == [
        "4:3: `task_defaults`: unknown task type 'pythn'; did you mean 'python'?",
        "6:5: `task_defaults`: unknown key 'cmdd'; did you mean 'cmd'?",
        "8:25: `task_defaults`: unknown key 'pth'; did you mean 'path'?",
        "10:10: `task_defaults`: must be a mapping, got a list",
        "12:3: `service_defaults`: unknown key 'prt'; did you mean 'port'?",
        "13:30: `service_defaults`: unknown key 'modul'; did you mean 'module'?",
        "15:3: `pipeline_defaults`: unknown key 'timeout'; did you mean 'timeout_minutes'?",
        "16:34: `pipeline_defaults`: unknown task type 'pyton'; did you mean 'python'?",
        "16:66: `pipeline_defaults`: unknown key 'cmdd'; did you mean 'cmd'?",
        "17:3: `pipeline_defaults`: unknown key 'after_task'; did you mean 'after_tasks'?",
        "18:16: `pipeline_defaults`: must be a list, got a number",
    ]


def test_a_type_in_the_defaults_may_be_one_of_the_plugins(project: Project, request: pytest.FixtureRequest) -> None:
    request.addfinalizer(lambda: registry.tasks.discard("polite_default"))
    plugin = """
    from typing import Literal

    from rainbow_prefect.tasks.base import Task


    class Polite(Task):
        type: Literal["polite_default"] = "polite_default"
        greeting: str = ""
    """
    text = "name: a\nplugins: [mine]\ntask_defaults: {polite_default: {greeting: hi, greting: x}}\n"

    assert told(project({"rainbow.yml": text, "mine/polite.py": plugin})) == [
        "rainbow.yml:3:48: `task_defaults`: unknown key 'greting'; did you mean 'greeting'?"
    ]


def test_a_file_without_a_name_is_checked_like_others(project: Project) -> None:
    root = project(
        {
            "a/rainbow.yml": "ownr: x\npipelines: [{pipeline: p, tasks: [{task: t, type: pythn}]}]\n",
            "b/rainbow.yml": "name: [b]\nownr: x\n",
        }
    )

    assert [one.partition(" (known: ")[0] for one in told(root)] == [
        "a/rainbow.yml:1:1: unknown key 'ownr'; did you mean 'owner'?",
        "a/rainbow.yml:1:1: `name` is required; write `name: NAME` at the top of the file",
        "a/rainbow.yml:2:51: pipeline 'p', task 't': unknown task type 'pythn'; did you mean 'python'?",
        "b/rainbow.yml:1:7: must be text, got a list; write `name: NAME`",
        "b/rainbow.yml:2:1: unknown key 'ownr'; did you mean 'owner'?",
    ]
    assert check(root, cache=False).app_names == []


def test_very_many_unknown_keys_are_told_soon(project: Project) -> None:
    root = project({"rainbow.yml": "name: a\n" + "".join(f"key{number}: 1\n" for number in range(20_000))})
    began = time.process_time()

    problems = told(root)

    assert len(problems) == 20_000
    assert problems[0] == "rainbow.yml:2:1: unknown key 'key0'; remove it, or write 'x-key0' to keep it for yourself"
    assert time.process_time() - began < 20


def test_a_problem_is_one_line_whatever_a_name_holds(project: Project) -> None:
    text = 'name: a\npipelines: [{pipeline: "\\e[31m\\n\\u202ep", ownr: 1}]\n'

    assert told(project({"rainbow.yml": text})) == [
        r"rainbow.yml:2:24: pipeline '\x1b[31m\n\u202ep': '\x1b[31m\n\u202ep' is not a valid name; "
        "use letters, digits, '-' and '_' only",
        r"rainbow.yml:2:43: pipeline '\x1b[31m\n\u202ep': unknown key 'ownr'; did you mean 'owner'?",
    ]


def test_what_could_not_be_read_is_told_once(project: Project) -> None:
    text = "name: a\npipelines: [{pipeline: p, start_date: 2024-13-01}]\n"

    assert told(project({"rainbow.yml": text})) == [
        "rainbow.yml:2:39: '2024-13-01' is not a valid value: month must be in 1..12; quote it when it is text"
    ]


def test_an_app_that_inherits_a_mistake_is_not_loaded(project: Project) -> None:
    child = "name: NAME\nsuper: common\npipelines: [{pipeline: NAME, tasks: [{task: t, type: python, cmd: x}]}]\n"
    root = project(
        {
            "base/rainbow.yml": "name: common\ntype: super\ntask_defaults: {python: {image: '{{nowhere}}'}}\n",
            "a/rainbow.yml": child.replace("NAME", "a"),
            "b/rainbow.yml": child.replace("NAME", "b"),
            "c/rainbow.yml": "name: c\n",
        }
    )

    checked = check(root, cache=False)

    assert checked.app_names == ["c"]
    assert [app.name for app in checked.apps] == ["c"]


def test_an_app_whose_proofs_fail_loads_but_does_not_run(project: Project) -> None:
    checked = check(project(one_task("task: t, type: python, source: nowhere, cmd: x")), cache=False)

    assert checked.app_names == ["a"]
    assert checked.apps == []


# -- the second time


def entries() -> list[Path]:
    from rainbow_prefect.cache import folder

    return list(folder().glob("*.json"))


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def words(root: Path) -> list[str]:
    return [one.message for one in check(root).problems]


def test_a_second_check_imports_nothing_heavy(sales: Path, cached: None) -> None:
    code = """
import sys
from rainbow_prefect.check import check
checked = check(sys.argv[1])
print(checked.pipeline_names, "pydantic" in sys.modules)
"""
    call = [sys.executable, "-c", code, str(sales)]

    first, second = (subprocess.run(call, capture_output=True, text=True, check=True).stdout for _ in range(2))

    assert first == "['sales', 'plain'] True\n"
    assert second == "['sales', 'plain'] False\n"


def test_a_second_check_tells_the_same(project: Project, cached: None) -> None:
    root = project({"rainbow.yml": "name: a\nownr: x\npipelines: [{pipeline: p, tasks: [{task: t, type: nope}]}]"})

    first, second = check(root), check(root)

    assert second.problems == first.problems
    assert second.files == first.files
    assert second.app_names == first.app_names == []
    assert len(entries()) == 1


def test_apps_are_there_the_second_time(sales: Path, cached: None) -> None:
    check(sales)

    assert [type(one) for one in check(sales).apps] == [App]


def test_a_changed_file_is_checked_again(project: Project, cached: None) -> None:
    root = project({"rainbow.yml": "name: a\nownr: x\n"})
    check(root)

    (root / "rainbow.yml").write_text("name: a\nowner: x\n")

    assert words(root) == []


def test_a_new_file_is_checked(project: Project, cached: None) -> None:
    root = project({"rainbow.yml": "name: a\n"})
    check(root)

    project({"below/rainbow.yml": "name: b\nownr: x\n"})

    assert words(root) == ["unknown key 'ownr'"]


def test_a_changed_variable_of_the_environment_is_seen(
    project: Project, cached: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project({"rainbow.yml": "name: a\npipelines: [{pipeline: p, retries: '{{SOME_RETRIES}}'}]"})
    monkeypatch.setenv("SOME_RETRIES", "3")
    assert words(root) == []

    monkeypatch.setenv("SOME_RETRIES", "-3")

    assert words(root) == ["`retries` must be a whole number of at least 0, got '-3'"]


def test_changed_code_is_seen(project: Project, cached: None) -> None:
    task = "task: t, type: python, source: code, module: main, function: run"
    root = project({**one_task(task), "code/main.py": "def run(): ...\n"})
    assert words(root) == []

    (root / "code/main.py").write_text("def go(): ...\n")
    assert words(root) == ["module 'main' has no function 'run'"]

    (root / "code/main.py").unlink()
    assert words(root) == ["there is no module 'main' in 'code'"]

    (root / "code").rmdir()
    assert words(root) == ["source folder 'code' does not exist"]


def test_a_damaged_entry_is_no_entry(project: Project, cached: None) -> None:
    root = project({"rainbow.yml": "name: a\nownr: x\n"})
    expected = words(root)
    (entry,) = entries()
    whole = entry.read_text()

    for text in ("", "[]", "{}", whole[:-5], json.dumps({**json.loads(whole), "problems": [1]}), "\0" * 50):
        entry.write_text(text)
        assert words(root) == expected


def test_no_value_of_the_environment_is_kept(project: Project, cached: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", "hunter2secret")
    root = project({"rainbow.yml": "name: a\nowner: '{{API_TOKEN}}'\npipelines: [{pipeline: '{{API_TOKEN}}!'}]"})

    check(root)

    assert [one for one in entries() if "hunter2secret" in one.read_text()] == []


def test_a_cache_that_cannot_be_written_is_no_problem(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    root = project({"rainbow.yml": "name: a\n", "not_a_folder": ""})
    monkeypatch.setenv("XDG_CACHE_HOME", str(root / "not_a_folder"))

    assert words(root) == []


def test_plugin_folders_are_read_each_time(project: Project, cached: None) -> None:
    check(project({"rainbow.yml": "name: a\nplugins: [mine]\n", "mine/one.py": ""}))

    assert entries() == []


def test_the_command_line_starts_without_prefect_and_rich(sales: Path, rainbow: Rainbow) -> None:
    code = """
import sys
from rainbow_prefect.check import check
check(sys.argv[1], cache=False)
print(sorted({"prefect", "rich", "asyncio", "sqlalchemy", "fastapi", "croniter"} & set(sys.modules)))
"""

    done = subprocess.run([sys.executable, "-c", code, str(sales)], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_a_small_check_loads_nothing_that_it_does_not_need(project: Project) -> None:
    root = project(one_task("task: t, type: python, source: code, cmd: python -u main.py") | {"code/main.py": ""})
    code = """
import sys
from rainbow_prefect.check import check
assert check(sys.argv[1], cache=False).problems == []
unwanted = "yaml logging socket subprocess tempfile email importlib.metadata concurrent asyncio".split()
unwanted += [f"rainbow_prefect.{one}" for one in ("masking", "parsing", "syntax", "run", "server", "json_schema")]
print([one for one in unwanted if one in sys.modules])
"""

    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
