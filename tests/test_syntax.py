"""YAML that is wrong: the line that is to be changed is named, whichever line the parser stumbled over."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

import pytest

from rainbow_prefect.document import parse


def told(text: str) -> str:
    data, problems = parse(textwrap.dedent(text).lstrip("\n"), shown="f.yml")
    assert data is None
    return str(problems[-1])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "name web\nowner: x\n",
            "1:1: not valid YAML: mapping values are not allowed in this context at line 2; "
            "write `key: value`, with a colon and a space",
        ),
        (
            "a:\n  retries:2\n  b: 1\n  c: 2\n",
            "2:3: not valid YAML: mapping values are not allowed in this context at line 3; "
            "write `key: value`, with a colon and a space",
        ),
        (
            "tasks:\n  - task t\n    type: python\n    cmd: run\n",
            "2:3: not valid YAML: mapping values are not allowed in this context at line 3; "
            "write `key: value`, with a colon and a space",
        ),
        (
            "tasks:\n  -task: t\n    type: python\n    cmd: run\n",
            "2:3: not valid YAML: mapping values are not allowed in this context at line 3; write a space after the dash",
        ),
        (
            "tasks:\n - task: t\n    type: python\n    cmd: run\n",
            "2:2: not valid YAML: mapping values are not allowed in this context at line 3; indent it as its neighbours",
        ),
        (
            "a: 1\n  b: 2\nc: 3\n",
            "2:4: not valid YAML: mapping values are not allowed in this context; "
            "indent it as its neighbours, or quote a text that contains ': '",
        ),
        (
            "a:\n    b: 1\n  c: 2\n  d: 3\n",
            "2:5: not valid YAML: while parsing a block mapping, did not find expected key at line 3; "
            "indent it as its neighbours",
        ),
        (
            "a:\n  b: 1\n c: 2\n",
            "3:2: not valid YAML: while parsing a block mapping, did not find expected key; indent it as its neighbours",
        ),
        (
            "tasks:\n    task: a\n    type: b\n  - task: c\n",
            "2:5: not valid YAML: while parsing a block mapping, did not find expected key at line 4; "
            "start it with '- ' as its neighbours",
        ),
        (
            "q: |\n    select 1\n  from x\n  where y\nz: 1\n",
            "2:5: not valid YAML: while parsing a block mapping, did not find expected key at line 3; "
            "indent all lines of the text alike",
        ),
        (
            " name: a\nowner: b\n",
            "1:2: not valid YAML: did not find expected <document start> at line 2; indent it as its neighbours",
        ),
        (
            "a: 'one\nb: 2\nc: 'three'\n",
            "1:1: not valid YAML: while parsing a block mapping, did not find expected key at line 3; "
            "close the quote on this line",
        ),
        (
            "a:\n  -{b: 1}\n  - {c: 1}\n",
            None,
        ),
    ],
)
def test_the_line_to_change_is_named(text: str, problem: str | None) -> None:
    if problem is None:
        assert told(text).startswith("f.yml:2:")
    else:
        assert told(text) == f"f.yml:{problem}"


GOOD = """\
name: shop
owner: me
variables: {stage: dev, url: 'http://{{stage}}'}
task_defaults:
  python:
    image: base
    env_vars:
      A: "1"
      B: 'two'
      C: three
pipelines:
  - pipeline: load
    schedule: 0 * 1 * *
    timeout_minutes: 5
    tags: [a, b]
    tasks:
      - task: first
        type: python
        cmd: python -u first.py
        input: [1, 2, 3]
      - task: second
        type: python
        query: |
          select *
          from t
          where a
        cmd: python -u second.py
      - {task: third, type: python, cmd: "run it"}
  - pipeline: other
    tasks:
      - task: only
        type: python
        env_vars: {X: 'y'}
services:
  - service: web
    endpoints:
      - {endpoint: /a, module: m, function: f}
      - {endpoint: /b, module: m, function: g}
      - {endpoint: /c, module: m, function: h}
"""


def mutations() -> Iterator[tuple[int, str]]:
    """Each line of a good file broken in each way that a hand slips."""
    lines = GOOD.splitlines()
    for index, line in enumerate(lines):
        changed = [f" {line}", f"\t{line.lstrip()}"]
        if line.startswith(" "):
            changed.append(line[1:])
        changed += [line[:at] + line[at + 1 :] for mark in "]}'\"" if (at := line.rfind(mark)) >= 0]
        if re.match(r"\s*(- )?[\w-]+:", line):
            changed += [line.replace(":", "", 1), re.sub(r":\s+", ":", line, count=1)]
            changed += [re.sub(r":.*", f": {value}", line, count=1) for value in ("* * * * *", "@daily", "{{x}}-y")]
        if line.lstrip().startswith("- "):
            changed += [line.replace("- ", "  ", 1), line.replace("- ", "-", 1)]
        for one in changed:
            yield index + 1, "\n".join([*lines[:index], one, *lines[index + 1 :]])


def test_nearly_every_slip_is_told_at_its_line() -> None:
    right = []
    for line, text in mutations():
        _, problems = parse(text, shown="f.yml")
        if problems:
            right.append(line in {problem.mark.line for problem in problems})

    assert len(right) > 200
    assert sum(right) / len(right) >= 0.97
