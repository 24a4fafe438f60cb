"""The words that all config classes share: the frozen base class and the small types; no behaviour lives here."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

NAME_PATTERN = re.compile(r"[A-Za-z0-9_-]+\Z")
_NAME_CHARACTERS = 200


class Config(BaseModel):
    """What people write: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, defer_build=True)


def wrong(message: str, *, hint: str = "", at: str = "") -> PydanticCustomError:
    """An error of a validator whose text is shown as it is; `hint` says how to fix it, `at` the key it is about."""
    return PydanticCustomError("rainbow", "{text}", {"text": message, "hint": hint, "at": at})


def _name(value: Any) -> Any:
    value = _text(value)
    if not isinstance(value, str) or NAME_PATTERN.match(value) or not 0 < len(value) <= _NAME_CHARACTERS:
        return value  # what is no text, empty or too long is told by pydantic
    raise wrong(f"'{value}' is not a valid name", hint="use letters, digits, '-' and '_' only")


def _text(value: Any) -> Any:
    """YAML reads `name: 2024` as a number; a name may look like one."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value


def _python_version(value: str) -> str:
    if re.fullmatch(r"3\.\d+(\.\d+)?((a|b|rc)\d+)?", value):
        return value
    raise wrong(f"must be a version of Python 3, got {value!r}", hint="write e.g. '3.12'")


_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = rf"(?=[^/]*[.:]|localhost/)(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::\d+)?"
_IMAGE = (
    rf"(?:{_HOST}/)?{_COMPONENT}(?:/{_COMPONENT})*"
    r"(?::\w[\w.-]{0,127})?(?:@[A-Za-z0-9+._-]+:[0-9a-fA-F]{32,})?"
)


def _image_name(value: str) -> str:
    """Source: the grammar of references, github.com/distribution/reference."""
    if re.fullmatch(_IMAGE, value, re.ASCII) or "{{" in value:  # a secret in it is told elsewhere
        return value
    raise wrong(
        f"'{value}' is not the name of an image", hint="write e.g. team/app:1 or registry.example.com/team/app:1"
    )


def _argument(value: str) -> str:
    if re.fullmatch(r"[^\s=]+", value):
        return value
    raise wrong(f"'{value}' is not the name of an argument", hint="use letters, digits and '_'")


def _strict_int(value: Any) -> Any:
    if isinstance(value, (bool, float)):
        raise wrong(f"must be a whole number, got {_shown(value)}")
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+", value.strip()):
        return int(value)
    return value


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise wrong(f"must be a number, got {_shown(value)}")
    return value


_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[smhdw]?)\Z")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def _duration(value: Any) -> float:
    """`90`, `30m`, `1h`, `2d` as seconds."""
    found = _DURATION.match(str(value).strip()) if isinstance(value, str | int | float) else None
    if found is None or isinstance(value, bool):
        raise wrong(f"must be a duration, got {_shown(value)}", hint="write e.g. 30m, 1h or 2d")
    return float(found["number"]) * _UNITS[found["unit"]]


def _positive(value: float) -> float:
    if value > 0 and value < float("inf"):
        return value
    raise wrong(f"must be more than 0, got {value:g}", hint="leave the key out for no limit")


def _env_value(value: Any) -> Any:
    if type(value) is str:
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str):
        return value
    if isinstance(value, dict | list):
        raise wrong(f"must be text, got {kind_of(value)}", hint="write JSON as quoted text")
    return str(value)


def _shown(value: Any) -> str:
    return {True: "true", False: "false"}.get(value, repr(value)) if isinstance(value, bool) else repr(value)


def kind_of(value: Any) -> str:
    """The word that a person uses for the type of a YAML or JSON value."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return f"a {type(value).__name__}"


Name = Annotated[
    str,
    Field(min_length=1, max_length=_NAME_CHARACTERS, json_schema_extra={"pattern": "^[A-Za-z0-9_-]+$"}),
    BeforeValidator(_name),
]
"""A name of a pipeline, task, service ...: letters, digits, `-` and `_`."""

Text = Annotated[str, BeforeValidator(_text)]
"""Text; a bare YAML number is taken as its text."""

Count = Annotated[int, Field(ge=0, le=1_000_000), BeforeValidator(_strict_int)]
"""A whole number from 0 to a million; `true` and `2.0` are errors."""

Positive = Annotated[int, Field(ge=1, le=1_000_000), BeforeValidator(_strict_int)]
"""A whole number from 1 to a million."""

Many = Annotated[int, Field(ge=1, le=1_000_000_000), BeforeValidator(_strict_int)]
"""A whole number from 1 to a billion."""

Minutes = Annotated[
    float, Field(json_schema_extra={"exclusiveMinimum": 0}), AfterValidator(_positive), BeforeValidator(_number)
]
"""A time in minutes, more than 0; fractions are fine."""

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_number)]
"""A time in seconds, 0 or more."""

Duration = Annotated[float, PlainValidator(_duration), WithJsonSchema({"type": ["string", "number"]})]
"""A span of time: a number of seconds, or with a unit: `30s`, `15m`, `1h`, `2d`, `1w`."""

PythonVersion = Annotated[
    str, Field(json_schema_extra={"pattern": r"^3\.[0-9]+"}), AfterValidator(_python_version), BeforeValidator(_text)
]
"""A version of Python 3: `3.12` or `3.12.4`."""

ImageName = Annotated[str, AfterValidator(_image_name), BeforeValidator(_text)]
"""The name of an image: `team/app:1`, with the host of a registry before it where it is not Docker Hub."""

BuildArgs = dict[Annotated[str, AfterValidator(_argument)], Text]
"""Arguments of a Dockerfile."""

EnvVars = dict[str, Annotated[str, BeforeValidator(_env_value)]]
"""Environment variables; numbers and booleans become their YAML text, null becomes empty."""
