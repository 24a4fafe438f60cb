"""Validation errors of pydantic as problems: at their place, in plain words, with a hint. Nothing is checked here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from .document import mark_of, path_text
from .errors import Problem, near
from .registry import Registry
from .schema import kind_of
from .variables import placeholders

Keys = tuple[str | int, ...]

_NAMES = {
    "pipelines": "pipeline",
    "tasks": "task",
    "services": "service",
    "images": "image",
    "executors": "executor",
    "sources": "source",
    "sinks": "sink",
    "volumes": "volume",
    "secrets": "secret",
    "endpoints": "endpoint",
    "parameters": "parameter",
}
_SHOWN = 60
_MOST_NEAR = 200
"""So many unknown keys of one part get a hint what they may mean."""

_WANTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number of a usual size",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a number that is not infinite",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dataclass_type": "a mapping",
    "is_instance_of": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "date_type": "a date such as 2024-01-31",
    "date_parsing": "a date such as 2024-01-31",
    "date_from_datetime_parsing": "a date such as 2024-01-31",
    "datetime_type": "a time such as 2024-01-31T08:00:00",
    "datetime_parsing": "a time such as 2024-01-31T08:00:00",
    "none_required": "nothing",
}
"""What a value must be, by the type of pydantic's error."""

_ROOT_KEYS = ("super", "type", "pipeline_defaults", "task_defaults", "service_defaults")
"""Root keys that are gone once a file is resolved."""

_LIMITS = {
    "greater_than_equal": ("ge", "of at least {}"),
    "greater_than": ("gt", "of more than {}"),
    "less_than_equal": ("le", "of at most {}"),
    "less_than": ("lt", "of less than {}"),
}


def where(data: Any, keys: Sequence[str | int]) -> str:
    """A path in words: pipeline 'sales', task 'load'."""
    words = []
    for index, key in enumerate(keys):
        data = _at(data, key)
        word = _NAMES.get(str(keys[index - 1])) if index else None
        if isinstance(key, int) and word and isinstance(data, dict):
            name = data.get(word)
            name = data.get("name") if name is None or isinstance(name, dict | list) else name
            usable = name is not None and not isinstance(name, dict | list)
            words.append(f"{word} '{name}'" if usable else f"{word} {key + 1}")
    return ", ".join(words)


def problem(
    data: Any,
    keys: Sequence[str | int],
    message: str,
    hint: str = "",
    *,
    severity: Any = "error",
    on_key: bool = False,
) -> Problem:
    """A problem at `keys` of `data`, or at the deepest part of the way that exists."""
    mark = mark_of(data, keys, on_key=on_key)
    return Problem(mark, path_text(keys), message, hint, where(data, keys), severity)


def told(error: ValidationError, kind: type[BaseModel], data: Any, keys: Keys, *, later: bool = False) -> list[Problem]:
    """Each error of validating the part of `data` at `keys` as a `kind`.

    `later`: a value that is known only in a run is no error.
    """
    part = data
    for key in keys:
        part = _at(part, key)
    found: dict[tuple[str, bool], list[Problem]] = {}
    errors = error.errors(include_url=False)
    # Finding a near match takes a millisecond; after many of them nobody reads on.
    is_near = sum(one["type"] == "extra_forbidden" for one in errors) <= _MOST_NEAR
    for one in _without_echoes(errors, kind, part) if is_near else errors:
        if later and _is_later(one, part):
            continue
        made, on_key = _told(one, kind, part, data, keys, is_near=is_near)
        found.setdefault((made.path, on_key), []).append(made)
    return [_joined(same) for same in found.values()]


def _without_echoes(errors: Sequence[Any], kind: type[BaseModel], part: Any) -> list[Any]:
    """The errors without a missing key that is there, misspelled: the unknown key says it all."""
    meant = set()
    for one in errors:
        if one["type"] == "extra_forbidden":
            hint = near(str(one["loc"][-1]), _keys_at(kind, part, one["loc"][:-1]), list_up_to=0)
            meant.add((*one["loc"][:-1], hint.removeprefix("did you mean '").removesuffix("'?")))
    return [one for one in errors if not (one["type"] == "missing" and one["loc"] in meant)]


