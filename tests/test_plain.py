"""What is read line by line is read as the parser reads it; what may be wrong is left to the parser."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from yaml.resolver import Resolver

from rainbow_prefect import parsing, plain
from rainbow_prefect.document import List, Map

from .test_corpus import BASE, CHILD, SHOP

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*/rainbow.yml"))
MUTATIONS = 3000

PLAIN = (
    "a: 1",
    "a: 1\n",
    "---\na: 1\n",
    "# first\n\n  # second\na: 1 # third\n",
    "a:\nb: ~\nc:   \nd:  # nothing\ne: null",
    "a:\n  b:\n    c: 1\n  d: 2\ne: 3",
    "a:\n- 1\n- b: 2\n  c: 3\n-   d: 4\n    e: 5\nf: 6",
    "a:\n  - b:\n    - 1\n    - 2\n    c:\n      - 3\n  - x",
    "a:\n  - b:\n  - c: 1",
    "a: {}\nb: []\nc: { }\nd: [ ]",
    "a: {b: 1, 'c d': two words, \"e\": [1, {f: g}, []], h: {}}",
    "a: [1, -2, 0x1F, 1.50, 2024-01-31, 'it', \"x\", a b , http://x/y, task:t]  # end",
    "- a: 1".replace("- ", "x:\n  - ") + "\n    b: 'it''s # none'\n    c: \"x: y\"  # some",
    "a: yes\nb: No\nc: TRUE\nd: off\ne: y\nf: Null\ng: nUll\nh: '~'\ni: \"\"\nj: ''",
    "a: 010\nb: 0o7\nc: 1_000\nd: 1e3\ne: 1.0e+3\nf: .5\ng: -.inf\nh: 12:30:45\ni: 0b11\nj: +1\nk: 12345678901234567890123",
    "a: 2024-01-31\nb: 2024-01-31 08:00:00\nc: 2024-01-31T08:00:00Z\nd: 3.10\ne: 0 6 * * *\nf: 1.2.3\ng: 10%\nh: 1-2",
    "a: task:b\nb: file:x/*.json\nc: http://x/y?a=b&c#d".replace("#d", ""),
    "a: python -u hello.py --x={{y}}\nb: ~/x\nc: ./run.sh\nd: $HOME\ne: (x)\nf: -u\ng: /x",
    "a: grüße €\nb: 'ß{{x}}'\nc: 日本 x".replace("c: 日本 x", 'c: "日本 x"'),
    "task-1.a_b: x\n_x: y\nx-mine: z",
    "a: b   \nc: 'd'   \ne: [1]   \n   \n\n",
)
OTHER = (
    *("", "# nothing", "text", "- a", "  a: 1", "a", "a: b\n...", "---", "a: 1\n---\nb: 2", "%YAML 1.1\n---\na: 1"),
    *("a: |\n  x", "a: >\n  x", "a: &x 1", "a: *x", "a: !!str 1", "<<: {a: 1}", "? a", "a:\tb", "a: 1\r\nb: 2"),
    *("a: b\n  c", "a: 'b\n  c'", "a: [1,\n  2]", "a: b: c", "a: b:", "a: {b}", "a: [b: c]", "a: {{b}}", "a: [1, ]"),
    *("a: 1\na: 2", "a: {b: 1, b: 2}", "a:\n  b: 1\n c: 2", "a: 1\n  b: 2", "a: 1\n- b", "a:\n  - b\n  c: 1"),
    *("a:\n-\n  b: 1", "a:\n- - b", "a: 'b' c", 'a: "\\x41"', "a: {b: 1}}", "a: [1]]", "a: [1} ", "a: 2024-02-30"),
    *("a: `b`", "a: @b", "a: %b", "a: ,b", "a: ]", "'a': 1", "1: a", "a : b", "a: b #c: d\n e", "\ufeffa: 1", "a: \0"),
)


def shape(value: Any) -> Any:
    """All of a value: types, order and marks too."""
    if isinstance(value, Map):
        pairs = [(key, value.marks[key], shape(one)) for key, one in value.items()]
        return "map", value.file, value.line, value.column, pairs, list(value.marks)
    if isinstance(value, List):
        return "list", value.file, value.line, value.column, value.marks, [shape(one) for one in value]
    return type(value), repr(value), str(value)


def parsed(text: str) -> tuple[Any, int]:
    data, problems = parsing.read(text, shown="f.yml")
    return shape(data), len(problems)


@pytest.mark.parametrize("text", PLAIN)
def test_plain_yaml_is_read_as_the_parser_reads_it(text: str) -> None:
    found = plain.read(text, shown="f.yml")

    assert found is not None
    assert (shape(found), 0) == parsed(text)


@pytest.mark.parametrize("text", OTHER)
def test_other_yaml_is_left_to_the_parser(text: str) -> None:
    assert plain.read(text, shown="f.yml") is None


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.parent.name)
def test_an_example_is_read_as_the_parser_reads_it(file: Path) -> None:
    text = file.read_text()

    found = plain.read(text, shown="f.yml")

    assert found is None or (shape(found), 0) == parsed(text)


def test_most_examples_are_plain() -> None:
    plain_ones = [file for file in EXAMPLES if plain.read(file.read_text(), shown="f.yml") is not None]

    assert len(plain_ones) > len(EXAMPLES) / 2


@pytest.mark.parametrize("seed", range(4))
def test_no_mutation_is_read_otherwise(seed: int) -> None:
    draw = random.Random(seed)
    texts = [*PLAIN, *PLAIN, *OTHER, SHOP, BASE, CHILD]
    read = 0
    for _ in range(MUTATIONS // 4):
        text = mutated(draw, draw.choice(texts), draw.randint(1, 3))
        found = plain.read(text, shown="f.yml")
        if found is not None:
            read += 1
            assert (shape(found), 0) == parsed(text), text
    assert read > 20


PIECES = (
    *(
        " ",
        "  ",
        "\n",
        "\n  ",
        "\n- ",
        "- ",
        ": ",
        ":",
        "#",
        " #",
        " # x",
        ", ",
        ",",
        "'",
        '"',
        "''",
        "{",
        "}",
        "[",
        "]",
    ),
    *(
        "{}",
        "[]",
        "{a: 1}",
        "[b, 2]",
        "a: 1",
        "\nb: c",
        "~",
        "-",
        "--- ",
        "\n---\n",
        "...",
        "|",
        ">",
        "&a ",
        "*a",
        "!t ",
    ),
    *(
        "?",
        "? ",
        "@",
        "%",
        "`",
        "\\",
        "\\n",
        "\t",
        "=",
        "<<: ",
        "1",
        "-1",
        ".5",
        "0x1",
        "1e5",
        "yes",
        "é",
        "\u2028",
        "\x85",
    ),
)


def mutated(draw: random.Random, text: str, times: int) -> str:
    for _ in range(times):
        at, length = draw.randint(0, len(text)), draw.choice((0, 0, 1, 1, 2, 5))
        text = text[:at] + draw.choice(("", *PIECES)) + text[at + length :]
    return text


def test_what_is_no_number_to_see_is_none_to_the_parser() -> None:
    starts = {first for first in Resolver.yaml_implicit_resolvers if first}
    ends = (
        "",
        "0",
        ".5",
        "_1",
        "e3",
        ":30",
        "-01-31",
        "x1F",
        "inf",
        "o7",
        " 8",
        "es",
        "rue",
        "ull",
        "aN",
        "~",
        "*",
        "/",
    )
    for first in sorted(starts | set("abzAZ(/$")):
        for end in ends:
            text = first + end
            assert shape(plain.value_of(text)) == shape(parsing.plain_value(text)), text


def test_a_plain_file_is_read_without_the_parser(tmp_path: Path) -> None:
    file = tmp_path / "rainbow.yml"
    file.write_text("name: a\npipelines:\n  - pipeline: p\n    schedule: 0 6 * * *\n    retries: 2\n")
    code = """
import sys
from pathlib import Path
from rainbow_prefect.document import read
document, problems = read(Path(sys.argv[1]), shown="rainbow.yml")
print(document.data["pipelines"][0]["retries"], problems, "yaml" in sys.modules)
"""

    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)

    assert done.stdout == "2 [] False\n"
