"""What is proved beyond types: each proof with its whole text, and what must not be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from rainbow_prefect.check import check, load
from rainbow_prefect.errors import ConfigError

from .conftest import Project

PYTHON = "type: python, source: code"


def told(root: Path) -> list[str]:
    """What a check tells, without the file's name."""
    return [str(one).removeprefix("rainbow.yml:") for one in check(root, cache=False).problems]


def tasks(*lines: str, more: str = "") -> str:
    """A file with these tasks in one pipeline; the first is on line 5."""
    items = "".join(f"      - {{{line}}}\n" for line in lines)
    return f"name: a\npipelines:\n  - pipeline: p\n    tasks:\n{items}{more}"


CODE = {
    "code/main.py": """
        import os
        from json import loads
        LIMIT = 5
        def run(given): ...
        async def later(): ...
        def two(one, other): ...
        def one_of(one, other=1, *, third=2): ...
        class Model:
            def call(self): ...
        shout = lambda given: given
        handler = loads
        if os.name == "posix":
            def posix(): ...
        try:
            from fast import quick
        except ImportError:
            quick = None
    """,
    "code/pkg/__init__.py": "",
    "code/pkg/inner.py": "def deep(): ...\n",
    "code/open.py": "from main import *\n",
    "code/broken.py": "def run(:\n",
}


# -- references and order


def test_a_dependency_must_exist(project: Project) -> None:
    text = tasks(f"task: make, {PYTHON}, cmd: x", f"task: use, {PYTHON}, cmd: x, depends_on: [make, mak]")

    assert told(project({**CODE, "rainbow.yml": text})) == [
        "6:76: pipeline 'p', task 'use': there is no task 'mak' in this pipeline; did you mean 'make'?"
    ]


def test_a_task_cannot_depend_on_itself(project: Project) -> None:
    text = tasks(f"task: a, {PYTHON}, cmd: x, depends_on: [a]")

    assert told(project({**CODE, "rainbow.yml": text})) == [
        "5:68: pipeline 'p', task 'a': task 'a' depends on itself; remove it"
    ]


def test_a_cycle_is_told_once(project: Project) -> None:
    text = tasks(
        f"task: a, {PYTHON}, cmd: x, depends_on: [c]",
        f"task: b, {PYTHON}, cmd: x, depends_on: [a]",
        f"task: c, {PYTHON}, cmd: x, depends_on: [b]",
    )

    assert told(project({**CODE, "rainbow.yml": text})) == [
        "5:68: pipeline 'p', task 'a': tasks wait for each other: a -> c -> b -> a; remove one of these `depends_on`"
    ]


def test_duplicate_names_are_no_cycle(project: Project) -> None:
    text = tasks(*(f"task: {name}, {PYTHON}, cmd: x" for name in "aba"))

    assert told(project({**CODE, "rainbow.yml": text})) == [
        "7:16: pipeline 'p', task 'a': duplicate task 'a'; it is at line 5 already; use another name"
    ]


def test_a_later_task_may_be_named_when_there_is_no_cycle(project: Project) -> None:
    text = tasks(f"task: a, {PYTHON}, cmd: x, depends_on: [b]", f"task: b, {PYTHON}, cmd: x, depends_on: []")

    assert told(project({**CODE, "rainbow.yml": text})) == []


def test_an_input_must_be_a_task_before(project: Project) -> None:
    text = tasks(
        f"task: use, {PYTHON}, cmd: x, input: 'task:make'",
        f"task: make, {PYTHON}, cmd: x",
        f"task: own, {PYTHON}, cmd: x, input: 'task:own'",
        f"task: none, {PYTHON}, cmd: x, input_type: task, input_path: mak",
    )

    assert told(project({**CODE, "rainbow.yml": text})) == [
        "5:64: pipeline 'p', task 'use': task 'use' reads the output of 'make', which comes later; list 'make' before 'use'",
        "7:64: pipeline 'p', task 'own': task 'own' reads its own output; name an earlier task",
        "8:88: pipeline 'p', task 'none': there is no task 'mak' in this pipeline; did you mean 'make'?",
    ]


def test_a_broken_task_can_still_be_named(project: Project) -> None:
    text = tasks("task: make, type: nope", f"task: use, {PYTHON}, cmd: x, depends_on: [make], input: 'task:make'")

    assert [one.split(": ", 1)[1] for one in told(project({**CODE, "rainbow.yml": text}))] == [
        "pipeline 'p', task 'make': unknown task type 'nope'; known: python, spark, sql, sql_etl, update_service"
    ]


