"""Values that nobody may read: where they stand in data, and how they are hidden in every text."""

from __future__ import annotations

import base64
import itertools
import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus, unquote

STARS = "********"
"""What is shown instead of a secret."""

PLACEHOLDER = re.compile(r"\{\{\s*secret\.([A-Za-z0-9_.-]+)\s*\}\}")
"""`{{secret.NAME}}`; the one placeholder that is resolved only when a task starts."""

_SHORT = 4
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SECRET_WORDS = re.compile(
    r".*(?:password|passwd|passphrase|passcode|secret|secrets|token|credential|credentials|apikey|accesskey|secretkey)"
    r"|privatekey|accountkey|authorization|bearer|jwt|pwd|sas|dbpass"
)
_KEY_WORDS = re.compile(r"api|access|private|secret|signing|encryption|ssh|account|master|session|storage|auth")
_NO_VALUE_WORDS = re.compile(
    r"names?|paths?|files?|filename|dir|folder|url|uri|endpoint|type|kind|count|limit|length|size|max|min|ttl|expiry|"
    r"expires|expiration|seconds|minutes|arn|policy|column|field|header|host|port|scope|sock|store"
)
_NO_SECRET = frozenset(("", "true", "false", "null", "none", "yes", "no", "on", "off", "~"))
_BLOCK = re.compile(r"block:[a-z0-9][a-z0-9_-]*/[^/\s]+\Z")
# Each begins only where a word begins: else a line of a million letters would take hours.
_URL = re.compile(
    r"(?<![A-Za-z0-9+.-])(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,30}://)(?P<user>[^\s/?#:@\"'<>]{0,500})"
    r"(?::(?P<password>[^\s/?#\"'<>]{1,500}(?=@)|(?!\d{1,5}(?:[/?#,\s]|$))[^\s\"'<>`]{1,500}(?=@))@|(?P<lone>@))"
)
_ASSIGNED = re.compile(
    r"(?P<name>(?<![\w.-])(?:[\w.-]*(?:password|passwd|secret|token|api[_-]?key|access[_-]?key|account[_-]?key|"
    r"private[_-]?key)|(?:[\w.-]*[_.-])?(?:pwd|pass|sig|signature|credential))\s*=\s*)"
    r"(?P<quote>['\"]?)(?P<value>[^\s&;,'\"#]+)",
    re.IGNORECASE,
)
_LINE_OF_FILE = re.compile(r"\s*(?:export\s+)?[\"']?(?P<name>[A-Za-z0-9_.-]+)[\"']?\s*[=:]\s*(?P<value>\S.*?)\s*,?\s*$")


@lru_cache(maxsize=4096)
def sensitive(name: str) -> bool:
    """Whether a variable of this name holds a secret: `db_password`, `API_KEY`, `authToken`, ...

    `password_file`, `token_url` and the like hold none; nor do the shell's `PWD` and `OLDPWD`.
    """
    if name in ("PWD", "OLDPWD"):
        return False
    words = [word.lower() for word in _WORDS.findall(name)]
    if not words or _NO_VALUE_WORDS.fullmatch(words[-1]):
        return False
    if "pass" in (words[-1], *words[1:]) or any(map(_SECRET_WORDS.fullmatch, words)):
        return True
    if words[-1] == "auth" and len(words) > 1:
        return True
    return any(_KEY_WORDS.fullmatch(one) and key in ("key", "keys") for one, key in itertools.pairwise(words))


