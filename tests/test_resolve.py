"""Supers, defaults and variables of whole files: what they become, and what is told where."""

from __future__ import annotations

import datetime
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rainbow_prefect.document import Document, List, Map, mark_of, parse
from rainbow_prefect.errors import ConfigError
from rainbow_prefect.resolve import Resolved, resolve


def nothing(name: str) -> None:
    return None


def documents(files: Mapping[str, str]) -> list[Document]:
    found = []
    for shown, text in files.items():
        data, problems = parse(textwrap.dedent(text), shown=shown)
        assert data is not None and not problems, [*map(str, problems)]
        found.append(Document(Path(shown), shown, data, "", "{{" in text))
    return found


def resolved(files: Mapping[str, str] | str, lookup: Any = nothing) -> tuple[list[Resolved], list[str]]:
    files = {"rainbow.yml": files} if isinstance(files, str) else files
    apps, problems = resolve(documents(files), lookup=lookup)
    return apps, [*map(str, problems)]


def app(files: Mapping[str, str] | str, lookup: Any = nothing) -> Map:
    apps, problems = resolved(files, lookup)
    assert not problems
    return apps[-1].data


def tasks(files: Mapping[str, str] | str, pipeline: int = 0) -> list[str]:
    return [task["task"] for task in app(files)["pipelines"][pipeline]["tasks"]]


# -- supers

CHAIN = {
    "supers/outer.yml": """
        name: outer
        type: super
        owner: outer
        variables: {region: eu, level: outer}
        tags: [outer]
        env_vars: {A: outer, B: outer}
        pipeline_defaults:
          timeout_minutes: 30
          retries: 1
          before_tasks: [{task: ob, type: python}]
          after_tasks: [{task: oa, type: python}]
        task_defaults:
          python:
            env_vars: {A: outer, B: outer}
            image: base
            mounts: [{mount: m0}]
        images:
          - {image: base, type: python, source: shared}
          - {image: extra, source: extra}
        secrets: [{secret: pw, env: PW}]
        metrics: {namespace: Outer, backends: [cloudwatch]}
        monitoring:
          metrics_backends: [{metrics_backend: cw, type: cloudwatch, namespace: n}]
        service_defaults: {description: from outer, labels: {a: '1'}}
        """,
    "supers/inner.yml": """
        name: inner
        type: super
        super: outer
        variables: {level: inner}
        pipeline_defaults:
          retries: 2
          before_tasks: [{task: ib, type: python}]
          after_tasks: [{task: ia, type: python}]
        task_defaults: {python: {env_vars: {B: inner}}}
        """,
    "rainbow.yml": """
        name: app
        super: inner
        variables: {where: '{{region}}-{{level}}'}
        env_vars: {B: app}
        tags: [app]
        images:
          - {image: base, no_cache: true}
          - {image: own, source: own}
        secrets: [{secret: pw, local_path_file: pw.txt}]
        metrics: {namespace: App}
        monitoring:
          metrics_backends: [{metrics_backend: cw, namespace: mine}]
        pipeline_defaults:
          before_tasks: [{task: sb, type: python}]
          after_tasks: [{task: sa, type: python}]
        pipelines:
          - pipeline: chain
            retries: 5
            tasks:
              - task: t1
                type: python
                env_vars: {C: task, WHERE: '{{where}}'}
                mounts: [{mount: m1}]
              - {task: t2, type: python, image: own}
        services:
          - {service: web, labels: {b: '2'}}
        """,
}


def test_tasks_of_supers_stand_around_outermost_first() -> None:
    assert tasks(CHAIN) == ["ob", "ib", "sb", "t1", "t2", "sa", "ia", "oa"]


def test_pipelines_inherit_what_they_do_not_say() -> None:
    pipeline = app(CHAIN)["pipelines"][0]

    assert {key: value for key, value in pipeline.items() if key != "tasks"} == {
        "pipeline": "chain",
        "retries": 5,
        "timeout_minutes": 30,
    }


def test_task_defaults_are_merged_and_lists_replaced() -> None:
    one, two = app(CHAIN)["pipelines"][0]["tasks"][3:5]

    assert one["env_vars"] == {"A": "outer", "B": "inner", "C": "task", "WHERE": "eu-inner"}
    assert (one["image"], one["mounts"]) == ("base", [{"mount": "m1"}])
    assert (two["image"], two["mounts"]) == ("own", [{"mount": "m0"}])


