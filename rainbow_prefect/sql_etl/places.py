"""Where the files of a table are, a folder or a prefix of a bucket; its manifest is swapped whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import MissingExtra, TaskFailed
from .base import Passing, Refused

MANIFEST = "_manifest"
_LONGEST = 180  # bytes of a name, of the 255 that file systems take
_PART_BYTES = 8 << 20  # of a multipart upload: the most that is held in memory for one file
_OURS = re.compile(
    r"\.(?P<id>[0-9a-f]{16})(?:-(?P<token>[0-9a-f]{12}))?(?:-\d+)?\.(?:csv|jsonl|parquet)(?:\.gz|\.zst)?\Z"
)
_TEMPORARY = re.compile(r"\..*\.(?P<token>[0-9a-f]{12})\.tmp\Z")


@dataclass(frozen=True)
class New:
    """A file that was written and is not there yet: `name` in the folder of the table, how it is kept until then."""

    name: str
    kept: Any


Known = Callable[[], tuple[set[str], set[str]]]
"""Reads the manifest: the names of its files, and the tokens of the attempts that may still be at work."""


class Place(ABC):
    """A folder; names in it may have folders of their own, with `/`."""

    @abstractmethod
    def manifest(self) -> tuple[bytes | None, Any]:
        """The manifest and its version; None when there is none."""

    @abstractmethod
    def swap(self, version: Any, data: bytes | None, new: Sequence[New] = ()) -> bool:
        """Put the manifest in the place of that version, `new` with it; None removes it. False: it is another version now."""

    @abstractmethod
    def create(self, name: str, token: str) -> tuple[BinaryIO, New]:
        """A file to write; nobody sees it before `swap`."""

    @abstractmethod
    def finish(self, file: BinaryIO) -> None:
        """Close a file that was created, its bytes safe."""

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """A file that is there, to read."""

    @abstractmethod
    def names(self) -> list[str]:
        """The files that are there, sorted; none of those whose names begin with a dot or an underscore."""

    @property
    def marks_attempts(self) -> bool:
        """Whether each attempt needs names of its own for its files: a bucket cannot rename."""
        return False

    @abstractmethod
    def discard(self, new: New) -> None:
        """Remove a file that was created and is not wanted."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file that is there."""

    @abstractmethod
    def sweep(self, known: Known) -> None:
        """Remove what dead attempts left: files of ours that the manifest does not name and no live attempt writes."""

    def leave(self) -> None:  # noqa: B027  a bucket has no folders
        """Remove the folder when nothing is in it."""

    @abstractmethod
    def told(self, error: OSError) -> TaskFailed:
        """What went wrong with a file, in words."""


