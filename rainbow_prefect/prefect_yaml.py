"""The same deployments as a `prefect.yaml`, for teams that deploy with `prefect deploy --all`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from .app import Pipeline
from .deployable import Item, Places, code_of, deployment
from .shipping import places_of

_HEAD = """\
# Written by `rainbow deploy --write`; deploy it with `prefect deploy --all`, in the folder of the rainbow.yml.
# Prefect asks for work pools that are there already; `rainbow deploy` makes them, and removes what is gone.
"""

_BUILD = "build-images"


def prefect_yaml(pipelines: Sequence[Pipeline], path: Path) -> str:
    """The text of the file for these pipelines; `path` is where their files were searched.

    Raises:
        CallError: a pipeline cannot be deployed.
    """
    places = places_of(pipelines)
    kinds = {code_of(one).type for one in pipelines}
    build: list[Any] = []
    if "image" in kinds:
        build.append({"rainbow_prefect.steps.build_images": {"id": _BUILD, "path": str(path)}})
    push: list[Any] = []
    if any(code_of(one).push for one in pipelines):
        push.append({"rainbow_prefect.steps.push_images": {"path": str(path)}})
    if "s3" in kinds:
        push.append({"rainbow_prefect.steps.push_code": {"path": str(path)}})
    data = {
        "name": pipelines[0].app.name if pipelines else "rainbow",
        "build": build or None,
        "push": push or None,
        "deployments": [_deployment(deployment(one, _built(places))) for one in pipelines],
    }
    return _HEAD + yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)


def _built(places: Places) -> Places:
    """The images as the build step tells them, so that what is deployed is what was built."""
    return replace(places, images={app: f"{{{{ {_BUILD}.images[{n}] }}}}" for n, app in enumerate(places.images)})


def _deployment(item: Item) -> dict[str, Any]:
    fields = item.fields
    made: dict[str, Any] = {"name": item.name.partition("/")[2], "entrypoint": fields["entrypoint"]}
    if fields["description"]:
        made["description"] = fields["description"]
    made["tags"] = fields["tags"]
    if fields["schedules"]:
        made["schedules"] = [_schedule(slug, one) for slug, one in fields["schedules"].items()]
    if fields["concurrency_limit"] is not None:
        options = {key: one for key, one in fields["concurrency_options"].items() if one is not None}
        made["concurrency_limit"] = {"limit": fields["concurrency_limit"], **options}
    made["work_pool"] = {"name": fields["work_pool_name"], "job_variables": fields["job_variables"]}
    made["pull"] = fields["pull_steps"]
    return made


def _schedule(slug: str, one: dict[str, Any]) -> dict[str, Any]:
    given = {"parameters": one["parameters"]} if one["parameters"] else {}
    return {**one["schedule"], "slug": slug, "active": one["active"], **given}
