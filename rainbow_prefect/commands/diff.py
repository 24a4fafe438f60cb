"""`rainbow diff [PATH]`: what `rainbow deploy` would change on the Prefect server; and what the two share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import check
from ..errors import ConfigError
from ..masking import redact, secret_values
from .options import json_option, path_argument, pipeline_option, print_json, print_problems

if TYPE_CHECKING:
    from ..api_client import Api
    from ..app import Pipeline
    from ..deploy import Change, Changes, Difference

CHANGES = 2
_UNDEFINED = " is not defined; looked in "
_LONG = 60

prune_option = click.option(
    "--prune", is_flag=True, help="Remove deployments of this project that no file has any more."
)


@click.command()
@path_argument
@pipeline_option
@prune_option
@json_option
def command(path: Path, pipeline: str | None, prune: bool, as_json: bool) -> int:
    """Show what `rainbow deploy` would change on the Prefect server.

    Exit status: 0 nothing, 2 changes, or the file or the call is wrong, 1 the server does not answer.
    """
    from ..api_client import connect

    with connect(tell=say) as api:
        pipelines = pipelines_of(api, path, pipeline)
        changes = changes_of(api, pipelines, is_whole=pipeline is None, prune=prune)
    if as_json:
        print_json(redacted(changes, pipelines))
    else:
        click.echo("\n".join(lines_of(changes, pipelines)))
    return CHANGES if changes.changes else 0


def say(text: str) -> None:
    click.echo(text, err=True)


def pipelines_of(api: Api, path: Path, name: str | None) -> list[Pipeline]:
    """The pipelines to deploy; names in placeholders may be Prefect Variables.

    Raises:
        ConfigError: a file is wrong; with a name, the file of that pipeline.
        CallError: there is no such pipeline.
    """
    from ..deployable import chosen

    checked = check.check(path)
    if checked.errors and all(_UNDEFINED in one.message for one in checked.errors):
        checked = check.check(path, lookup=api.variable, cache=False)
    found = [one for app in checked.apps for one in app.pipelines]
    if checked.errors and name not in {one.pipeline for one in found}:
        raise ConfigError(checked.problems)
    print_problems(checked.problems)
    return chosen(found, name)


def changes_of(api: Api, pipelines: Sequence[Pipeline], *, is_whole: bool, prune: bool) -> Changes:
    """What is to change on the server."""
    from ..automations import automations
    from ..deploy import compare, look
    from ..deployable import wanted
    from ..shipping import places_of

    items = [*wanted(pipelines, places_of(pipelines)), *automations(pipelines)]
    found = look(api, items, sorted({one.app.name for one in pipelines}))
    return compare(items, found, prune=prune, is_whole=is_whole)


# -- text


def redacted(changes: Changes, pipelines: Sequence[Pipeline]) -> Any:
    """The changes as JSON, without secrets."""
    return redact(changes.as_dict(), _secrets(pipelines))


def _secrets(pipelines: Sequence[Pipeline]) -> Iterator[str]:
    for app in {id(one.app): one.app for one in pipelines}.values():
        yield from secret_values(app.data)


def lines_of(changes: Changes, pipelines: Sequence[Pipeline]) -> Iterator[str]:
    """One line for each thing, and below it what differs."""
    from ..masking import Masker

    mask = Masker(_secrets(pipelines)).mask
    for change in changes.changes:
        yield mask(f"{change.action} {change.kind} {change.name}")
        yield from (mask(f"    {_difference(change, one)}") for one in _told(change))
    for found in changes.left:
        yield f"  {found.kind} {found.name} is in no file any more; `rainbow deploy --prune` removes it"
    yield _summary(changes)


def _told(change: Change) -> Iterator[Difference]:
    """What a person wants to read of a change: all old and new values, and of a new thing what was chosen for it."""
    silent = ("parameter_openapi_schema", "labels", "tags") if change.action == "+" else ()
    return (one for one in change.differences if one.key not in silent)


def _difference(change: Change, one: Difference) -> str:
    from ..deploy import shown

    match one.action:
        case "+":
            return f"+ {one.key}: {_short(shown(one.new))}"
        case "-":
            return f"- {one.key}: {_short(shown(one.old))}"
        case _:
            return f"~ {one.key}: {_short(shown(one.old))} -> {_short(shown(one.new))}"


def _short(text: str) -> str:
    return text if len(text) <= 2 * _LONG else f"{text[:_LONG]} ... {text[-_LONG:]}"


def _summary(changes: Changes) -> str:
    if not changes.changes:
        return "nothing to change"
    counts = {action: sum(one.action == action for one in changes.changes) for action in "+~-"}
    return f"{counts['+']} to add, {counts['~']} to change, {counts['-']} to remove"