class Masker:
    """Replaces every known secret in a text by stars, in all the ways in which a text may hold it.

    Known forms: plain, JSON-escaped (also twice), repr, URL-quoted, HTML, shell-quoted, base64 at any offset, hex, and
    each line of a value with many lines. A value below four characters counts only where it stands alone.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._values: set[str] = set()
        self._forms: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        for value in values:
            self.learn(value)

    def learn(self, value: str) -> None:
        """Know one more secret."""
        if not value.strip() or value in self._values:
            return
        with self._lock:
            self._values.add(value)
            self._forms.update(_forms(value))
            self._pattern = None

    def mask(self, text: str) -> str:
        """The text without any known secret, and without the passwords of URLs."""
        if self._forms:
            text = (self._pattern or self._compiled()).sub(STARS, text)
        return mask_url(text) if "://" in text else text

    def mask_data(self, data: Any) -> Any:
        """The same JSON data without any known secret, keys included."""
        if isinstance(data, str):
            return self.mask(data)
        if isinstance(data, Mapping):
            return {self.mask(key) if isinstance(key, str) else key: self.mask_data(one) for key, one in data.items()}
        if isinstance(data, list | tuple):
            return [self.mask_data(one) for one in data]
        if isinstance(data, int | float) and not isinstance(data, bool) and str(data) in self._values:
            return STARS
        return data

    def _compiled(self) -> re.Pattern[str]:
        with self._lock:
            long = [one for one in self._forms if len(one) >= _SHORT]
            parts = [_trie(long)] if long else []
            short = sorted((one for one in self._forms if len(one) < _SHORT), key=lambda one: (-len(one), one))
            parts += [rf"(?<!\w){re.escape(one)}(?!\w)" for one in short]
            self._pattern = re.compile("|".join(parts))
            return self._pattern


def mask_url(text: str) -> str:
    """The text with the passwords of its URLs as stars, also those in query strings.

    A lone user of an http URL (`https://TOKEN@host`) is a token and is hidden too.
    """
    if "://" not in text:
        return text
    return _ASSIGNED.sub(rf"\g<name>\g<quote>{STARS}", _URL.sub(_starred, text))


def _starred(found: re.Match[str]) -> str:
    scheme, user = found["scheme"], found["user"]
    if found["password"] is not None:
        return f"{scheme}{user}:{STARS}@"
    if user and scheme.lower().startswith(("http", "git+http")):
        return f"{scheme}{STARS}@"
    return found[0]


def redact(data: Any, known: Iterable[str] = ()) -> Any:
    """The same data as it may be shown: values under names of secrets and passwords of URLs are stars.

    What is a secret at one place is hidden at every other, too; `known` are secrets told from outside. References
    (`{{secret.NAME}}`) and the names of secrets in a section `secrets` stay.
    """
    return Masker([*known, *secret_values(data)]).mask_data(_starred_names(data))


def _starred_names(data: Any, *, names: bool = False) -> Any:
    if isinstance(data, Mapping):
        return {
            key: _hidden(one) if _is_hidden(key, one, data, names) else _starred_names(one, names=key == "secrets")
            for key, one in data.items()
        }
    if isinstance(data, list | tuple):
        return [_starred_names(one, names=names) for one in data]
    return data


def _is_hidden(key: Any, value: Any, parent: Mapping[Any, Any], names: bool) -> bool:
    if key in ("default", "value") and isinstance(parent.get("name"), str):
        return sensitive(parent["name"])
    if not isinstance(key, str) or not sensitive(key):
        return False
    if key in ("secret", "aws_secret") and isinstance(value, str):
        return not names
    return not (key == "secrets" and isinstance(value, list))


def _hidden(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _hidden(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_hidden(one) for one in value]
    return STARS if _is_value(value) else value


def _is_value(value: Any) -> bool:
    if value is None or isinstance(value, bool):
        return False
    text = str(value)
    if text.lower() in _NO_SECRET or _BLOCK.match(text):
        return False
    return bool(PLACEHOLDER.sub("", text).strip())


def secret_values(data: Any) -> Iterator[str]:
    """What stands in this data under a name of a secret, and the passwords of its URLs and connection strings.

    Numbers and words below four characters are left out: hiding every `1` of a log helps nobody.
    """
    yield from (one for one in _values(data, names=False) if len(one) >= _SHORT)


def _values(data: Any, *, names: bool) -> Iterator[str]:
    if isinstance(data, str):
        yield from _url_passwords(data)
    elif isinstance(data, Mapping):
        for key, one in data.items():
            if _is_hidden(key, one, data, names):
                yield from _leaves(one)
            else:
                yield from _values(one, names=key == "secrets")
    elif isinstance(data, list | tuple):
        for one in data:
            yield from _values(one, names=names)


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for one in value.values():
            yield from _leaves(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _leaves(one)
    elif _is_value(value):
        yield str(value)
        if isinstance(value, str):
            yield from _url_passwords(value)


def _url_passwords(text: str) -> Iterator[str]:
    if "://" in text:
        for found in _URL.finditer(text):
            password = found["password"]
            if password is None and found["scheme"].lower().startswith(("http", "git+http")):
                password = found["user"]
            if password and _is_value(password):
                yield password
                yield unquote(password)
    if "=" in text:
        for found in _ASSIGNED.finditer(text):
            if _is_value(found["value"]) and not found["value"].startswith(("$", "{")):
                yield found["value"]
                yield unquote(found["value"])


def _forms(value: str) -> Iterator[str]:
    yield from _spellings(value)
    if "\n" not in value and "\r" not in value:
        if value.lstrip().startswith(("{", "[")):
            yield from _named_parts(value)
        return
    yield from _spellings(value.replace("\r\n", "\n").replace("\n", "\r\n"))
    for line in value.splitlines():
        if len(line.strip()) >= _SHORT:
            yield from _spellings(line.strip())
    yield from _named_parts(value)


def _named_parts(value: str) -> Iterator[str]:
    """The secrets inside a secret file: an ini or env file, or JSON (both have `name = value` lines at least)."""
    try:
        data = json.loads(value)
    except ValueError:
        pass
    else:
        for one in secret_values(data):
            yield from _spellings(one)
    for line in value.splitlines():
        found = _LINE_OF_FILE.match(line)
        if found and (sensitive(found["name"]) or "key" in found["name"].lower()):
            part = found["value"].strip("\"'")
            if len(part) >= _SHORT and _is_value(part):
                yield from _spellings(part)


def _spellings(value: str) -> Iterator[str]:
    import html

    yield value
    for as_ascii in (True, False):
        escaped = json.dumps(value, ensure_ascii=as_ascii)[1:-1]
        yield escaped
        yield json.dumps(escaped, ensure_ascii=as_ascii)[1:-1]
    yield repr(value)[1:-1]
    yield ascii(value)[1:-1]
    for quoted in (quote(value, safe=""), quote(value), quote_plus(value), quote(value, safe="@:!$&'()*+,;=-._~")):
        yield quoted
        yield re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), quoted)
    yield html.escape(value)
    yield html.escape(value, quote=False)
    if "'" in value:
        yield value.replace("'", "'\"'\"'")
        yield value.replace("'", r"'\''")
    if "%" in value:
        yield unquote(value)
    if len(value) < _SHORT:
        return
    data = value.encode("utf-8", errors="surrogatepass")
    if len(data) >= 2 * _SHORT:
        yield data.hex()
        yield data.hex().upper()
    yield from _base64(data)


def _base64(data: bytes) -> Iterator[str]:
    """Base64 of the value alone, and what its bytes become inside base64 of a longer text at each of three offsets."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(data).decode().rstrip("=")
        for offset in range(3):
            first = (offset * 8 + 5) // 6  # characters that also hold bits of what comes before
            whole = (offset + len(data)) * 8 // 6  # those after it hold bits of what follows
            inner = encode(b"\0" * offset + data).decode()[first:whole]
            if len(inner) >= 2 * _SHORT:
                yield inner


def _trie(words: Iterable[str]) -> str:
    """A pattern for any of these words, the longest first, that looks at each common beginning only once.

    Measured: 560 forms of 40 secrets over a million lines take 10 s; as a plain alternation 116 s.
    """
    root: dict[str, Any] = {}
    for word in words:
        node = root
        for char in word:
            node = node.setdefault(char, {})
        node[""] = {}
    return _trie_pattern(root)


def _trie_pattern(node: dict[str, Any]) -> str:
    branches = []
    for char in sorted(one for one in node if one):
        chain, end = char, node[char]
        while len(end) == 1 and "" not in end:
            ((following, end),) = end.items()
            chain += following
        branches.append(re.escape(chain) + (_trie_pattern(end) if len(end) > 1 else ""))
    return f"(?:{'|'.join(branches)}){'?' if '' in node else ''}"