def test_tasks_of_supers_have_the_defaults_too() -> None:
    assert app(CHAIN)["pipelines"][0]["tasks"][0]["env_vars"] == {"A": "outer", "B": "inner"}


def test_named_sections_are_merged_by_name() -> None:
    data = app(CHAIN)

    assert data["images"] == [
        {"image": "base", "no_cache": True, "type": "python", "source": "shared"},
        {"image": "extra", "source": "extra"},
        {"image": "own", "source": "own"},
    ]
    assert data["metrics"] == {"namespace": "App", "backends": ["cloudwatch"]}
    assert data["monitoring"]["metrics_backends"] == [
        {"metrics_backend": "cw", "namespace": "mine", "type": "cloudwatch"}
    ]


def test_another_spelling_of_a_value_is_not_inherited() -> None:
    assert app(CHAIN)["secrets"] == [{"secret": "pw", "local_path_file": "pw.txt"}]


def test_services_have_their_defaults() -> None:
    service = app(CHAIN)["services"][0]

    assert service == {"service": "web", "labels": {"a": "1", "b": "2"}, "description": "from outer"}


def test_root_keys_come_from_the_super() -> None:
    data = app(CHAIN)

    assert (data["owner"], data["tags"], data["env_vars"]) == ("outer", ["app"], {"A": "outer", "B": "app"})


def test_what_is_worked_in_is_gone() -> None:
    assert sorted(app(CHAIN)) == sorted(
        ["name", "owner", "variables", "tags", "env_vars", "images", "secrets", "metrics", "monitoring"]
        + ["pipelines", "services"]
    )


@pytest.mark.parametrize(
    ("keys", "file", "written"),
    [
        (["pipelines", 0, "timeout_minutes"], "supers/outer.yml", "30\n"),
        (["pipelines", 0, "retries"], "rainbow.yml", "5\n"),
        (["pipelines", 0, "tasks", 0, "task"], "supers/outer.yml", "ob, type"),
        (["pipelines", 0, "tasks", 3, "image"], "supers/outer.yml", "base\n"),
        (["pipelines", 0, "tasks", 3, "env_vars", "B"], "supers/inner.yml", "inner}"),
        (["pipelines", 0, "tasks", 3, "env_vars", "WHERE"], "rainbow.yml", "'{{where}}'"),
        (["images", 0, "source"], "supers/outer.yml", "shared}"),
        (["images", 0, "no_cache"], "rainbow.yml", "true}"),
        (["images", 1], "supers/outer.yml", "{image: extra"),
        (["services", 0, "labels", "a"], "supers/outer.yml", "'1'}"),
    ],
)
def test_a_value_points_to_where_it_was_written(keys: Any, file: str, written: str) -> None:
    mark = mark_of(app(CHAIN), keys)

    lines = textwrap.dedent(CHAIN[file]).splitlines(keepends=True)
    assert mark.file == file
    assert lines[mark.line - 1][mark.column - 1 :].startswith(written)


def test_supers_are_no_apps_and_are_not_changed() -> None:
    files = documents(CHAIN)
    before = repr([one.data for one in files])

    apps, _ = resolve(files, lookup=nothing)

    assert [one.name for one in apps] == ["app"]
    assert repr([one.data for one in files]) == before


def test_an_app_may_be_the_super_of_another() -> None:
    files = {
        "a.yml": "name: a\nowner: x\npipelines: [{pipeline: p}]\n",
        "b.yml": "name: b\nsuper: a\npipelines: [{pipeline: q}]\n",
    }

    apps, problems = resolved(files)

    assert not problems
    assert [(one.name, one.data["owner"], one.data["pipelines"][0]["pipeline"]) for one in apps] == [
        ("a", "x", "p"),
        ("b", "x", "q"),
    ]


def test_the_super_named_base_is_built_in() -> None:
    assert app("name: a\nsuper: base\n") == {"name": "a"}


def test_a_cycle_of_supers_is_told_once_for_it_and_once_for_each_app() -> None:
    files = {
        "a.yml": "name: a\ntype: super\nsuper: b\n",
        "app.yml": "super: a\nname: app\n",
        "b.yml": "name: b\ntype: super\nsuper: c\n",
        "c.yml": "name: c\ntype: super\nsuper: a\n",
        "fine.yml": "name: fine\n",
    }

    apps, problems = resolved(files)

    cycle = "supers form a cycle: a -> b -> c -> a (a.yml, b.yml, c.yml); remove the `super` of one of them"
    assert problems == [f"a.yml:3:8: {cycle}", f"app.yml:1:8: {cycle}"]
    assert [one.name for one in apps] == ["fine"]


