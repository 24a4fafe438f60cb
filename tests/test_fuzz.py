"""Whatever a file holds, a check ends with located problems, never with a traceback.

`RAINBOW_FUZZ=20000 pytest tests/test_fuzz.py` draws that many inputs with a new seed each time; without it a few
hundred are drawn from fixed ones. A half is mutations of good files, the other is made of whole values by hypothesis.
"""

from __future__ import annotations

import os
import random
import string
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rainbow_prefect.check import check
from rainbow_prefect.errors import CallError, ConfigError

from .test_corpus import BASE, CHILD, FILES, SHOP, write

WANTED = int(os.environ.get("RAINBOW_FUZZ", "400"))
IS_LONG = "RAINBOW_FUZZ" in os.environ
SEED = random.SystemRandom().randrange(2**32) if IS_LONG else 7
MOST_SECONDS = 20.0
ALL_SECONDS = 0 if IS_LONG else 300
"""How long a test may take; 0: as long as it needs."""

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*/rainbow.yml"))
TEXTS = [SHOP, BASE, CHILD, *(file.read_text() for file in EXAMPLES)]

ODD = (
    *("{{", "}}", "{{a}}", "{{a", "'{{secret.token}}'", r"\{{a}}", "{{{{a}}}}", "{{prefect.variables.x}}", "{{name}}"),
    *(
        "&a",
        "*a",
        "<<: *a",
        "!!python/object:os.system",
        "!!binary aGk=",
        "!!set {a}",
        "%TAG",
        "---",
        "...",
        "? a",
        "-",
    ),
    *(
        ": ",
        "#",
        "|",
        ">",
        "@",
        "`",
        "\t",
        "\0",
        "\x07",
        "\ufeff",
        "\ud7ff",
        "🐢",
        "\u2028",
        "null",
        "~",
        "true",
        ".nan",
    ),
    *("1e999", "0x1F", "1_000", "12:30:45", "2024-02-30", "2024-01-01T00:00:00Z", "9" * 400, "-0", "1.", "[", "]", "{"),
    *("}", "'", '"', "task:", "file:", "block:a/b", "task:one", "file:../x", "95%", "@daily", "* * * * *", "x-y"),
    *("super", "base", "pipeline", "job_start", "python", "process", "spark", "log", "always", "..", "/", "~/x"),
)
KEYS = (
    *("name", "type", "super", "owner", "variables", "pipelines", "services", "images", "executors", "volumes"),
    *("secrets", "metrics", "monitoring", "observers", "plugins", "pipeline_defaults", "task_defaults", "tags"),
    *("service_defaults", "before_tasks", "after_tasks", "tasks", "task", "pipeline", "service", "image", "executor"),
    *("volume", "secret", "source", "cmd", "module", "function", "input", "input_type", "input_path", "split_input"),
    *("split_size", "min_success", "on_failure", "when", "depends_on", "always_run", "retries", "timeout_minutes"),
    *("schedule", "schedule_interval", "start_date", "cron", "timezone", "parameters", "default", "env_vars", "env"),
    *(
        "labels",
        "mounts",
        "mount",
        "path",
        "local",
        "endpoints",
        "endpoint",
        "methods",
        "backends",
        "namespace",
        "conf",
    ),
    *(
        "description",
        "retry_delay_seconds",
        "output_path",
        "local_path_file",
        "block",
        "x-a",
        "<<",
        "class",
        "resources",
    ),
)


def mutated(draw: random.Random) -> bytes:
    """A good file with one to six changes of characters, words, lines or blocks."""
    text = draw.choice(TEXTS)
    for _ in range(draw.randint(1, 6)):
        lines = text.split("\n")
        at = draw.randrange(len(lines))
        match draw.randrange(10):
            case 0:
                lines[at] = " " * draw.randint(0, 12) + lines[at].strip()
            case 1:
                lines.insert(at, draw.choice(lines))
            case 2:
                del lines[at : at + draw.randint(1, 4)]
            case 3:
                lines[at] = lines[at].partition(":")[0] + ": " + draw.choice(ODD)
            case 4:
                other = draw.choice(TEXTS).split("\n")
                start = draw.randrange(len(other))
                lines[at:at] = other[start : start + draw.randint(1, 8)]
            case 5:
                place = draw.randrange(len(lines[at]) + 1)
                lines[at] = lines[at][:place] + draw.choice(ODD) + lines[at][place:]
            case 6:
                place = draw.randrange(len(lines[at]) + 1)
                lines[at] = lines[at][:place] + draw.choice(string.printable) + lines[at][place + 1 :]
            case 7:
                key, colon, value = lines[at].partition(":")
                indent = key[: len(key) - len(key.lstrip(" -"))]
                lines[at] = f"{indent}{draw.choice(KEYS)}{colon or ':'}{value}"
            case 8:
                lines[at] = lines[at].replace("- ", "  ", 1) if "- " in lines[at] else f"- {lines[at]}"
            case _:
                lines = lines[: at + 1]
        text = "\n".join(lines)
    raw = text.encode("utf-8", "surrogatepass")
    if draw.random() < 0.05:
        place = draw.randrange(len(raw) + 1)
        raw = raw[:place] + draw.randbytes(draw.randint(1, 4)) + raw[place:]
    return raw


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 5),
    st.integers(),
    st.floats(),
    st.sampled_from([one for one in ODD if one.isprintable() or one == "\t"]),
    st.sampled_from(["one", "two", "shop", "code", "count.py", "{{a}}", "task:one", "python"]),
    st.text(max_size=12),
    st.dates(),
    st.datetimes(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=25,
)
TASKS = st.lists(
    st.fixed_dictionaries(
        {"task": st.sampled_from(["one", "two", "three"]) | SCALARS},
        optional=dict.fromkeys(("cmd", "input", "depends_on", "executors", "env_vars", "variables", "source"), VALUES)
        | {
            "type": st.sampled_from(["python", "spark", "pipeline"]) | SCALARS,
            "split_input": st.booleans(),
            "input_type": st.sampled_from(["static", "task", "file"]),
            "input_path": VALUES,
            "when": st.sampled_from(["always", "on_failure"]),
        },
    )
    | VALUES,
    max_size=4,
)
PIPELINES = st.lists(
    st.fixed_dictionaries(
        {"pipeline": st.sampled_from(["a", "b"]) | SCALARS},
        optional={"tasks": TASKS, "parameters": VALUES, "schedule": VALUES, "start_date": SCALARS, "metrics": VALUES},
    )
    | VALUES,
    max_size=3,
)
FILES_DRAWN = (
    st.fixed_dictionaries(
        {},
        optional={
            "name": st.sampled_from(["one", "two"]) | SCALARS,
            "type": st.sampled_from(["super", "sub"]),
            "super": st.sampled_from(["one", "two", "common"]) | SCALARS,
            "variables": st.dictionaries(st.sampled_from(["a", "b", "name"]), VALUES, max_size=3) | VALUES,
            "pipelines": PIPELINES,
            "pipeline_defaults": st.dictionaries(st.sampled_from(KEYS), TASKS | VALUES, max_size=3) | VALUES,
            "task_defaults": st.dictionaries(st.sampled_from(["python", "spark"]), VALUES, max_size=2) | VALUES,
            "services": VALUES,
            "executors": VALUES,
            "images": VALUES,
            "secrets": VALUES,
            "metrics": VALUES,
        },
    )
    | st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=8)
    | VALUES
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fuzz")
    write(root)
    return root


