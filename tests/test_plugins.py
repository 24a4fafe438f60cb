"""Plugins: files of a `plugins:` folder, and a real third-party package with entry points."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rainbow_prefect import document, plugins
from rainbow_prefect.registry import executors, observers, tasks
from tests.conftest import Project

SHOUT = """
    from typing import Literal

    from rainbow_prefect.tasks.base import Task


    class Shout(Task):
        type: Literal["shout"] = "shout"
        mark: str = "!"

        def run(self, run):
            return [word + self.mark for word in run.input]
"""


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    for loaded in list(plugins._loaded.values()):
        plugins._forget(loaded)


def load(root: Path, text: str = "plugins: [extra]\n") -> list[str]:
    data, problems = document.parse(text, shown="rainbow.yml")
    assert data is not None and not problems
    return [str(one) for one in plugins.load(data, root)]


def test_classes_of_a_folder_become_types(project: Project) -> None:
    root = project(
        {
            "extra/shout.py": SHOUT,
            "extra/more.py": """
                from typing import Literal

                from rainbow_prefect.executors.base import Executor
                from rainbow_prefect.observers.base import Observer


                class Nowhere(Executor):
                    type: Literal["nowhere"] = "nowhere"


                class Bell(Observer):
                    type: Literal["bell"] = "bell"
            """,
        }
    )

    assert load(root) == []
    assert tasks["shout"].__name__ == "Shout"
    assert executors["nowhere"].__name__ == "Nowhere"
    assert observers["bell"].__name__ == "Bell"


def test_text_instead_of_a_list(project: Project) -> None:
    root = project({"extra/shout.py": SHOUT})

    assert load(root, "plugins: extra\n") == []
    assert "shout" in tasks


def test_a_file_instead_of_a_folder(project: Project) -> None:
    root = project({"shout.py": SHOUT})

    assert load(root, "plugins: [shout.py]\n") == []
    assert "shout" in tasks


def test_loading_twice_is_the_same_class(project: Project) -> None:
    root = project({"extra/shout.py": SHOUT})
    load(root)
    first = tasks["shout"]

    assert load(root) == []
    assert tasks["shout"] is first


def test_an_edited_file_is_loaded_again(project: Project) -> None:
    root = project({"extra/shout.py": SHOUT})
    load(root)

    project({"extra/shout.py": SHOUT.replace('"!"', '"?"').replace("shout", "scream")})

    assert load(root) == []
    assert "shout" not in tasks
    assert tasks["scream"](task="t").mark == "?"


def test_files_may_import_each_other(project: Project) -> None:
    root = project({"extra/_words.py": "MARK = '!!'\n", "extra/shout.py": "    from . import _words" + SHOUT})

    assert load(root) == []


def test_a_shared_base_class_needs_no_type(project: Project) -> None:
    root = project(
        {
            "extra/two.py": """
                from typing import Literal
                from rainbow_prefect.tasks.base import Task

                class Base(Task):
                    pass

                class _Other(Task):
                    pass

                class One(Base):
                    type: Literal["one"] = "one"
            """
        }
    )

    assert load(root) == []
    assert "one" in tasks


def test_missing_folder(project: Project) -> None:
    root = project({"extras/shout.py": SHOUT})

    assert load(root, "name: a\nplugins:\n  - extra\n") == [
        "rainbow.yml:3:5: the plugins folder 'extra' does not exist; did you mean 'extras'?"
    ]


def test_missing_folder_that_resembles_none(tmp_path: Path) -> None:
    assert load(tmp_path) == [
        "rainbow.yml:1:11: the plugins folder 'extra' does not exist; create it, or remove the entry"
    ]


def test_folder_without_python_files(project: Project) -> None:
    root = project({"extra/README.md": "x"})

    assert load(root) == ["rainbow.yml:1:11: warning: the plugins folder 'extra' holds no Python file"]


def test_a_file_that_is_not_python(project: Project) -> None:
    root = project({"shout.txt": "x"})

    assert load(root, "plugins: [shout.txt]\n") == [
        "rainbow.yml:1:11: 'shout.txt' is no plugin; name a folder with Python files"
    ]


def test_other_values_are_left_to_the_check_of_types(tmp_path: Path) -> None:
    assert load(tmp_path, "plugins: [1, {a: b}]\n") == []
    assert load(tmp_path, "plugins: 3\n") == []
    assert load(tmp_path, "name: x\n") == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def broken(:\n    pass\n", "line 1: SyntaxError: invalid syntax"),
        ("x = 1\nimport no_such_module_xyz\n", "line 2: ModuleNotFoundError: No module named 'no_such_module_xyz'"),
        ("\n\nraise SystemExit(3)\n", "line 3: SystemExit: 3"),
        ("x = {}['a']\n", "line 1: KeyError: 'a'"),
        ("raise ValueError\n", "line 1: ValueError"),
        (
            "import shout\n",
            "line 1: ModuleNotFoundError: No module named 'shout' (for a file beside it write: from . import shout)",
        ),
        (
            b"\xff\xfe",
            "line 1: SyntaxError: (unicode error) 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        ),
    ],
)
def test_a_broken_file_is_told_and_hides_no_other(project: Project, text: Any, told: str) -> None:
    root = project({"extra/shout.py": SHOUT})
    (root / "extra/broken.py").write_bytes(text if isinstance(text, bytes) else text.encode())

    (problem,) = load(root)

    assert problem == f"rainbow.yml:1:11: the plugin extra/broken.py cannot be loaded: {told}"
    assert "shout" in tasks


def test_a_class_without_a_type(project: Project) -> None:
    root = project(
        {
            "extra/loud.py": """
                from rainbow_prefect.tasks.base import Task


                class Loud(Task):
                    mark: str = "!"
            """
        }
    )

    assert load(root) == [
        'rainbow.yml:1:11: the plugin extra/loud.py: class Loud has no type of its own; add: type: Literal["name"] = "name"'
    ]


def test_a_type_that_is_built_in_is_taken(project: Project) -> None:
    root = project({"extra/shout.py": SHOUT.replace('"shout"', '"python"')})
    before = tasks.origin("python")

    assert load(root) == [
        "rainbow.yml:1:11: the plugin extra/shout.py: the task type 'python' is already taken by rainbow-prefect itself; "
        "give it another `type`"
    ]
    assert tasks.origin("python") == before


def test_a_type_of_another_plugin_file_is_taken(project: Project) -> None:
    root = project({"extra/a.py": SHOUT, "extra/b.py": SHOUT.replace("Shout", "Louder")})

    assert load(root) == [
        "rainbow.yml:1:11: the plugin extra/b.py: the task type 'shout' is already taken by class Shout of extra/a.py; "
        "give it another `type`"
    ]
    assert tasks["shout"].__name__ == "Shout"


def test_a_type_twice_in_one_file(project: Project) -> None:
    text = textwrap.dedent(SHOUT)
    root = project({"extra/a.py": text + text[text.index("class") :].replace("Shout", "Louder")})

    assert load(root) == ["rainbow.yml:1:11: the plugin extra/a.py: the task type 'shout' is there twice"]


def test_copies_of_a_file_in_two_projects_are_fine(project: Project) -> None:
    assert load(project({"extra/shout.py": SHOUT}, folder="one")) == []
    assert load(project({"extra/shout.py": SHOUT}, folder="two")) == []


def test_what_a_plugin_prints_is_not_on_stdout(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    load(project({"extra/noisy.py": "print('hello')\n"}))

    assert capsys.readouterr() == ("", "hello\n")
