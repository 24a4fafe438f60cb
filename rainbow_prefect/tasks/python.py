"""The task type `python`: a shell line, or a function of a module, with the user's code around it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from ..schema import PythonVersion, wrong
from ._code import Code, script_of
from .base import Flaw, Place

if TYPE_CHECKING:
    from ..run import Command, Run


class Python(Code):
    """Runs Python code, or any command, with an input and an output of JSON.

    Either `cmd`, or `module` and `function`: the function is called with the input, what it returns is the output.
    """

    type: Literal["python"] = "python"
    cmd: str | None = Field(default=None, description="The shell line to run in the folder of the code.")
    module: str | None = Field(default=None, description="The module with `function`, as `source` sees it.")
    function: str | None = Field(
        default=None, description="The function to call with the input; what it returns is the output. May be async."
    )
    python_version: PythonVersion | None = Field(
        default=None, description="The Python version of its image, e.g. '3.12'."
    )

    @field_validator("python_version", mode="before")
    @classmethod
    def _quoted(cls, value: Any) -> Any:
        if isinstance(value, float):
            raise wrong(f"must be text, got the number {value}", hint=f"quote it: '{value}' ('3.10' is not 3.1)")
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    def command(self, run: Run) -> Command:
        from ..run import Command

        if self.module is not None:
            return Command(call=f"{self.module}:{self.function}")
        return Command(shell=self.cmd)

    def command_line(self) -> list[str] | None:
        if self.cmd is not None:
            return ["bash", "-c", self.cmd]
        return ["python", "-c", f"from {self.module} import {self.function}"] if self.module else None

    def script(self) -> tuple[str, str] | None:
        script = script_of(self.cmd) if self.cmd else None
        return None if script is None else ("cmd", script)

    def check(self, place: Place) -> Iterator[Flaw]:
        """Whether there is one thing to run."""
        if self.cmd is not None:
            for key in ("module", "function"):
                if getattr(self, key) is not None:
                    yield Flaw((key,), f"'{key}' and 'cmd' exclude each other", "keep one of them", on_key=True)
            if not self.cmd.strip():
                yield Flaw(("cmd",), "the command is empty", "write a shell line, e.g. python -u main.py")
        elif self.module is None and self.function is None:
            yield Flaw((), "the key 'cmd' is missing", "add cmd: python -u main.py, or module and function")
        elif self.module is None:
            yield Flaw(("function",), "'function' needs 'module'", "add the module that has it", on_key=True)
        elif self.function is None:
            yield Flaw(("module",), "'module' needs 'function'", "add the function to call", on_key=True)
        elif self.output_path:
            yield Flaw(
                ("output_path",),
                "'output_path' and 'function' exclude each other",
                "remove it: what the function returns is the output",
                on_key=True,
            )