# -- names


def test_names_are_unique(project: Project) -> None:
    text = tasks(
        f"task: same, {PYTHON}, cmd: x",
        f"task: same, {PYTHON}, cmd: x",
        more="  - pipeline: p\nsecrets: [{secret: s, env: A}, {secret: s, env: B}]\n"
        "services: [{service: s}, {name: s}]\n"
        "images: [{image: i}, {image: i}]\nexecutors: [{executor: e, type: process}, {executor: e, type: process}]\n",
    )

    assert told(project({**CODE, "rainbow.yml": text})) == [
        "6:16: pipeline 'p', task 'same': duplicate task 'same'; it is at line 5 already; use another name",
        "7:15: pipeline 'p': duplicate pipeline 'p'; it is at line 3 already; use another name",
        "8:41: secret 's': duplicate secret 's'; it is at line 8 already; use another name",
        "9:33: service 's': duplicate service 's'; it is at line 9 already; use another name",
        "10:30: image 'i': duplicate image 'i'; it is at line 10 already; use another name",
        "11:54: executor 'e': duplicate executor 'e'; it is at line 11 already; use another name",
    ]


def test_pipelines_have_one_name_in_all_files(project: Project) -> None:
    root = project(
        {
            "a/rainbow.yml": "name: a\npipelines: [{pipeline: p}]\n",
            "b/rainbow.yml": "name: b\npipelines: [{pipeline: p}]\n",
        }
    )

    assert told(root) == [
        "b/rainbow.yml:2:24: pipeline 'p': duplicate pipeline 'p'; it is at a/rainbow.yml:2:24 already; use another name"
    ]


def test_a_name_of_an_environment_variable(project: Project) -> None:
    text = tasks(f"task: a, {PYTHON}, cmd: x, env_vars: {{'A=B': 1}}")

    assert told(project({**CODE, "rainbow.yml": text})) == [
        "5:66: pipeline 'p', task 'a': 'A=B' is not a valid name of an environment variable; remove '='"
    ]


def test_every_flaw_of_one_text_is_told(project: Project) -> None:
    more = "variables: {c: '{{zz}}{{yy}}'}\n"
    text = tasks(f"task: a, {PYTHON}, cmd: '{{{{k}}}} {{{{secret.s}}}} {{{{c}}}} {{{{k}}}}'", more=more)
    looked = "is not defined; looked in `variables`, the environment; define it in `variables`, or write '\\{{' for literal braces"

    assert sorted(told(project({**CODE, "rainbow.yml": text}))) == [
        "5:52: pipeline 'p', task 'a': secret 's' is not in the root `secrets`; "
        "add it there with `env`, `local_path_file` or `block`",
        f"5:52: pipeline 'p', task 'a': variable 'k' {looked}",
        f"6:16: variable 'c': variable 'yy' {looked}",
        f"6:16: variable 'c': variable 'zz' {looked}",
    ]


