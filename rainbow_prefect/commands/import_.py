"""`rainbow import liminal DIR` and `rainbow import dag-factory FILE`: write a rainbow.yml and say what was not mapped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import yaml

from ..errors import CallError
from ..migrate import Migration, of_dag_factory, of_liminal
from .options import json_option, print_json

_SKIPPED = frozenset({".git", ".venv", "venv", "node_modules", "__pycache__"})
_FILES = frozenset({"liminal.yml", "liminal.yaml", "rainbow.yml", "rainbow.yaml"})


@click.group()
def command() -> None:
    """Write a rainbow.yml from files of Liminal or dag-factory, and say what was not mapped."""


@command.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--to", "target", type=click.Path(path_type=Path), help="The folder to write to; default: that folder.")
@click.option("--force", is_flag=True, help="Write over files that are there.")
@json_option
def liminal(folder: Path, target: Path | None, force: bool, as_json: bool) -> None:
    """Write each liminal.yml below FOLDER as a rainbow.yml beside it."""
    found = list(_below(folder))
    if not found:
        raise CallError(f"there is no liminal.yml and no rainbow.yml in {folder}")
    made = {}
    for file in found:
        inner = file.relative_to(folder)
        place = (target or folder) / inner.with_name("rainbow.yml")
        made[place] = of_liminal(_read(file), str(inner))
    _write(made, sources=set(found), force=force, as_json=as_json)


@command.command(name="dag-factory")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--to", "target", type=click.Path(path_type=Path), help="The folder to write to; default: that of FILE.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@json_option
def dag_factory(file: Path, target: Path | None, force: bool, as_json: bool) -> None:
    """Write the DAGs of FILE as the pipelines of a rainbow.yml."""
    place = (target or file.parent) / "rainbow.yml"
    made = of_dag_factory(_read(file), file.name, file.stem)
    if not made.data["pipelines"]:
        raise CallError(f"{file} has no DAG")
    _write({place: made}, sources={file}, force=force, as_json=as_json)


def _below(folder: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(set(folders) - _SKIPPED)
        chosen = sorted(set(files) & _FILES)  # liminal.yml is first
        if chosen:
            yield Path(here) / chosen[0]


def _read(file: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CallError(f"{file} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise CallError(f"{file} is not YAML: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(data, dict):
        raise CallError(f"{file} is not a mapping")
    return data


def _write(made: dict[Path, Migration], *, sources: set[Path], force: bool, as_json: bool) -> None:
    """Write all files, or none: a file that is there, and is not the one that was read, is kept."""
    for place in made:
        if place.exists() and not force:
            raise CallError(f"{place} exists already; add --force to write over it, or --to FOLDER")
    for place, one in made.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(_text(one), encoding="utf-8")
    if as_json:
        print_json({"files": [{"file": str(place), "not_mapped": one.notes} for place, one in made.items()]})
        return
    for place, one in made.items():
        click.echo(f"wrote {place}")
        for note in one.notes:
            click.echo(f"  {note}")
    old = [str(one) for one in sources if one not in made and one.parent in {place.parent for place in made}]
    if old:
        click.echo(f"next: remove {', '.join(sorted(old))}, whose place this takes; then rainbow check")
    else:
        click.echo("next: rainbow check")


def _text(made: Migration) -> str:
    notes = [f"# {note}" for note in made.notes]
    head = "\n".join(["# not mapped:", *notes, ""]) if notes else ""
    dump: Callable[..., str] = yaml.safe_dump
    return f"{head}{dump(made.data, sort_keys=False, allow_unicode=True, width=120)}"
