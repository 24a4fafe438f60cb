"""What `rainbow check` proves beyond the types of values: names, references, cycles, files, modules, static inputs.

Nothing is imported or run. A part that is broken already is left out, and so is what depends on a wrong key of it.
"""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from . import modules
from .app import BLOCK, DEFAULT_EXECUTOR, App, Endpoint, Image, Pipeline, Schedule, Service
from .building import Built, PipelineSite, Site
from .document import mark_of
from .errors import CallError, Problem, near
from .executors.base import BlockReference
from .looking import Look
from .problems import Keys, problem, shown
from .registry import executors
from .schema import kind_of
from .tasks._code import Code
from .tasks.base import Place, Task, TaskSecret
from .variables import placeholders

INPUT_KEYS = frozenset({"input", "input_type", "input_path"})
_CODE_KEYS = frozenset({"source", "image"})
_CALL_KEYS = frozenset({"module", "function"})
_SPLIT_KEYS = frozenset({"split_input", "split_size"})
_BLOCK = re.compile(r"block:[a-z0-9][a-z0-9_-]*/[^/\s]+\Z")
_SLUGS = ("docker-executor", "ecs-executor", "kubernetes-executor", "process-executor")
"""The block types of the executors of this package; a test holds them against `blocks`."""
_ENV = re.compile(r"[^=\0]+\Z")
_PARAMETER = re.compile(r"[{<]")


def prove(built: Built, look: Look) -> list[Problem]:
    """All that the proofs find in one app."""
    proofs = Proofs(built, look)
    proofs.app_parts()
    for pipeline in built.pipelines:
        proofs.pipeline(pipeline)
    return proofs.problems