# -- inputs


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ("input_type: static", "`input_type: static` needs `input_path`; add `input_path:` with the data"),
        ("input_type: task", "`input_type: task` needs `input_path`; add `input_path: TASK`"),
        ("input_path: '[1]'", "`input_path` needs `input_type`; add one: static, task, file"),
        ("input: [1], input_type: static", "`input` and `input_type` say the same thing; keep `input`, the short spelling"),
        ("split_input: true", "`split_input` needs an input to split; add `input: ...`, e.g. a list or `task:NAME`"),
        ("split_size: 2", "`split_size` needs an input to split; add `input: ...`, e.g. a list or `task:NAME`"),
        (
            "input_type: static, input_path: \"[{'a': 1}]\"",
            "`input_path` is not valid JSON: line 1 column 3: Expecting property name enclosed in double quotes; "
            "JSON texts have double quotes",
        ),
        (
            "input: hello",
            "`input` is not valid JSON: line 1 column 1: Expecting value; "
            "write `task:NAME` or `file:PATH`, or the data itself as YAML",
        ),
        ("input: first", "'first' is not JSON; did you mean 'task:first'?"),
        (
            "input: '[1,'",
            "`input` is not valid JSON: line 1 column 4: Expecting value; correct it, or write the data itself as YAML",
        ),
        (
            "input: {a: 1}, split_input: true",
            "`split_input` needs a list, but `input` is a mapping; make it a list, or remove `split_input`",
        ),
        (
            "input: '\"abcd\"', split_size: 2",
            "`split_size` needs a list, but `input` is text; make it a list, or remove `split_size`",
        ),
        (
            "input_type: static, input_path: '5', split_input: true",
            "`split_input` needs a list, but `input_path` is a number; make it a list, or remove `split_input`",
        ),
        ("input: [1, .nan]", "the number .nan cannot be given as an input; JSON has no such value; quote it"),
        ("input: 'task:'", "`input` must be a task's name, got ''"),
        ("input_type: file, input_path: 5", "`input_path` must be a path, got 5"),
        ("input: 'block:x/y'", "`input` cannot be 'block:x/y'; an input is data, `task:NAME` or `file:PATH`"),
        ("min_success: 95%", "`min_success` needs more than one slice; add `split_input: true`, or remove it"),
        ("when: on_failure, always_run: true", "`always_run: true` and `when: on_failure` say two different things; keep `when`"),
    ],
)  # fmt: skip
def test_inputs(project: Project, keys: str, text: str) -> None:
    root = project(
        {**CODE, "rainbow.yml": tasks(f"task: first, {PYTHON}, cmd: x", f"task: t, {PYTHON}, cmd: x, {keys}")}
    )

    (line,) = told(root)

    assert line.startswith("6:")
    assert line.split(": ", 1)[1] == f"pipeline 'p', task 't': {text}"


@pytest.mark.parametrize(
    "keys",
    [
        "input: [1, 2], split_input: true",
        "input: '[1, 2]', split_size: 1",
        "input: 'task:first', split_input: true",
        "input: 'file:data/*.json', split_input: true",
        "input: {day: 2024-01-31}",
        "input: null",
        "input_type: static, input_path: {a: [1]}",
        "executors: 3, min_success: 0.5",
        "executors: 3",
        "when: always, always_run: true",
    ],
)
def test_good_inputs(project: Project, keys: str) -> None:
    root = project(
        {**CODE, "rainbow.yml": tasks(f"task: first, {PYTHON}, cmd: x", f"task: t, {PYTHON}, cmd: x, {keys}")}
    )

    assert told(root) == []


def test_what_is_known_only_in_a_run_is_left_alone(project: Project) -> None:
    text = """
    name: a
    secrets: [{secret: s, env: S}]
    pipelines:
      - pipeline: p
        parameters: [{name: n, type: int}, {name: what}, {name: items, type: list}]
        tasks:
          - {task: a, type: python, source: code, cmd: 'python {{what}}.py', input: '[{{n}}, {{n}}]', split_input: true}
          - {task: b, type: python, source: code, cmd: x, input: '{{items}}', split_input: true}
          - {task: c, type: python, source: code, cmd: x, input: '["{{secret.s}}"]'}
          - {task: d, type: python, source: code, module: '{{what}}x', function: run}
    """

    assert told(project({**CODE, "rainbow.yml": text})) == []


def test_values_of_a_run_may_be_anything_until_then(project: Project) -> None:
    text = """
    name: a
    pipelines:
      - pipeline: p
        timeout_minutes: '{{prefect.variables.minutes}}'
        parameters: [{name: where}]
        tasks:
          - task: a
            type: python
            source: 'code_{{where}}'
            executor: '{{prefect.variables.executor}}'
            executors: '{{prefect.variables.parts}}'
            cmd: x
    """
    root = project({**CODE, "rainbow.yml": text})
    assert told(root) == []
    values = {"prefect.variables.minutes": 5, "prefect.variables.executor": "process", "prefect.variables.parts": 0}

    with pytest.raises(ConfigError) as caught:
        load(root).pipeline("p").bind({"where": "x"}, lookup=values.get)

    assert [str(one) for one in caught.value.problems] == [
        "rainbow.yml:11:20: pipeline 'p', task 'a': `executors` must be a whole number of at least 1, got 0"
    ]


# -- files


def test_a_source_folder_must_exist(project: Project) -> None:
    text = tasks("task: a, type: python, source: coed, cmd: x", "task: b, type: python, source: code/main.py, cmd: x")

    assert told(project({**CODE, "rainbow.yml": text})) == [
        "5:41: pipeline 'p', task 'a': source folder 'coed' does not exist; did you mean 'code'?",
        "6:41: pipeline 'p', task 'b': source folder 'code/main.py' is a file, not a folder; "
        "name the folder that it is in",
    ]


