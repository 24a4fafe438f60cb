"""YAML to data with places: what is read, what is told, where."""

from __future__ import annotations

import datetime
import gc
import json
import os
import pickle
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rainbow_prefect import document, parsing
from rainbow_prefect.document import List, Map, mark_of, parse, path_text, read
from rainbow_prefect.errors import CallError, Mark
from rainbow_prefect.files import find


def data_of(text: str) -> Map:
    data, problems = parse(textwrap.dedent(text), shown="f.yml")
    assert not problems, [*map(str, problems)]
    assert data is not None
    return data


def told(text: str) -> list[str]:
    return [str(problem) for problem in parse(text, shown="f.yml")[1]]


# -- finding files


def test_files_are_found_at_every_level_in_order(tmp_path: Path) -> None:
    names = ["rainbow.yml", "b/rainbow.yaml", "a/deep/liminal.yml", "a/liminal.yaml"]
    for name in [*names, "other.yml", "b/rainbow.yml.bak"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("name: x\n")

    assert find(tmp_path) == [tmp_path / name for name in sorted(names)]


@pytest.mark.parametrize("folder", [".git", ".venv", "venv", "node_modules", "__pycache__"])
def test_folders_of_tools_are_not_entered(tmp_path: Path, folder: str) -> None:
    (tmp_path / "app" / folder / "deep").mkdir(parents=True)
    (tmp_path / "app" / folder / "deep" / "rainbow.yml").write_text("name: x\n")

    assert find(tmp_path) == []


def test_a_file_gives_itself_whatever_its_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: x\n")

    assert find(file) == [file]


def test_nothing_at_the_path_is_an_error_of_the_call(tmp_path: Path) -> None:
    with pytest.raises(CallError) as error:
        find(tmp_path / "none")

    assert str(error.value) == f"'{tmp_path / 'none'}' does not exist"


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "rainbow.yml").write_text("name: x\n")
    (tmp_path / "loop").symlink_to(tmp_path)

    assert find(tmp_path) == [tmp_path / "rainbow.yml"]


# -- reading files


def test_a_document_knows_its_file_and_digest(tmp_path: Path) -> None:
    file = tmp_path / "rainbow.yml"
    file.write_text("name: x\n")

    first, problems = read(file, shown="rainbow.yml")
    file.write_text("name: y\n")
    second, _ = read(file, shown="rainbow.yml")

    assert first is not None and second is not None
    assert (first.file, first.shown, first.data, problems) == (file, "rainbow.yml", {"name": "x"}, [])
    assert first.digest != second.digest


@pytest.mark.parametrize(
    "raw",
    [
        "name: é\nb: 2\n".encode("utf-8-sig"),
        "name: é\nb: 2\n".encode("utf-16"),
        b"\xfe\xff" + "name: é\nb: 2\n".encode("utf-16-be"),
        "name: é\r\nb: 2\r\n".encode(),
        "name: é\rb: 2\r".encode(),
    ],
    ids=["bom", "utf16", "utf16be", "crlf", "cr"],
)
def test_every_way_to_save_a_text_is_read(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "rainbow.yml"
    file.write_bytes(raw)

    found, problems = read(file, shown="f.yml")

    assert found is not None
    assert (found.data, problems) == ({"name": "é", "b": 2}, [])
    assert mark_of(found.data, ["b"]) == Mark("f.yml", 2, 4)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"name: x\nb: \xff\n", "f.yml:2:4: is not UTF-8 text: byte 0xff; save the file as UTF-8"),
        (b"name: x\r\nb: \xe4\r\n", "f.yml:2:4: is not UTF-8 text: byte 0xe4; save the file as UTF-8"),
        (b"a: 1\nb: \x07\n", "f.yml:2:4: the character U+0007 is not allowed in YAML; remove it"),
        (b"a\0: \0", "f.yml:1:2: the character U+0000 is not allowed in YAML; save the file as UTF-8 text"),
        (b"", "f.yml:1:1: the file is empty; write at least `name: NAME`"),
        (b"# nothing\n", "f.yml:1:1: the file is empty; write at least `name: NAME`"),
    ],
)
def test_a_file_that_is_no_text_is_told(tmp_path: Path, raw: bytes, text: str) -> None:
    file = tmp_path / "rainbow.yml"
    file.write_bytes(raw)

    found, problems = read(file, shown="f.yml")

    assert found is None
    assert [*map(str, problems)] == [text]


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    _, problems = read(tmp_path / "rainbow.yml", shown="f.yml")

    assert [*map(str, problems)] == ["f.yml:1:1: cannot be read: No such file or directory"]


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rainbow.yml")

    _, problems = read(tmp_path / "rainbow.yml", shown="f.yml")

    assert [*map(str, problems)] == ["f.yml:1:1: is not a regular file"]


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "rainbow.yml").open("wb") as file:
        file.truncate(document.MAX_BYTES + 1)

    _, problems = read(tmp_path / "rainbow.yml", shown="f.yml")

    assert [*map(str, problems)] == ["f.yml:1:1: is larger than 64 MiB"]


