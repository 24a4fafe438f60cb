"""What tasks that run the user's code share: image, source, mounts, secrets."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from ..errors import RunError, TaskFailed
from ..schema import Text, wrong
from .base import Mount, Task, TaskSecret, leads_out

if TYPE_CHECKING:
    from ..run import Command, FileMount, Output, Run


def _inside(value: str) -> str:
    """An output path names a file, and stays below the working directory when it is relative."""
    if "\0" in value or value.endswith("/") or value in (".", ".."):
        raise wrong(f"'{value}' is not the path of a file", hint="write a file name, e.g. output.json")
    if leads_out(value):
        raise wrong(f"'{value}' leads out of the working directory", hint="write a path below it, e.g. output.json")
    return value


OutputPath = Annotated[str, AfterValidator(_inside)]

RESOURCES = ("request_cpu", "request_memory", "limit_cpu", "limit_memory")
"""The keys of a task that say what it asks of the machine."""


class Code(Task):
    """A task whose code runs as a `Command` of an executor; a subclass says which."""

    image: Text | None = Field(
        default=None, description="The image with its code and packages; `process` takes the image's source."
    )
    source: str | None = Field(
        default=None, description="The folder with its code, relative to this file; absent: that of the image."
    )
    output_path: OutputPath | None = Field(
        default=None, description="The JSON file that it writes: its output. Relative to the working directory."
    )
    mounts: tuple[Mount, ...] = Field(default=(), description="Volumes that it sees.")
    secrets: tuple[TaskSecret, ...] = Field(default=(), description="Secrets that it is given as files or variables.")
    no_cache: bool = Field(default=False, description="Build its image without the cache.")
    pip_conf: str | None = Field(default=None, description="A pip.conf for installing packages, relative to this file.")

    def command(self, run: Run) -> Command:
        """What the executor starts; `fill` adds what all code has."""
        raise TypeError(f"task type '{self.type}' does not implement command()")

    def run(self, run: Run) -> object:
        output: Output = run.executor.run(self._filled(run), run)
        return output.value

    def prepare(self, run: Run) -> None:
        run.executor.prepare(self._filled(run), run)

    def image_source(self) -> tuple[str | None, str | None]:
        return self.image, self.source

    def _filled(self, run: Run) -> Command:
        mine: Code = run.secrets.render(self)
        command = mine.command(run)
        source = run.root / mine.source if mine.source else run.source
        env, files = mine._secret_places(run)
        return replace(
            command,
            env={**command.env, **mine.env_vars, **env},
            source=source,
            image=mine.image or run.image,
            output_path=command.output_path or mine.output_path or None,
            mounts=(*mine._volume_places(run), *files),
            pip_conf=run.root / mine.pip_conf if mine.pip_conf else None,
            resources={key: value for key in RESOURCES if (value := getattr(mine, key)) is not None},
            labels=mine.labels,
        )

    def _secret_places(self, run: Run) -> tuple[dict[str, str], list[FileMount]]:
        from ..run import FileMount

        env: dict[str, str] = {}
        files: list[FileMount] = []
        for one in self.secrets:
            try:
                if one.env is not None:
                    env[one.env] = run.secrets.get(one.secret)
                if one.file is not None:
                    files.append(FileMount(one.file, text=run.secrets.raw(one.secret), read_only=True, secret=True))
            except RunError as error:
                raise TaskFailed(str(error)) from error
        return env, files

    def _volume_places(self, run: Run) -> Iterator[FileMount]:
        from ..run import FileMount

        for one in self.mounts:
            folder = run.volumes.get(one.volume)
            below = folder / one.sub_path if folder is not None and one.sub_path else folder
            claim = run.claims.get(one.volume, f"{one.volume}-pvc")
            yield FileMount(one.path, source=below, read_only=one.read_only, claim_name=claim, sub_path=one.sub_path)

    def script(self) -> tuple[str, str] | None:
        """The key that names a file of the user's code, and that file; `rainbow check` proves that it exists."""
        return None


_SCRIPTS = (".py", ".sh", ".bash")
_WITH_VALUE = ("-W", "-X")


@lru_cache(maxsize=4096)
def script_of(cmd: str) -> str | None:
    """The file of the user's code that a shell line starts, when that is plain to see; else None."""
    try:
        words = shlex.split(cmd, comments=True)
    except ValueError:
        return None
    if "cd" in words or any(word in ("&&", "||", ";", "|", "&") for word in words[:1]):
        return None
    while words and "=" in words[0] and words[0].partition("=")[0].isidentifier():
        words = words[1:]
    if not words:
        return None
    program = words[0].rpartition("/")[2]
    if words[0].startswith("./") and words[0].endswith(_SCRIPTS):
        return _plain_path(words[0])
    if program.rstrip("0123456789.") != "python" and program not in ("bash", "sh"):
        return None
    rest = iter(words[1:])
    for word in rest:
        if word in _WITH_VALUE:
            next(rest, None)
        elif word in ("-c", "-m", "-"):
            return None
        elif not word.startswith("-"):
            return _plain_path(word) if word.endswith(_SCRIPTS) else None
    return None


def _plain_path(word: str) -> str | None:
    """A relative path without anything that the shell or a variable would change."""
    return None if word.startswith(("/", "~")) or any(one in word for one in "$`*?[{;&|<>") else word