def test_the_near_folder_is_found_at_any_depth(project: Project) -> None:
    text = tasks("task: a, type: python, source: code/pgk, cmd: x")

    assert told(project({**CODE, "rainbow.yml": text})) == [
        "5:41: pipeline 'p', task 'a': source folder 'code/pgk' does not exist; did you mean 'code/pkg'?"
    ]


def test_the_file_of_a_command_is_a_warning(project: Project) -> None:
    text = tasks(f"task: a, {PYTHON}, cmd: python -u mian.py --fast", f"task: b, {PYTHON}, cmd: python pkg/inner.py")

    assert told(project({**CODE, "rainbow.yml": text})) == [
        "5:52: warning: pipeline 'p', task 'a': `cmd` runs 'mian.py', which is not in 'code'; did you mean 'main.py'?"
    ]


def test_a_command_that_needs_code_must_have_it(project: Project) -> None:
    text = tasks(
        "task: a, type: python, cmd: python main.py",
        "task: b, type: python, cmd: echo 1",
        "task: c, type: python, image: i, cmd: python main.py",
        more="images: [{image: i, source: code}]\n",
    )

    assert told(project({**CODE, "rainbow.yml": text})) == [
        "5:38: pipeline 'p', task 'a': the folder with 'main.py' is not known: there is no `source`; "
        "add `source: FOLDER`, or an image that has one"
    ]


def test_files_of_images_and_secrets_must_exist(project: Project) -> None:
    text = """
    name: a
    images:
      - {image: i, source: code, pip_conf: conf/pip.cfg, requirements: requirement.txt}
      - {image: j, source: coed}
      - {image: k, source: code, dockerfile: code}
    secrets:
      - {secret: s, local_path_file: conf/kee.txt}
      - {secret: t, local_path_file: conf}
    volumes:
      - {volume: v, local: {path: conf/key.txt}}
    """
    files = {"conf/pip.conf": "", "conf/key.txt": "", "code/requirements.txt": ""}

    assert told(project({**CODE, **files, "rainbow.yml": text})) == [
        "3:40: image 'i': pip.conf 'conf/pip.cfg' does not exist; did you mean 'conf/pip.conf'?",
        "3:68: image 'i': requirements file 'code/requirement.txt' does not exist; did you mean 'code/requirements.txt'?",
        "4:24: image 'j': source folder 'coed' does not exist; did you mean 'code'?",
        "5:42: image 'k': Dockerfile 'code' is a folder, not a file; name the file in it",
        "7:34: secret 's': the file of the secret 'conf/kee.txt' does not exist; did you mean 'conf/key.txt'?",
        "8:34: secret 't': the file of the secret 'conf' is a folder, not a file; name the file in it",
        "10:31: volume 'v': 'conf/key.txt' is a file, not a folder",
    ]


# -- modules and functions


@pytest.mark.parametrize(
    ("module", "function", "text"),
    [
        ("mian", "run", "there is no module 'mian' in 'code'; did you mean 'main'?"),
        ("pkg.iner", "deep", "there is no module 'pkg.iner' in 'code'; did you mean 'pkg.inner'?"),
        ("main.py", "run", "there is no module 'main.py' in 'code'; did you mean 'main'?"),
        ("pkg/inner.py", "deep", "'pkg/inner.py' is not the name of a module; write 'pkg.inner'"),
        ("main", "rn", "module 'main' has no function 'rn'; did you mean 'run'?"),
        ("main", "LIMIT", "'LIMIT' of module 'main' is not a function; known: Model, later, one_of, posix, run, shout, two"),
        ("main", "two", "function 'two' of module 'main' needs 2 arguments; it is called with the input alone; give the others defaults"),
        ("broken", "run", "'code/broken.py' is not valid Python: line 1: invalid syntax; correct it"),
    ],
)  # fmt: skip
def test_functions(project: Project, module: str, function: str, text: str) -> None:
    root = project({**CODE, "rainbow.yml": tasks(f"task: t, {PYTHON}, module: {module}, function: {function}")})

    (line,) = told(root)

    assert line.split(": ", 1)[1] == f"pipeline 'p', task 't': {text}"