def test_a_file_cannot_be_its_own_super() -> None:
    assert resolved("name: a\nsuper: a\n")[1] == [
        "rainbow.yml:2:8: supers form a cycle: a -> a (rainbow.yml); remove the `super` of one of them"
    ]


def test_a_missing_super_has_a_near_match() -> None:
    files = {"s.yml": "name: shared\ntype: super\n", "a.yml": "name: a\nsuper: sharde\n"}

    assert resolved(files) == ([], ["a.yml:2:8: super 'sharde' is not found; did you mean 'shared'?"])


def test_a_broken_super_is_one_problem_for_each_who_needs_it() -> None:
    files = {
        "s.yml": "name: s\ntype: super\nsuper: none\n",
        "a.yml": "name: a\nsuper: s\n",
        "b.yml": "name: b\nsuper: s\n",
    }

    assert resolved(files)[1] == [
        "a.yml:2:8: super 's' cannot be used: its super 'none' is not found; see s.yml:3:8",
        "b.yml:2:8: super 's' cannot be used: its super 'none' is not found; see s.yml:3:8",
        "s.yml:3:8: super 'none' is not found; known: a, b",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("pipelines: []\n", "1:1: `name` is required; write `name: NAME` at the top of the file"),
        ("owner: x\nname:\n", "2:6: `name` is required; write `name: NAME` at the top of the file"),
        ("name: [a]\n", "1:7: must be text, got a list; write `name: NAME`"),
        ("name: a\ntype: supr\n", "2:7: unknown type 'supr' of a file; did you mean 'super'?"),
        ("name: a\ntype: 5\n", "2:7: must be `sub` or `super`"),
        ("name: a\nsuper: [b]\n", "2:8: must be the name of one file, got a list"),
        ("name: a\nvariables: [b]\n", "2:12: must be a mapping, got a list"),
        ("name: a\npipeline_defaults: 5\n", "2:20: must be a mapping, got a number"),
        ("name: a\ntask_defaults: text\n", "2:16: must be a mapping, got text"),
        ("name: a\nservice_defaults: []\n", "2:19: must be a mapping, got a list"),
        (
            "name: a\npipeline_defaults: {before_tasks: {}}\npipelines: [{pipeline: p}]\n",
            "2:35: must be a list, got a mapping",
        ),
        (
            "name: a\npipeline_defaults: {tasks: 5}\npipelines: [{pipeline: p}]\n",
            "2:28: must be a list, got a number",
        ),
        (
            "name: a\ntask_defaults: {python: 5}\npipelines: [{pipeline: p, tasks: [{type: python}]}]\n",
            "2:25: must be a mapping, got a number",
        ),
        (
            "name: s\ntype: super\npipelines: [{pipeline: p}]\n",
            "3:1: warning: the `pipelines` of a super are not used; move them to a file without `type: super`",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_told(text: str, problem: str) -> None:
    assert resolved(text)[1] == [f"rainbow.yml:{problem}"]


def test_a_name_is_taken_once() -> None:
    files = {"a.yml": "name: x\n", "b.yml": "owner: me\nname: x\n"}

    assert resolved(files)[1] == ["b.yml:2:7: the name 'x' is taken by a.yml:1:7; use another name"]


def test_one_bad_file_does_not_hide_another() -> None:
    files = {"a.yml": "pipelines: []\n", "b.yml": "name: b\nsuper: none\n", "c.yml": "name: c\n"}

    apps, problems = resolved(files)

    assert [one.name for one in apps] == ["nameless", "c"]
    assert [one.partition(";")[0] for one in problems] == [
        "a.yml:1:1: `name` is required",
        "b.yml:2:8: super 'none' is not found",
    ]


def test_a_name_may_be_a_number_or_a_placeholder() -> None:
    apps, problems = resolved({"a.yml": "name: 2024\n", "b.yml": "name: 'x-{{v}}'\nvariables: {v: 1}\n"})

    assert ([one.name for one in apps], problems) == (["2024", "x-1"], [])


# -- defaults of the file itself


def test_empty_sections_are_as_absent() -> None:
    text = "name: a\npipelines:\nservices:\nimages:\nvariables:\ntask_defaults:\npipeline_defaults:\nsecrets:\nsuper:\n"

    assert app(text) == {"name": "a"}


def test_an_empty_section_inherits() -> None:
    files = {
        "s.yml": "name: s\ntype: super\nvariables: {v: 1}\nimages: [{image: i}]\n",
        "a.yml": "name: a\nsuper: s\nvariables:\nimages:\nowner: '{{v}}'\n",
    }

    assert app(files) == {"name": "a", "owner": 1, "variables": {"v": 1}, "images": [{"image": "i"}]}


def test_an_empty_section_of_a_task_takes_away_what_it_would_inherit() -> None:
    text = """
        name: a
        task_defaults: {python: {mounts: [{mount: m}], env_vars: {A: '1'}, image: i}}
        pipelines:
          - pipeline: p
            tags:
            tasks:
              - task: t
                type: python
                mounts:
                env_vars: {B: }
                depends_on:
                image:
        """

    assert app(text)["pipelines"] == [
        {
            "pipeline": "p",
            "tasks": [{"task": "t", "type": "python", "env_vars": {"B": None, "A": "1"}, "image": None}],
        }
    ]


def test_free_keys_are_gone_where_keys_are_checked() -> None:
    text = """
        name: a
        x-any: &any {cmd: run, x-note: free}
        images: [{image: i, x-a: 1}]
        services: [{service: s, x-a: 1, endpoints: [{endpoint: /a, x-a: 1}]}]
        pipelines:
          - pipeline: p
            x-note: free
            tasks: [{<<: *any, task: t, env_vars: {x-kept: '1'}}]
        """

    assert app(text) == {
        "name": "a",
        "images": [{"image": "i"}],
        "services": [{"service": "s", "endpoints": [{"endpoint": "/a"}]}],
        "pipelines": [{"pipeline": "p", "tasks": [{"task": "t", "env_vars": {"x-kept": "1"}, "cmd": "run"}]}],
    }


PLACED = """
    name: own
    pipeline_defaults:
      tasks:
        - {task: first, type: python}
        - {task: mine, type: pipeline}
        - {task: last, type: python}
      after_tasks: [{task: end, type: job_end}, {task: after, type: python}]
      before_tasks: [{task: start, type: job_start}]
    pipelines:
      - {pipeline: p1, tasks: [{task: a, type: python}, {task: b, type: python}]}
      - {pipeline: p2}
      - {pipeline: p3, tasks: []}
    """


@pytest.mark.parametrize(
    ("pipeline", "order"),
    [(0, ["first", "a", "b", "last", "after"]), (1, ["first", "last", "after"]), (2, ["first", "last", "after"])],
)
def test_own_tasks_stand_in_the_place_of_the_placeholder(pipeline: int, order: list[str]) -> None:
    assert tasks(PLACED, pipeline) == order


def test_default_tasks_without_a_placeholder_are_for_pipelines_without_tasks() -> None:
    text = """
        name: own
        pipeline_defaults: {tasks: [{task: d, type: python}]}
        pipelines:
          - {pipeline: p1, tasks: [{task: a, type: python}]}
          - {pipeline: p2}
        """

    assert (tasks(text, 0), tasks(text, 1)) == (["a"], ["d"])


def test_a_second_placeholder_is_told() -> None:
    text = """\
        name: own
        pipeline_defaults:
          tasks:
            - {task: a, type: pipeline}
            - {task: b, type: pipeline}
        pipelines:
          - {pipeline: p1, tasks: [{task: t, type: python}]}
        """

    assert resolved(text)[1] == ["rainbow.yml:5:23: only one task may have `type: pipeline`; remove this one"]


@pytest.mark.parametrize(
    ("own", "default", "kept"),
    [
        ("schedule: 0 0 * * *", "schedule_interval: 1 1 * * *", {"schedule"}),
        ("schedule_interval: 0 0 * * *", "schedule: 1 1 * * *", {"schedule_interval"}),
        ("retries: 0", "schedule: 1 1 * * *", {"retries", "schedule"}),
    ],
)
def test_who_writes_a_schedule_does_not_inherit_its_other_spelling(own: str, default: str, kept: set[str]) -> None:
    data = app(f"name: a\npipeline_defaults: {{{default}}}\npipelines: [{{pipeline: p, {own}}}]\n")

    assert set(data["pipelines"][0]) == kept | {"pipeline"}


@pytest.mark.parametrize(
    ("own", "default", "kept"),
    [
        ("input: [1]", "input_type: static, input_path: '[2]'", {"input"}),
        ("input_type: static, input_path: '[2]'", "input: [1]", {"input_type", "input_path"}),
        ("when: always", "always_run: false", {"when"}),
        ("cmd: run", "module: m, function: f", {"cmd"}),
        ("module: m, function: f", "cmd: run", {"module", "function"}),
    ],
)
def test_who_writes_a_spelling_does_not_inherit_the_other(own: str, default: str, kept: set[str]) -> None:
    data = app(
        f"name: a\ntask_defaults: {{python: {{{default}}}}}\n"
        f"pipelines: [{{pipeline: p, tasks: [{{task: t, type: python, {own}}}]}}]\n"
    )

    assert set(data["pipelines"][0]["tasks"][0]) == kept | {"task", "type"}


def test_what_is_no_mapping_is_left_for_the_check() -> None:
    text = "name: a\npipelines: [5, {pipeline: p, tasks: {a: 1}}, {pipeline: q, tasks: [x, null]}]\nservices: text\n"

    data = app(text)

    assert data["pipelines"] == [
        5,
        {"pipeline": "p", "tasks": {"a": 1}},
        {"pipeline": "q", "tasks": ["x", None]},
    ]
    assert data["services"] == "text"


def test_unknown_root_keys_stay() -> None:
    assert app("name: a\npipelnes: []\nnothing:\n") == {"name": "a", "pipelnes": [], "nothing": None}


# -- variables


def test_placeholders_are_rendered_everywhere_but_in_keys() -> None:
    text = """
        name: a
        variables: {v: 1, s: text}
        owner: '{{s}}'
        images: [{image: 'i:{{v}}'}]
        services: [{service: '{{s}}', endpoints: [{endpoint: '/{{s}}'}]}]
        pipelines:
          - pipeline: 'p-{{v}}'
            retries: '{{v}}'
            tasks: [{task: 't{{v}}', type: python, env_vars: {'{{s}}': '{{s}}'}, input: [['{{v}}', {a: '{{v}}'}]]}]
        """

    data = app(text)

    assert (data["owner"], data["images"][0]["image"], data["services"][0]["service"]) == ("text", "i:1", "text")
    assert data["services"][0]["endpoints"] == [{"endpoint": "/text"}]
    assert data["pipelines"] == [
        {
            "pipeline": "p-1",
            "retries": 1,
            "tasks": [{"task": "t1", "type": "python", "env_vars": {"{{s}}": "text"}, "input": [[1, {"a": 1}]]}],
        }
    ]


def test_all_undefined_names_are_told_at_their_places() -> None:
    text = """\
        name: a
        variables: {version: '1', other: '{{nope}}'}
        owner: '{{ownr}}'
        pipelines:
          - pipeline: p
            tasks:
              - {task: t, type: python, image: 'i:{{ verzion }}', cmd: '{{other}}'}
              - {task: u, type: python, image: '{{other}}'}
        """

    define = r"define it in `variables`, or write '\{{' for literal braces"
    assert resolved(text)[1] == [
        "rainbow.yml:2:34: variable 'other': variable 'nope' is not defined; looked in `variables`, the environment; "
        + define,
        "rainbow.yml:3:8: variable 'ownr' is not defined; looked in `variables`, the environment; " + define,
        "rainbow.yml:7:40: pipeline 'p', task 't': variable 'verzion' is not defined; looked in `variables`, "
        "the environment; did you mean 'version'?",
    ]


def test_the_path_of_an_undefined_name_is_told() -> None:
    text = "name: a\npipelines: [{pipeline: p, tasks: [{task: t, type: python, image: '{{x}}'}]}]\n"

    _, problems = resolve(documents({"f.yml": text}), lookup=nothing)

    assert [problem.path for problem in problems] == ["pipelines[0].tasks[0].image"]


def test_an_undefined_name_of_a_super_is_told_once() -> None:
    files = {
        "s.yml": "name: s\ntype: super\ntask_defaults: {python: {image: '{{x}}'}}\n",
        "a.yml": "name: a\nsuper: s\npipelines: [{pipeline: p, tasks: [{task: t, type: python}]}]\n",
    }

    files["b.yml"] = files["a.yml"].replace("name: a", "name: b")

    apps, problems = resolved(files)

    assert [text.partition(": ")[0] for text in problems] == ["s.yml:3:33"]
    assert [one.has_errors for one in apps] == [True, True]


def test_very_many_problems_take_no_time() -> None:
    lines = "\n".join(f"      - {{task: t{index}, type: python, cmd: '{{{{x{index}}}}}'}}" for index in range(3000))
    started = time.process_time()

    problems = resolved(f"name: a\nvariables: {{v: 1}}\npipelines:\n  - pipeline: p\n    tasks:\n{lines}\n")[1]

    assert len(problems) == 3000
    assert time.process_time() - started < 20


def test_a_cycle_of_variables_is_told_once() -> None:
    text = "name: a\nvariables: {x: '{{y}}', y: '{{x}}'}\nowner: '{{y}}'\ntags: ['{{x}}']\n"

    assert resolved(text)[1] == [
        "rainbow.yml:2:16: variable 'x': variables form a cycle: x -> y -> x; give one of them a value of its own"
    ]


def test_variables_of_a_task_win_and_may_use_those_of_the_file() -> None:
    text = """
        name: a
        variables: {v: root, w: '{{v}}', db: {host: h, port: 1}}
        pipelines:
          - pipeline: p
            tasks:
              - {task: t1, variables: {v: task, z: '{{v}}-{{w}}', w: '{{w}}!'}, cmd: '{{v}} {{w}} {{z}}'}
              - {task: t2, variables: db, cmd: '{{host}}:{{port}} {{v}}'}
              - {task: t3, cmd: '{{v}}'}
        """

    one, two, three = app(text)["pipelines"][0]["tasks"]

    assert (one["cmd"], two["cmd"], three["cmd"]) == ("task task! task-task!", "h:1 root", "root")
    assert one["variables"] == {"v": "task", "z": "task-task!", "w": "task!"}
    assert two["variables"] == {"host": "h", "port": 1}


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("dbb", "there is no mapping 'dbb' in the root `variables`; did you mean 'db'?"),
        ("v", "variable 'v' is text, not a mapping; known: db"),
    ],
)
def test_the_variables_of_a_task_must_exist(name: str, problem: str) -> None:
    text = f"name: a\nvariables: {{v: x, db: {{a: 1}}}}\npipelines: [{{pipeline: p, tasks: [{{task: t, variables: {name}}}]}}]\n"

    assert resolved(text)[1] == [f"rainbow.yml:3:56: pipeline 'p', task 't': {problem}"]


