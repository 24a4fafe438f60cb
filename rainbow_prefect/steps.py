"""What Prefect calls around a deployment, by name: `pull_config` before a run, `build_images`, `push_images` before it.

Prefect is imported only by what needs it, since the first line of a run waits for these imports.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from .errors import CallError, ConfigError, MissingExtra, RunError


def pull_config(
    path: str | None = None,
    file: str | None = None,
    git: Mapping[str, Any] | None = None,
    s3: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Bring the config and its code to this worker, and go there: a folder, or what git or a bucket has.

    `git` and `s3` are the arguments of Prefect's own steps `git_clone` and `pull_from_s3`; `path` is then a folder in
    what they fetch. `file` is a config with a name of its own.

    Raises:
        CallError: there is no such folder on this worker.
        RunError: it cannot be fetched.
    """
    folder = Path(path or ".")
    if git is not None:
        folder = _cloned(git) / (path or "")
    elif s3 is not None:
        folder = _downloaded(s3) / (path or "")
    folder = folder.expanduser().absolute()
    config = folder / file if file else folder
    if not config.exists():
        raise CallError(
            f"there is no '{config}' on this worker; with `code: local` workers must see the folder that was deployed, "
            "else use `code: {type: image, ...}`, `git` or `s3`"
        )
    os.chdir(folder)
    os.environ["RAINBOW_CONFIG"] = str(config)
    return {"directory": str(folder)}


def _cloned(given: Mapping[str, Any]) -> Path:
    from prefect.deployments.steps.pull import git_clone

    clone: Any = git_clone  # told to be async as well, which it is where a loop runs
    try:
        return Path.cwd() / str(clone(**given)["directory"])
    except Exception as error:  # Prefect raises what its storage raises; the cause holds what git said
        raise RunError(f"git could not clone {given.get('repository')}: {error}") from error


def _downloaded(given: Mapping[str, Any]) -> Path:
    try:
        from prefect_aws.deployments.steps import pull_from_s3
    except ImportError as error:
        raise MissingExtra("code in a bucket", "aws") from error
    pull_from_s3(**given)
    return Path.cwd()


def build_images(path: str = ".") -> dict[str, Any]:
    """Build what changed of the images that the pipelines below `path` run in, worker images first.

    Gives `image`, the first worker image, and `images`, all of them. However many deployments ask, they are built once
    by a process.

    Raises:
        ConfigError: a file is wrong.
        RunError: an image cannot be built.
    """
    return _built(str(Path(path).absolute()))


def push_images(path: str = ".") -> dict[str, Any]:
    """Push the images of `build_images` to their registries, once by a process.

    Raises:
        RunError: an image cannot be pushed.
    """
    return _pushed(str(Path(path).absolute()))


def push_code(path: str = ".") -> dict[str, Any]:
    """Put the config and code below `path` into the buckets of `code: {type: s3}`, once by a process.

    Raises:
        RunError: AWS refused it.
    """
    return _uploaded(str(Path(path).absolute()))


@cache
def _built(path: str) -> dict[str, Any]:
    from . import shipping

    made = shipping.build(_pipelines(path), tell=print)
    return {"image": made[0] if made else "", "images": made}


@cache
def _pushed(path: str) -> dict[str, Any]:
    from . import shipping

    return {"images": shipping.push(_pipelines(path), tell=print)}


@cache
def _uploaded(path: str) -> dict[str, Any]:
    from . import shipping

    return {"folders": shipping.upload(_pipelines(path), tell=print)}


def _pipelines(path: str) -> list[Any]:
    from .check import check

    checked = check(path)
    if checked.errors:
        raise ConfigError(checked.problems)
    return [one for app in checked.apps for one in app.pipelines]
