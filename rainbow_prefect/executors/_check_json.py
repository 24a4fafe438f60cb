"""Says whether a large file is JSON, and how long its list is; a script of the standard library.

Objects and numbers are dropped as they are read, so a file takes two to four times its size in memory, not ten.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON; write null or text instead")


def _number(text: str) -> None:
    if len(text) > 4300:
        raise ValueError("a number has more than 4300 digits")


def check(path: Path) -> dict[str, object]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        value = json.loads(
            text,
            object_pairs_hook=lambda pairs: {},
            parse_int=_number,
            parse_float=_number,
            parse_constant=_no_constant,
        )
        if any(_is_half(text, found) for found in re.finditer(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}", text)):
            json.dumps(json.loads(text), ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        return {"error": f"is not UTF-8 text (byte {error.start}); write JSON as UTF-8"}
    except UnicodeEncodeError:
        return {"error": "is not valid JSON: it holds half of a surrogate pair (\\ud800 to \\udfff)"}
    except json.JSONDecodeError as error:
        return {"error": f"is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}"}
    except RecursionError:
        return {"error": "is not valid JSON: it is nested too deeply"}
    except ValueError as error:
        return {"error": f"is not valid JSON: {error}"}
    return {"items": len(value) if isinstance(value, list) else None}


def _is_half(text: str, found: re.Match[str]) -> bool:
    """Whether an escape stands where the other half of its pair does not; right for all but `\\\\ud83d` texts."""
    is_high = found[0][3] in "89abAB"
    if is_high:
        return not re.compile(r"\\u[dD][c-fC-F][0-9a-fA-F]{2}").match(text, found.end())
    before = text[max(0, found.start() - 6) : found.start()]
    return not re.fullmatch(r"\\u[dD][89abAB][0-9a-fA-F]{2}", before)


if __name__ == "__main__":
    print(json.dumps(check(Path(sys.argv[1]))))  # noqa: T201
