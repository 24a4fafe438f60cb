"""`rainbow alert test`: send a test message through the alerts of a pipeline, or of all pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import CallError, RunError
from .options import json_option, load_apps, path_argument, pipeline_option, print_json

if TYPE_CHECKING:
    from ..app import App, Pipeline
    from ..observers.alerts import Alert
    from ..secrets import Secret, Secrets


@click.group()
def command() -> None:
    """Send a test message through the alerts of a pipeline."""


@command.command()
@path_argument
@pipeline_option
@click.option("--alert", metavar="NAME", help="Only the alert of this name or type.")
@json_option
def test(path: Path, pipeline: str | None, alert: str | None, as_json: bool) -> int:
    """Send one message through each alert, and tell which were taken.

    Exit status: 0 all were taken, 1 one was not, 2 there is no alert to send, or the file is wrong.
    """
    from ..observers.alerts import sample

    results = []
    for app, one, found in _found(path, pipeline, alert):
        secrets = secrets_of(app)
        ready = _ready(found, secrets)
        if isinstance(ready, str) or not ready.tell(sample(app.name, one.pipeline)):
            error = secrets.mask(ready if isinstance(ready, str) else ready.warnings()[0])
        else:
            error = ""
        results.append({"pipeline": one.pipeline, "alert": found.name, "type": found.type, "error": error or None})
        if not as_json:
            click.echo(f"{one.pipeline}: {error or f'sent through {found.name}'}", err=bool(error))
    if not results:
        raise CallError(
            f"there is no alert{f' {alert!r}' if alert else ''} to send; add `alerts` to the file or a pipeline"
        )
    if as_json:
        print_json({"alerts": results})
    return 1 if any(one["error"] for one in results) else 0


def _found(path: Path, name: str | None, alert: str | None) -> Iterator[tuple[App, Pipeline, Alert]]:
    """Each alert once: those of a file with its first pipeline, or with the one that was asked for."""
    from ..observers.alerts import Alert
    from ..observers.metrics import observers_of

    pipelines = [one for app in load_apps(path, name) for one in app.pipelines if name in (None, one.pipeline)]
    told: set[tuple[str, str]] = set()
    for pipeline in pipelines:
        for one in observers_of(pipeline.app, pipeline):
            if not isinstance(one, Alert) or alert not in (None, one.alert, one.type):
                continue
            key = (pipeline.app.shown, repr(one.model_dump()))
            if key not in told:
                told.add(key)
                yield pipeline.app, pipeline, one


def _ready(alert: Alert, secrets: Secrets) -> Alert | str:
    """The alert with its secrets, or why it has none."""
    try:
        rendered: Alert = secrets.render(alert)
    except RunError as error:
        return f"alert '{alert.name}' was not sent: {error}"
    return rendered


def secrets_of(app: App) -> Secrets:
    """The secrets of a file, outside of a run."""
    from ..secrets import Secrets

    return Secrets(app.secrets, app.root, _block, load_aws=_aws)


def _block(reference: str) -> str:
    from ..blocks import secret

    return secret(reference)


def _aws(declared: Secret) -> str:
    from ..blocks import aws

    return aws.secret(declared)
