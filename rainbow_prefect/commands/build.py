"""`rainbow build [PATH]`: build the images that changed."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import check
from ..errors import CallError, ConfigError, near
from .options import json_option, path_argument, print_json, print_problems

if TYPE_CHECKING:
    from ..app import App
    from ..check import Checked
    from ..images.build import Built
    from ..images.decide import Decision
    from ..images.recipe import Recipe
    from ..tasks.base import Task


@click.command()
@path_argument
@click.option("--image", metavar="NAME", help="Build this image only, and those it is built from.")
@click.option("--dry-run", is_flag=True, help="Tell what would be built and why, and build nothing.")
@click.option("--push", is_flag=True, help="Push the images to their registries, too.")
@click.option("--no-cache", is_flag=True, help="Build all of them anew, without the builder's cache.")
@json_option
def command(path: Path, image: str | None, dry_run: bool, push: bool, no_cache: bool, as_json: bool) -> int:
    """Build the images whose code, requirements, settings or base changed.

    Exit status: 0 all are built, 1 one is not, 2 the file or the call is wrong.
    """
    checked = _checked(path)
    from ..images.decide import decide

    recipes = _chosen(_recipes(path, checked), image)
    decisions = decide(recipes, force=no_cache)
    if dry_run:
        _show([one.as_dict() for one in decisions], as_json)
        return 0
    with _interruptible() as stop:
        built = _built(decisions, no_cache, stop)
        pushed = _push(decisions, built, checked.apps, stop) if push else {}
    by_name = {one.decision.image: one.as_dict() for one in built}
    _show([{**one.as_dict(), **by_name.get(one.image, {}), **_as_dict(one, pushed)} for one in decisions], as_json)
    if stop.is_set():
        raise KeyboardInterrupt
    failures = [*_failures(built), *(f"image '{name}': {text}" for name, text in pushed.items() if text)]
    for text in filter(None, failures):
        click.echo(f"Error: {text}", err=True)
    return 1 if any(failures) else 0


def _built(decisions: Sequence[Decision], no_cache: bool, stop: threading.Event) -> list[Built]:
    if not any(one.action == "build" for one in decisions):
        return []
    from ..images.build import build

    return build(decisions, tell=_say, no_cache=no_cache, stop=stop)


def _failures(built: Sequence[Built]) -> list[str]:
    if not built:
        return []
    from ..images.build import failure

    return [failure(built)]


def _checked(path: Path) -> Checked:
    gc.disable()  # what is read now lives until the end
    checked = check.check(path)
    gc.freeze()
    gc.enable()
    if checked.errors:
        raise ConfigError(checked.problems)
    print_problems(checked.problems)
    return checked


def _recipes(path: Path, checked: Checked) -> list[Recipe]:
    from ..images import remembered

    if checked.is_remembered and (kept := remembered.load(path)) is not None:
        return kept
    from ..images.recipes import recipes

    found: dict[str, Recipe] = {}
    for app in checked.apps:
        for one in recipes(app, derived=_InImages(app)):
            found.setdefault(one.image, one)
    made = list(found.values())
    remembered.keep(path, checked.files, made)
    return made


class _InImages:
    """Says of a task of an app whether its executor runs it in an image."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._runs: dict[str, bool] = {}

    def __call__(self, task: Task) -> bool:
        pipeline = next(one for one in self._app.pipelines if any(task is mine for mine in one.tasks))
        name = self._app.executor_name(pipeline, task)
        if name not in self._runs:
            from ..plan import executor_named

            self._runs[name] = executor_named(self._app, name).runs_images
        return self._runs[name]


def _chosen(recipes: list[Recipe], name: str | None) -> list[Recipe]:
    from ..images.recipe import tagged, with_bases

    if name is None:
        return recipes
    if tagged(name) not in {tagged(one.image) for one in recipes}:
        hint = near(name, [one.image for one in recipes])
        raise CallError(f"there is no image '{name}'{f'; {hint}' if hint else ''}")
    return with_bases(recipes, [name])


# -- while it builds


def _say(image: str, text: str) -> None:
    click.echo(f"{image}: {''.join(one if one.isprintable() else ' ' for one in text)}", err=True)


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Ctrl-C, SIGTERM and the end of the terminal end the builds under way, a second one ends this process at once."""
    stop = threading.Event()

    def on_signal(number: int, _: Any) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    is_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    wanted = (signal.SIGINT, signal.SIGTERM) if is_nohup else (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, on_signal) for number in wanted}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _push(
    decisions: Sequence[Decision], built: Sequence[Built], apps: Sequence[App], stop: threading.Event
) -> dict[str, str]:
    from ..images.push import logins, push

    failed = {one.decision.image for one in built if not one.completed}
    wanted = [one.recipe for one in decisions if one.action != "skip" and one.image not in failed]
    pushed: dict[str, str] = {}
    for app in apps:
        mine = [one for one in wanted if one.app == app.name and one.image not in pushed]
        opens = logins(_Secret(app), _block)
        pushed |= push(mine, logins=opens, tell=_say, stop=stop)
    return pushed


class _Secret:
    """Reads a secret of an app by its name; Prefect is asked only for one that it keeps."""

    def __init__(self, app: App) -> None:
        self._app = app

    def __call__(self, name: str) -> str:
        from ..blocks import secret
        from ..secrets import Secrets

        declared = next((one for one in self._app.secrets if one.secret == name), None)
        if declared is not None and declared.block:
            _connect()
        return Secrets(self._app.secrets, self._app.root, secret).get(name)


def _block(reference: str) -> Any:
    _connect()
    from ..blocks.credentials import credentials

    return credentials(reference)


def _connect() -> None:
    from .. import server

    server.connect(tell=lambda text: click.echo(text, err=True))


# -- the end


def _show(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json({"images": rows})
        return
    if not rows:
        click.echo("there is no image in the files that were found")
    cells = [(_word(row), str(row["image"]), _told(row)) for row in rows]
    first, second = (max((len(one[column]) for one in cells), default=0) for column in (0, 1))
    for word, image, told in cells:
        click.echo(f"{word:{first}}  {image:{second}}  {told}".rstrip())
    sys.stdout.flush()


def _as_dict(one: Decision, pushed: Mapping[str, str]) -> dict[str, Any]:
    """What there is to say of the push of an image, if it was to be pushed."""
    if one.image not in pushed:
        return {}
    return {"pushed": not pushed[one.image], "push_message": pushed[one.image]}


def _word(row: Mapping[str, Any]) -> str:
    words = {"completed": "built", "failed": "failed", "cancelled": "cancelled", "not_built": "not built"}
    return words.get(str(row.get("state")), str(row["action"]))


def _told(row: Mapping[str, Any]) -> str:
    if row.get("message"):
        return str(row["message"]) if row["state"] == "not_built" else ""
    after = f", in {row['seconds']:.1f} s" if row.get("state") == "completed" else ""
    pushed = "" if "pushed" not in row else "; pushed" if row["pushed"] else "; not pushed"
    return f"{row['reason']}{after}{pushed}"