class Proofs:
    """The proofs of one app."""

    def __init__(self, built: Built, look: Look) -> None:
        self.built = built
        self.app: App = built.app
        self.data = built.resolved.data
        self.look = look
        self.folder_of_file = self.app.root
        self.root = str(self.folder_of_file)
        self.problems: list[Problem] = []
        self.volumes = self.written("volumes", "volume")
        self.secrets = self.written("secrets", "secret")
        self.executors = {
            one.name("executor") or one.name("type") or "" for one in self.built.sections.get("executors", ())
        }
        self.there: set[str | tuple[str, str]] = set()  # folders, and files in them, that exist: most tasks share them

    def written(self, section: str, key: str) -> list[str]:
        """The names in a section, also those of broken entries."""
        return [name for site in self.built.sections.get(section, ()) if (name := site.name(key)) is not None]

    def tell(self, keys: Keys, message: str, hint: str = "", *, severity: str = "error", on_key: bool = False) -> None:
        self.problems.append(problem(self.data, keys, message, hint, severity=severity, on_key=on_key))

    def path(self, written: str) -> str:
        """A path of the file, relative to its folder."""
        return f"{self.root}/{written}" if not written.startswith("/") else written

    # -- the parts of the app that are no pipelines

    def app_parts(self) -> None:
        sections = self.built.sections
        for section, key in (("images", "image"), ("volumes", "volume"), ("secrets", "secret")):
            self.unique(sections.get(section, ()), key)
        self.unique(sections.get("work_pools", ()), "work_pool")
        self.unique(sections.get("executors", ()), "executor")
        self.unique(sections.get("services", ()), "service")
        self.unique(self.built.pipelines, "pipeline")
        self.env_vars((), self.app.env_vars)
        if "executor" not in self.built.wrong:
            self.executor(("executor",), self.app.executor)
        for site in sections.get("images", ()):
            self.image(site)
        for site in sections.get("executors", ()):
            if isinstance(site.made, BlockReference):
                self.block((*site.keys, "block"), f"{BLOCK}{site.made.block}")
        for site in sections.get("secrets", ()):
            self.secret(site)
        for site in sections.get("volumes", ()):
            self.volume(site)
        for site in sections.get("services", ()):
            self.service(site)
        for key in ("source", "sink"):
            self.unique(sections.get(f"{key}s", ()), key)
            for site in sections.get(f"{key}s", ()):
                self.store(site, key)

    def unique(self, sites: Iterable[Site], key: str) -> None:
        """No two of these have one name."""
        first: dict[str, Keys] = {}
        for site in sites:
            name = site.name(key)
            used = key
            if name is None and key == "service":
                name, used = site.name("name"), "name"
            if name is None:
                continue
            if name in first:
                mark = mark_of(self.data, first[name])
                there = f"line {mark.line}" if mark.file == self.data.file else str(mark)
                self.tell((*site.keys, used), f"duplicate {key} '{name}'; it is at {there} already", "use another name")
            else:
                first[name] = (*site.keys, used)

    def env_vars(self, keys: Keys, values: dict[str, str]) -> None:
        for name in values:
            self.env_var((*keys, "env_vars", name), name, on_key=True)

    def env_var(self, keys: Keys, name: str, *, on_key: bool) -> None:
        if not _ENV.match(name):
            hint = "remove '='" if "=" in name else "write a name such as MY_VARIABLE"
            self.tell(keys, f"{name!r} is not a valid name of an environment variable", hint, on_key=on_key)

    def folder(self, keys: Keys, written: str, what: str = "source folder") -> bool:
        """Whether a folder is there; tells when not, unless its name is known only in a run."""
        if "{{" in written:
            return False
        path = self.path(written)
        if self.look.is_folder(path):
            return True
        if self.look.exists(path):
            self.tell(keys, f"{what} '{written}' is a file, not a folder", "name the folder that it is in")
            return False
        self.tell(
            keys, f"{what} '{written}' does not exist", self.near_path(written) or "create it, or correct the path"
        )
        return False

    def file(self, keys: Keys, written: str, what: str) -> bool:
        """Whether a file is there; tells when not, unless its name is known only in a run."""
        if "{{" in written:
            return False
        path = self.path(written)
        if self.look.is_file(path):
            return True
        if self.look.exists(path):
            self.tell(keys, f"{what} '{written}' is a folder, not a file", "name the file in it")
        else:
            hint = self.near_path(written) or "create it, or correct the path"
            self.tell(keys, f"{what} '{written}' does not exist", hint)
        return False

    def near_path(self, written: str) -> str:
        """`did you mean 'x'?` for a path of which one part is misspelled."""
        parts = Path(written).parts
        done = Path(self.root)
        for index, part in enumerate(parts):
            if not self.look.exists(done / part):
                hint = near(part, self.look.names(done), list_up_to=0)
                found = re.fullmatch(r"did you mean '(.*)'\?", hint)
                if not found:
                    return ""
                return f"did you mean '{Path(*parts[:index], found[1], *parts[index + 1 :])}'?"
            done /= part
        return ""

    def image(self, site: Site) -> None:
        made: Image | None = site.made
        if made is None:
            return
        if made.source is not None and self.folder((*site.keys, "source"), made.source) and made.requirements:
            self.file((*site.keys, "requirements"), f"{made.source}/{made.requirements}", "requirements file")
        for key, what in (("pip_conf", "pip.conf"), ("dockerfile", "Dockerfile")):
            written = getattr(made, key)
            if written is not None:
                self.file((*site.keys, key), written, what)
        if "@" in made.image and (made.source is not None or made.dockerfile is not None):
            text = f"'{made.image}' names one finished image by its digest, so nothing can be built under that name"
            self.tell((*site.keys, "image"), text, "remove the digest, or the `source`")
        if made.credentials is not None:
            self.credentials((*site.keys, "credentials"), made.credentials)
        self.endpoints(site.keys, made.endpoints, made.source)

    def credentials(self, keys: Keys, name: str) -> None:
        """What opens a registry is a block, or a secret that the file declares; a password is not shown again."""
        if name.startswith(BLOCK) and not _BLOCK.match(name):
            self.tell(keys, "that is not a reference to a block", "write `block:TYPE/NAME`")
        elif not name.startswith(BLOCK) and "{{" not in name and name not in self.secrets:
            hint = near(name, self.secrets, list_up_to=0) or "add one to the root `secrets`, and write its name here"
            self.tell(keys, "that is not the name of a secret of this file", hint)

    def secret(self, site: Site) -> None:
        if site.made is not None and site.made.local_path_file is not None:
            self.file((*site.keys, "local_path_file"), site.made.local_path_file, "the file of the secret")

    def volume(self, site: Site) -> None:
        if site.made is not None and site.made.local is not None:
            path = self.path(site.made.local.path)
            if self.look.exists(path) and not self.look.is_folder(path):
                self.tell((*site.keys, "local", "path"), f"'{site.made.local.path}' is a file, not a folder")

    def store(self, site: Site, key: str) -> None:
        """A source or sink of the root."""
        if site.made is None:
            return
        if site.name(key) is None:
            self.tell(site.keys, f"a {key} without a name can be used by no task", f"add `{key}: NAME`")
        for where, message, hint, is_sure in site.made.flaws():
            self.tell((*site.keys, where), message, hint, severity="error" if is_sure else "warning")

    def executor(self, keys: Keys, name: str | None) -> None:
        if name is None or name in self.executors or name == DEFAULT_EXECUTOR or "{{" in name:
            return
        if name in executors:
            try:
                self.app.executor_named(name)
            except CallError as error:
                self.tell(keys, str(error))
            return
        if name.startswith(BLOCK):
            self.block(keys, name)
            return
        self.tell(keys, f"unknown executor '{name}'", near(name, {*self.executors, *executors}))

    def block(self, keys: Keys, name: str) -> None:
        """A reference to an executor that is saved as a block; the types of other packages are known only to Prefect."""
        if not _BLOCK.match(name):
            self.tell(keys, f"'{name}' is not a reference to a block", "write `block:TYPE/NAME`")
            return
        slug = name.removeprefix(BLOCK).partition("/")[0]
        hint = near(slug, _SLUGS, list_up_to=0)
        if slug not in _SLUGS and hint:
            self.tell(keys, f"unknown block type '{slug}'", hint, severity="warning")

    # -- services

    def service(self, site: Site) -> None:
        made: Service | None = site.made
        if made is None:
            return
        source = made.source
        usable = source is None or self.folder((*site.keys, "source"), source)
        if source is None:
            source = self.app.image_sources.get(made.image or "")
        self.env_vars(site.keys, made.env_vars)
        self.mounts(site.keys, made)
        if made.pip_conf is not None:
            self.file((*site.keys, "pip_conf"), made.pip_conf, "pip.conf")
        self.tokens(site.keys, made)
        if usable:
            self.endpoints(site.keys, made.endpoints, source)
            self.hooks(site.keys, made, source)

    def tokens(self, keys: Keys, made: Service) -> None:
        """The tokens of a service are secrets that there are, and the scopes of endpoints are those of a token."""
        for index, one in enumerate(made.auth):
            if one.secret not in self.secrets:
                hint = f"add it to the root: `secrets: [{{secret: {one.secret}, env: NAME}}]`"
                text = f"unknown secret '{one.secret}'"
                self.tell((*keys, "auth", index), text, near(one.secret, self.secrets) or hint)
        scopes = {scope for one in made.auth for scope in one.scopes}
        for index, each in enumerate(made.endpoints):
            place = (*keys, "endpoints", index, "auth")
            if each.auth and not made.auth:
                self.tell(place, "the service has no tokens", "add `auth` to the service, with the names of secrets")
            elif isinstance(each.auth, str) and each.auth not in scopes:
                self.tell(place, f"no token has the scope '{each.auth}'", near(each.auth, scopes))

    def hooks(self, keys: Keys, made: Service, source: str | None) -> None:
        """What is called at the start and the end is there."""
        if source is None or not self.look.is_folder(self.path(source)):
            return
        for key in ("on_start", "on_stop"):
            written = getattr(made, key)
            if written is None:
                continue
            module, _, function = written.partition(":")
            found = modules.find(self.look, Path(self.path(source)), module)
            flaw = found if isinstance(found, modules.Flaw) else None
            if not isinstance(found, modules.Flaw):
                flaw = modules.function_flaw(self.look, found, module, function, None)
            if flaw is not None:
                self.tell((*keys, key), flaw.message, flaw.hint)

    def endpoints(self, keys: Keys, endpoints: Sequence[Endpoint], source: str | None) -> None:
        taken: dict[str, int] = {}
        for index, one in enumerate(endpoints):
            place = (*keys, "endpoints", index)
            path = one.endpoint if one.endpoint.startswith("/") else f"/{one.endpoint}"
            if path in taken:
                mark = mark_of(self.data, (*keys, "endpoints", taken[path], "endpoint"))
                text = f"duplicate endpoint '{one.endpoint}'; it is at line {mark.line} already"
                self.tell((*place, "endpoint"), text, "use another path")
            taken.setdefault(path, index)
            if one.batch is not None and _PARAMETER.search(path):
                self.tell((*place, "batch"), "a batch has no parameters in its path", "give them in the body")
            if source is not None and self.look.is_folder(self.path(source)):
                self.function(place, source, one.module, one.function, most=None)

    def function(self, keys: Keys, source: str, module: str, name: str, *, most: int | None) -> None:
        """A module and a function in it exist; `most`: how many arguments it is called with at most (None: any)."""
        found = modules.find(self.look, Path(self.path(source)), module)
        if isinstance(found, modules.Flaw):
            self.tell((*keys, "module"), found.message, found.hint)
            return
        flaw = modules.function_flaw(self.look, found, module, name, most)
        if flaw is not None:
            self.tell((*keys, "function"), flaw.message, flaw.hint)

    # -- pipelines

    def pipeline(self, site: PipelineSite) -> None:
        self.unique(site.tasks, "task")
        self.unique(site.parameters, "name")
        made: Pipeline | None = site.made
        if made is not None:
            if "executor" not in site.wrong:
                self.executor((*site.keys, "executor"), made.executor)
            self.env_vars(site.keys, made.env_vars)
            for key in ("schedule", "schedule_interval"):
                self.calendars((*site.keys, key), getattr(made, key))
            for index, schedule in enumerate(made.schedules):
                self.calendars((*site.keys, "schedules", index), schedule)
            if made.schedule is not None and made.schedule_interval is not None:
                keys = (*site.keys, "schedule")
                text = "`schedule` is not used: `schedule_interval` wins"
                self.tell(keys, text, "remove one of them", severity="warning", on_key=True)
            self.schedules(site, made)
        names = [one.name("task") for one in site.tasks]
        for index, task in enumerate(site.tasks):
            if task.made is not None:
                self.task(site, task, names, index)
        self.cycles(site)

    def schedules(self, site: PipelineSite, made: Pipeline) -> None:
        """Each schedule has a slug of its own, and sets parameters that there are, to values that fit."""
        known = {one.name: one for one in made.run_parameters}
        seen: set[str] = set()
        listed = [(("schedules", index), one) for index, one in enumerate(made.schedules)]
        for keys, one in [*(((key,), getattr(made, key)) for key in ("schedule", "schedule_interval")), *listed]:
            if one is None:
                continue
            if one.slug in seen:
                self.tell((*site.keys, *keys, "slug"), f"duplicate slug '{one.slug}'", "use another one")
            seen |= {one.slug} if one.slug else set()
            for name, value in one.parameters.items():
                place = (*site.keys, *keys, "parameters", name)
                if name not in known:
                    self.tell(place, f"unknown parameter '{name}'", near(name, known), on_key=True)
                    continue
                try:
                    known[name].value_of(value)
                except ValueError as error:
                    self.tell(place, f"parameter '{name}' {error}")

    def calendars(self, keys: Keys, schedule: Schedule | None) -> None:
        for index, one in enumerate(() if schedule is None else schedule.skip):
            if isinstance(one, str):
                self.file((*keys, "skip", index), one, "calendar")

    def task(self, pipeline: PipelineSite, site: Site, names: list[str | None], index: int) -> None:
        made: Task = site.made
        keys, wrong = site.keys, site.wrong
        if made.depends_on and "depends_on" not in wrong:
            self.depends_on(keys, made, names)
        if not INPUT_KEYS & wrong:
            self.input(keys, made, names, index, split=not _SPLIT_KEYS & wrong)
        if made.executor is not None and "executor" not in wrong:
            self.executor((*keys, "executor"), made.executor)
        if made.env_vars:
            self.env_vars(keys, made.env_vars)
        if made.when is not None or made.min_success is not None:
            self.flags(keys, made, wrong, index)
        if isinstance(made, Code):
            if made.mounts or made.secrets:
                self.mounts(keys, made)
            if not wrong & _CODE_KEYS:
                self.code(pipeline, site, made)
        if type(made).check is not Task.check:
            self.own(pipeline, site, made, names, index)

    def flags(self, keys: Keys, made: Task, wrong: frozenset[str], index: int) -> None:
        if (
            made.min_success is not None
            and not made.is_split
            and not wrong & {"executors", "split_input", "split_size"}
        ):
            text = "`min_success` needs more than one slice"
            self.tell((*keys, "min_success"), text, "add `split_input: true`, or remove it")
        if made.when is not None and made.always_run and made.when != "always":
            text = f"`always_run: true` and `when: {made.when}` say two different things"
            self.tell((*keys, "always_run"), text, "keep `when`", on_key=True)
        if made.when == "on_failure" and (made.depends_on == () or (index == 0 and made.depends_on is None)):
            text = "never runs: there is nothing before it that could fail"
            self.tell((*keys, "when"), text, "add `depends_on`", severity="warning")

    def depends_on(self, keys: Keys, made: Task, names: list[str | None]) -> None:
        for index, name in enumerate(made.depends_on or ()):
            place = (*keys, "depends_on", index)
            if name == made.task:
                self.tell(place, f"task '{name}' depends on itself", "remove it")
            elif name not in names:
                known = [one for one in names if one is not None and one != made.task]
                self.tell(place, f"there is no task '{name}' in this pipeline", near(name, known))

    # -- inputs

    def input(self, keys: Keys, made: Task, names: list[str | None], index: int, *, split: bool) -> None:
        if made.input is not None and (made.input_type is not None or made.input_path is not None):
            other = "input_type" if made.input_type is not None else "input_path"
            text = f"`input` and `{other}` say the same thing"
            self.tell((*keys, "input"), text, "keep `input`, the short spelling", on_key=True)
            return
        key = "input" if made.input is not None else "input_path"
        if made.input_type is not None and made.input_path is None:
            hint = {"static": "add `input_path:` with the data", "task": "add `input_path: TASK`"}
            text = f"`input_type: {made.input_type}` needs `input_path`"
            self.tell((*keys, "input_type"), text, hint.get(made.input_type, "add `input_path: PATH`"))
            return
        if made.input_path is not None and made.input_type is None:
            self.tell(
                (*keys, "input_path"), "`input_path` needs `input_type`", "add one: static, task, file", on_key=True
            )
            return
        if made.input is None and made.input_path is None:
            if split and (made.split_input or made.split_size):
                self.tell(*self.without_input(keys, made))
            return
        place = (*keys, key)
        written = made.input if key == "input" else made.input_path
        if isinstance(written, str) and placeholders(written):
            return  # known only when it runs
        try:
            given = made.input_of()
        except (ValueError, RecursionError) as error:
            self.tell(place, *self.bad_json(key, str(written), error, names))
            return
        if given.kind == "static":
            self.static(place, key, given.value, made, split=split)
        elif not isinstance(given.value, str) or not given.value.strip():
            what = "a task's name" if given.kind == "task" else "a path"
            self.tell(place, f"`{key}` must be {what}, got {shown(given.value)}")
        elif given.kind == "task":
            self.input_task(place, given.value, made, names, index)

    @staticmethod
    def without_input(keys: Keys, made: Task) -> tuple[Keys, str, str]:
        key = "split_input" if made.split_input else "split_size"
        return (*keys, key), f"`{key}` needs an input to split", "add `input: ...`, e.g. a list or `task:NAME`"

    @staticmethod
    def bad_json(key: str, written: str, error: Exception, names: list[str | None]) -> tuple[str, str]:
        """Message and hint for a static text that is no JSON."""
        if written.startswith(("block:", "dataset:", "model:")):
            return f"`{key}` cannot be '{written}'", "an input is data, `task:NAME` or `file:PATH`"
        if written.strip() in names and key == "input":
            return f"'{written}' is not JSON", f"did you mean 'task:{written.strip()}'?"
        line, column = getattr(error, "lineno", 1), getattr(error, "colno", 1)
        reason = getattr(error, "msg", "nested too deep")
        text = f"`{key}` is not valid JSON: line {line} column {column}: {reason}"
        if "'" in written and '"' not in written:
            return text, "JSON texts have double quotes"
        if key == "input" and not written.lstrip().startswith(("[", "{", '"')):
            return text, "write `task:NAME` or `file:PATH`, or the data itself as YAML"
        return text, "correct it, or write the data itself as YAML"

    def static(self, place: Keys, key: str, value: Any, made: Task, *, split: bool) -> None:
        flaw = _json_flaw(value)
        if flaw is not None:
            self.tell((*place, *flaw[0]), flaw[1], "JSON has no such value; quote it")
        elif split and (made.split_input or made.split_size) and not isinstance(value, list):
            by = "split_input" if made.split_input else "split_size"
            self.tell(
                place, f"`{by}` needs a list, but `{key}` is {kind_of(value)}", f"make it a list, or remove `{by}`"
            )

    def input_task(self, place: Keys, name: str, made: Task, names: list[str | None], index: int) -> None:
        if name == made.task:
            self.tell(place, f"task '{name}' reads its own output", "name an earlier task")
        elif name not in names:
            earlier = [one for one in names[:index] if one is not None]
            others = [one for one in names if one is not None and one != made.task]
            hint = near(name, earlier, list_up_to=0) or near(name, others) or "there is no task before it"
            self.tell(place, f"there is no task '{name}' in this pipeline", hint)

    # -- order

    def cycles(self, site: PipelineSite) -> None:
        """Tasks can be put in an order; each cycle is told once, at the reference that closes it."""
        tasks = [one for one in site.tasks if one.made is not None]
        if _is_in_order(tasks):
            return
        place = {one.made.task: number for number, one in enumerate(tasks)}
        if len(place) < len(tasks):
            return  # a name stands for two tasks: that is told, and which one is meant is not known
        needs: list[list[tuple[int, Keys]]] = []
        forward = False
        for number in range(len(tasks)):
            found = [(place[name], keys) for name, keys in self.needs(tasks, number) if name in place]
            forward = forward or any(other >= number for other, _ in found)
            needs.append(found)
        if forward:
            self.find_cycles([one.made.task for one in tasks], needs)

    @staticmethod
    def needs(tasks: Sequence[Site], number: int) -> Iterator[tuple[str, Keys]]:
        """The names that a task waits for, each with the place that says so."""
        site = tasks[number]
        made: Task = site.made
        if made.depends_on is not None:
            for index, name in enumerate(made.depends_on):
                yield name, (*site.keys, "depends_on", index)
        elif number:
            yield tasks[number - 1].made.task, site.keys
        if INPUT_KEYS & site.wrong:
            return
        if isinstance(made.input, str) and made.input.startswith("task:"):
            yield made.input[5:].strip(), (*site.keys, "input")
        elif made.input_type == "task" and isinstance(made.input_path, str):
            yield made.input_path, (*site.keys, "input_path")

    def find_cycles(self, names: list[str], needs: list[list[tuple[int, Keys]]]) -> None:
        state = [0] * len(names)
        for start in range(len(names)):
            if state[start]:
                continue
            way = [start]
            waiting = [iter(needs[start])]
            state[start] = 1
            while waiting:
                step = next(waiting[-1], None)
                if step is None:
                    state[way.pop()] = 2
                    waiting.pop()
                elif state[step[0]] == 0:
                    state[step[0]] = 1
                    way.append(step[0])
                    waiting.append(iter(needs[step[0]]))
                elif state[step[0]] == 1 and step[0] != way[-1]:
                    self.tell_cycle([names[one] for one in way[way.index(step[0]) :]], way, needs, step)

    def tell_cycle(
        self, cycle: list[str], way: list[int], needs: list[list[tuple[int, Keys]]], last: tuple[int, Keys]
    ) -> None:
        """At the reference among those of the cycle that names a later task; that one is the mistake."""
        members = way[way.index(last[0]) :]
        edges = [
            (one, other, keys)
            for one, following in zip(members, [*members[1:], members[0]], strict=True)
            for other, keys in needs[one]
            if other == following
        ]
        one, other, keys = next((edge for edge in edges if edge[1] > edge[0]), edges[-1])
        names = {number: cycle[index] for index, number in enumerate(members)}
        if keys[-1] in ("input", "input_path"):
            text = f"task '{names[one]}' reads the output of '{names[other]}', which comes later"
            self.tell(keys, text, f"list '{names[other]}' before '{names[one]}'")
        else:
            chain = " -> ".join([*cycle, cycle[0]])
            self.tell(keys, f"tasks wait for each other: {chain}", "remove one of these `depends_on`")

    # -- code

    def code(self, pipeline: PipelineSite, site: Site, made: Code) -> None:
        """The code of a task is where it says: folder, module and function, the file in `cmd`."""
        image, source = made.image_source()
        keys, wrong = site.keys, site.wrong
        if source is not None and not self.known_folder(keys, source):
            return
        if source is None and image is not None:
            source = self.app.image_sources.get(image)
        module, function = getattr(made, "module", None), getattr(made, "function", None)
        if isinstance(module, str) and isinstance(function, str) and not _CALL_KEYS & wrong:
            if not placeholders(module) | placeholders(function):
                self.call(pipeline, site, source)
        else:
            self.script(pipeline, site, source)
        if made.pip_conf is not None and "pip_conf" not in wrong:
            self.file((*keys, "pip_conf"), made.pip_conf, "pip.conf")

    def known_folder(self, keys: Keys, source: str) -> bool:
        if source in self.there:
            return True
        if not self.look.is_folder(self.path(source)):
            return self.folder((*keys, "source"), source)
        self.there.add(source)
        return True

    def runs_images(self, pipeline: PipelineSite, made: Task) -> bool:
        """Whether the code may be in the image alone."""
        own = pipeline.made.executor if pipeline.made is not None else None
        name = made.executor or own or self.app.executor
        if name is None or name == "process":
            return False
        for one in self.app.executors:
            if name in (one.executor, one.type):
                return one.runs_images
        return BlockReference(block=name).runs_images if _BLOCK.match(name) else True

    def call(self, pipeline: PipelineSite, site: Site, source: str | None) -> None:
        made: Any = site.made
        if source is not None:
            if self.look.is_folder(self.path(source)):
                self.function(site.keys, source, made.module, made.function, most=1)
        elif not self.runs_images(pipeline, made):
            text = f"the folder with module '{made.module}' is not known: there is no `source`"
            self.no_folder(made, (*site.keys, "module"), text)

    def no_folder(self, made: Code, keys: Keys, text: str) -> None:
        """Only `process` needs the folder: with an image it may be meant for another executor."""
        hint = "add `source: FOLDER`, or an image that has one"
        self.tell(keys, text, hint, severity="warning" if made.image else "error")

    def script(self, pipeline: PipelineSite, site: Site, source: str | None) -> None:
        made: Code = site.made
        found = made.script()
        if found is None or (source or "", found[1]) in self.there:
            return
        if found[0] in site.wrong or placeholders(found[1]):
            return
        key, script = found
        if source is None:
            if not self.runs_images(pipeline, made):
                text = f"the folder with '{script}' is not known: there is no `source`"
                self.no_folder(made, (*site.keys, key), text)
            return
        folder = self.path(source)
        if self.look.exists(f"{folder}/{script}"):
            self.there.add((source, script))
        elif self.look.is_folder(folder):
            hint = near(script.removeprefix("./"), self.files(folder, Path(script).suffix))
            text = f"`{key}` runs '{script}', which is not in '{source}'"
            self.tell((*site.keys, key), text, hint or "create it", severity="warning")

    def files(self, folder: str, suffix: str) -> Iterator[str]:
        """The files with this ending in a folder and in the folders in it, as paths from it."""
        for name in self.look.names(folder):
            if name.endswith(suffix):
                yield name
            elif not name.startswith((".", "__")):
                yield from (f"{name}/{one}" for one in self.look.names(f"{folder}/{name}") if one.endswith(suffix))

    # -- mounts and secrets

    def mounts(self, keys: Keys, made: Any) -> None:
        """Volumes and secrets that a task is given are known, and no two of them are at one place."""
        taken: dict[str, str] = {}
        for index, one in enumerate(getattr(made, "mounts", None) or ()):
            self.mount((*keys, "mounts", index), one, taken)
        for index, one in enumerate(getattr(made, "secrets", None) or ()):
            self.given_secret((*keys, "secrets", index), one, taken)

    def mount(self, keys: Keys, one: Any, taken: dict[str, str]) -> None:
        volume, path = getattr(one, "volume", None), getattr(one, "path", None)
        if self.volumes and isinstance(volume, str) and volume not in self.volumes:
            self.tell((*keys, "volume"), f"unknown volume '{volume}'", near(volume, self.volumes))
        if not isinstance(path, str):
            return
        place = posixpath.normpath(path)
        if place == "/":
            self.tell((*keys, "path"), "a volume cannot be the root folder", "name a folder in it, e.g. /data")
        self.alone((*keys, "path"), place, f"mount '{getattr(one, 'mount', '?')}'", "mount it elsewhere", taken)

    def given_secret(self, keys: Keys, one: Any, taken: dict[str, str]) -> None:
        name = getattr(one, "secret", None)
        if not isinstance(name, str):
            return
        if name not in self.secrets:
            hint = near(name, self.secrets) or f"add it to the root: `secrets: [{{secret: {name}, env: NAME}}]`"
            self.tell((*keys, "secret"), f"unknown secret '{name}'", hint)
        if not isinstance(one, TaskSecret):
            return
        if one.env is not None:
            self.env_var((*keys, "env"), one.env, on_key=False)
            self.alone((*keys, "env"), f"the variable {one.env}", f"secret '{name}'", "use another name", taken)
        if one.file is not None:
            hint = "give one of them another `remote_path`, or a `sub_path`"
            self.alone((*keys, "secret"), posixpath.normpath(one.file), f"secret '{name}'", hint, taken)

    def alone(self, keys: Keys, place: str, what: str, hint: str, taken: dict[str, str]) -> None:
        """No two mounts or secrets of one task are at one place."""
        if place in taken:
            self.tell(keys, f"{what} is at the same place as {taken[place]}: {place}", hint)
        taken.setdefault(place, what)

    # -- what a type finds itself

    def own(self, pipeline: PipelineSite, site: Site, made: Task, names: list[str | None], index: int) -> None:
        if pipeline.made is None:
            return
        place = Place(self.app, pipeline.made, self.folder_of_file, tuple(one or "" for one in names[:index]))
        for flaw in made.check(place):
            if site.wrong and (not flaw.keys or flaw.keys[0] in site.wrong):
                continue  # told already, or it may be an echo of that
            keys = (*site.keys, *flaw.keys)
            self.tell(keys, flaw.message, flaw.hint, severity=flaw.severity, on_key=flaw.on_key)


