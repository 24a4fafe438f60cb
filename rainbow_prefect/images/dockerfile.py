"""The Dockerfile of an image, as text; nothing is read and nothing is built here."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

from . import serving
from .packages import Packages
from .recipe import Recipe

USER_ID = 10001
"""The user and group that owns the code and runs it."""

SECRET_ID = "pip.conf"  # noqa: S105  a name
PIP_CONF = f"/run/secrets/{SECRET_ID}"
CODE = "code"
"""The folder of the context with the code, in a context that holds more."""

INPUT = "rainbow_input.json"
CONTRACT = "rainbow.contract"
"""The label of images whose user can write the input to the working directory and, by a link, to `/`."""

_CACHE = "/root/.cache/pip"
_USER = (
    f"RUN mkdir -p /app /home/app && chown {USER_ID}:{USER_ID} /app /home/app && ln -sfn /app/{INPUT} /{INPUT}; "
    f"grep -q '^[^:]*:[^:]*:{USER_ID}:' /etc/passwd || "
    f"echo 'app:x:{USER_ID}:{USER_ID}::/home/app:/bin/sh' >> /etc/passwd; "
    f"grep -q '^[^:]*:[^:]*:{USER_ID}:' /etc/group || echo 'app:x:{USER_ID}:' >> /etc/group"
)
_SPARK = ("ENV PATH=/opt/spark/bin:$PATH", "ENTRYPOINT []")


def dockerfile(recipe: Recipe, packages: Packages, *, buildkit: bool) -> str:
    """The Dockerfile of a recipe without one of its own.

    With BuildKit pip's configuration is a secret of the steps that need it. The classic builder has no secrets: there
    the packages are installed in a stage of their own, and only what pip installed enters the image.
    """
    in_stage = not buildkit and recipe.pip_conf is not None
    lines = list(_staged(recipe, packages) if in_stage else _direct(recipe, packages, buildkit))
    return "\n".join(lines) + "\n"


def _direct(recipe: Recipe, packages: Packages, buildkit: bool) -> Iterator[str]:
    yield from _head(recipe)
    wanted = _wanted(recipe, packages)
    pip = _Pip(buildkit=buildkit, secret=recipe.pip_conf is not None)
    if wanted and not packages.with_code:
        yield from _copy(packages.copied, "")
        yield pip.run("install", *wanted)
    yield _copy_code("")
    if wanted and packages.with_code:
        yield pip.run("install", *wanted)
    if packages.is_project:
        yield pip.run("install", "--no-deps", ".")
    yield from _tail(recipe)


def _staged(recipe: Recipe, packages: Packages) -> Iterator[str]:
    pip = _Pip(buildkit=False, secret=True, root="/packages")
    yield f"FROM {recipe.base_image} AS packages"
    yield "USER root"
    yield "WORKDIR /app"
    yield from _args(recipe)
    yield f'COPY ["{SECRET_ID}", "{PIP_CONF}"]'
    yield "RUN mkdir -p /packages"
    if packages.with_code:
        yield _copy_code(f"{CODE}/")
    else:
        yield from _copy(packages.copied, f"{CODE}/")
    if wanted := _wanted(recipe, packages):
        yield pip.run("install", *wanted)
    if packages.is_project:
        yield _copy_code(f"{CODE}/")
        yield pip.run("install", "--no-deps", ".")
    yield from _head(recipe)
    yield 'COPY --from=packages ["/packages/", "/"]'
    yield _copy_code(f"{CODE}/")
    yield from _tail(recipe)


def _head(recipe: Recipe) -> Iterator[str]:
    yield f"FROM {recipe.base_image}"
    yield "USER root"
    yield "ENV PYTHONUNBUFFERED=1"
    if recipe.type == "spark":
        yield from _SPARK
    yield _USER
    yield "WORKDIR /app"
    yield f"LABEL {CONTRACT}=1"
    yield from _args(recipe)


def _args(recipe: Recipe) -> Iterator[str]:
    yield from (f"ARG {name}" for name in recipe.build_args)


def _tail(recipe: Recipe) -> Iterator[str]:
    """The user's own commands, as root with the home of the user who runs the code, and what they made given to it."""
    for command in recipe.build_cmd:
        script = f"export HOME=/home/app\n{command}\n"
        yield f"RUN {json.dumps(['/bin/sh', '-ec', script])}"
    if recipe.build_cmd:
        yield f"RUN find /app /home/app ! -user {USER_ID} -exec chown -h {USER_ID}:{USER_ID} {{}} +"
    yield f"USER {USER_ID}:{USER_ID}"
    if recipe.type == "python_server" and recipe.service is not None:
        yield from serving.lines(recipe.service)


def _wanted(recipe: Recipe, packages: Packages) -> list[str]:
    """What pip is to install; nothing where there is nothing, so that an image needs no pip for that."""
    own = recipe.type == "python_server"
    if packages.is_empty and recipe.pip_conf is None and not own:
        return []
    return ["-r", packages.file, *((*serving.PACKAGES, serving.UPLOADS) if own else ())]


def _copy(paths: tuple[str, ...], prefix: str) -> Iterator[str]:
    for path in paths:
        yield f"COPY {json.dumps([f'{prefix}{path}', f'/app/{path}'])}"


def _copy_code(prefix: str) -> str:
    return f"COPY --chown={USER_ID}:{USER_ID} {json.dumps([prefix or '.', '/app/'])}"


class _Pip:
    """How pip is called in a step: with its configuration as a secret, its downloads kept from build to build."""

    def __init__(self, *, buildkit: bool, secret: bool, root: str = "") -> None:
        self._mounts = f"--mount=type=cache,target={_CACHE} " if buildkit else ""
        if buildkit and secret:
            self._mounts += f"--mount=type=secret,id={SECRET_ID} "
        self._options = [f"--root={root}"] if root else []
        if not buildkit:
            self._options.append("--no-cache-dir")
        self._env = "PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_BREAK_SYSTEM_PACKAGES=1"
        if buildkit:
            self._env += f" PIP_CACHE_DIR={_CACHE}"
        if secret:
            self._env += f" PIP_CONFIG_FILE={PIP_CONF}"

    def run(self, *words: str) -> str:
        first, *rest = words
        return f"RUN {self._mounts}{self._env} python3 -m pip {shlex.join([first, *self._options, *rest])}"