def test_a_list_of_tasks_may_be_a_variable() -> None:
    text = """
        name: a
        variables:
          common: {task: c, type: python}
          all: ['{{common}}', {task: d, type: python}]
        task_defaults: {python: {image: i}}
        pipelines: [{pipeline: p, tasks: '{{all}}'}]
        """

    assert app(text)["pipelines"][0]["tasks"] == [
        {"task": "c", "type": "python", "image": "i"},
        {"task": "d", "type": "python", "image": "i"},
    ]


def test_defaults_are_found_when_the_type_is_a_placeholder() -> None:
    text = """
        name: a
        variables: {kind: python}
        task_defaults: {python: {image: i}}
        pipelines: [{pipeline: p, tasks: [{task: t, type: '{{kind}}'}]}]
        """

    assert app(text)["pipelines"][0]["tasks"] == [{"task": "t", "type": "python", "image": "i"}]


def test_unknown_secrets_are_told_and_known_ones_stay() -> None:
    text = """\
        name: a
        variables: {url: 'db://{{secret.pw}}@h'}
        secrets: [{secret: pw, env: PW}]
        pipelines:
          - {pipeline: p, tasks: [{task: t, env_vars: {A: '{{url}}', B: '{{secret.pwd}}', C: '{{prefect.variables.x}}'}}]}
        """

    apps, problems = resolved(text)

    assert problems == [
        "rainbow.yml:5:65: pipeline 'p', task 't': secret 'pwd' is not in the root `secrets`; did you mean 'pw'?"
    ]
    env_vars = apps[0].data["pipelines"][0]["tasks"][0]["env_vars"]
    assert (env_vars["A"], env_vars["C"]) == ("db://{{secret.pw}}@h", "{{prefect.variables.x}}")


