"""`rainbow show [PATH]`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from .. import check, document, resolve, variables
from ..errors import CallError, ConfigError, Problem
from ..masking import redact, sensitive
from .options import json_option, path_argument, print_json, print_problems


@click.command()
@path_argument
@click.option("--pipeline", "-p", metavar="NAME", help="Show this pipeline only.")
@json_option
def command(path: Path, pipeline: str | None, as_json: bool) -> None:
    """Print the merged config: inheritance, defaults and variables applied; secrets as stars."""
    apps, problems = _merged(path)
    errors = [one for one in problems if one.severity == "error"]
    if errors and not apps:
        raise ConfigError(errors)
    if pipeline is not None:
        apps = _only(apps, pipeline)
    if as_json:
        print_json({"apps": apps, "problems": [one.as_dict() for one in problems]})
    else:
        click.echo("---\n".join(map(_yaml, apps)), nl=False)
    print_problems(problems)
    if errors:
        raise click.exceptions.Exit(ConfigError.exit_code)


def _merged(path: Path) -> tuple[list[dict[str, Any]], list[Problem]]:
    """Every app as it may be shown, and what is wrong with inheritance and variables."""
    documents, problems = [], []
    for file in check.found(path):
        found, wrong = document.read(file, shown=check.shown(file, path))
        problems += wrong
        if found is not None:
            documents.append(found)
    secrets: list[str] = []

    def lookup(name: str) -> Any:
        value = variables.environment(name)
        if value is not None and sensitive(name):
            secrets.append(str(value))
        return value

    apps, wrong = resolve.resolve(documents, lookup=lookup)
    return [redact(_shown(app), secrets) for app in apps], sorted([*problems, *wrong], key=lambda one: one.mark)


def _shown(app: resolve.Resolved) -> dict[str, Any]:
    data = _plain(app.data)
    first = {"file": app.document.shown, "name": app.name, "owner": data.get("owner")}
    lists = {"pipelines": data.get("pipelines") or [], "services": list(map(_named, data.get("services") or []))}
    return {key: value for key, value in {**first, **data, **lists}.items() if value is not None or key == "owner"}


def _named(service: Any) -> Any:
    """A service under its one key: `service:` alone with `name: x` below is the older spelling of `service: x`."""
    if isinstance(service, dict) and service.get("service") is None and "name" in service:
        return {"service": service["name"], **{key: value for key, value in service.items() if key != "service"}}
    return service


def _plain(value: Any) -> Any:
    """The same data in Python's own types, for the YAML writer."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return float(value) if isinstance(value, float) else value


def _only(apps: list[dict[str, Any]], pipeline: str) -> list[dict[str, Any]]:
    from ..errors import near

    chosen = [
        {**app, "pipelines": found}
        for app in apps
        if (found := [one for one in app["pipelines"] if isinstance(one, dict) and one.get("pipeline") == pipeline])
    ]
    if not chosen:
        names = [str(one.get("pipeline")) for app in apps for one in app["pipelines"] if isinstance(one, dict)]
        hint = near(pipeline, names)
        raise CallError(f"there is no pipeline '{pipeline}'{f'; {hint}' if hint else ''}")
    return chosen


class _Dumper(yaml.SafeDumper):
    """Block style for texts of several lines, no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _yaml(app: dict[str, Any]) -> str:
    """One app as YAML under the name of its file, without what is empty."""
    data = {key: value for key, value in app.items() if key != "file" and value not in (None, [])}
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return f"# {app['file']}\n{text}"