class Folder(Place):
    """A folder of this machine; the folder itself is the lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def manifest(self) -> tuple[bytes | None, Any]:
        try:
            found = (self.path / MANIFEST).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None, None
        except OSError as error:
            raise _told(error, self.path) from None
        return found, found

    def swap(self, version: Any, data: bytes | None, new: Sequence[New] = ()) -> bool:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with self._locked():
                if self.manifest()[1] != version:
                    return False
                self._publish(new)
                if data is None:
                    (self.path / MANIFEST).unlink(missing_ok=True)
                else:
                    self._put(data)
                _sync(self.path)
        except OSError as error:
            raise _told(error, self.path) from None
        return True

    def _publish(self, new: Sequence[New]) -> None:
        folders = set()
        for one in new:
            target = self.path / one.name
            target.parent.mkdir(parents=True, exist_ok=True)
            one.kept.replace(target)
            folders.add(target.parent)
        for folder in folders:
            _sync(folder)
            if folder != self.path:
                _sync(folder.parent)

    def _put(self, data: bytes) -> None:
        temporary = self.path / f".{MANIFEST}.tmp"  # whoever has the lock may write it
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path / MANIFEST)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """The folder is this process's until it ends, even by a kill; made again when another one removed it meanwhile."""
        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                handle = os.open(self.path, os.O_RDONLY)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                if _is_same(handle, self.path):
                    yield
                    return
            finally:
                os.close(handle)

    def create(self, name: str, token: str) -> tuple[BinaryIO, New]:
        flat = name.replace("/", "%2F")
        if len(flat.encode()) > _LONGEST:
            flat = sha256(flat.encode()).hexdigest()[:32]
        temporary = self.path / f".{flat}.{token}.tmp"
        try:
            return temporary.open("wb"), New(name, temporary)
        except OSError as error:
            raise _told(error, self.path) from None

    def finish(self, file: BinaryIO) -> None:
        file.flush()
        os.fsync(file.fileno())
        file.close()

    def open(self, name: str) -> BinaryIO:
        return (self.path / name).open("rb")

    def names(self) -> list[str]:
        found = (str(one.relative_to(self.path)) for one in self.path.rglob("*") if one.is_file())
        return sorted(one for one in found if not _is_hidden(one))

    def discard(self, new: New) -> None:
        new.kept.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        target = self.path / name
        target.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a folder of a partition with other files
            while target.parent != self.path:
                target = target.parent
                target.rmdir()

    def sweep(self, known: Known) -> None:
        with self._locked():
            names, alive = known()
            for file in sorted(self.path.rglob("*")):
                name = str(file.relative_to(self.path))
                temporary = _TEMPORARY.match(file.name)
                if temporary and file.parent == self.path:
                    if temporary["token"] not in alive:
                        file.unlink(missing_ok=True)
                elif _OURS.search(file.name) and not _is_hidden(name) and name not in names:
                    self.remove(name)
            (self.path / f".{MANIFEST}.tmp").unlink(missing_ok=True)

    def leave(self) -> None:
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def told(self, error: OSError) -> TaskFailed:
        return _told(error, self.path)


def _is_hidden(name: str) -> bool:
    return any(one.startswith((".", "_")) for one in name.split("/"))