def test_the_collector_is_as_it_was() -> None:
    assert gc.isenabled()

    parse("a: [", shown="f.yml")

    assert gc.isenabled()


# -- values


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("5", 5),
        ("'5'", "5"),
        ("yes", True),
        ("~", None),
        ("", None),
        ("0x1F", 31),
        ("1_000", 1000),
        ("2024-05-01", datetime.date(2024, 5, 1)),
        ("2024-05-01 10:30:00", datetime.datetime(2024, 5, 1, 10, 30)),
        ("0 * 1 * *", "0 * 1 * *"),
        ("!!str 5", "5"),
        ("!!int '5'", 5),
        ("!!float 5", 5.0),
        ("!!seq [1]", [1]),
        ("!!map {a: 1}", {"a": 1}),
        ("|\n  a\n  b\n", "a\nb\n"),
        (">\n  a\n  b\n", "a b\n"),
        ('"a\\tb"', "a\tb"),
        (".inf", float("inf")),
        ("=", "="),
    ],
)
def test_a_value_has_the_type_of_yaml(written: str, value: Any) -> None:
    found = data_of(f"a: {written}")["a"]

    assert found == value
    assert isinstance(found, type(value))


def test_a_number_remembers_how_it_was_written() -> None:
    value = data_of("version: 3.10")["version"]

    assert (value, str(value), json.dumps(value)) == (3.1, "3.10", "3.1")


@pytest.mark.parametrize("key", ["5", "on", "2024-01-01", "1.10", "'quoted'", "null", "0x10"])
def test_a_key_is_the_text_as_written(key: str) -> None:
    assert list(data_of(f"{key}: 1")) == [key.strip("'")]


def test_anchors_and_merge_keys_work() -> None:
    data = data_of("""
        x-base: &base {a: 1, b: 2}
        x-more: &more {b: 3, c: 3}
        one: {<<: *base, b: own}
        two: {<<: [*base, *more], d: 4}
        three: *base
        list: [&word text, *word]
        """)

    assert data["one"] == {"a": 1, "b": "own"}
    assert data["two"] == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert data["three"] == {"a": 1, "b": 2}
    assert data["list"] == ["text", "text"]


def test_a_quoted_merge_key_is_a_key() -> None:
    assert data_of("'<<': 1") == {"<<": 1}


def test_data_can_be_pickled_with_its_places() -> None:
    data = data_of("a: [1, {b: 3.10}]")

    copy = pickle.loads(pickle.dumps(data))

    assert copy == data
    assert mark_of(copy, ["a", 1, "b"]) == mark_of(data, ["a", 1, "b"])
    assert str(copy["a"][1]["b"]) == "3.10"


# -- places

TEXT = """\
name: app
pipelines:
  - pipeline: one
    tasks:
      - {task: a, type: python}
      - task: b
        env_vars:
          A: 'text'
          B:
        cmd: |
          long
"""


@pytest.mark.parametrize(
    ("keys", "value", "key"),
    [
        ((), (1, 1), (1, 1)),
        (("name",), (1, 7), (1, 1)),
        (("pipelines",), (3, 3), (2, 1)),
        (("pipelines", 0), (3, 5), (3, 5)),
        (("pipelines", 0, "pipeline"), (3, 15), (3, 5)),
        (("pipelines", 0, "tasks", 0), (5, 9), (5, 9)),
        (("pipelines", 0, "tasks", 0, "type"), (5, 25), (5, 19)),
        (("pipelines", 0, "tasks", 1), (6, 9), (6, 9)),
        (("pipelines", 0, "tasks", 1, "env_vars"), (8, 11), (7, 9)),
        (("pipelines", 0, "tasks", 1, "env_vars", "A"), (8, 14), (8, 11)),
        (("pipelines", 0, "tasks", 1, "env_vars", "B"), (9, 13), (9, 11)),
        (("pipelines", 0, "tasks", 1, "cmd"), (10, 14), (10, 9)),
        (("pipelines", 0, "tasks", 1, "missing"), (6, 9), (6, 9)),
        (("pipelines", 0, "tasks", 7), (5, 7), (5, 7)),
        (("pipelines", 0, "tasks", -1), (5, 7), (5, 7)),
        (("name", "below", 3), (1, 7), (1, 7)),
    ],
)
def test_a_mark_is_where_it_was_written(keys: Any, value: tuple[int, int], key: tuple[int, int]) -> None:
    data = data_of(TEXT)

    assert mark_of(data, keys) == Mark("f.yml", *value)
    assert mark_of(data, keys, on_key=True) == Mark("f.yml", *key)