def test_what_nobody_defines_is_looked_up() -> None:
    asked = []

    def lookup(name: str) -> Any:
        asked.append(name)
        return {"FROM": "outside"}.get(name)

    data = app("name: a\nvariables: {v: 1}\nowner: '{{FROM}} {{v}}'\n", lookup)

    assert (data["owner"], asked) == ("outside 1", ["FROM"])


# -- parameters

PARAMETERS = """\
    name: a
    variables: {stage: dev, path: '/{{stage}}/{{day}}', n: hidden}
    pipelines:
      - pipeline: p
        description: '{{day}}'
        parameters:
          - {name: day, type: str}
          - {name: n, type: int, default: 3}
          - {name: k, type: int}
          - {name: label, default: '{{stage}}-x'}
        tasks:
          - {task: t, executors: '{{n}}', retries: '{{k}}', cmd: 'run {{path}} {{day}} {{label}}'}
          - {task: u, variables: {n: task, path: mine}, cmd: '{{n}} {{path}}'}
      - {pipeline: q, tasks: [{task: t, cmd: '{{n}}'}]}
    """


def test_parameters_have_their_defaults_or_stand_ins_while_nothing_runs() -> None:
    pipeline = app(PARAMETERS)["pipelines"][0]

    assert pipeline["description"] == "text"
    assert pipeline["parameters"][3] == {"name": "label", "default": "dev-x"}
    assert pipeline["tasks"] == [
        {"task": "t", "executors": 3, "retries": 1, "cmd": "run /dev/{{day}} {{day}} dev-x"},
        {"task": "u", "variables": {"n": "task", "path": "mine"}, "cmd": "3 mine"},
    ]