def _is_same(handle: int, path: Path) -> bool:
    """Whether an open folder is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _told(error: OSError, path: Any) -> TaskFailed:
    reason = error.strerror or str(error) or type(error).__name__
    if isinstance(error, FileNotFoundError | PermissionError | NotADirectoryError):
        return Refused(f"'{path}' cannot be used: {reason[:1].lower()}{reason[1:]}")
    return Passing(f"'{path}' cannot be used now: {reason[:300]}")


class Bucket(Place):
    """A prefix of a bucket; the manifest is swapped by a conditional put, uploads are complete at the commit.

    Source: Amazon S3 User Guide, conditional writes (If-Match, If-None-Match).
    """

    def __init__(self, fs: Any, path: str) -> None:
        self.fs = fs
        self.path = path.removeprefix("s3://").rstrip("/")
        self._bucket, _, self._prefix = self.path.partition("/")

    def told(self, error: OSError) -> TaskFailed:
        return _told_of_s3(error, self.path)

    def manifest(self) -> tuple[bytes | None, Any]:
        try:
            with self.fs.open(f"{self.path}/{MANIFEST}", "rb") as file:
                return file.read(), file.details["ETag"]
        except FileNotFoundError:
            return None, None
        except Exception as error:
            raise _told_of_s3(error, self.path) from None

    def swap(self, version: Any, data: bytes | None, new: Sequence[New] = ()) -> bool:
        try:
            for one in new:
                if one.kept.buffer is not None:  # not complete yet
                    one.kept.commit()
            condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
            key = {"Bucket": self._bucket, "Key": f"{self._prefix}/{MANIFEST}".lstrip("/")}
            if data is None:
                if version is not None:
                    self.fs.call_s3("delete_object", **key, **condition)
            else:
                self.fs.call_s3("put_object", **key, Body=data, **condition)
        except Exception as error:
            if _is_conflict(error):
                return False
            raise _told_of_s3(error, self.path) from None
        return True

    def create(self, name: str, token: str) -> tuple[BinaryIO, New]:
        try:
            file = self.fs.open(f"{self.path}/{name}", "wb", block_size=_PART_BYTES, autocommit=False)
        except Exception as error:
            raise _told_of_s3(error, self.path) from None
        return file, New(name, file)

    def finish(self, file: BinaryIO) -> None:
        try:
            file.close()
        except Exception as error:
            raise _told_of_s3(error, self.path) from None

    def open(self, name: str) -> BinaryIO:
        found: BinaryIO = self.fs.open(f"{self.path}/{name}", "rb")
        return found

    def names(self) -> list[str]:
        start = len(self.path) + 1
        return sorted(one[start:] for one in self.fs.find(self.path) if not _is_hidden(one[start:]))

    @property
    def marks_attempts(self) -> bool:
        return True

    def discard(self, new: New) -> None:
        with contextlib.suppress(Exception):
            if new.kept.buffer is None:
                self.remove(new.name)
            else:
                new.kept.discard()

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(f"{self.path}/{name}")

    def sweep(self, known: Known) -> None:
        """What is listed first and named by no manifest read later is of no live attempt: claims come before files."""
        try:
            names = [one for one in self.names() if _OURS.search(one)]
            uploads = self._uploads()
            files, alive = known()
            for name in names:
                found = _OURS.search(name)
                if name not in files and found and found["token"] not in alive:
                    self.remove(name)
            for key, upload in uploads:
                found = _OURS.search(key)
                if found and found["token"] not in alive:
                    self.fs.call_s3("abort_multipart_upload", Bucket=self._bucket, Key=key, UploadId=upload)
        except Exception as error:
            raise _told_of_s3(error, self.path) from None

    def _uploads(self) -> list[tuple[str, str]]:
        prefix = f"{self._prefix}/" if self._prefix else ""
        found = self.fs.call_s3("list_multipart_uploads", Bucket=self._bucket, Prefix=prefix)
        return [(one["Key"], one["UploadId"]) for one in found.get("Uploads") or []]


def _is_conflict(error: Exception) -> bool:
    """Whether another one changed the object meanwhile."""
    text = f"{error} {error.__cause__} {getattr(error.__cause__, 'response', '')}"
    return any(
        one in text
        for one in ("PreconditionFailed", "ConditionalRequestConflict", "pre-conditions", "412", "NoSuchKey")
    )


def _told_of_s3(error: Exception, path: str) -> TaskFailed:
    if isinstance(error, TaskFailed):
        return error
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, FileNotFoundError | PermissionError) or "credentials" in text.lower():
        return Refused(f"'s3://{path}' cannot be used: {text[:300]}")
    return Passing(f"'s3://{path}' cannot be used now: {type(error).__name__}: {text[:300]}")


def place(path: str, root: Path, storage: Mapping[str, Any]) -> Place:
    """The folder or the prefix of a bucket; a relative folder starts from `root`.

    Raises:
        Refused: it is neither.
        MissingExtra: s3fs is not installed.
    """
    scheme, separator, rest = path.partition("://")
    if not separator:
        return Folder(root / path)
    if scheme == "file":
        return Folder(Path(rest))
    if scheme != "s3":
        raise Refused(f"'{path}' is neither a folder nor s3://BUCKET/PREFIX")
    return Bucket(file_system(storage), path)


def file_system(storage: Mapping[str, Any]) -> Any:
    """s3fs with these settings.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import s3fs
    except ImportError:
        raise MissingExtra("s3:// paths", "s3") from None
    client = {name: storage[name] for name in ("endpoint_url", "region_name") if storage.get(name)}
    other = {name: value for name, value in storage.items() if name not in ("endpoint_url", "region_name")}
    return s3fs.S3FileSystem(client_kwargs=client, use_listings_cache=False, default_fill_cache=False, **other)
