"""The task type `spark`: an application for `spark-submit`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field

from ..schema import Text
from ._code import Code

if TYPE_CHECKING:
    from ..run import Command, Run


class Spark(Code):
    """Submits an application to Spark with `spark-submit`, which must be on the PATH of its executor."""

    model_config = ConfigDict(populate_by_name=False)

    type: Literal["spark"] = "spark"
    application_source: Text = Field(min_length=1, description="The application: a .py or .jar file, or its URL.")
    class_name: Text | None = Field(default=None, alias="class", description="The main class of a .jar.")
    master: Text | None = Field(default=None, description="The master, e.g. `yarn` or `local[*]`.")
    conf: dict[str, Any] = Field(
        default_factory=dict, description="Spark's settings; nested keys are joined with a dot."
    )
    application_arguments: tuple[Any, ...] | dict[str, Any] = Field(
        default=(), description="Arguments of the application: a list, or a mapping of option to value."
    )

    def command(self, run: Run) -> Command:
        from ..run import Command

        return Command(argv=tuple(self.command_line()), env={"SPARK_LOCAL_HOSTNAME": "localhost"})

    def command_line(self) -> list[str]:
        """The command, one argument each: nothing is read by a shell."""
        line = ["spark-submit"]
        if self.master is not None:
            line += ["--master", self.master]
        if self.class_name is not None:
            line += ["--class", self.class_name]
        for key, value in sorted(_flat(self.conf)):
            line += ["--conf", f"{key}={value}"]
        return [*line, self.application_source, *self._arguments()]

    def _arguments(self) -> list[str]:
        if isinstance(self.application_arguments, Mapping):
            return [
                word
                for key, value in self.application_arguments.items()
                for word in (str(key), *([] if value is None else [_word(value)]))
            ]
        return [_word(value) for value in self.application_arguments]

    def script(self) -> tuple[str, str] | None:
        """Without a source of its own the application is in the image."""
        is_local = ":" not in self.application_source and not self.application_source.startswith("/")
        return ("application_source", self.application_source) if is_local and self.source else None


def _flat(conf: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in conf.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _word(value)


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ",".join(map(_word, value))
    return "" if value is None else str(value)