def test_a_run_renders_again_with_its_parameters() -> None:
    apps, problems = resolved(PARAMETERS)
    given = {"day": "2024-05-01", "n": 7, "k": 0, "label": "{{stage}}"}

    pipeline = apps[0].pipeline_data("p", given)

    assert not problems
    assert pipeline["tasks"][0] == {
        "task": "t",
        "executors": 7,
        "retries": 0,
        "cmd": "run /dev/2024-05-01 2024-05-01 {{stage}}",
    }
    assert pipeline["tasks"][1]["cmd"] == "7 mine"


def test_parameters_belong_to_their_pipeline() -> None:
    assert app(PARAMETERS)["pipelines"][1]["tasks"][0]["cmd"] == "hidden"


def test_a_run_looks_up_again() -> None:
    apps, _ = resolved(
        "name: a\npipelines: [{pipeline: p, description: '{{prefect.variables.x}} {{E}}'}]\n", {"E": "1"}.get
    )

    data = apps[0].pipeline_data("p", {}, {"prefect.variables.x": "X", "E": "2"}.get)

    assert data["description"] == "X 2"


def test_a_run_that_cannot_be_rendered_is_told() -> None:
    apps, _ = resolved(PARAMETERS)

    with pytest.raises(ConfigError) as error:
        apps[0].pipeline_data("p", {"day": ["a"]})

    assert str(error.value) == (
        "rainbow.yml:2:31: variable 'path': variable 'day' is a list; it cannot stand inside a longer text; "
        "use it as the whole value: '{{day}}'"
    )


