"""Databases as Prefect blocks: sources and sinks of SQL ETL, saved with Prefect; their URLs are secrets there."""

from __future__ import annotations

from abc import ABC
from typing import Any, ClassVar

from prefect.blocks.core import Block
from pydantic import Field, HttpUrl, SecretStr

from ..sql_etl import sqlalchemy as databases
from ..sql_etl.base import Reader, Session, Writer
from ..sql_etl.config import Sink, Source
from ..sql_etl.probe import probe
from .base import SavedBlock

_LOGO = HttpUrl("https://cdn.sanity.io/images/3ugk85nk/production/3c7dff04f70aaf4528e184a3b028f9e40b98d68c-250x250.png")


class SqlBlock(SavedBlock, ABC):
    """The base class of sources and sinks that are saved as blocks; a task names one as `source: block:TYPE/NAME`."""

    _of_a_file: ClassVar[tuple[str, ...]] = ("source", "sink", "type")
    _what: ClassVar[str] = "source"

    @classmethod
    def get_code_example(cls) -> str:
        """How a file names it; Prefect's UI shows only what is marked as Python."""
        return (
            f"```python\n# in rainbow.yml: at a task, or as the `url` of an entry of `{cls._what}s`\n"
            f"{cls._what}: block:{cls.get_block_type_slug()}/BLOCK_NAME\n```"
        )

    def plain(self) -> Source | Sink:
        """The source or sink that is saved here, as files have it."""
        kind: Any = next(filter(_is_plain, type(self).__mro__), None)
        if kind is None:  # its fields are written in the block itself
            made: Any = self
        else:
            made = kind.model_validate({field: _shown(getattr(self, field)) for field in self.model_fields_set})
        found: Source | Sink = made
        return found

    def test_connection(self) -> str:
        """Connect and say in one line what answers and what it may be used for; nothing is written.

        Raises:
            RunError: nobody answers, or the settings are wrong; the text does not have the URL.
        """
        return probe(self.plain())


def _shown(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _is_plain(kind: Any) -> bool:
    """Whether this is the class of a source or a sink as files have it."""
    return issubclass(kind, Source | Sink) and not Block.is_block_class(kind) and kind not in (Source, Sink)


class SqlSource(SqlBlock, databases.SqlSource):
    """A database that tasks read from."""

    _block_type_name: ClassVar[str | None] = "SQL Source"
    _block_type_slug: ClassVar[str | None] = "sql-source"
    _logo_url: ClassVar[HttpUrl | None] = _LOGO
    url: SecretStr = Field(  # type: ignore[assignment]
        min_length=1, description="Its URL with user and password, e.g. `postgresql://user:password@host/db`."
    )

    def open(self, session: Session) -> Reader:
        found = self.plain()
        assert isinstance(found, Source), "a block of a source holds one"
        return found.open(session)


class SqlSink(SqlBlock, databases.SqlSink):
    """A database that tasks write to."""

    _what: ClassVar[str] = "sink"
    _block_type_name: ClassVar[str | None] = "SQL Sink"
    _block_type_slug: ClassVar[str | None] = "sql-sink"
    _logo_url: ClassVar[HttpUrl | None] = _LOGO
    url: SecretStr = Field(  # type: ignore[assignment]
        min_length=1, description="Its URL with user and password, e.g. `postgresql://user:password@host/db`."
    )

    def open(self, session: Session) -> Writer:
        found = self.plain()
        assert isinstance(found, Sink), "a block of a sink holds one"
        return found.open(session)

    def as_source(self) -> databases.SqlSource:
        found = self.plain()
        assert isinstance(found, databases.SqlSink), "a block of a sink holds one"
        return found.as_source()


SOURCES: dict[str, type[SqlBlock]] = {SqlSource.get_block_type_slug(): SqlSource}
"""The sources of this package by the slug of their block type."""

SINKS: dict[str, type[SqlBlock]] = {SqlSink.get_block_type_slug(): SqlSink}
"""The sinks of this package by the slug of their block type."""
