"""Where the files of slices pass between this machine and containers that it cannot reach: a bucket or a volume."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from ..errors import RunError, TaskFailed
from ..schema import Config, wrong
from . import _aws, _folders

NAMES = ("parcel", "input", "outcome", "output")
"""All that a slice may have in the exchange."""

MAX_URL_SECONDS = 7 * 24 * 3600
"""No signature of S3 is valid for longer."""


def _bucket(value: str) -> str:
    scheme, _, rest = value.partition("://")
    if scheme != "s3" or not rest.partition("/")[0]:
        raise wrong(f"'{value}' is not a bucket", hint="write s3://BUCKET/PREFIX")
    return value.rstrip("/")


def _absolute(value: str) -> str:
    if value.startswith("/") and value != "/":
        return value.rstrip("/")
    raise wrong(f"'{value}' is not an absolute path", hint="write a folder of the container, e.g. /rainbow-exchange")


class ExchangeVolume(Config):
    """A shared folder that both this machine and the containers see."""

    path: str = Field(min_length=1, description="The folder on this machine, where the flow runs.")
    mount: Annotated[str, AfterValidator(_absolute)] = Field(
        default="/rainbow-exchange", description="Where the same folder is in the container."
    )
    claim_name: str | None = Field(
        default=None, description="kubernetes: the claim to mount there; absent: `pod_template` mounts it."
    )
    file_system: str | None = Field(
        default=None, description="ecs: the EFS file system to mount there; absent: `task_definition` mounts it."
    )
    sub_path: str | None = Field(default=None, description="The folder of the claim or file system that is mounted.")


class Exchange(Config):
    """A bucket or a volume through which inputs, secrets and outputs of containers pass; each file is removed after use."""

    bucket: Annotated[str, AfterValidator(_bucket)] | None = Field(
        default=None, description="A bucket and a prefix in it: s3://BUCKET/PREFIX."
    )
    region: str | None = Field(default=None, description="The region of the bucket; else that of the environment.")
    endpoint_url: str | None = Field(
        default=None, description="Another address of S3, also seen by the containers, e.g. of MinIO."
    )
    credentials: Annotated[str, AfterValidator(_aws.credentials_of)] | None = Field(
        default=None, description="block:aws-credentials/NAME; else the environment's credentials."
    )
    volume: ExchangeVolume | None = Field(default=None, description="A shared folder instead of a bucket.")

    @model_validator(mode="after")
    def _one(self) -> Exchange:
        if (self.bucket is None) == (self.volume is None):
            raise wrong("an exchange is a bucket or a volume", hint="write one of: bucket, volume")
        if self.volume is not None and (self.region or self.endpoint_url or self.credentials):
            raise wrong("`region`, `endpoint_url` and `credentials` belong to a bucket", hint="remove them")
        return self

    def place(self, run_id: str, slice_name: str, *, learn: Callable[[str], None] = lambda _: None) -> Place:
        """The place of one slice; nothing is made yet."""
        if self.volume is not None:
            return VolumePlace(self.volume, run_id, slice_name)
        return BucketPlace(self, self._client(learn), run_id, slice_name)

    def clean(self, run_id: str) -> None:
        """Remove all that slices of a run left; what cannot be removed is left to the next time."""
        if self.volume is not None:
            shutil.rmtree(Path(self.volume.path) / run_id, ignore_errors=True)
            return
        from botocore.exceptions import BotoCoreError, ClientError

        with contextlib.suppress(BotoCoreError, ClientError, RunError):
            s3, (bucket, prefix) = self._client(), self.names()
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}{run_id}/")
            for page in pages:
                keys = [{"Key": one["Key"]} for one in page.get("Contents", ())]
                if keys:
                    s3.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})

    def names(self) -> tuple[str, str]:
        """The bucket and the prefix of keys, `''` or with a slash at its end."""
        bucket, _, prefix = (self.bucket or "").removeprefix("s3://").partition("/")
        return bucket, f"{prefix}/" if prefix else ""

    def _client(self, learn: Callable[[str], None] = lambda _: None) -> Any:
        return _aws.client(
            "s3",
            credentials=self.credentials,
            region=self.region,
            endpoint_url=self.endpoint_url,
            what=f"the exchange {self.bucket}",
            learn=learn,
        )


class Place(ABC):
    """The four files of one slice: `parcel`, `input`, `outcome`, `output`."""

    folder: str | None = None
    """The folder in the container, None for a bucket."""

    @abstractmethod
    def give(self, name: str, data: bytes | Path) -> None:
        """Store one; raises TaskFailed."""

    @abstractmethod
    def source(self, name: str, seconds: float) -> dict[str, str]:
        """How the container reads one: `{"url": ...}` (valid so long) or `{"file": ...}`."""

    @abstractmethod
    def url(self, name: str, method: str, seconds: float) -> str | None:
        """A URL by which the container writes or removes one; None for a volume."""

    @abstractmethod
    def take(self, name: str) -> bytes | None:
        """What the container stored, None when there is nothing; raises TaskFailed."""

    @abstractmethod
    def fetch(self, name: str, path: Path) -> None:
        """Store what the container stored in a file; raises TaskFailed."""

    @abstractmethod
    def remove(self) -> None:
        """Remove all of it; never raises."""


class BucketPlace(Place):
    """Objects of a bucket; the container is given URLs that are signed for one object and one method each."""

    def __init__(self, exchange: Exchange, s3: Any, run_id: str, slice_name: str) -> None:
        self._s3 = s3
        self._shown = exchange.bucket
        self._bucket, prefix = exchange.names()
        self._prefix = f"{prefix}{run_id}/{slice_name}/"

    def give(self, name: str, data: bytes | Path) -> None:
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            if isinstance(data, Path):
                self._s3.upload_file(str(data), self._bucket, self._prefix + name)
            else:
                self._s3.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=data)
        except S3UploadFailedError as error:
            cause = error.__context__ if isinstance(error.__context__, Exception) else error
            raise self._failed("written", cause) from None
        except (BotoCoreError, ClientError) as error:
            raise self._failed("written", error) from None

    def source(self, name: str, seconds: float) -> dict[str, str]:
        return {"url": self.url(name, "GET", seconds)}

    def url(self, name: str, method: str, seconds: float) -> str:
        from botocore.exceptions import BotoCoreError

        action = {"GET": "get_object", "PUT": "put_object", "DELETE": "delete_object"}[method]
        try:
            made: str = self._s3.generate_presigned_url(
                action,
                Params={"Bucket": self._bucket, "Key": self._prefix + name},
                ExpiresIn=int(min(seconds, MAX_URL_SECONDS)),
            )
        except BotoCoreError as error:
            raise self._failed("signed for", error) from None
        return made

    def take(self, name: str) -> bytes | None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            data: bytes = self._s3.get_object(Bucket=self._bucket, Key=self._prefix + name)["Body"].read()
            return data
        except ClientError as error:
            if _aws.code(error) in ("NoSuchKey", "404"):
                return None
            raise self._failed("read", error) from None
        except BotoCoreError as error:
            raise self._failed("read", error) from None

    def fetch(self, name: str, path: Path) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._s3.download_file(self._bucket, self._prefix + name, str(path))
        except (BotoCoreError, ClientError) as error:
            raise self._failed("read", error) from None
        except OSError as error:
            raise TaskFailed(f"the output cannot be kept: {error.strerror} ({path.parent})") from error

    def remove(self) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        with contextlib.suppress(BotoCoreError, ClientError):
            objects = [{"Key": self._prefix + name} for name in NAMES]
            self._s3.delete_objects(Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True})

    def _failed(self, what: str, error: Exception) -> TaskFailed:
        return _aws.failed(f"the exchange {self._shown} cannot be {what}", error)


class VolumePlace(Place):
    """A folder whose name nobody can guess, in a folder that nobody can list."""

    def __init__(self, volume: ExchangeVolume, run_id: str, slice_name: str) -> None:
        self._root = Path(volume.path)
        self._run = self._root / run_id
        self._here = self._run / slice_name
        self.folder = f"{volume.mount}/{run_id}/{slice_name}"

    def give(self, name: str, data: bytes | Path) -> None:
        target = self._here / name
        try:
            if isinstance(data, Path):
                _folders.copy_file(data, target)
            else:
                target.write_bytes(data)
            target.chmod(0o644)  # the container's user is another; only the name of the folder is secret
        except OSError as error:
            raise self._failed(error) from error

    def source(self, name: str, seconds: float) -> dict[str, str]:
        return {"file": f"{self.folder}/{name}"}

    def url(self, name: str, method: str, seconds: float) -> str | None:
        return None

    def take(self, name: str) -> bytes | None:
        try:
            os.listdir(self._here)  # a network file system looks anew
            with os.fdopen(os.open(self._here / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed(error) from error

    def fetch(self, name: str, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if (self._here / name).is_symlink():
                raise TaskFailed(f"{name} of the exchange volume is a link; only the container's own file is read")
            _folders.copy_file(self._here / name, path)
        except OSError as error:
            raise self._failed(error) from error

    def remove(self) -> None:
        for _ in range(2):
            shutil.rmtree(self._here, ignore_errors=True)
            if not self._here.exists():
                break
            time.sleep(0.2)  # somebody still wrote there
        with contextlib.suppress(OSError):
            self._run.rmdir()

    def make(self) -> None:
        """Make the folder.

        Raises:
            TaskFailed: the volume is not there, or may not be written.
        """
        try:
            if not self._root.is_dir():
                raise TaskFailed(f"the exchange volume {self._root} is not a folder of this machine; mount it here")
            self._run.mkdir(exist_ok=True)
            self._run.chmod(0o711)
            self._here.mkdir()
            self._here.chmod(0o777)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> TaskFailed:
        return TaskFailed(f"the exchange volume {self._root} cannot be used: {error.strerror or error}")