def test_an_unknown_pipeline_is_a_key_error() -> None:
    apps, _ = resolved(PARAMETERS)

    with pytest.raises(KeyError, match="nope"):
        apps[0].pipeline_data("nope", {})


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("str", "text"),
        ("int", 1),
        ("float", 1.0),
        ("bool", True),
        ("date", datetime.date(2000, 1, 1)),
        ("datetime", datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)),
        ("list", []),
        ("dict", {}),
        ("unknown", "text"),
    ],
)
def test_a_required_parameter_has_a_stand_in_of_its_type(kind: str, value: Any) -> None:
    text = f"name: a\npipelines: [{{pipeline: p, parameters: [{{name: x, type: {kind}}}], tasks: [{{input: '{{{{x}}}}'}}]}}]\n"

    assert app(text)["pipelines"][0]["tasks"][0]["input"] == value


# -- any data

KEYS = st.sampled_from(
    ["name", "type", "super", "variables", "pipelines", "services", "images", "pipeline_defaults", "task_defaults"]
    + ["service_defaults", "tasks", "before_tasks", "after_tasks", "python", "task", "pipeline", "parameters"]
    + ["default", "secrets", "secret", "metrics", "backends", "x-a", "a", "b", "endpoints", "schedule", "input"]
)
TEXTS = st.sampled_from(
    ["a", "b", "super", "pipeline", "python", "{{a}}", "{{b}}", "x{{a}}", "{{tasks}}", "{{{{a}}}}", "{{secret.a}}"]
    + ["{{a", r"\{{a}}", "{{prefect.variables.a}}", "job_start", ""]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | TEXTS,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYS, below, max_size=5),
    max_leaves=25,
)
ROOTS = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["a", "b", "c"])},
        optional={
            "type": st.sampled_from(["super", "sub"]),
            "super": st.sampled_from(["a", "b", "c", "d"]),
            "variables": st.dictionaries(st.sampled_from(["a", "b", "tasks"]), VALUES),
            "pipelines": st.lists(st.dictionaries(KEYS, VALUES, max_size=4), max_size=2),
            "pipeline_defaults": VALUES,
            "task_defaults": st.dictionaries(st.sampled_from(["python", "a"]), VALUES),
            "secrets": VALUES,
            "images": VALUES,
            "metrics": VALUES,
            "services": VALUES,
        },
    ),
    max_size=4,
)