def _is_later(one: Any, part: Any) -> bool:
    """Whether the error is about a text with a placeholder that a run replaces."""
    value = _existing(part, one["loc"])[1]
    if not isinstance(value, str) or "{{" not in value or one["type"] in ("extra_forbidden", "missing"):
        return False
    return any(not name.startswith("secret.") for name in placeholders(value))


def _joined(problems: list[Problem]) -> Problem:
    """Errors of the members of a union at one place as one: must be a mapping or text."""
    first = problems[0]
    parts = [re.fullmatch(r"(`.*` )?must be (.*), got (.*)", one.message, re.DOTALL) for one in problems]
    if len(problems) == 1 or not all(parts):
        return first
    wanted = " or ".join(dict.fromkeys(part[2] for part in parts if part))
    start, got = (parts[0][1] or "", parts[0][3]) if parts[0] else ("", "")
    return Problem(first.mark, first.path, f"{start}must be {wanted}, got {got}", first.hint, first.where)


def _told(
    one: Any, kind: type[BaseModel], part: Any, data: Any, keys: Keys, *, is_near: bool = True
) -> tuple[Problem, bool]:
    inner, value = _existing(part, one["loc"])
    name, context = one["type"], one.get("ctx", {})
    place = (*keys, *inner)
    if name == "extra_forbidden":
        key = str(one["loc"][-1])
        valid = list(_keys_at(kind, part, one["loc"][:-1])) if is_near else []
        return problem(data, place, f"unknown key '{key}'", unknown_key(key, valid), on_key=True), True
    if name == "missing":
        key = str(one["loc"][-1])
        text, hint = f"the key '{key}' is missing", f"add `{key}: ...`"
        made = problem(data, place, text, hint)
        return Problem(made.mark, path_text((*place, key)), text, hint, made.where), False
    if name == "missing_type" and isinstance(value, dict) and (key := _misspelled_type(value)):
        hint = near(key, ["type"], list_up_to=0)
        return problem(data, (*place, key), f"unknown key '{key}'", hint, on_key=True), True
    if name == "rainbow" and context.get("at") and isinstance(value, dict):
        place = (*place, context["at"])
        return problem(data, place, context["text"], context["hint"]), False
    if name in ("unknown_type", "broken_type"):
        place = (*place, "type") if isinstance(value, dict) and "type" in value else place
        return problem(data, place, context["text"], context["hint"]), False
    message, hint = _message(one, value, part)
    called = _called(inner)
    from .masking import sensitive

    hidden = any(sensitive(str(key)) for key in place if isinstance(key, str))
    if hidden and isinstance(value, str | int | float) and not isinstance(value, bool) and str(value):
        message = message.replace(repr(value), "********").replace(str(value), "********")
    text = f"`{called}` {message}" if called and message.startswith("must ") else message
    return problem(data, place, text, hint), False


def unknown_keys(
    error: ValidationError, kind: type[BaseModel], data: Any, keys: Keys, *, also: Iterable[str] = ()
) -> Iterator[Problem]:
    """Of the errors of validating the part of `data` at `keys`, the unknown keys; `also` are further valid ones."""
    part = data
    for key in keys:
        part = _at(part, key)
    for one in error.errors(include_url=False):
        if one["type"] != "extra_forbidden":
            continue
        *above, key = one["loc"]
        valid = [*_keys_at(kind, part, above), *(() if above else also)]
        place = (*keys, *_existing(part, one["loc"])[0])
        yield problem(data, place, f"unknown key '{key}'", unknown_key(str(key), valid), on_key=True)


def _misspelled_type(value: dict[str, Any]) -> str:
    """The key that was meant to be `type`, '' when there is none."""
    return next((key for key in value if key != "task" and near(key, ["type"], list_up_to=0)), "")


def unknown_key(key: str, valid: Iterable[str]) -> str:
    """The hint for a key that is not there."""
    hint = near(key, valid)
    return hint or f"remove it, or write 'x-{key}' to keep it for yourself"


def _called(keys: Keys) -> str:
    """The key that a message names, with its index: `tags[2]`."""
    last = max((index for index, key in enumerate(keys) if isinstance(key, str)), default=None)
    return "" if last is None else path_text(keys[last:])


