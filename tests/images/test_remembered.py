"""Recipes are remembered as long as their check holds, and no longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from rainbow_prefect.check import check
from rainbow_prefect.images import remembered
from rainbow_prefect.images.recipe import Recipe
from rainbow_prefect.images.recipes import recipes
from tests.conftest import Project

TEXT = """
    name: app
    images:
      - image: i
        source: code
        build_cmd: [a, b]
        labels: {a: b}
      - {image: web, type: python_server, source: code, endpoints: [{endpoint: /, module: a, function: f}]}
      - {image: prebuilt}
"""


@pytest.fixture
def root(project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return project({"rainbow.yml": TEXT, "code/a.py": "def f(): pass\n"})


def remember(root: Path) -> list[Recipe]:
    checked = check(root)
    made = recipes(checked.apps[0])
    remembered.keep(root, checked.files, made)
    return made


def test_what_is_remembered_is_what_was_read(root: Path) -> None:
    made = remember(root)

    assert check(root).is_remembered
    assert remembered.load(root) == made


def test_another_check_is_another_memory(root: Path) -> None:
    remember(root)
    (root / "rainbow.yml").write_text((root / "rainbow.yml").read_text().replace("prebuilt", "other"))

    checked = check(root)

    assert not checked.is_remembered
    assert remembered.load(root) is None


def test_nothing_is_remembered_at_first(root: Path) -> None:
    assert remembered.load(root) is None


def test_arguments_of_a_build_are_not_written_down(root: Path) -> None:
    (root / "rainbow.yml").write_text("name: app\nimages: [{image: i, source: code, build_args: {A: hush}}]\n")
    remember(root)

    assert remembered.load(root) is None


def test_files_that_must_stay_out_are_looked_up_each_time(root: Path) -> None:
    checked = check(root)

    remembered.keep(root, checked.files, [Recipe("i", kept_out=frozenset({"/secret"}))])

    assert remembered.load(root) is None
