"""What a task reads and how it is cut into slices: data, files, outputs of other tasks. No Prefect here."""

from __future__ import annotations

import csv
import glob
import io
import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from ..errors import TaskFailed
from ..run import LARGE_OUTPUT_BYTES, Large, chunks, split, value_of
from ..schema import kind_of
from ..tasks.base import Task

_MAGIC = frozenset("*?[")


def read_files(pattern: str, root: Path) -> Any:
    """The data of one file, or of all files of a glob as one list.

    Shape: JSON gives its value, JSON lines and CSV give a list (of mappings from column to text). Of a glob's files, in
    order of their names, lists are joined and every other value is one item.

    Raises:
        TaskFailed: no such file, or it cannot be read as what its name says.
    """
    path = root / Path(pattern).expanduser()
    if path.is_file():
        return _read(path, pattern)
    if not _MAGIC & set(pattern):
        what = "is a folder" if path.is_dir() else "does not exist"
        raise TaskFailed(f"input file '{pattern}' {what}; it is looked for in {root}")
    found = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207  Path.glob takes no absolute patterns
    files = [one for one in map(Path, found) if one.is_file()]
    if not files:
        raise TaskFailed(f"no file matches input '{pattern}'; it is looked for in {root}")
    items: list[Any] = []
    for file in files:
        shown = str(file.relative_to(root)) if file.is_relative_to(root) else str(file)
        value = value_of(_read(file, shown))
        items.extend(value if isinstance(value, list) else [value])
    return items


def _read(path: Path, shown: str) -> Any:
    try:
        match path.suffix.lower():
            case ".csv" | ".tsv":
                return _read_csv(path, shown)
            case ".jsonl" | ".ndjson":
                lines = path.read_text(encoding="utf-8-sig").splitlines()
                return [_parsed(line, f"{shown}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
            case _:
                return _read_json(path, shown)
    except UnicodeDecodeError as error:
        raise TaskFailed(
            f"input file '{shown}' is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}"
        ) from None
    except OSError as error:
        raise TaskFailed(f"input file '{shown}' cannot be read: {error.strerror}") from None


def _read_json(path: Path, shown: str) -> Any:
    text = path.read_text(encoding="utf-8-sig")
    if not text.strip():
        raise TaskFailed(f"input file is not JSON: {shown} is empty; write [] or {{}} for no data")
    value = _parsed(text, shown)
    if len(text) > LARGE_OUTPUT_BYTES and not isinstance(value, list) and not text.startswith("\ufeff"):
        return Large(path, path.stat().st_size)
    return value


def _parsed(text: str, shown: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        place = f"{shown}:{error.lineno}:{error.colno}" if "\n" in text else f"{shown}, column {error.colno}"
        raise TaskFailed(f"input file is not JSON: {place}: {error.msg}") from None
    except ValueError as error:
        raise TaskFailed(f"input file is not JSON: {shown}: {error}") from None
    except RecursionError:
        raise TaskFailed(f"input file is not JSON: {shown}: it is nested too deep") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _read_csv(path: Path, shown: str) -> list[dict[str, Any]]:
    text = path.read_bytes().decode("utf-8-sig")
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    try:
        items = [dict(row) for row in rows]
    except csv.Error as error:
        raise TaskFailed(f"input file '{shown}' is not CSV: line {rows.line_num}: {error}") from None
    if any(None in row for row in items):
        number = next(number for number, row in enumerate(items, 2) if None in row)
        raise TaskFailed(f"input file '{shown}' is not CSV: row {number} has more cells than the header")
    return items


def as_json(value: Any) -> Any:
    """A value of the file as JSON data: YAML and parameters know dates, which become their ISO text."""
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): as_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(one) for one in value]
    return value


def slices_of(task: Task, value: Any, *, what: str) -> Sequence[Any]:
    """The inputs of the slices of a task; `what` names the value in messages (`the output of task 'make'`).

    Raises:
        TaskFailed: it must be split and is not a list.
    """
    if task.split_size is None and not task.split_input:
        return [value] * task.slice_count
    items = value_of(value)
    if not isinstance(items, list):
        key = "split_size" if task.split_size is not None else "split_input"
        raise TaskFailed(f"{key} needs a list, but {what} is {kind_of(items)}")
    return chunks(items, task.split_size) if task.split_size is not None else split(items, task.executors)


def joined(outputs: Sequence[Any], folder: Path) -> Any:
    """The outputs of the slices of a task as the input of another one; a list that is large becomes a file.

    An output that is nothing is `{}` for whoever reads it.
    """
    values = [{} if one is None else one for one in outputs]
    if not any(isinstance(one, Large) for one in values):
        return values
    path = folder / "joined.json"
    with path.open("wb") as file:
        for number, one in enumerate(values):
            file.write(b"[" if number == 0 else b",")
            file.write(one.path.read_bytes() if isinstance(one, Large) else json.dumps(one).encode())
        file.write(b"]")
    return Large(path, path.stat().st_size, len(values))
