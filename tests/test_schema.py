from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from rainbow_prefect.app import json_schema
from rainbow_prefect.schema import Config, Count, EnvVars, Minutes, Name, Positive, Seconds, Text, kind_of

from .conftest import ROOT
from .test_corpus import BASE, CHILD, SHOP


class Words(Config):
    name: Name = "a"
    text: Text = ""
    count: Count = 0
    positive: Positive = 1
    minutes: Minutes = 1.0
    seconds: Seconds = 0.0
    env: EnvVars = {}


def refused(**values: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        Words(**values)
    return str(caught.value.errors()[0]["msg"])


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Words().name = "b"  # type: ignore[misc]


def test_an_unknown_key_is_an_error() -> None:
    assert refused(nmae="x") == "Extra inputs are not permitted"


@pytest.mark.parametrize("name", ["a", "a-b_C9", "2024", 2024])
def test_names(name: Any) -> None:
    assert Words(name=name).name == str(name)


@pytest.mark.parametrize("name", ["a b", "a.b", "a/b", "ä", "a\n", "{{x}}"])
def test_other_names(name: str) -> None:
    assert refused(name=name) == f"'{name}' is not a valid name"


def test_a_number_is_a_whole_number() -> None:
    assert Words(count="3").count == 3
    assert refused(count=2.0) == "must be a whole number, got 2.0"
    assert refused(count=True) == "must be a whole number, got true"
    assert refused(positive=0) == "Input should be greater than or equal to 1"


def test_minutes_are_more_than_nothing() -> None:
    assert Words(minutes=0.05).minutes == 0.05
    assert refused(minutes=0) == "must be more than 0, got 0"
    assert refused(minutes=float("inf")) == "must be more than 0, got inf"
    assert refused(minutes=True) == "must be a number, got true"


def test_environment_values_are_text() -> None:
    assert Words(env={"A": 1, "B": True, "C": None, "D": "d", "E": 1.5}).env == {
        "A": "1",
        "B": "true",
        "C": "",
        "D": "d",
        "E": "1.5",
    }
    assert refused(env={"A": [1]}) == "must be text, got a list"


@pytest.mark.parametrize(
    ("value", "word"),
    [(None, "nothing"), (True, "true or false"), (1, "a number"), ("", "text"), ({}, "a mapping"), ([], "a list")],
)
def test_kinds_in_words(value: Any, word: str) -> None:
    assert kind_of(value) == word


# -- the JSON Schema


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return json_schema()


def flaws(schema: dict[str, Any], text: str) -> list[str]:
    data = json.loads(json.dumps(yaml.safe_load(text), default=str))
    found: list[str] = []
    for one in jsonschema.Draft7Validator(schema).iter_errors(data):
        waiting = [one]
        while waiting:
            error = waiting.pop()
            waiting += error.context or ()
            found.append(error.message)
    return found


def test_it_is_a_schema(schema: dict[str, Any]) -> None:
    jsonschema.Draft7Validator.check_schema(schema)
    json.dumps(schema, allow_nan=False)


def test_every_key_has_a_description(schema: dict[str, Any]) -> None:
    missing = [
        f"{name}.{key}"
        for name, one in [("", schema), *schema["definitions"].items()]
        for key, value in one.get("properties", {}).items()
        if not value.get("description")
    ]

    assert missing == []


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*/rainbow.yml")), ids=lambda file: file.parent.name)
def test_examples_are_valid(schema: dict[str, Any], file: Any) -> None:
    assert flaws(schema, file.read_text()) == []


@pytest.mark.parametrize("text", [SHOP, BASE, CHILD], ids=["shop", "super", "sub"])
def test_good_files_are_valid(schema: dict[str, Any], text: str) -> None:
    assert flaws(schema, text) == []


@pytest.mark.parametrize(
    "text",
    [
        "name: a\npipelines:\nservices:\n",
        "name: a\nx-mine: [1]\nplugins: folder\n",
        "name: a\npipelines: [{pipeline: p, x-mine: 1, tasks: '{{tasks}}'}]\n",
        "name: a\npipelines: [{pipeline: p, tasks: [{task: t, type: python, executors: '{{n}}', min_success: 95%}]}]\n",
        "name: a\npipeline_defaults: {tasks: [{task: own, type: pipeline}], retries: 1}\n",
        "name: 3\nowner: 5\npipelines: [{pipeline: p, tags: [2024], env_vars: {A: 1, B: true, C: null}}]\n",
        "name: a\nservices: [{service: null, name: web, type: python_server}]\n",
    ],
)
def test_odd_but_good_files_are_valid(schema: dict[str, Any], text: str) -> None:
    assert flaws(schema, text) == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("name: shop", "nmae: shop", "'name' is a required property"),
        ("owner: data team", "ownr: x", "'ownr' does not match any of the regexes: '^x-'"),
        ("executors: 3", "executors: 0", "0 is less than the minimum of 1"),
        ("split_input: true", "split_inptu: true", "'split_inptu' does not match any of the regexes: '^x-'"),
        ("timeout_minutes: 45", "timeout_minutes: 0", "0 is less than or equal to the minimum of 0"),
        ("when: always", "when: sometimes", "'sometimes' is not one of ['on_success', 'on_failure', 'always']"),
        ("depends_on: [count, list_shops]", "depends_on: count", "'count' is not of type 'array'"),
        ("- pipeline: sales", "- pipeline: sa les", "'sa les' does not match '^[A-Za-z0-9_-]+$'"),
    ],
)
def test_mistakes_are_found(schema: dict[str, Any], old: str, new: str, told: str) -> None:
    assert told in flaws(schema, SHOP.replace(old, new, 1))


def test_an_unknown_type_is_found(schema: dict[str, Any]) -> None:
    text = "name: a\npipelines: [{pipeline: p, tasks: [{task: t, type: pyhton}]}]"

    assert "'python' was expected" in flaws(schema, text)
