"""A line-exact corpus: 200 mistakes put into good files, drawn from a seed; nearly all are told on the exact line.

A mutation changes one line of a good file, as a person would get it wrong, and knows the line where the mistake is.
`python -m tests.test_corpus SEED COUNT` prints what is missed in a larger draw.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rainbow_prefect.check import check

SEED = 20_24
COUNT = 200
SHARE = 0.95

SHOP = """\
name: shop
owner: data team
variables:
  stage: test
  table: 'sales_{{stage}}'
  numbers: {small: 1, large: 100}
executors:
  - executor: quick
    type: process
    env_vars: {A: b}
secrets:
  - secret: token
    env: SHOP_TOKEN
  - secret: key
    local_path_file: keys/key.txt
volumes:
  - volume: data
    local: {path: data}
images:
  - image: shop:1
    type: python
    source: code
    no_cache: true
metrics:
  namespace: Shop
  backends: [log]
task_defaults:
  python:
    retries: 1
pipelines:
  - pipeline: sales
    description: The sales of a day.
    schedule: {cron: '0 6 * * *', timezone: Europe/Berlin}
    start_date: 2024-01-31
    timeout_minutes: 45
    retries: 2
    retry_delay_seconds: 10
    tags: [daily, sales]
    parameters:
      - name: day
        type: date
        default: 2024-01-31
      - name: parts
        type: int
        default: 4
    tasks:
      - task: list_shops
        type: python
        description: The shops.
        source: code
        module: shops
        function: list_shops
        env_vars:
          TABLE: '{{table}}'
          DAY: '{{day}}'
          TOKEN: '{{secret.token}}'
      - task: count
        type: python
        source: code
        input: task:list_shops
        split_input: true
        executors: 3
        min_success: 95%
        executor: quick
        output_path: out.json
        cmd: python -u count.py
      - task: report
        type: python
        image: shop:1
        depends_on: [count, list_shops]
        when: always
        retries: 0
        timeout_minutes: 0.5
        secrets:
          - secret: key
            remote_path: /keys
        mounts:
          - mount: data
            volume: data
            path: /data
        cmd: python -u report.py
  - pipeline: hourly
    schedule: '@hourly'
    owner: somebody
    tasks:
      - task: first
        type: python
        source: code
        input_type: static
        input_path: '[{"a": 1}, {"a": 2}]'
        cmd: python count.py
      - {task: second, type: python, source: code, input_type: task, input_path: first, cmd: "python count.py"}
services:
  - service: web
    type: python_server
    image: shop:1
    source: code
    endpoints:
      - endpoint: /count
        module: serve
        function: count
        methods: [GET, POST]
"""

BASE = """\
name: common
type: super
pipeline_defaults:
  timeout_minutes: 30
  before_tasks:
    - task: setup
      type: python
      cmd: echo setup
  after_tasks:
    - task: teardown
      type: python
      when: always
      cmd: echo teardown
task_defaults:
  python:
    source: code
    retries: 2
"""

CHILD = """\
name: child
super: common
x-common: &common
  labels: {team: data}
pipelines:
  - pipeline: child_sales
    <<: *common
    schedule: 0 6 * * *
    tasks:
      - task: one
        type: python
        cmd: |
          echo one
          echo two
      - task: two
        type: python
        input: [1, 2, 3]
        split_size: 2
        cmd: python count.py
      - task: three
        type: python
        input: task:two
        on_failure: continue
        cmd: >-
          python
          count.py
