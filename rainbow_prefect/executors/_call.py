"""Calls a function of the user's code with the input and writes what it returns; run by the user's own Python.

    python _call.py MODULE:FUNCTION RESULT FAILURE [NAME]

A script of the standard library that any Python from 3.8 on can run. RESULT becomes the returned value as JSON, FAILURE
the reason in one line when there is none. NAME is the name of the folder of the code where it is not that of the working
directory. The function sees nothing of this file: not in its path, not in `__main__`.

Whoever executes this text may define `SEND(word, data)`, which is then given `result` or `failure` instead of the files.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import math
import os
import sys
import traceback
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

TARGET, RESULT, FAILURE, NAME = (sys.argv[1:5] + [""] * 4)[:4]  # empty in the children of multiprocessing
SEND: Any = globals().get("SEND")
MAX_REASON = 2000  # characters
HERE = os.path.dirname(os.path.abspath(__file__))


def main() -> int:
    """Call, write, give the exit status."""
    folder = os.getcwd()
    sys.path[:] = [folder, os.path.dirname(folder)] + [one for one in sys.path if one not in ("", HERE)]
    module_name, _, name = TARGET.partition(":")
    sys.argv[:] = [module_name]
    function = find(module_name, name)
    try:
        value = call(function, name)
    except Exception as error:
        print_user_traceback(error)
        return fail(describe(error))
    write(value, name)
    return 0


def find(module_name: str, name: str) -> Callable[..., Any]:
    """The function; the reason is told when there is none."""
    try:
        module = load(module_name)
    except Exception as error:
        print_user_traceback(error)
        advice = ""
        if isinstance(error, ModuleNotFoundError) and error.name and not module_name.startswith(error.name):
            advice = "; add it to requirements.txt beside the code"
        sys.exit(fail(f"module '{module_name}' cannot be imported: {describe(error)}{advice}"))
    function: Any = module
    for part in name.split("."):
        function = getattr(function, part, None)
    if not callable(function):
        what = "has no function" if function is None else "has something else than a function as"
        sys.exit(fail(f"module '{module_name}' {what} '{name}'"))
    found: Callable[..., Any] = function
    return found


def load(name: str) -> Any:
    """The module; `source.module` is also found when `source` has no __init__.py and the name of a known module."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        first, _, rest = name.partition(".")
        if not rest or first != (NAME or os.path.basename(os.getcwd())) or error.name not in (first, name):
            raise
        return importlib.import_module(rest)


def call(function: Callable[..., Any], name: str) -> Any:
    """`function(input)`, or without arguments when it takes none; awaited when it is async."""
    result = function(*arguments(function, name))
    if inspect.isawaitable(result):
        return asyncio.run(wait_for(result))
    return result


async def wait_for(awaitable: Awaitable[Any]) -> Any:
    """What an awaitable gives."""
    return await awaitable


def arguments(function: Callable[..., Any], name: str) -> list[Any]:
    """[input] or []; more than one argument is told as a failure."""
    with open(os.environ["RAINBOW_INPUT_PATH"], "rb") as file:
        data = json.loads(file.read().decode("utf-8"))
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return [data]
    positional = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    needed = [one.name for one in positional if one.default is one.empty]
    needed += [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty]
    if len(needed) > 1 or (needed and not positional):
        text = "function '%s' needs more than the input: %s; give the others a default"
        sys.exit(fail(text % (name, ", ".join(needed))))
    takes_any = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    return [data] if positional or takes_any else []


def write(value: Any, name: str) -> None:
    """The returned value as JSON, whole or not at all."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        data = text.encode("utf-8")
    except RecursionError:
        sys.exit(fail(f"what function '{name}' returned is nested too deeply, or holds itself"))
    except (TypeError, ValueError) as error:
        try:
            reason = odd(value, "result") or str(error)
        except RecursionError:
            reason = "it is nested too deeply, or holds itself"
        sys.exit(fail(f"what function '{name}' returned is not JSON: {reason}"))
    if SEND is not None:
        SEND("result", data)
        return
    with open(RESULT + ".part", "wb") as file:
        file.write(data)
    os.replace(RESULT + ".part", RESULT)


ADVICE = {
    "datetime": "return its isoformat()",
    "date": "return its isoformat()",
    "time": "return its isoformat()",
    "Decimal": "return float(...) or str(...)",
    "UUID": "return str(...)",
    "set": "return sorted(...)",
    "frozenset": "return sorted(...)",
    "generator": "return list(...)",
    "async_generator": "return a list",
    "bytes": "return text",
    "DataFrame": "return frame.to_dict('records')",
    "Series": "return series.tolist()",
    "ndarray": "return array.tolist()",
    "coroutine": "await it",
}


def odd(value: Any, path: str) -> str:
    """Where the first value is that JSON does not have, and what to do."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{path} is {value!r}; JSON has no NaN or Infinity, return None"
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return f"{path} holds half of a surrogate pair"
        return ""
    if value is None or isinstance(value, (bool, int, float)):
        return ""
    if isinstance(value, dict):
        for key, one in value.items():
            if not (key is None or isinstance(key, (str, int, float, bool))):
                return f"{path} has a key that is a {type(key).__name__}; keys are text"
            found = odd(one, f"{path}[{key!r}]")
            if found:
                return found
        return ""
    if isinstance(value, (list, tuple)):
        for index, one in enumerate(value):
            found = odd(one, f"{path}[{index}]")
            if found:
                return found
        return ""
    kind = type(value).__name__
    advice = ADVICE.get(kind, "return text, numbers, lists or dicts")
    if type(value).__module__.split(".")[0] == "numpy" and kind != "ndarray":
        advice = "return value.item()"
    return f"{path} is a {kind}; {advice}"


def describe(error: BaseException) -> str:
    """`ValueError: text (file.py:12)` for the deepest place in the user's code."""
    lines = traceback.format_exception_only(
        type(error), error
    )  # of a SyntaxError the code comes first, notes come last
    text = " ".join(next((one for one in lines if not one.startswith(" ")), lines[-1]).split())[:MAX_REASON]
    folder = os.getcwd() + os.sep
    frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename.startswith(folder)]
    if not frames:
        return text
    return f"{text} ({frames[-1].filename[len(folder) :]}:{frames[-1].lineno})"


def print_user_traceback(error: BaseException) -> None:
    """The traceback without the frames of this file and of the import machinery."""
    trace: TracebackType | None = error.__traceback__
    while trace is not None and (
        trace.tb_frame.f_code.co_filename == os.path.abspath(__file__)
        or trace.tb_frame.f_code.co_filename.startswith("<frozen")
        or trace.tb_frame.f_globals.get("__name__") in ("importlib", "asyncio.runners", "asyncio.base_events")
    ):
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace)


def fail(reason: str) -> int:
    """Tell why there is no result; the exit status."""
    if SEND is not None:
        SEND("failure", reason.encode("utf-8", "replace"))
        return 1
    with open(FAILURE, "w", encoding="utf-8", errors="replace") as file:
        file.write(reason)
    sys.stdout.flush()
    return 1


if __name__ == "__main__":
    sys.exit(main())
