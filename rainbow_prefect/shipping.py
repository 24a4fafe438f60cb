"""Bringing the code of deployments to where workers find it: worker images and folders in buckets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .app import App, Pipeline
from .deployable import Places, code_of, searched
from .deployment import Code
from .errors import CallError, RunError

if TYPE_CHECKING:
    from .images.context import File
    from .images.recipe import Recipe

Tell = Callable[[str], None]


def places_of(pipelines: Sequence[Pipeline]) -> Places:
    """The worker images and folders of the apps whose code is not found by a path alone; nothing is made.

    Raises:
        CallError: pipelines of one file want different images.
        RunError: a file cannot be read.
    """
    images = {app.name: _recipe(app, code).image for app, code in _codes(pipelines, "image")}
    folders = {app.name: _folder(app, code) for app, code in _codes(pipelines, "s3")}
    return Places(images, folders)


def ship(pipelines: Sequence[Pipeline], *, tell: Tell) -> None:
    """Bring the code of these pipelines to where their workers will look for it.

    Raises:
        RunError: an image cannot be built or pushed, a bucket cannot be written; no deployment was changed yet.
    """
    if any(code_of(one).type == "image" for one in pipelines):
        build(pipelines, tell=tell)
        push(pipelines, tell=tell)
    if any(code_of(one).type == "s3" for one in pipelines):
        upload(pipelines, tell=tell)


def _codes(pipelines: Sequence[Pipeline], kind: str) -> Iterator[tuple[App, Code]]:
    found: dict[str, tuple[App, Code]] = {}
    for pipeline in pipelines:
        code = code_of(pipeline)
        if code.type != kind:
            continue
        app, first = found.setdefault(pipeline.app.name, (pipeline.app, code))
        if first != code:
            raise CallError(
                f"pipelines of {app.shown} have different `code` of type '{kind}'; write it once, at the root"
            )
    yield from found.values()


def _root(app: App) -> Path:
    here = searched(app)
    return here.parent if here.is_file() else here


# -- images


def _recipe(app: App, code: Code) -> Recipe:
    from .images.worker import named, worker_recipe

    return named(worker_recipe(app, _root(app), code))


def build(pipelines: Sequence[Pipeline], *, tell: Tell) -> list[str]:
    """Build what changed of the worker images of these pipelines; gives the names of all of them.

    Raises:
        RunError: one cannot be built.
    """
    from .images.build import build as build_all
    from .images.build import failure
    from .images.decide import decide

    recipes = [_recipe(app, code) for app, code in _codes(pipelines, "image")]
    decisions = decide([*_toolkit(recipes), *recipes])
    built = build_all(decisions, tell=lambda image, text: tell(f"{image}: {text}"))
    if text := failure(built):
        raise RunError(text)
    return [one.image for one in recipes]


def _toolkit(recipes: Sequence[Recipe]) -> list[Recipe]:
    """The image below those that name none of their own, where it is not built yet."""
    from .images import daemon
    from .images.worker import toolkit_image, toolkit_recipe

    name = toolkit_image()
    if not any(one.base_image == name for one in recipes) or daemon.images([name]).get(name) is not None:
        return []
    return [toolkit_recipe()]


def push(pipelines: Sequence[Pipeline], *, tell: Tell) -> list[str]:
    """Push the worker images that say `push: true`; gives their names.

    Raises:
        RunError: one cannot be pushed.
    """
    from .images.push import push as push_all

    recipes = [_recipe(app, code) for app, code in _codes(pipelines, "image") if code.push]
    failed = push_all(recipes, logins=lambda one: None, tell=lambda image, text: tell(f"{image}: {text}"))
    for image, text in failed.items():
        if text:
            raise RunError(f"image '{image}' could not be pushed: {text}")
    return [one.image for one in recipes]


# -- buckets


def _folder(app: App, code: Code) -> str:
    """A folder of its own for each content, so that runs under way keep theirs."""
    from .images.digests import digests

    text = json.dumps(digests(_files(app)), sort_keys=True)
    return "/".join(filter(None, [code.folder.strip("/"), hashlib.sha256(text.encode()).hexdigest()[:12]]))


def _files(app: App) -> list[File]:
    from .images.context import files_of
    from .images.worker import left_out

    return files_of(_root(app), kept_out=left_out(app, _root(app)))


def upload(pipelines: Sequence[Pipeline], *, tell: Tell) -> list[str]:
    """Put the code of these pipelines into its buckets; gives the folders.

    Raises:
        RunError: AWS refused it.
    """
    from .executors import _aws

    made = []
    for app, code in _codes(pipelines, "s3"):
        folder, files = _folder(app, code), _files(app)
        what = f"code in the bucket '{code.bucket}'"
        tell(f"s3://{code.bucket}/{folder}: uploading {len(files)} files")
        client = _aws.client("s3", credentials=code.credentials, region=None, endpoint_url=None, what=what)
        for one in files:
            try:
                client.upload_file(one.real, code.bucket, f"{folder}/{one.path}")
            except Exception as error:  # boto3 raises of several trees
                raise RunError(f"{what}: {one.path} could not be written: {_aws.reason(error)}") from error
        made.append(folder)
    return made
