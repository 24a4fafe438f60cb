"""What is to be done about each image: build, reuse or skip, and why; asks the engine once and changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..cache import folder as folder_of_checks
from ..errors import RunError
from . import daemon, serving
from .context import IGNORE, File, files_of
from .digests import digests
from .dockerfile import dockerfile
from .packages import Packages, packages_of
from .recipe import Recipe, tagged

Action = Literal["build", "reuse", "skip"]

HASH_LABEL = "rainbow.hash"
BASE_LABEL = "rainbow.base"
_KEPT_MANIFESTS = 500
_NAMED_FILES = 3


@dataclass(frozen=True)
class Content:
    """All that an image is made of: its files, and a digest of each of them and of each setting."""

    files: Sequence[File] = ()
    packages: Packages = field(default_factory=Packages)
    dockerfile: str | None = None
    made: Mapping[str, str] = field(default_factory=dict)
    manifest: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """One digest for all of it."""
        text = json.dumps(self.manifest, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Decision:
    """What is to be done about one image, and why."""

    recipe: Recipe
    action: Action
    reason: str
    content: Content = field(default_factory=Content)
    base_id: str = ""
    is_unknown: bool = False
    """No engine told what it has."""

    @property
    def image(self) -> str:
        return self.recipe.image

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints for it."""
        return {"image": self.image, "action": self.action, "reason": self.reason}


def decide(recipes: Sequence[Recipe], *, force: bool = False, address: str | None = None) -> list[Decision]:
    """What is to be done about each of these images, in their order; `force` builds all that can be built.

    `address` is the engine that is to have them; None: that of the environment.

    Raises:
        RunError: a source cannot be read.
    """
    names = [name for one in recipes if one.folder is not None for name in (one.image, *one.bases)]
    there = daemon.images(list(dict.fromkeys(names)), address=address) if names else daemon.Images()
    decisions: dict[str, Decision] = {}
    waiting = {tagged(one.image): one for one in recipes}

    def visit(one: Recipe, above: tuple[str, ...]) -> None:
        name = tagged(one.image)
        if name in decisions:
            return
        for base in map(tagged, one.bases):
            if base in waiting and base not in above:
                visit(waiting[base], (*above, name))
        decisions[name] = _decision(one, there, decisions, force=force)

    for one in recipes:
        visit(one, (tagged(one.image),))
    return [decisions[tagged(one.image)] for one in recipes]


def _decision(one: Recipe, there: daemon.Images, earlier: Mapping[str, Decision], *, force: bool) -> Decision:
    if one.folder is None:
        return Decision(one, "skip", "it has no source")
    content = content_of(one)
    bases = [tagged(base) for base in one.bases]
    ids = [found.id for base in bases if (found := there.get(base)) is not None]
    base_id = " ".join(ids) if len(ids) == len(bases) else ""
    rebuilt = next((base for base in bases if base in earlier and earlier[base].action == "build"), None)
    reason = "--no-cache" if force else _why_build(one, there, content, base_id, rebuilt)
    if reason is None:
        return Decision(one, "reuse", "nothing changed since it was built", content, base_id)
    return Decision(one, "build", reason, content, "" if rebuilt else base_id, bool(there.unknown))


def _why_build(one: Recipe, there: daemon.Images, content: Content, base_id: str, rebuilt: str | None) -> str | None:
    present = there.get(tagged(one.image))
    if present is None:
        return f"not built yet, as far as is known: {there.unknown}" if there.unknown else "not built yet"
    built = present.labels.get(HASH_LABEL)
    if built is None:
        return "the image of this name was not built by rainbow"
    if built != content.hash:
        return _changes(one, read_manifest(built), content.manifest)
    if rebuilt is not None:
        return f"its base image {rebuilt} is built anew"
    before = present.labels.get(BASE_LABEL, "")
    if before and base_id and before != base_id:
        return f"its base image {one.bases[0]} changed"
    return None


# -- content


