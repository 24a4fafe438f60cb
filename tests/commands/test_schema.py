"""`rainbow schema`: a JSON Schema that editors and validators take."""

from __future__ import annotations

import json

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.conftest import ROOT, Rainbow


def test_schema_is_valid_and_takes_the_readme_example(rainbow: Rainbow) -> None:
    schema = rainbow("schema").json

    Draft202012Validator.check_schema(schema)
    text = (ROOT / "examples" / "quickstart" / "rainbow.yml").read_text()
    data = json.loads(json.dumps(yaml.safe_load(text), default=str))
    assert [error.message for error in Draft202012Validator(schema).iter_errors(data)] == []


@pytest.mark.parametrize("key", ["pipelines", "services", "images", "executors", "variables", "task_defaults", "super"])
def test_keys_of_the_root_have_descriptions(rainbow: Rainbow, key: str) -> None:
    assert rainbow("schema").json["properties"][key]["description"]
