"""Reading files and cutting inputs."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from rainbow_prefect.engine.inputs import as_json, joined, read_files
from rainbow_prefect.errors import TaskFailed
from rainbow_prefect.run import Large


@pytest.mark.parametrize(
    "name, text, value",
    [
        ("a.json", '{"a": [1, null]}', {"a": [1, None]}),
        ("a.json", '\ufeff"bom"', "bom"),
        ("a.txt", "[1]", [1]),
        ("a.jsonl", '{"a": 1}\n\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
        ("a.NDJSON", "1\n2", [1, 2]),
        ("a.csv", 'name,n\n"x, y",1\nz,\n', [{"name": "x, y", "n": "1"}, {"name": "z", "n": ""}]),
        ("a.csv", "name,n\nx\n", [{"name": "x", "n": None}]),
        ("a.csv", "name\n", []),
        ("a.tsv", "a\tb\n1\t2\n", [{"a": "1", "b": "2"}]),
    ],
)
def test_a_file_is_read_as_its_name_says(tmp_path: Path, name: str, text: str, value: Any) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")

    assert read_files(name, tmp_path) == value


def test_the_files_of_a_glob_are_one_list_in_order(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "b.json").write_text("[1, 2]")
    (tmp_path / "in" / "a.json").write_text('{"one": "item"}')
    (tmp_path / "in" / "deep" / "c.csv").write_text("n\n3\n")

    assert read_files("in/*.json", tmp_path) == [{"one": "item"}, 1, 2]
    assert read_files("in/**/*.*", tmp_path) == [{"one": "item"}, 1, 2, {"n": "3"}]
    assert read_files(f"{tmp_path}/in/b.*", tmp_path) == [1, 2]


def test_a_large_value_stays_in_its_file(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    path.write_text('{"a": "' + "x" * 1_200_000 + '"}')

    assert read_files("large.json", tmp_path) == Large(path, path.stat().st_size)


@pytest.mark.parametrize(
    "name, data, message",
    [
        (
            "a.json",
            b'{"a": 1,\n  b: 2}',
            "input file is not JSON: a.json:2:3: Expecting property name enclosed in double quotes",
        ),
        ("a.json", b"", "input file is not JSON: a.json is empty; write [] or {} for no data"),
        ("a.json", b"[NaN]", "input file is not JSON: a.json: NaN is no JSON number"),
        ("a.jsonl", b"1\nx\n", "input file is not JSON: a.jsonl:2, column 1: Expecting value"),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", "input file 'a.csv' is not CSV: row 3 has more cells than the header"),
        ("a.json", b"\xff\xfe", "input file 'a.json' is not UTF-8 text: byte 0 is 0xff"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)

    with pytest.raises(TaskFailed) as caught:
        read_files(name, tmp_path)

    assert str(caught.value) == message


def test_files_that_are_not_there_are_told(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()

    for pattern, message in [
        ("no.json", f"input file 'no.json' does not exist; it is looked for in {tmp_path}"),
        ("folder", f"input file 'folder' is a folder; it is looked for in {tmp_path}"),
        ("no/*.json", f"no file matches input 'no/*.json'; it is looked for in {tmp_path}"),
    ]:
        with pytest.raises(TaskFailed) as caught:
            read_files(pattern, tmp_path)
        assert str(caught.value) == message


def test_dates_of_the_file_become_text() -> None:
    assert as_json({"day": date(2024, 1, 31), "all": (date(2024, 2, 1), 1)}) == {
        "day": "2024-01-31",
        "all": ["2024-02-01", 1],
    }


def test_outputs_are_joined_without_reading_large_ones(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text("[1, 2]")

    large = joined([{"a": 1}, Large(path, 6), None], tmp_path)

    assert large.load() == [{"a": 1}, [1, 2], {}]
    assert large.items == 3
    assert joined([1, None], tmp_path) == [1, {}]