def placed(value: Any, file: str, line: list[int]) -> Any:
    """The value with places: every part has a line of its own."""
    line[0] += 1
    if isinstance(value, dict):
        result = Map(file, line[0], 1)
        for key, one in value.items():
            line[0] += 1
            result.put(key, placed(one, file, line), (file, line[0], 1, line[0], 2))
        return result
    if isinstance(value, list):
        items = List(file, line[0], 1)
        for one in value:
            line[0] += 1
            items.put(placed(one, file, line), (file, line[0], 1))
        return items
    return value


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ROOTS)
def test_any_files_are_resolved_the_same_way_twice(roots: list[dict[str, Any]]) -> None:
    files = [
        Document(Path(f"{index}.yml"), f"{index}.yml", placed(root, f"{index}.yml", [0]), "")
        for index, root in enumerate(roots)
    ]
    before = repr([one.data for one in files])

    first = resolve(files, lookup=nothing)
    second = resolve(files, lookup=nothing)

    assert repr([one.data for one in first[0]]) == repr([one.data for one in second[0]])
    assert first[1] == second[1]
    assert repr([one.data for one in files]) == before
    assert all(problem.mark.file.endswith(".yml") for problem in first[1])
    for one in first[0]:
        check_places(one.data)


def check_places(value: Any) -> None:
    """Every part of the result has a place in a file."""
    if isinstance(value, Map):
        assert set(value) == set(value.marks)
        for key, one in value.items():
            assert value.marks[key][0].endswith(".yml")
            check_places(one)
    elif isinstance(value, List):
        assert len(value) == len(value.marks)
        for one in value:
            check_places(one)


# -- placeholders that are not closed

CLOSE = "close it with '}}', or write '\\{{' for literal braces"


def test_a_placeholder_that_is_not_closed_is_told() -> None:
    text = r"""
        name: a
        variables: {day: 1, open: 'x {{day', twice: '{{day {{day}}'}
        x-note: '{{day'
        pipelines:
          - pipeline: p
            tasks:
              - task: t
                cmd: run {{ day
                description: '\{{day, {{"a": 1, {{, {{{, {day'
                env_vars: {A: '{{{{day}}', B: "{{day}}", C: '{{.day}}'}
        services: [{service: s, description: "{{ day }"}]
    """

    apps, problems = resolved(text)

    assert problems == [
        f"rainbow.yml:3:27: warning: the placeholder `{{{{day` is not closed; {CLOSE}",
        f"rainbow.yml:3:45: warning: the placeholder `{{{{day` is not closed; {CLOSE}",
        f"rainbow.yml:9:14: warning: pipeline 'p', task 't': the placeholder `{{{{day` is not closed; {CLOSE}",
        f"rainbow.yml:11:23: warning: pipeline 'p', task 't': the placeholder `{{{{` is not closed; {CLOSE}",
        f"rainbow.yml:12:38: warning: service 's': the placeholder `{{{{day` is not closed; {CLOSE}",
    ]
    assert apps[0].data["variables"]["open"] == "x {{day"


def test_an_alias_of_an_unclosed_placeholder_is_told_once() -> None:
    text = "name: a\nx-keys: &keys {cmd: 'run {{day'}\npipelines: [{pipeline: p, tasks: [*keys, *keys]}]"

    _, problems = resolved(text)

    place = "rainbow.yml:2:21: warning: pipeline 'p', task '1': "
    assert problems == [f"{place}the placeholder `{{{{day` is not closed; {CLOSE}"]
