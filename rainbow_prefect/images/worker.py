"""Worker images: the toolkit with Prefect, and on top of it the config and code of an app. Built as every other image."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import distribution, version
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..app import App
from ..deployment import Code
from ..errors import RunError
from ..executors import _folders
from .decide import cache_folder, content_of
from .recipe import DEFAULT_PYTHON, Recipe
from .recipes import secret_files

_NAME = "rainbow/worker"
_BUILT_WITH = "hatchling"


def worker_recipe(app: App, folder: Path, code: Code) -> Recipe:
    """The worker image of an app: all of `folder`, and what it requires, on the toolkit."""
    assert code.image is not None
    recipe = Recipe(
        image=code.image,
        app=app.name,
        source=".",
        folder=folder,
        base_image=code.base_image or toolkit_image(),
        requirements=code.requirements,
        platform=code.platform,
    )
    return replace(recipe, kept_out=left_out(app, folder, [recipe]))


def left_out(app: App, folder: Path, recipes: Sequence[Recipe] = ()) -> frozenset[str]:
    """What workers are not given: files that hold secrets, and the `prefect.yaml`, which names what is made of the rest."""
    return frozenset(str(one.resolve()) for one in (*secret_files(app, recipes), folder / "prefect.yaml"))


def named(recipe: Recipe) -> Recipe:
    """With a tag that says the content, where the name has none: another content is another image."""
    if ":" in recipe.image.rpartition("/")[2]:
        return recipe
    return replace(recipe, image=f"{recipe.image}:{content_of(recipe).hash[:12]}")


def toolkit_image() -> str:
    """The name of the image with the toolkit and Prefect alone; other versions have other names."""
    own = _own_source()
    text = f"{version('rainbow-prefect')} {version('prefect')} {DEFAULT_PYTHON} {_digest(own) if own else ''}"
    return f"{_NAME}:{version('rainbow-prefect')}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def toolkit_recipe() -> Recipe:
    """The image with the toolkit and Prefect alone.

    Raises:
        RunError: the toolkit is run from its sources, and no package can be made of them.
    """
    image = toolkit_image()
    folder = cache_folder() / "workers" / image.rpartition("-")[2]
    own = _own_source()
    folder.mkdir(parents=True, exist_ok=True)
    required = f"rainbow-prefect=={version('rainbow-prefect')}" if own is None else f"./{_wheel(own, folder).name}"
    (folder / "requirements.txt").write_text(f"{required}\nprefect=={version('prefect')}\n")
    return Recipe(image=image, app="rainbow", source=str(folder), folder=folder)


def _own_source() -> Path | None:
    """The folder of the toolkit where it is installed as a link to its sources."""
    told = distribution("rainbow-prefect").read_text("direct_url.json")
    found = json.loads(told) if told else {}
    is_link = found.get("dir_info", {}).get("editable", False)
    return Path(unquote(urlsplit(found["url"]).path)) if is_link else None


def _digest(own: Path) -> str:
    digest = hashlib.sha256()
    package = own / "rainbow_prefect"
    for path in sorted(one for one in [own / "pyproject.toml", *package.rglob("*")] if one.is_file()):
        if path.suffix != ".pyc":
            digest.update(f"{path.relative_to(own)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _wheel(own: Path, folder: Path) -> Path:
    for old in folder.glob("*.whl"):
        _folders.remove(old)
    words = [sys.executable, "-m", _BUILT_WITH, "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(words, cwd=own, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no reason"])[-1]
        raise RunError(
            f"no package can be made of {own} for the worker image ({why}); install {_BUILT_WITH}, "
            "or name an image that has the toolkit: `base_image` of `code`"
        )
    return next(folder.glob("*.whl"))
