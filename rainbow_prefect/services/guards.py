"""Who may call and how often: tokens compared in constant time, and a count of requests for each client."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Iterable

from .answers import Refused
from .definition import RateLimit, Token

_CLIENTS = 10_000


class Tokens:
    """The tokens that open a service."""

    def __init__(self, tokens: Iterable[Token]) -> None:
        self._known = [(hashlib.sha256(one.value.encode()).digest(), one) for one in tokens]

    def check(self, given: bytes, scope: str | None) -> Token:
        """The token of a request, whose header is `given`.

        All are compared, whichever fits, and as digests of one length: the time tells nothing.

        Raises:
            Refused: there is none, it is not known, or it lacks the scope.
        """
        kind, _, value = given.partition(b" ")
        text = value.strip() if kind.lower() == b"bearer" else given.strip()
        digest = hashlib.sha256(text).digest()
        found = None
        for known, token in self._known:
            if hmac.compare_digest(known, digest):
                found = token
        if found is None:
            detail = "the token is not known" if text else "a token is needed: `Authorization: Bearer TOKEN`"
            raise Refused(401, detail, headers=((b"www-authenticate", b"Bearer"),))
        if scope is not None and scope not in found.scopes:
            raise Refused(403, f"the token lacks the scope '{scope}'")
        return found


class Rate:
    """Counts the requests of each client in spans of time; the clients that were longest away are forgotten."""

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        self._counts: OrderedDict[str, list[float]] = OrderedDict()

    def check(self, client: str) -> None:
        """Count one request.

        Raises:
            Refused: there were too many.
        """
        now = time.monotonic()
        seen = self._counts.get(client)
        if seen is None or now - seen[0] >= self._limit.seconds:
            self._counts[client] = seen = [now, 0.0]
            if len(self._counts) > _CLIENTS:
                self._counts.popitem(last=False)
        self._counts.move_to_end(client)
        seen[1] += 1
        if seen[1] > self._limit.requests:
            wait = max(1, round(seen[0] + self._limit.seconds - now + 0.5))
            text = f"more than {self._limit.requests} requests in {self._limit.seconds:g} s"
            raise Refused(429, text, headers=((b"retry-after", str(wait).encode()),))
