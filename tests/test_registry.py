from __future__ import annotations

import pickle
import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import Annotated, Any, Literal

import pytest
from pydantic import ValidationError

from rainbow_prefect.executors.base import Executor
from rainbow_prefect.registry import Registry, executors, tasks
from rainbow_prefect.schema import Config
from rainbow_prefect.tasks.base import AnyTask, Task


class Shout(Task):
    """Say it louder."""

    type: Literal["shout"] = "shout"
    mark: str = "!"


class Tasks(Config):
    tasks: tuple[AnyTask, ...]


@pytest.fixture
def shout() -> Any:
    tasks.add("shout", Shout)
    yield
    tasks.discard("shout")


def points(registry: Registry, **values: str) -> Registry:
    """A registry that has these entry points and no others."""
    registry.__dict__["_points"] = {name: EntryPoint(name, value, registry.group) for name, value in values.items()}
    registry.__dict__["_built_in"] = {}
    return registry


def test_built_in_types_come_from_entry_points() -> None:
    assert {"python", "spark"} <= set(tasks)
    assert "process" in executors
    assert tasks["python"].__name__ == "Python"
    assert tasks.origin("python") == "rainbow-prefect itself"


def test_only_the_types_that_are_used_are_imported() -> None:
    code = """
import sys
from rainbow_prefect.registry import tasks
tasks["python"]
print("rainbow_prefect.tasks.spark" in sys.modules, "prefect" in sys.modules)
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False False\n"


def test_the_key_type_picks_the_class(shout: None) -> None:
    data = {"tasks": [{"task": "a", "type": "shout", "mark": "?"}, {"task": "b", "type": "python", "cmd": "x"}]}

    made = Tasks.model_validate(data)

    assert [type(one).__name__ for one in made.tasks] == ["Shout", "Python"]
    assert pickle.loads(pickle.dumps(made)) == made
    assert made.model_dump()["tasks"][0]["mark"] == "?"


def test_errors_keep_their_path(shout: None) -> None:
    with pytest.raises(ValidationError) as caught:
        Tasks.model_validate({"tasks": [{"task": "a", "type": "shout", "mark": [1]}]})

    assert [one["loc"] for one in caught.value.errors()] == [("tasks", 0, "mark")]


def test_an_unknown_type_is_told_with_the_near_one() -> None:
    assert tasks.unknown("pyhton") == (
        "unknown task type 'pyhton'",
        f"did you mean 'python'? (known: {', '.join(tasks)})",
    )


def test_a_type_that_is_like_no_other_is_told_with_all() -> None:
    assert tasks.unknown("zzz") == ("unknown task type 'zzz'", f"known: {', '.join(tasks)}")


def test_a_missing_type_is_told() -> None:
    with pytest.raises(ValidationError) as caught:
        Tasks.model_validate({"tasks": [{"task": "a"}]})

    assert caught.value.errors()[0]["msg"] == f"the key 'type' is missing; known: {', '.join(tasks)}"


def test_a_default_type_needs_no_key() -> None:
    registry = Registry("rainbow_prefect.executors", "executor", default="process")

    class Holder(Config):
        executor: Annotated[Executor, registry]

    assert Holder.model_validate({"executor": {}}).executor.type == "process"


def test_a_broken_plugin_does_no_harm_until_it_is_used() -> None:
    registry = points(Registry("rainbow_prefect.tasks", "task"), good=f"{__name__}:Shout", bad="no_such_module:X")

    assert registry["good"] is Shout
    with pytest.raises(ImportError) as caught:
        registry["bad"]
    assert str(caught.value) == (
        "task type 'bad' of no_such_module:X cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'"
    )


def test_a_class_of_another_kind_is_told() -> None:
    registry = points(Registry("rainbow_prefect.tasks", "task"), odd="pathlib:Path")

    with pytest.raises(ImportError) as caught:
        registry["odd"]

    assert str(caught.value) == "task type 'odd' of pathlib:Path cannot be loaded: it is no subclass of Task"


def test_a_class_that_pydantic_cannot_build_is_told() -> None:
    class Odd(Task):
        type: Literal["odd"] = "odd"
        value: Nowhere  # type: ignore[name-defined]  # noqa: F821

    tasks.add("odd", Odd)
    try:
        with pytest.raises(ImportError) as caught:
            tasks["odd"]
    finally:
        tasks.discard("odd")

    assert str(caught.value) == "task type 'odd' cannot be used: Odd: name 'Nowhere' is not defined"


def test_what_is_added_can_be_taken_back(shout: None) -> None:
    assert "shout" in tasks
    assert tasks.added("shout") is Shout
    assert tasks.origin("shout") == f"{__name__}:Shout"

    tasks.discard("shout")

    assert "shout" not in tasks
    tasks.add("shout", Shout)