"""

FILES = {
    "shop/rainbow.yml": SHOP,
    "shop/code/shops.py": "def list_shops(given):\n    return []\n",
    "shop/code/count.py": "print(1)\n",
    "shop/code/report.py": "print(1)\n",
    "shop/code/serve.py": "def count(body):\n    return 1\n",
    "shop/keys/key.txt": "a key",
    "shop/data/keep.txt": "",
    "base/rainbow.yml": BASE,
    "child/rainbow.yml": CHILD,
    "child/code/count.py": "print(1)\n",
}
CONFIGS = ("shop/rainbow.yml", "base/rainbow.yml", "child/rainbow.yml")


@dataclass(frozen=True)
class Mutation:
    """A mistake: the new lines of a file, and the lines (counted from 1) any of which is exact."""

    kind: str
    file: str
    lines: tuple[str, ...]
    exact: frozenset[int]

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"


KEY = re.compile(r"^(?P<lead>\s*(?:- )?)(?P<key>[a-z_]+):(?P<value>.*)$")
FREE = ("env_vars", "labels", "variables", "numbers", "A", "TABLE", "DAY", "TOKEN", "stage", "table", "small", "large")


def _spelled_wrong(word: str, draw: random.Random) -> str:
    index = draw.randrange(len(word))
    ways = [
        word[:index] + word[index + 1 :],
        word[:index] + word[index] + word[index:],
        word[: index - 1] + word[index] + word[index - 1] + word[index + 1 :] if index else f"{word}s",
        f"{word}s",
    ]
    return next((way for way in draw.sample(ways, len(ways)) if way != word and len(way) > 1), f"{word}x")


def _item_line(lines: list[str], index: int) -> int:
    """The line where the list item starts that holds this line."""
    indent = len(KEY.match(lines[index])["lead"])
    for above in range(index, -1, -1):
        found = KEY.match(lines[above])
        if found and "-" in found["lead"] and len(found["lead"]) == indent:
            return above
    return 0


def _keys(lines: list[str], *, free: bool = False) -> Iterator[tuple[int, re.Match[str]]]:
    for index, line in enumerate(lines):
        found = KEY.match(line)
        if found and (free or found["key"] not in FREE):
            yield index, found


Mutate = Callable[[list[str], random.Random], "tuple[list[str], set[int]] | None"]


def key_misspelled(lines: list[str], draw: random.Random):
    index, found = draw.choice([one for one in _keys(lines) if one[1]["key"] != "python"])
    wrong = _spelled_wrong(found["key"], draw)
    return _with(lines, index, f"{found['lead']}{wrong}:{found['value']}"), {index}


def key_twice(lines: list[str], draw: random.Random):
    places = [one for one in _keys(lines, free=True) if one[1]["value"].strip() not in ("", "|", ">-")]
    index, found = draw.choice(places)
    again = " " * len(found["lead"]) + f"{found['key']}:{found['value']}"
    return [*lines[: index + 1], again, *lines[index + 1 :]], {index + 1}


def type_misspelled(lines: list[str], draw: random.Random):
    places = [(i, m) for i, m in _keys(lines) if m["key"] == "type" and m["value"].strip() in KINDS]
    index, found = draw.choice(places)
    wrong = _spelled_wrong(found["value"].strip(), draw)
    return _with(lines, index, f"{found['lead']}type: {wrong}"), {index}


KINDS = ("python", "process", "python_server", "super", "date", "int")

NUMBERS = {
    "timeout_minutes": ("0", "-5", "soon", "true", "[1]", ".inf"),
    "retries": ("-1", "two", "1.5", "true", "{a: 1}"),
    "retry_delay_seconds": ("-1", "later", "true"),
    "executors": ("0", "-1", "2.0", "many", "true"),
    "split_size": ("0", "a few", "1.5"),
    "min_success": ("0", "120%", "most"),
    "split_input": ("maybe", "[1]", "2"),
    "no_cache": ("perhaps", "{a: 1}"),
    "when": ("sometimes", "allways", "[always]"),
    "on_failure": ("carry_on", "continu"),
    "tags": ("daily", "{a: 1}", "[[a]]"),
    "depends_on": ("count", "[[a]]"),
    "methods": ("[GETT]", "GET"),
    "env_vars": ("[A]", "text", "{A: [1]}"),
    "mounts": ("data",),
    "parameters": ("day", "{name: day}"),
    "description": ("[a]", "{a: 1}"),
    "cmd": ("[a, b]", "{a: 1}", "''"),
    "source": ("[code]", "codee", "nowhere/code", "code/count.py"),
    "start_date": ("soon", "[1]", "2024-02-30"),
    "schedule": ("every day", "0 25 * * *", "0 6 * *", "[1]", "'@dayly'", "{cron: '0 6 * * *', timezone: Berlin}"),
    "timezone": ("Europe/Berlinn",),
    "owner": ("[a]", "{a: 1}"),
    "input": ("task:nothing", "'[1,'", "task:", "{a: .nan}"),
    "input_path": ("'[{]'", "\"{'a': 1}\"", "[1, .inf]"),
    "input_type": ("statik", "[static]"),
    "executor": ("quik", "block:wrong"),
    "volume": ("dataa", "[data]"),
    "secret": ("kee", "[key]"),
    "module": ("shopss", "no.such.module", "count.py", "[shops]"),
    "function": ("list_shop", "[a]", "nothing"),
    "local_path_file": ("keys/kee.txt", "keys"),
    "default": ("many",),
    "super": ("comon", "child", "[base]"),
    "local": ("data", "{paht: data}"),
    "backends": ("[cloudwach]", "log"),
    "namespace": ("[a]",),
    "task": ("bad name!", "[a]", "'{{undefined_name}}'"),
    "pipeline": ("bad/name", "{a: 1}"),
    "endpoint": ("[a]",),
    "variables": ("[a]", "text"),
    "output_path": ("[a]", "../../x.json"),
}


def value_wrong(lines: list[str], draw: random.Random):
    places = [(i, m) for i, m in _keys(lines, free=True) if m["key"] in NUMBERS and _is_leaf(lines, i)]
    index, found = draw.choice(places)
    wrong = draw.choice(NUMBERS[found["key"]])
    if found["key"] == "default" and "int" not in lines[index - 1]:
        wrong = "someday"
    return _with(lines, index, f"{found['lead']}{found['key']}: {wrong}"), {index}


def _is_leaf(lines: list[str], index: int) -> bool:
    """Whether the value of a key is on its line."""
    return KEY.match(lines[index])["value"].strip() not in ("", "|", ">-", "&common")


def key_missing(lines: list[str], draw: random.Random):
    """A required key is gone that is not the first of its item."""
    wanted = ("type", "cmd", "function", "remote_path", "volume", "path")
    places = [
        (i, m)
        for i, m in _keys(lines)
        if m["key"] in wanted and "-" not in m["lead"] and len(m["lead"]) > 4 and m["key"] != "remote_path"
    ]
    places = [(i, m) for i, m in places if _is_leaf(lines, i) and _item_key(lines, i) in ("task", "mount", "endpoint")]
    index, _found = draw.choice(places)
    start = _item_line(lines, index)
    if _item_key(lines, index) == "task" and KEY.match(lines[index])["key"] == "function":
        return [*lines[:index], *lines[index + 1 :]], {start, index - 1}
    return [*lines[:index], *lines[index + 1 :]], {start}


def _item_key(lines: list[str], index: int) -> str:
    return KEY.match(lines[_item_line(lines, index)])["key"]


def name_twice(lines: list[str], draw: random.Random):
    for key in draw.sample(["task", "pipeline", "name", "secret"], 4):
        places = [(i, m) for i, m in _keys(lines) if m["key"] == key and m["lead"].endswith("- ")]
        by_indent: dict[str, list[tuple[int, re.Match[str]]]] = {}
        for one in places:
            by_indent.setdefault(one[1]["lead"], []).append(one)
        groups = [group for group in by_indent.values() if len(group) > 1]
        if groups:
            group = draw.choice(groups)
            at = draw.randrange(len(group) - 1)
            (_, first), (index, second) = group[at], group[at + 1]
            if key == "task" and any(re.match(r"  - pipeline", line) for line in lines[group[at][0] : index]):
                continue
            if key == "task" and any("before" in line or "after" in line for line in lines[group[at][0] : index]):
                continue
            if key == "secret" and first["lead"] != "  - ":
                continue
            return _with(lines, index, f"{second['lead']}{key}:{first['value']}"), {index}
    return None


def variable_undefined(lines: list[str], draw: random.Random):
    places = [i for i, line in enumerate(lines) if re.search(r"\{\{[a-z.]+\}\}", line)]
    if not places:
        return None
    index = draw.choice(places)
    found = re.search(r"\{\{([a-z.]+)\}\}", lines[index])
    wrong = found[1] + "x"
    return _with(lines, index, lines[index].replace(found[0], "{{" + wrong + "}}")), {index}


def indent_wrong(lines: list[str], draw: random.Random):
    """One space too many, at a key with neighbours above and below it."""
    places = [
        i
        for i, m in _keys(lines, free=True)
        if "-" not in m["lead"] and m["lead"] and _is_leaf(lines, i) and _is_leaf_above(lines, i)
    ]
    index = draw.choice(places)
    return _with(lines, index, " " + lines[index]), {index}


def _is_leaf_above(lines: list[str], index: int) -> bool:
    found = KEY.match(lines[index - 1])
    same = found and len(found["lead"]) == len(KEY.match(lines[index])["lead"])
    return bool(same and _is_leaf(lines, index - 1))


def tab(lines: list[str], draw: random.Random):
    places = [i for i, m in _keys(lines) if "-" not in m["lead"] and m["lead"] and _is_leaf(lines, i)]
    index = draw.choice(places)
    return _with(lines, index, "\t" + lines[index].lstrip()), {index}


def quote_open(lines: list[str], draw: random.Random):
    places = [i for i, line in enumerate(lines) if re.search(r"(['\"])[^'\"]*\1\s*\}?$", line) and line.count("'") != 4]
    if not places:
        return None
    index = draw.choice(places)
    line = re.sub(r"['\"](\s*\}?)$", r"\1", lines[index])
    return _with(lines, index, line), {index}


def bracket_open(lines: list[str], draw: random.Random):
    places = [i for i, line in enumerate(lines) if line.endswith(("]", "}"))]
    index = draw.choice(places)
    return _with(lines, index, lines[index][:-1]), {index}


def colon_gone(lines: list[str], draw: random.Random):
    places = [(i, m) for i, m in _keys(lines, free=True) if m["value"].strip() and "-" not in m["lead"]]
    places = [(i, m) for i, m in places if _is_leaf(lines, i) and _is_leaf_above(lines, i) and m["lead"]]
    index, found = draw.choice(places)
    return _with(lines, index, f"{found['lead']}{found['key']}{found['value']}"), {index, index - 1}


def space_gone(lines: list[str], draw: random.Random):
    places = [(i, m) for i, m in _keys(lines) if re.match(r" [a-z0-9]+$", m["value"]) and "-" not in m["lead"]]
    places = [(i, m) for i, m in places if m["lead"] and _is_leaf_above(lines, i)]
    index, found = draw.choice(places)
    return _with(lines, index, f"{found['lead']}{found['key']}:{found['value'].strip()}"), {index, index - 1}


def dash_gone(lines: list[str], draw: random.Random):
    """A second item of a list loses its dash: its first key is there twice, or has no place."""
    places = [i for i, m in _keys(lines) if m["lead"].endswith("- ") and m["key"] in ("task", "name", "secret")]
    places = [i for i in places if i and KEY.match(lines[i - 1]) and _is_leaf(lines, i - 1)]
    places = [
        i
        for i in places
        if _is_leaf(lines, i) and len(KEY.match(lines[i - 1])["lead"]) == len(KEY.match(lines[i])["lead"])
    ]
    if not places:
        return None
    index = draw.choice(places)
    return _with(lines, index, lines[index].replace("- ", "  ", 1)), {index}


def alias_unknown(lines: list[str], draw: random.Random):
    places = [(i, m) for i, m in _keys(lines) if _is_leaf(lines, i) and "-" not in m["lead"] and m["lead"]]
    index, found = draw.choice(places)
    return _with(lines, index, f"{found['lead']}{found['key']}: *nothing"), {index}


def depends_on_wrong(lines: list[str], draw: random.Random):
    places = [i for i, line in enumerate(lines) if "depends_on: [" in line]
    if not places:
        return None
    wrong = draw.choice(["[coun]", "[count, report]", "[nothing]", "[list_shops, lists_shops]"])
    return _with(lines, places[0], re.sub(r"\[.*\]", wrong, lines[places[0]])), {places[0]}


def _with(lines: list[str], index: int, line: str) -> list[str]:
    return [*lines[:index], line, *lines[index + 1 :]]


MUTATIONS: tuple[Mutate, ...] = (
    *(key_misspelled, key_misspelled, key_misspelled, key_twice, type_misspelled),
    *(value_wrong, value_wrong, value_wrong, value_wrong, value_wrong, key_missing, name_twice),
    *(variable_undefined, indent_wrong, tab, quote_open, bracket_open, colon_gone, space_gone),
    *(dash_gone, alias_unknown, depends_on_wrong),
)


def mutations(seed: int, count: int) -> Iterator[Mutation]:
    """Different mistakes; each draw is decided by the seed."""
    draw = random.Random(seed)
    seen = set()
    while len(seen) < count:
        file = draw.choices(CONFIGS, weights=(6, 1, 2))[0]
        mutate = draw.choice(MUTATIONS)
        lines = FILES[file].rstrip("\n").split("\n")
        try:
            made = mutate(lines, draw)
        except IndexError:  # no such place in this file
            continue
        if made is None or tuple(made[0]) in seen or made[0] == lines:
            continue
        seen.add(tuple(made[0]))
        yield Mutation(mutate.__name__, file, tuple(made[0]), frozenset(line + 1 for line in made[1]))


def write(folder: Path) -> None:
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def told(folder: Path, mutation: Mutation) -> tuple[bool, list[str]]:
    """Whether the mistake is an error or a warning on an exact line, and all that is told."""
    path = folder / mutation.file
    path.write_text(mutation.text)
    try:
        problems = check(folder, cache=False).problems
    finally:
        path.write_text(FILES[mutation.file])
    exact = any(one.mark.file == mutation.file and one.mark.line in mutation.exact for one in problems)
    return exact, [str(one) for one in problems]


def test_the_good_files_are_good(tmp_path: Path) -> None:
    write(tmp_path)

    assert check(tmp_path, cache=False).problems == []


@pytest.mark.slow
def test_mistakes_are_told_on_their_line(tmp_path: Path) -> None:
    write(tmp_path)
    missed = []
    drawn = list(mutations(SEED, COUNT))

    for mutation in drawn:
        exact, problems = told(tmp_path, mutation)
        if not exact:
            missed.append((mutation.kind, mutation.file, sorted(mutation.exact), problems))

    assert len(drawn) == COUNT
    assert len(missed) <= COUNT * (1 - SHARE), missed


@pytest.mark.slow
def test_one_mistake_is_told_few_times(tmp_path: Path) -> None:
    """No avalanche: one mistake rarely gives more than two problems."""
    write(tmp_path)

    counts = [len(told(tmp_path, one)[1]) for one in mutations(SEED, COUNT)]

    assert min(counts) >= 0
    assert sum(count > 2 for count in counts) <= COUNT * 0.1, counts


def main() -> None:
    import tempfile

    seed, count = int(sys.argv[1]), int(sys.argv[2])
    missed = 0
    with tempfile.TemporaryDirectory() as name:
        write(Path(name))
        for mutation in mutations(seed, count):
            exact, problems = told(Path(name), mutation)
            missed += not exact
            if not exact or len(problems) > 2:
                line = min(mutation.exact)
                print(
                    f"{'MISSED' if not exact else 'many'} {mutation.kind} {mutation.file}:{sorted(mutation.exact)}: {mutation.lines[line - 1]}"
                )
                print(*(f"    {one}" for one in problems[:4]), sep="\n")
    print(f"{count - missed} of {count} exact")


if __name__ == "__main__":
    main()