def test_a_value_of_an_alias_is_where_it_is_used_and_its_parts_where_they_are_written() -> None:
    data = data_of("x-a: &a {k: 1}\nb: *a\nc:\n  <<: *a\n")

    assert mark_of(data, ["b"]) == Mark("f.yml", 2, 4)
    assert mark_of(data, ["b", "k"]) == Mark("f.yml", 1, 13)
    assert mark_of(data, ["c", "k"]) == Mark("f.yml", 1, 13)


def test_plain_data_has_no_place() -> None:
    assert mark_of({"a": 1}, ["a"]) == Mark("", 1, 1)


@pytest.mark.parametrize(
    ("keys", "text"), [(("pipelines", 0, "tasks", 2, "type"), "pipelines[0].tasks[2].type"), ((), ""), ((0,), "[0]")]
)
def test_a_path_is_written_as_in_code(keys: Any, text: str) -> None:
    assert path_text(keys) == text


# -- what is wrong


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "a: 1\nb:\n  a: 1\na: 2\n",
            "4:1: duplicate key 'a'; it is at line 1 already; remove or rename one of them",
        ),
        (
            "<<: {a: 1}\n<<: {b: 1}\n",
            "2:1: duplicate key '<<'; merge a list instead: `<<: [*one, *two]`",
        ),
        ("<<: 5\n", "1:5: `<<` needs a mapping or a list of mappings; write `<<: *name` of an anchor"),
        ("a: &a [*a]", "1:8: the anchor 'a' contains itself; write the values out"),
        ("a: &a {<<: *a}", "1:12: the anchor 'a' contains itself; write the values out"),
        ("a: &a {b: {<<: *a}}", "1:16: the anchor 'a' contains itself; write the values out"),
        ("a: *b", "1:4: the alias '*b' has no anchor '&b' before it; quote a text that starts with '*'"),
        ("a: {{ b }}", "1:4: a placeholder must be quoted; write '{{b}}' with quotes"),
        ("? [a]\n: 1", "1:3: a list cannot be a key; write a text before the colon"),
        ("? {a: 1}\n: 1", "1:3: a mapping cannot be a key; write a text before the colon"),
        (
            "a: 2024-02-30",
            "1:4: '2024-02-30' is not a valid value: day is out of range for month; quote it when it is text",
        ),
        (
            "a: !!int x",
            "1:4: 'x' is not a valid value: invalid literal for int() with base 10: 'x'; quote it when it is text",
        ),
        ("a: !!binary aGk=", "1:4: the YAML tag '!!binary' is not supported; remove it"),
        ("a: !mine {b: 1}", "1:4: the YAML tag '!mine' is not supported; remove it"),
        ("a: !!set {b}", "1:4: the YAML tag '!!set' is not supported; remove it"),
        ("a: !!python/name:os.system x", "1:4: the YAML tag '!!python/name:os.system' is not supported; remove it"),
        ('a: "\\0"', "1:4: the character U+0000 is not allowed; remove it"),
        ("a: 1\n---\nb: 2\n", "2:1: a second YAML document starts here; put it in a file of its own"),
        (
            "- a\n",
            "1:1: the root must be a mapping, got a list; write `name: NAME` and the other keys without leading dashes",
        ),
        (
            "text\n",
            "1:1: the root must be a mapping, got text; write `name: NAME` and the other keys without leading dashes",
        ),
        (
            "name: x\n  pipelines: [\n",
            "2:12: not valid YAML: mapping values are not allowed in this context; "
            "indent it as its neighbours, or quote a text that contains ': '",
        ),
        (
            "a: [1, 2\nb: 3\n",
            "1:4: not valid YAML: while parsing a flow sequence, did not find expected ',' or ']'; "
            "close the bracket, or put a comma between the items",
        ),
        (
            "a: {b: 1\nc: 3\n",
            "1:4: not valid YAML: while parsing a flow mapping, did not find expected ',' or '}'; "
            "close the brace, or put a comma between the keys",
        ),
        (
            "a: 'x\nb: 1\n",
            "1:4: not valid YAML: while scanning a quoted scalar, found unexpected end of stream; close the quote",
        ),
        (
            "s: * * * * *\n",
            "1:5: not valid YAML: while scanning an alias, did not find expected alphabetic or numeric character; "
            "quote a text that starts with '*' or '&'",
        ),
        (
            "a:\n\tb: 1\n",
            "2:1: not valid YAML: while scanning for the next token, found character that cannot start any token; "
            "indent with spaces, not tabs",
        ),
        (
            "s: @daily\n",
            "1:4: not valid YAML: while scanning for the next token, found character that cannot start any token; quote it",
        ),
        (
            "a:\n  b: {{c}}-d\n",
            "2:6: a placeholder must be quoted; write '{{c}}' with quotes",
        ),
    ],
)
def test_what_is_wrong_is_told_at_its_place(text: str, problem: str) -> None:
    assert told(text)[0] == f"f.yml:{problem}"


