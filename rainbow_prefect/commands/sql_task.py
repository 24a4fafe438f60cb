"""What the commands about SQL tasks share: the task that is meant, both of its sides, and errors at their place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import click

from ..errors import CallError, ConfigError, RunError, TaskFailed, one_line
from ..problems import problem
from ..run import Run
from ..secrets import Secrets
from ..tasks.sql_etl import SqlEtl
from .execution import load, typed
from .options import choose

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ..app import Pipeline
    from ..server import Connection
    from ..sql_etl.base import Reader, Session, Writer
    from ..sql_etl.config import Sink, Source
    from ..sql_etl.move import Order
    from ..tasks.base import Task


def _task_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The SQL tasks of the files, for the shell's Tab key."""
    from click.shell_completion import CompletionItem

    from .. import check
    from ..errors import RainbowError

    try:
        apps = check.check(ctx.params.get("path") or Path()).apps
    except RainbowError:
        return []
    wanted = ctx.params.get("pipeline")
    pipelines = [one for app in apps for one in app.pipelines if wanted in (None, one.pipeline)]
    names = {one.task for each in pipelines for one in each.tasks if _moves(one)}
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


task_option = click.option(
    "--task",
    "-t",
    metavar="NAME",
    shell_complete=_task_names,
    help="The task of type sql_etl; may be left out when there is only one.",
)


@dataclass(frozen=True)
class Chosen:
    """A task of type `sql_etl`: what it would move, from where and to where, with the secrets in it."""

    pipeline: Pipeline
    task: SqlEtl
    secrets: Secrets
    source: Source
    sink: Sink
    order: Order

    @property
    def table(self) -> str:
        """The table of the sink, for people."""
        return ".".join(one for one in self.order.table if one)

    @property
    def session(self) -> Session:
        """What both sides are told: that nothing is written."""
        from ..sql_etl.base import Session

        return Session(f"rainbow {self.order.name}"[:63], self.pipeline.app.root, only_looks=True)

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """The open source."""
        from ..sql_etl.through import around

        with self.located("source"):
            opened = self.source.open(self.session)
            try:
                reader = around(opened, self.order, self.session)
            except BaseException:
                opened.close()
                raise
        try:
            yield reader
        finally:
            reader.close()

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """The open sink."""
        with self.located("sink"):
            writer = self.sink.open(self.session)
        try:
            yield writer
        finally:
            writer.close()

    @contextmanager
    def table_reader(self) -> Iterator[Reader]:
        """The open sink, to read what is in it."""
        with self.located("sink"):
            reader = self.sink.as_source().open(self.session)
        try:
            yield reader
        finally:
            reader.close()

    @contextmanager
    def located(self, key: str = "") -> Iterator[None]:
        """Tell what goes wrong with the place of a key of the task: what cannot be done as a problem of the file."""
        with located(self.pipeline, self.task, self.secrets, key):
            yield


@contextmanager
def located(pipeline: Pipeline, task: SqlEtl, secrets: Secrets, key: str = "") -> Iterator[None]:
    """As `Chosen.located`.

    Raises:
        ConfigError: it cannot be done as it is written.
        RunError: the world says no.
    """
    from ..sql_etl.base import Refused

    try:
        yield
    except (TaskFailed, CallError) as error:
        text = secrets.mask(str(error))
        found = problem(pipeline.app.data, _keys(pipeline, task, key, text), text)
        if isinstance(error, Refused | CallError):
            raise ConfigError([found]) from None
        raise RunError(str(found)) from None


def _keys(pipeline: Pipeline, task: SqlEtl, key: str, text: str) -> tuple[str | int, ...]:
    """The place of a key of the task: of the query when the text speaks of that."""
    app = pipeline.app
    at = next(index for index, one in enumerate(app.pipelines) if one.pipeline == pipeline.pipeline)
    number = next(index for index, one in enumerate(pipeline.tasks) if one.task == task.task)
    if not key:
        asks = [one for one in ("query", "query_file", "source_table") if getattr(task, one) is not None]
        key = next((one for one in ("keys", "mode", "cursor", "split") if text.startswith(f"`{one}`")), "")
        key = "incremental" if key == "cursor" else key or (asks[0] if asks and text.startswith("the query") else "")
    return ("pipelines", at, "tasks", number, *([key] if key else []))


def chosen(path: Path, pipeline: str | None, task: str | None, params: Sequence[str]) -> Chosen:
    """The task of type `sql_etl` that `PATH --pipeline NAME --task NAME` names, or the only one.

    Raises:
        ConfigError: the file is wrong; a secret, a block or a file that the task needs is not there.
        CallError: there is no such task, or a name or a parameter is needed.
        RunError: Prefect cannot be reached, a secret cannot be read.
    """

    @cache
    def ready() -> Connection:
        from .runs import known_server

        return known_server()

    found = load(path, pipeline, ready=ready)
    given = typed(found, params)
    values = found.values(given)
    found = found.bind(given) if found.parameters else found
    one = _task(found, task)
    run = replace(_run(found, one, ready), parameters=values)
    with located(found, one, run.secrets):
        mine: SqlEtl = run.secrets.render(one)
        source, sink = mine.stores(run)
        order = mine.order(run, source, sink)
    return Chosen(found, one, run.secrets, source, sink, order)


def _task(pipeline: Pipeline, name: str | None) -> SqlEtl:
    named = {one.task: one for one in pipeline.tasks if _moves(one)}
    other = next((one for one in pipeline.tasks if one.task == name and name not in named), None)
    if isinstance(other, SqlEtl):
        raise CallError(f"task '{name}' has no `sink`; this is for tasks that move rows")
    if other is not None:
        raise CallError(f"task '{name}' is of type '{other.type}'; this is for tasks of type sql_etl")
    return choose(named, name, "task")


def _moves(task: Task) -> TypeGuard[SqlEtl]:
    """Whether a task moves rows; one without a sink runs statements."""
    return isinstance(task, SqlEtl) and task.sink is not None


def _run(pipeline: Pipeline, task: SqlEtl, ready: Any) -> Run:
    """What the task is given to find its secrets, sources and sinks; nothing runs."""
    from .. import blocks
    from ..blocks import aws

    def secret(reference: str) -> str:
        ready()
        return blocks.secret(reference)

    def store(reference: str, what: str) -> Source | Sink:
        ready()
        return blocks.store(reference, what)

    app = pipeline.app
    secrets = Secrets(app.secrets, app.root, secret, load_aws=aws.secret)
    secrets.learn_from(app.data)
    return Run(
        app=app.name,
        pipeline=pipeline.pipeline,
        task=task.task,
        run_id="look",
        root=app.root,
        folder=app.root,
        executor=app.executor_named("process"),
        secrets=secrets,
        sources={one.source: one for one in app.sources if one.source},
        sinks={one.sink: one for one in app.sinks if one.sink},
        saved=store,
    )


def line(text: str, most: int = 60) -> str:
    """A text as one line of at most so many characters."""
    shown = one_line(text)
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."