def content_of(one: Recipe) -> Content:
    """What an image is made of, as its files are now.

    Raises:
        RunError: a file is missing or cannot be read.
    """
    assert one.folder is not None
    if not one.folder.is_dir():
        raise RunError(f"image '{one.image}': the source folder {one.folder} does not exist; correct `source`")
    files = files_of(one.folder, ignore=_own_ignore(one), kept_out=one.kept_out)
    settings = {
        "platform": one.platform or "",
        "labels": json.dumps(dict(one.labels), sort_keys=True),
        "build_args": json.dumps(dict(one.build_args), sort_keys=True),
        "pip_conf": "used" if one.pip_conf else "",
    }
    if one.dockerfile is not None:
        try:
            text = one.dockerfile.read_text(encoding="utf-8")
        except OSError as error:
            raise RunError(f"image '{one.image}': {one.dockerfile} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise RunError(f"image '{one.image}': {one.dockerfile} is not UTF-8 text (byte {error.start})") from error
        settings["dockerfile"] = text
        packages, made = Packages(), {}
    else:
        packages = packages_of(one.folder, one.requirements)
        made = dict(packages.made)
        text = dockerfile(one, packages, buildkit=True)
        if one.service is not None:
            made |= serving.files(one.service)
        files = _with_packages(one.folder, files, packages, made)
        settings |= {
            "type": one.type,
            "base_image": one.base_image,
            "build_cmd": json.dumps(one.build_cmd),
            "requirements": packages.file,
            "endpoints": serving.digest(one.service) if one.service is not None else "",
            "template": text,
        }
    manifest = {
        "settings": {key: _short(value) for key, value in settings.items()},
        "files": digests(files, folder=one.folder),
    }
    manifest["files"] |= {name: _short(value) for name, value in packages.made.items() if value}
    return Content(files, packages, text, made, manifest)


def _own_ignore(one: Recipe) -> Path | None:
    """`Dockerfile.dockerignore` beside a Dockerfile of one's own wins over `.dockerignore`, as with docker build."""
    if one.dockerfile is None:
        return None
    beside = one.dockerfile.with_name(f"{one.dockerfile.name}{IGNORE}")
    return beside if beside.is_file() else None


def _with_packages(folder: Path, files: Sequence[File], packages: Packages, made: Mapping[str, str]) -> list[File]:
    """The files without those that are made instead, and with the requirements even where `.dockerignore` names them."""
    kept = {one.path: one for one in files if one.path not in made}
    for path in packages.copied:
        if path not in made:
            kept[path] = File(path, str((folder / path).resolve()))
    return [kept[path] for path in sorted(kept)]


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


# -- what changed


def _changes(one: Recipe, before: Mapping[str, Mapping[str, str]] | None, now: Mapping[str, Mapping[str, str]]) -> str:
    if before is None:
        return "its content changed"
    told = list(_file_changes(one.source or ".", before.get("files", {}), now["files"]))
    if told:
        more = len(told) - _NAMED_FILES
        return ", ".join(told[:_NAMED_FILES]) + (f" and {more} more files" if more > 0 else "")
    settings = before.get("settings", {})
    changed = [key for key, value in now["settings"].items() if settings.get(key, "") != value]
    named = [f"`{key}`" for key in changed if key != "template"]
    return f"{', '.join(named)} changed" if named else "rainbow builds it in another way now"


def _file_changes(source: str, before: Mapping[str, str], now: Mapping[str, str]) -> Iterable[str]:
    for path in sorted({*before, *now}):
        name = _printable(Path(source, path).as_posix())
        if path not in before:
            yield f"{name} is new"
        elif path not in now:
            yield f"{name} is gone"
        elif before[path] != now[path]:
            yield f"{name} changed"


def _printable(text: str) -> str:
    """A name on one line, and without what a terminal would obey."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def cache_folder() -> Path:
    """The folder for what can be made again."""
    return folder_of_checks().parent


def _manifests() -> Path:
    return cache_folder() / "images"


def read_manifest(key: str) -> dict[str, dict[str, str]] | None:
    """The digests of what an image with this hash is made of; None when they are not known on this machine."""
    try:
        found = json.loads((_manifests() / f"{key}.json").read_bytes())
        return found if isinstance(found, dict) else None
    except (OSError, ValueError):
        return None


def keep_manifest(content: Content) -> None:
    """Remember what an image is made of, to tell later what changed; a folder that cannot be written is no problem."""
    with suppress(OSError):
        folder = _manifests()
        folder.mkdir(parents=True, exist_ok=True)
        kept = sorted(folder.glob("*.json"), key=lambda one: one.stat().st_mtime)
        for one in kept[: max(0, len(kept) - _KEPT_MANIFESTS)]:
            one.unlink(missing_ok=True)
        part = folder / f".{content.hash}.{os.getpid()}"
        part.write_text(json.dumps(content.manifest))
        part.replace(folder / f"{content.hash}.json")
