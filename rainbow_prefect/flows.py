"""Every pipeline as a Prefect entrypoint: `rainbow_prefect.flows.<pipeline>` builds the one flow that is asked for.

The file is found by the variable RAINBOW_CONFIG (a file or a folder), else in the working directory. A name with
dashes may be spelled with underscores. `flows/rainbow.py` is for users who want a file of their own to point at.
"""

# Each name in this module hides the pipeline of that name: all start with an underscore, but for `flows_near`. Imports
# are absolute because Prefect may load this file by its path.

import typing as _t

if _t.TYPE_CHECKING:
    from collections.abc import Callable as _Callable
    from pathlib import Path as _Path

    from prefect import Flow as _Flow

    from rainbow_prefect.app import Pipeline as _Pipeline


def flows_near(file: str) -> "_Callable[[str], _Flow[..., _t.Any]]":
    """A module `__getattr__` for a file of your own: the config is also looked for in the folders above the file."""
    return lambda name: _flow(name, file)


def __getattr__(name: str) -> "_Flow[..., _t.Any]":
    return _flow(name)


def _flow(name: str, file: str | None = None) -> "_Flow[..., _t.Any]":
    if name.startswith("__"):  # import machinery and inspection ask for many
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from rainbow_prefect.engine import build_flow

    return build_flow(_pipeline(name, _config(file)).plan())


def _config(file: str | None) -> "_Path":
    import os
    from pathlib import Path

    from rainbow_prefect.files import NAMES

    if named := os.environ.get("RAINBOW_CONFIG"):
        return Path(named).expanduser().absolute()
    here = Path.cwd()
    above = [here, *Path(file).absolute().parents] if file else [here]
    return next((one for one in above if any((one / name).is_file() for name in NAMES)), here)


def _pipeline(name: str, config: "_Path") -> "_Pipeline":
    """The pipeline of this name; what is wrong with other files does not matter.

    Raises:
        ConfigError: its file has errors; or no good file has it, and some file is broken.
        AttributeError: no file has it.
    """
    from rainbow_prefect.check import check
    from rainbow_prefect.errors import ConfigError, near

    checked = check(config)
    pipelines = [one for app in checked.apps for one in app.pipelines]
    found = [one for one in pipelines if one.pipeline == name]
    found = found or [one for one in pipelines if one.pipeline.replace("-", "_") == name]
    if len(found) == 1:
        own = [one for one in checked.errors if one.mark.file == found[0].app.shown or _is_in(one.where, found[0])]
        if own:
            raise ConfigError(own)
        return found[0]
    if checked.errors:
        raise ConfigError(checked.errors)
    if found:
        raise AttributeError(f"'{name}' may be {' or '.join(one.pipeline for one in found)}; spell it with its dashes")
    hint = near(name, [one.pipeline for one in pipelines])
    raise AttributeError(f"no pipeline '{name}' in {config}{hint and f'; {hint}'}")


def _is_in(where: str, pipeline: "_Pipeline") -> bool:
    """Whether a problem of another file, a super, is one of this pipeline."""
    return where.startswith(f"pipeline '{pipeline.pipeline}'")