@pytest.mark.parametrize(
    ("module", "function"),
    [
        *(("main", name) for name in ("run", "later", "one_of", "Model", "Model.call", "shout", "handler", "posix")),
        *(("main", "quick"), ("main", "loads"), ("pkg.inner", "deep"), ("open", "anything"), ("code.main", "run")),
    ],
)
def test_good_functions(project: Project, module: str, function: str) -> None:
    root = project({**CODE, "rainbow.yml": tasks(f"task: t, {PYTHON}, module: {module}, function: {function}")})

    assert told(root) == []


def test_a_function_needs_its_code(project: Project) -> None:
    text = tasks("task: a, type: python, module: main, function: run")

    assert told(project({"rainbow.yml": text})) == [
        "5:41: pipeline 'p', task 'a': the folder with module 'main' is not known: there is no `source`; "
        "add `source: FOLDER`, or an image that has one"
    ]


def test_user_code_is_never_imported(project: Project, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    code = f"open({str(trap)!r}, 'w')\ndef run(): ...\n"
    root = project({"code/main.py": code, "rainbow.yml": tasks(f"task: t, {PYTHON}, module: main, function: run")})

    assert told(root) == []
    assert not trap.exists()


def test_endpoints(project: Project) -> None:
    text = """
    name: a
    services:
      - service: web
        source: code
        endpoints:
          - {endpoint: /a, module: code.main, function: run}
          - {endpoint: /b, module: main, function: ran}
          - {endpoint: a, module: mian, function: run}
      - service: later
        source: nowhere
        endpoints: [{endpoint: /a, module: main, function: run}]
    """

    assert told(project({**CODE, "rainbow.yml": text})) == [
        "7:48: service 'web', endpoint '/b': module 'main' has no function 'ran'; did you mean 'run'?",
        "8:20: service 'web', endpoint 'a': duplicate endpoint 'a'; it is at line 6 already; use another path",
        "8:31: service 'web', endpoint 'a': there is no module 'mian' in 'code'; did you mean 'main'?",
        "10:13: service 'later': source folder 'nowhere' does not exist; create it, or correct the path",
    ]


# -- executors, volumes, secrets, schedules, metrics


def test_executors_volumes_and_secrets_must_be_known(project: Project) -> None:
    text = """
    name: a
    executor: proces
    executors: [{executor: quick, type: process}]
    volumes: [{volume: data, local: {path: data}}]
    secrets: [{secret: token, env: TOKEN}]
    pipelines:
      - pipeline: p
        executor: quik
        tasks:
          - {task: a, type: python, cmd: x, executor: slow, mounts: [{mount: m, volume: dat, path: /d}]}
          - {task: b, type: python, cmd: x, executor: 'block:process', secrets: [{secret: tokn, env: T}]}
          - {task: c, type: python, cmd: x, executor: 'block:docker/mine'}
    """

    assert told(project({"rainbow.yml": text})) == [
        "2:11: unknown executor 'proces'; did you mean 'process'?",
        "8:15: pipeline 'p': unknown executor 'quik'; did you mean 'quick'?",
        "10:51: pipeline 'p', task 'a': unknown executor 'slow'; known: block, docker, ecs, kubernetes, process, quick",
        "10:85: pipeline 'p', task 'a': unknown volume 'dat'; did you mean 'data'?",
        "11:51: pipeline 'p', task 'b': 'block:process' is not a reference to a block; write `block:TYPE/NAME`",
        "11:87: pipeline 'p', task 'b', secret 'tokn': unknown secret 'tokn'; did you mean 'token'?",
    ]


def test_mounts_and_secrets_need_places_of_their_own(project: Project) -> None:
    text = """
    name: a
    volumes: [{volume: data, local: {path: .}}, {volume: more, claim_name: team-pvc}]
    secrets: [{secret: s, env: S}, {secret: t, aws_secret: prod/t}]
    pipelines:
      - pipeline: p
        tasks:
          - task: a
            type: python
            cmd: x
            mounts:
              - {mount: one, volume: data, path: /mnt/data, sub_path: in}
              - {mount: two, volume: more, path: /mnt/../mnt/data/}
              - {mount: three, volume: more, path: /}
            secrets:
              - {secret: s}
              - {secret: t}
              - {secret: s, env: TOKEN}
              - {secret: t, env: TOKEN}
              - {secret: t, env: TO=KEN}
              - {secret: t, remote_path: /secrets/, sub_path: ./credentials}
              - {secret: t, remote_path: /other}
    """

    assert told(project({"rainbow.yml": text})) == [
        "12:46: pipeline 'p', task 'a': mount 'two' is at the same place as mount 'one': /mnt/data; mount it elsewhere",
        "13:48: pipeline 'p', task 'a': a volume cannot be the root folder; name a folder in it, e.g. /data",
        "16:22: pipeline 'p', task 'a', secret 't': secret 't' is at the same place as secret 's': /secrets/credentials; "
        "give one of them another `remote_path`, or a `sub_path`",
        "18:30: pipeline 'p', task 'a', secret 't': secret 't' is at the same place as secret 's': the variable TOKEN; "
        "use another name",
        "19:30: pipeline 'p', task 'a', secret 't': 'TO=KEN' is not a valid name of an environment variable; remove '='",
        "20:22: pipeline 'p', task 'a', secret 't': secret 't' is at the same place as secret 's': /secrets/credentials; "
        "give one of them another `remote_path`, or a `sub_path`",
    ]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("mounts: [{mount: m, volume: v, path: /v, sub_path: ../x}]", "'../x' leads out of the folder it is in; write a path without '..'"),
        ("mounts: [{mount: m, volume: v, path: /v, sub_path: a/../../x}]", "'a/../../x' leads out of the folder it is in; write a path without '..'"),
        ("mounts: [{mount: m, volume: v, path: /v, sub_path: /etc}]", "'/etc' must be relative; write 'etc'"),
        ("mounts: [{mount: m, volume: v, path: ''}]", "`path` must not be empty"),
        ("secrets: [{secret: s, remote_path: /s, sub_path: ../../x}]", "******** leads out of the folder it is in; write a path without '..'"),
    ],
)  # fmt: skip
def test_paths_stay_below_their_folder(project: Project, given: str, text: str) -> None:
    more = "secrets: [{secret: s, env: S}]\n"
    (line,) = told(project({"rainbow.yml": tasks(f"task: a, type: python, cmd: x, {given}", more=more)}))

    assert line.endswith(f": {text}")


