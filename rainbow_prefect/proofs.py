"""What `rainbow check` proves beyond the types of values: names, references, cycles, files, modules, static inputs."""

from __future__ import annotations

from .building import Built
from .errors import Problem
from .looking import Look


def prove(built: Built, look: Look) -> list[Problem]:
    """All that the proofs find in one app."""
    return []
