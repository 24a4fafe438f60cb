"""Source and Sink as a file has them: their settings; what the open ones can do is in `base`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ..registry import sinks, sources
from ..schema import Config, Name

if TYPE_CHECKING:
    from .base import Reader, Session, Writer


Wrong = tuple[str, str, str, bool]
"""A key, what is wrong there, how to mend it, and whether that is sure."""


class Source(Config):
    """Where rows come from: an entry of the root `sources`; a subclass has a `type`, its fields and `open`."""

    source: Name | None = Field(default=None, description="The name by which a task's `source` finds it.")
    type: str = Field(description="The type of the source.")

    def flaws(self) -> Iterator[Wrong]:
        """What is wrong with it beyond the types of its values; nothing is opened."""
        return iter(())

    def open(self, session: Session) -> Reader:
        """Connect.

        Raises:
            Passing: nobody answers.
            Refused: the settings are wrong.
        """
        raise TypeError(f"source type '{self.type}' does not implement open()")


class Sink(Config):
    """Where rows go: an entry of the root `sinks`; a subclass has a `type`, its fields and `open`."""

    sink: Name | None = Field(default=None, description="The name by which a task's `sink` finds it.")
    type: str = Field(description="The type of the sink.")

    def flaws(self) -> Iterator[Wrong]:
        """As those of a source."""
        return iter(())

    def as_source(self) -> Source:
        """The same as a source, to read what is there.

        Raises:
            Refused: it cannot be read.
        """
        from .base import Refused

        raise Refused(f"a sink of type '{self.type}' cannot be read")

    def open(self, session: Session) -> Writer:
        """Connect.

        Raises:
            Passing: nobody answers.
            Refused: the settings are wrong.
        """
        raise TypeError(f"sink type '{self.type}' does not implement open()")


AnySource = Annotated[Source, sources]
AnySink = Annotated[Sink, sinks]