def test_mounts_of_an_app_without_volumes_are_left_alone(project: Project) -> None:
    text = tasks("task: a, type: python, cmd: x, mounts: [{mount: m, volume: v, path: /v}]")

    assert told(project({"rainbow.yml": text})) == []


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ("schedule: every day", "'every day' is not a cron text: it has 2 fields, not 5; "
         "write `minute hour day month weekday`, e.g. `0 6 * * *`"),
        ("schedule: '@dayly'", "'@dayly' is not a schedule; did you mean '@daily'?"),
        ("schedule: {cron: 0 6 * * *, timezone: Europe/Berlinn}",
         "unknown time zone 'Europe/Berlinn'; did you mean 'Europe/Berlin'?"),
        ("schedule: {timezone: UTC}", "the key 'cron' is missing; add `cron: ...`"),
        ("schedule: [1]", "`schedule` must be a mapping, got a list"),
        ("start_date: soon", "`start_date` must be a date such as 2024-01-31 or a time such as 2024-01-31 08:00:00, got 'soon'"),
        ("timeout_minutes: 0", "`timeout_minutes` must be more than 0, got 0; leave the key out for no limit"),
        ("metrics: {backends: [cloudwach]}", "unknown metrics backend 'cloudwach'; did you mean 'cloudwatch'? (known: cloudwatch, file, log, otel, prometheus, statsd)"),
        ("metrics: {backends: log}", "`backends` must be a list, got 'log'; write [...] around it"),
    ],
)  # fmt: skip
def test_keys_of_pipelines(project: Project, keys: str, text: str) -> None:
    (line,) = told(project({"rainbow.yml": f"name: a\npipelines:\n  - {{pipeline: p, {keys}}}\n"}))

    assert line.split(": ", 1)[1] == f"pipeline 'p': {text}"


def test_a_task_that_never_runs_is_a_warning(project: Project) -> None:
    text = tasks("task: a, type: python, cmd: x, when: on_failure")

    assert told(project({"rainbow.yml": text})) == [
        "5:47: warning: pipeline 'p', task 'a': never runs: there is nothing before it that could fail; add `depends_on`"
    ]


def test_the_readme_example_of_the_predecessor_is_good(project: Project) -> None:
    from .conftest import ROOT

    assert told(ROOT / "examples" / "quickstart") == []
