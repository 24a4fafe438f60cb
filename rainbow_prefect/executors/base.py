"""The base class of executors: where the command of a slice runs. No Prefect here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from ..registry import executors
from ..schema import Config, Name, wrong

if TYPE_CHECKING:
    from ..run import Command, Output, Run

_REFERENCE = re.compile(r"[a-z0-9][a-z0-9_-]*/[^/\s]+\Z")


class Executor(Config):
    """Runs one `Command` somewhere; a subclass has a `type`, its fields and `run`.

    Example, complete, entered as `my_ssh = "my_package:Ssh"` in the entry points `rainbow_prefect.executors`:

        class Ssh(Executor):
            type: Literal["my_ssh"] = "my_ssh"
            host: str = Field(description="Host to run on.")

            def run(self, command: Command, run: Run) -> Output:
                done = subprocess.run(["ssh", self.host, command.shell], capture_output=True, text=True)
                for line in done.stdout.splitlines():
                    run.write(line)
                if done.returncode:
                    raise TaskFailed(f"exit status {done.returncode}", status=done.returncode)
                return Output()

    `run` is called in a thread, many at once. It must end soon after `run.stop` is set or `run.deadline` has passed,
    raise `TaskFailed`, `TimedOut` or `Cancelled`, and leave nothing behind however it ends.
    """

    runs_images: ClassVar[bool] = False
    """True when the command runs in its task's image, which must be built before."""

    executor: Name | None = Field(default=None, description="The name by which a task's `executor` finds it.")
    type: str = Field(description="The type of the executor.")

    def run(self, command: Command, run: Run) -> Output:
        """Run the command of one slice to its end.

        Raises:
            TaskFailed: it ended with a failure, or its output is missing or not JSON.
            TimedOut: the deadline of `run` passed.
            Cancelled: `run.stop` was set.
        """
        raise TypeError(f"executor type '{self.type}' does not implement run()")

    def prepare(self, command: Command, run: Run) -> None:
        """What can be done once for all slices before they start (environments, images); may raise TaskFailed."""

    def image_host(self) -> str | None:
        """The address of the Docker engine that must have the images; '' is that of the environment.

        None: the images come from a registry.
        """
        return None

    def clean(self, run_id: str) -> None:
        """End and remove whatever still belongs to this run; called when it ends, in whichever way."""


def _block(value: str) -> str:
    """`TYPE/NAME`; as a value it may be written as the reference that it is, too."""
    reference = value.removeprefix("block:")
    if _REFERENCE.match(reference):
        return reference
    raise wrong(f"'{value}' is not a reference to a block", hint="write `TYPE/NAME`, e.g. `docker-executor/big`")


class BlockReference(Executor):
    """The executor that is saved as a Prefect block; it is read when a run starts."""

    type: Literal["block"] = "block"
    block: Annotated[str, AfterValidator(_block)] = Field(
        description="The block: its type and name, e.g. `docker-executor/big`."
    )

    @property
    def runs_images(self) -> bool:  # type: ignore[override]
        """Whether that executor does, which the type of the block tells."""
        return not self.block.startswith("process-executor/")


class StubExecutor(Executor):
    """An executor in memory for tests: answers `value` and remembers nothing outside of `seen`."""

    type: str = "stub"
    value: Any = None
    seen: ClassVar[list[Any]] = []

    def run(self, command: Command, run: Run) -> Output:
        from ..run import Output

        self.seen.append((command, run))
        return Output(self.value)


AnyExecutor = Annotated[Executor, executors]