def test_a_path_that_no_file_can_have_does_not_exist() -> None:
    for name in ("a" * 5000, "a/\0"):
        with pytest.raises(CallError) as caught:
            find(Path(name))
        assert str(caught.value) == f"'{name}' does not exist"


def test_all_duplicates_are_told_and_the_rest_is_read() -> None:
    data, problems = parse("a: 1\na: 2\nb: {c: 1, c: 2}\n", shown="f.yml")

    assert data == {"a": 1, "b": {"c": 1}}
    assert [problem.mark.line for problem in problems] == [2, 3]


def test_a_number_with_too_many_digits_is_told() -> None:
    assert told("a: " + "1" * 5000) == [
        f"f.yml:1:4: '{'1' * 40}...' is not a valid value: too many digits; quote it when it is text"
    ]


@pytest.mark.parametrize(("opening", "column"), [("[", 103), ("{a: ", 400), ("[{a: ", 250)])
def test_deep_nesting_is_told(opening: str, column: int) -> None:
    assert told("a: " + opening * 5000) == [f"f.yml:1:{column}: nested deeper than 100 levels; write it flatter"]


def test_deep_nesting_of_blocks_is_told() -> None:
    text = "".join(f"{' ' * depth}a:\n" for depth in range(3000))

    assert told(text) == ["f.yml:101:101: nested deeper than 100 levels; write it flatter"]


def test_deep_nesting_by_aliases_is_told() -> None:
    lines = ["a0: &a0 []", *(f"a{index}: &a{index} [*a{index - 1}]" for index in range(1, 500))]

    assert told("\n".join(lines)) == ["f.yml:100:12: nested deeper than 100 levels; write it flatter"]


def test_aliases_of_aliases_do_not_explode() -> None:
    lines = ["a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]"]
    lines += [f"a{index}: &a{index} [{', '.join([f'*a{index - 1}'] * 9)}]" for index in range(1, 30)]

    problems = told("\n".join(lines))

    assert [text.partition(": ")[2] for text in problems] == [
        "the aliases of this file add more than 250,000 values; write fewer aliases of aliases"
    ]


# -- any input

texts = st.text(st.sampled_from("ab:-?{}[],&*!|>'\"%@`#<=~ \n\t\\0123.\r\u2028é"), max_size=60)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=8).filter(str.isprintable) | st.dates(),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.sampled_from(["a", "b c", "d-e", "5"]), below),
    max_leaves=20,
)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=60) | texts.map(str.encode))
def test_nothing_raises(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yml"
    file.write_bytes(raw)

    found, problems = read(file, shown="f.yml")

    assert found is not None or problems
    assert all(problem.mark.line >= 1 and problem.mark.column >= 1 for problem in problems)


@settings(max_examples=300, deadline=None)
@given(texts)
def test_pure_python_reads_the_same(text: str) -> None:
    fast = parsing.read(text, shown="f.yml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parsing, "_Parser", parsing._PythonParser)
        slow = parsing.read(text, shown="f.yml")

    if fast[0] is not None and slow[0] is not None:
        assert repr(fast[0]) == repr(slow[0])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), plain), st.booleans())
def test_what_is_written_is_read_and_marks_point_at_it(written: dict[str, Any], flow: bool) -> None:
    text = yaml.safe_dump(written, default_flow_style=flow, allow_unicode=True, width=10_000)

    data, problems = parse(text, shown="f.yml")

    assert (data, problems) == (written, [])
    _check_marks(data, text.splitlines())


def _check_marks(value: Any, lines: list[str]) -> None:
    """At each mark of a key or a plain value stands that key or value."""
    if isinstance(value, Map):
        for key, one in value.items():
            _, key_line, key_column, line, column = value.marks[key]
            assert lines[key_line - 1][key_column - 1 :].lstrip("'").startswith(key)
            _check_value(one, lines[line - 1][column - 1 :])
            _check_marks(one, lines)
    elif isinstance(value, List):
        for one, (_, line, column) in zip(value, value.marks, strict=True):
            _check_value(one, lines[line - 1][column - 1 :])
            _check_marks(one, lines)


def _check_value(value: Any, rest: str) -> None:
    if isinstance(value, bool):
        assert rest.startswith(("true", "false"))
    elif isinstance(value, int | datetime.date):
        assert rest.startswith(str(value))
    elif isinstance(value, str) and value.isalnum() and value.isascii():
        assert rest.lstrip("'\"").startswith(value)
    elif isinstance(value, dict) and rest.startswith("{") is False and value:
        assert rest.lstrip("'").startswith(next(iter(value)))