def look(root: Path, raw: bytes) -> None:
    """Check the folder with this as one file: problems have places; what has none can be planned and bound."""
    file = root / "shop" / "rainbow.yml"
    file.write_bytes(raw)
    started = time.process_time()

    checked = check(root, cache=False)

    for one in checked.problems:
        assert one.mark.file and one.mark.line >= 1 and one.mark.column >= 1, one
        assert one.message and "\n" not in str(one.mark), one
        assert str(one) and one.as_dict()
    for app in checked.apps:
        for pipeline in app.pipelines:
            try:
                pipeline.bind({}).plan()
            except (CallError, ConfigError):
                continue
    assert time.process_time() - started < MOST_SECONDS


@pytest.mark.slow
@pytest.mark.timeout(ALL_SECONDS)
def test_mutations_of_good_files_end_in_problems(folder: Path) -> None:
    draw = random.Random(SEED)
    for number in range(WANTED // 2):
        raw = mutated(draw)
        try:
            look(folder, raw)
        except (CallError, ConfigError):
            raise
        except Exception as error:
            (Path(folder) / "shop/rainbow.yml").write_bytes(FILES["shop/rainbow.yml"].encode())
            raise AssertionError(f"seed {SEED}, input {number}:\n{raw.decode(errors='replace')}") from error


@pytest.mark.slow
@pytest.mark.timeout(ALL_SECONDS)
@settings(
    max_examples=WANTED - WANTED // 2,
    derandomize=not IS_LONG,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(FILES_DRAWN)
def test_any_values_end_in_problems(folder: Path, data: Any) -> None:
    look(folder, yaml.dump(data, allow_unicode=True, sort_keys=False).encode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "#",
        "---",
        "null",
        "[]",
        "{}",
        "name:",
        "name: x\npipelines: [[]]",
        "name: x\npipelines: {}",
        "name: x\npipelines:\n  - null",
        "name: x\npipelines:\n  - {pipeline: "
        + "9" * 400
        + ", tasks: [{task: "
        + "9" * 400
        + ", type: python, cmd: x}]}",
        "name: x\npipelines:\n  - pipeline: p\n    tasks: [null, 1, a, [], {}]",
        "name: x\nservices: [null, 1, {}]\nimages: [null, 1, {}]\nexecutors: [null, 1, {}]\nsecrets: [null, 1, {}]",
        "name: x\nvariables: {a: '{{b}}', b: '{{a}}'}\nowner: '{{a}}'",
        "name: x\nsuper: x",
        "name: " + "9" * 5000,
        "name: x\nowner: " + "[" * 3000,
        "name: x\nowner: " + "{a: " * 300 + "1" + "}" * 300,
        "a: &a [x]\nb: &b [*a, *a]\nc: &c [*b, *b, *b, *b]\nname: x",
        "name: x\n? [a, b]\n: c",
        "name: x\npipelines: &p\n  - pipeline: a\n    tasks: *p",
        "name: false\npipelines: 1",
        "name: false\npipelines: {name: null}",
        "name: false\npipelines: [1]",
        "name: x\nplugins: [1, nowhere, ../..]",
        "name: x\npipelines:\n  - pipeline: p\n    parameters: [{name: class}, {name: a, type: date, default: x}, {}]",
        "name: x\npipelines:\n  - {pipeline: p, tasks: [{task: a, type: python, cmd: x, env_vars: {a=b: 1, '': 2}}]}",
    ],
)
def test_odd_files_end_in_problems(folder: Path, text: str) -> None:
    look(folder, text.encode())


def _drawn() -> Iterator[bytes]:
    draw = random.Random(SEED)
    while True:
        yield mutated(draw)


def test_mutations_differ() -> None:
    drawn = _drawn()

    assert len({next(drawn) for _ in range(50)}) >= 48