def _message(one: Any, value: Any, part: Any) -> tuple[str, str]:
    name, context = one["type"], one.get("ctx", {})
    if name in ("rainbow", "missing_type"):
        return context["text"], context["hint"]
    if name == "literal_error":
        known = re.findall(r"'([^']*)'", context["expected"])
        key = next((str(key) for key in reversed(one["loc"]) if isinstance(key, str) and key in _text_keys(part)), "")
        if isinstance(value, str):
            return f"unknown {key or 'value'} {shown(value)}", near(value, known)
        return f"must be one of {', '.join(known)}, got {shown(value)}", ""
    if name in _LIMITS:
        key, text = _LIMITS[name]
        limit = text.format(context[key])
        whole = "a whole number" if isinstance(context[key], int) else "a number"
        return f"must be {whole} {limit}, got {shown(value)}", ""
    if name == "string_too_short":
        return "must not be empty", ""
    if name == "string_too_long":
        return f"must be at most {context['max_length']} characters long, got {len(one['input'])}", ""
    if name in _WANTED:
        return _kind_message(_WANTED[name], value)
    if name in ("value_error", "assertion_error"):
        return str(context.get("error", one["msg"])), ""
    message = one["msg"].rstrip(".")
    return message[:1].lower() + message[1:], ""


def _text_keys(part: Any) -> set[str]:
    found: set[str] = set()
    waiting = [part]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            found.update(key for key in one if isinstance(key, str))
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    return found


def _kind_message(wanted: str, value: Any) -> tuple[str, str]:
    hint = ""
    if wanted == "text" and isinstance(value, bool | int | float):
        hint = "quote it"
    elif wanted == "a list" and not isinstance(value, list):
        hint = "start each item with '- '" if isinstance(value, dict) else "write [...] around it"
    return f"must be {wanted}, got {shown(value)}", hint


def shown(value: Any) -> str:
    """A value in a message: short, without passwords of URLs."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        from .masking import mask_url

        text = mask_url(value)
        return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
    if isinstance(value, int | float):
        try:
            return str(value)[:_SHOWN]
        except ValueError:  # more digits than Python writes
            return "a very large number"
    return kind_of(value)


def _at(data: Any, key: str | int) -> Any:
    if isinstance(data, dict):
        return data.get(str(key))
    return data[key] if isinstance(data, list) and isinstance(key, int) and key < len(data) else None


def _existing(data: Any, loc: Iterable[str | int]) -> tuple[Keys, Any]:
    """The parts of a pydantic location that are in the data: names of union members are not."""
    keys: list[str | int] = []
    for part in loc:
        found = isinstance(part, int) and part < len(data) if isinstance(data, list) else part in _keys_of(data)
        if found:
            data = data[part]
            keys.append(part)
    return tuple(keys), data


def _keys_of(data: Any) -> Iterable[str | int]:
    return data if isinstance(data, dict) else ()


# -- the keys that are valid at a place


def _keys_at(kind: type[BaseModel], data: Any, loc: Sequence[str | int]) -> Iterator[str]:
    """The valid keys at a location below a model."""
    current: type[BaseModel] | None = kind
    for part in loc:
        data = _at(data, part) if isinstance(data, dict | list) else None
        if current is None or not isinstance(part, str) or part not in current.model_fields:
            continue
        field = current.model_fields[part]
        current = _model_in(field.annotation, field.metadata, data)
    if current is kind and kind.__name__ == "App":
        yield from _ROOT_KEYS
    if current is not None:
        yield from (field.alias or name for name, field in current.model_fields.items())


def _model_in(annotation: Any, metadata: Sequence[Any], data: Any) -> type[BaseModel] | None:
    """The model in an annotation such as `tuple[Mount, ...] | None`; of a registry, the type that the data names."""
    for one in metadata:
        if isinstance(one, Registry):
            name = data.get("type", one.default) if isinstance(data, dict) else None
            return one[name] if isinstance(name, str) and name in one else None
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if getattr(annotation, "__metadata__", None):
        return _model_in(annotation.__origin__, annotation.__metadata__, data)
    inside = data[0] if isinstance(data, list) and data else data
    found = (_model_in(one, (), inside) for one in get_args(annotation))
    return next((one for one in found if one is not None), None)