def _is_in_order(tasks: Sequence[Site]) -> bool:
    """Whether each task needs earlier ones only, as in most pipelines, which is quick to see."""
    earlier: set[str] = set()
    for site in tasks:
        made: Task = site.made
        if made.depends_on is not None or site.wrong or made.task in earlier:
            return False
        if isinstance(made.input, str) and made.input.startswith("task:"):
            if made.input[5:].strip() not in earlier:
                return False
        elif made.input_type == "task" and (not isinstance(made.input_path, str) or made.input_path not in earlier):
            return False
        earlier.add(made.task)
    return True


def across(built: Sequence[Built]) -> Iterator[Problem]:
    """What is wrong between files: a pipeline and a service have one name in all of them."""
    kinds: tuple[tuple[str, Callable[[Built], Iterable[Site]]], ...] = (
        ("pipeline", lambda one: one.pipelines),
        ("service", lambda one: one.sections.get("services", ())),
    )
    for key, sites in kinds:
        first: dict[str, tuple[Built, Keys]] = {}
        for one in built:
            own: dict[str, tuple[Built, Keys]] = {}
            for site in sites(one):
                name, used = site.name(key), key
                if name is None and key == "service":
                    name, used = site.name("name"), "name"
                if name is None:
                    continue
                keys = (*site.keys, used)
                if name in first and name not in own:
                    other, place = first[name]
                    mark = mark_of(other.resolved.data, place)
                    text = f"duplicate {key} '{name}'; it is at {mark} already"
                    yield problem(one.resolved.data, keys, text, "use another name")
                own.setdefault(name, (one, keys))
            first = {**own, **first}


def _json_flaw(value: Any) -> tuple[Keys, str] | None:
    """Where a value is none of JSON, and why."""
    if isinstance(value, dict):
        for key, one in value.items():
            found = _json_flaw(one)
            if found is not None:
                return (key, *found[0]), found[1]
    elif isinstance(value, list | tuple):
        for index, one in enumerate(value):
            found = _json_flaw(one)
            if found is not None:
                return (index, *found[0]), found[1]
    elif isinstance(value, float) and not math.isfinite(value):
        return (), f"the number {str(value).lower()} cannot be given as an input"
    elif not (value is None or isinstance(value, str | int | float | date)):
        return (), f"{kind_of(value)} cannot be given as an input"
    return None
