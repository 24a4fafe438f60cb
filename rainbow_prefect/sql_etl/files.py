"""The settings of files as sources and sinks: CSV, JSON lines and Parquet, in folders of this machine and in S3."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, SecretStr, model_validator

from ..schema import Config, Text, wrong
from . import encoders, manifest
from .base import Query, Reader, Refused, Session, Writer
from .config import Sink, Source
from .csv_text import Csv
from .encoders import Compression, Format

if TYPE_CHECKING:
    from .files_reader import Table

_DIALECTS = {"csv": "csv", "jsonl": "jsonl", "parquet": "arrow"}


class Storage(Config):
    """How S3 is reached; what is left out is found as the AWS command line finds it."""

    endpoint_url: Text | None = Field(default=None, description="Another address of S3, e.g. of MinIO.")
    region_name: Text | None = Field(default=None, description="The region of the bucket.")
    key: Text | None = Field(default=None, description="The access key.")
    secret: SecretStr | None = Field(default=None, description="The secret of the access key.")
    token: SecretStr | None = Field(default=None, description="The session token, for temporary keys.")
    profile: Text | None = Field(default=None, description="The profile of the AWS configuration.")
    anon: bool = Field(default=False, description="Read a public bucket without any key.")

    def options(self) -> dict[str, Any]:
        """As s3fs takes it."""
        found: dict[str, Any] = {}
        for name in ("endpoint_url", "region_name", "key", "secret", "token", "profile", "anon"):
            value = getattr(self, name)
            if value:
                found[name] = value.get_secret_value() if isinstance(value, SecretStr) else value
        return found


class FilesSource(Source):
    """Files: one, those that a pattern finds, or a folder that a `files` sink wrote."""

    type: Literal["files"] = "files"
    path: Text = Field(min_length=1, description="A file, a pattern (`in/*.csv.gz`) or a folder; also s3://BUCKET/...")
    format: Format | None = Field(default=None, description="The format; absent: by the end of the names.")
    compression: Compression | None = Field(
        default=None, description="The compression; absent: by the end of the names."
    )
    csv: Csv = Field(default_factory=Csv, description="How the CSV files are written.")
    types: dict[str, Text] = Field(
        default_factory=dict, description="The types of columns, e.g. `{amount: 'decimal(10,2)'}`; the others are text."
    )
    storage: Storage = Field(default_factory=Storage, description="How S3 is reached.")

    @model_validator(mode="after")
    def _known(self) -> FilesSource:
        _refuse_encoding(self.csv)
        from .arrow_types import named

        for name, spelling in self.types.items():
            try:
                named(spelling)
            except ValueError as error:
                raise wrong(f"the type of '{name}': {error}", at="types") from None
        return self

    def open(self, session: Session) -> Reader:
        from .files_reader import FilesReader

        def find(query: Query) -> Table:
            return self._table(query, session)

        kind = self.format or encoders.guessed(self.path)[0] or self._table(Query(), session, is_known=False).format
        return FilesReader(find, session, options=self.csv, types=self.types, dialect=_DIALECTS[kind])

    def _table(self, query: Query, session: Session, *, is_known: bool = True) -> Table:
        """The files of a query; a table is a folder in the path.

        Raises:
            Refused: there is none, or their format is not known.
        """
        path = self.path.rstrip("/")
        if query.table is not None and not _is_pattern(path) and encoders.guessed(path)[0] is None:
            path = "/".join([path, *(one for one in query.table if one)])
        if "://" in path and not path.startswith(("s3://", "file://")):
            raise Refused(f"'{path}' is neither a file nor s3://BUCKET/NAME")
        return self._in_bucket(path) if path.startswith("s3://") else self._on_disk(path, session)

    def _on_disk(self, path: str, session: Session) -> Table:
        from .places import Folder

        at = Path(session.root, path.removeprefix("file://"))
        if at.is_dir():
            return self._of_place(Folder(at), path)
        names = sorted(one for one in glob.glob(str(at), recursive=True) if Path(one).is_file())  # noqa: PTH207  absolute
        if not names and at.exists():
            names = [str(at)]
        shown = {_short(one, session): one for one in names}
        return self._made(tuple(shown), lambda name: Path(shown[name]).open("rb"), path)

    def _in_bucket(self, path: str) -> Table:
        from .places import Bucket, _told_of_s3, file_system

        fs = file_system(self.storage.options())
        inner = path.removeprefix("s3://")
        try:
            if not _is_pattern(inner) and not fs.isfile(inner):
                return self._of_place(Bucket(fs, inner), path)
            names = sorted(fs.glob(inner)) if _is_pattern(inner) else [inner]
        except (OSError, ValueError) as error:
            raise _told_of_s3(error, inner) from None
        return self._made(tuple(names), lambda name: fs.open(name, "rb"), path)

    def _of_place(self, place: Any, path: str) -> Table:
        """The files that the manifest lists, all files where there is none."""
        from .files_reader import Table

        data, _ = place.manifest()
        if data is None:
            return self._made(
                tuple(one for one in place.names() if encoders.guessed(one)[0] or self.format), place.open, path
            )
        found = manifest.read(data)
        if found.schema is None:
            raise Refused(f"nothing was loaded into '{path}' yet")
        names = tuple(one.name for one in found.files)
        return Table(names, place.open, found.format, self._compressions(names), found.schema, found.partition_by, path)

    def _made(self, names: tuple[str, ...], open_one: Any, path: str) -> Table:
        from .files_reader import Table

        if not names:
            raise Refused(f"there is no file '{path}'; correct `path`")
        kinds = {self.format or encoders.guessed(one)[0] for one in names}
        if None in kinds:
            raise Refused(
                f"the format of '{names[0]}' cannot be told by its name; write `format: csv`, jsonl or parquet"
            )
        if len(kinds) > 1:
            raise Refused(f"'{path}' finds files of several formats ({', '.join(sorted(map(str, kinds)))}); narrow it")
        kind = next(iter(kinds))
        assert kind is not None
        return Table(names, open_one, kind, self._compressions(names), path=path)

    def _compressions(self, names: tuple[str, ...]) -> Mapping[str, Compression]:
        return {one: self.compression or encoders.guessed(one)[1] for one in names}


class FilesSink(Sink):
    """A folder with a folder of files for each table, whose `_manifest` lists the files that count."""

    type: Literal["files"] = "files"
    path: Text = Field(min_length=1, description="The folder of the tables; also s3://BUCKET/PREFIX.")
    format: Format = Field(default="parquet", description="The format of the files.")
    compression: Compression | None = Field(
        default=None, description="The compression; absent: zstd within Parquet, none for text."
    )
    partition_by: tuple[Text, ...] = Field(
        default=(), description="Columns whose values become folders, e.g. `day=2024-02-29`."
    )
    csv: Csv = Field(default_factory=Csv, description="How the CSV files are written.")
    storage: Storage = Field(default_factory=Storage, description="How S3 is reached.")
    lock_timeout_seconds: float = Field(
        default=30, gt=0, description="Seconds to wait for another process that writes the same part."
    )

    @model_validator(mode="after")
    def _known(self) -> FilesSink:
        _refuse_encoding(self.csv)
        if "aa".encode(self.csv.encoding) != "a".encode(self.csv.encoding) * 2:
            raise wrong(f"'{self.csv.encoding}' begins with a mark", hint="write e.g. utf-8 or utf-16-le", at="csv")
        if len(set(self.partition_by)) < len(self.partition_by):
            raise wrong("a column is named twice", at="partition_by")
        return self

    def as_source(self) -> FilesSource:
        return FilesSource(
            path=self.path, format=self.format, compression=self.compression, csv=self.csv, storage=self.storage
        )

    def open(self, session: Session) -> Writer:
        from .files_writer import FilesWriter
        from .places import place

        def at(table: tuple[str | None, str]) -> Any:
            for one in table:
                if one is not None and (one in ("", ".", "..") or "/" in one or one.startswith((".", "_"))):
                    raise Refused(f"'{one}' cannot be the name of a folder of files")
            path = "/".join([self.path.rstrip("/"), *(one for one in table if one)])
            return place(path, session.root, self.storage.options())

        return FilesWriter(
            at,
            session,
            format=self.format,
            compression=self.compression or ("zstd" if self.format == "parquet" else "none"),
            options=self.csv,
            partition_by=self.partition_by,
            lock_timeout_seconds=self.lock_timeout_seconds,
        )


def _is_pattern(path: str) -> bool:
    return any(one in path for one in "*?[")


def _short(path: str, session: Session) -> str:
    """A name for messages."""
    try:
        return str(Path(path).relative_to(session.root))
    except ValueError:
        return path


def _refuse_encoding(options: Csv) -> None:
    try:
        _ = options.is_utf8
    except LookupError:
        raise wrong(
            f"'{options.encoding}' is no known encoding", hint="write e.g. utf-8 or latin-1", at="csv"
        ) from None
