"""Inheritance, defaults and variables: what a file means once its supers, defaults and placeholders are worked in.

The order: supers are merged, defaults are applied, then placeholders are rendered. Each value keeps the place where
it was written, so an inherited one points into the super's file. No types of tasks and no checks of keys here.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .document import Document, Keys, List, Map, mark_of, path_text, without_gc
from .errors import ConfigError, Problem, near
from .schema import kind_of
from .variables import (
    Budget,
    Flaw,
    Level,
    Lookup,
    Renderer,
    Scope,
    Unbound,
    environment,
    rebuilt_list,
    text_of,
    unclosed,
    whole,
)

SECTIONS = frozenset(
    {"pipelines", "services", "images", "executors", "volumes", "secrets", "metrics", "monitoring", "variables"}
    | {"sources", "sinks", "work_pools"}
    | {"pipeline_defaults", "task_defaults", "service_defaults", "plugins", "observers", "env_vars", "tags", "labels"}
    | {"owner", "description", "executor", "always_run", "super", "type", "alerts"}
)
"""Root keys that are as absent when nothing is written after them."""

SECTIONS_BELOW = frozenset(
    {"tasks", "parameters", "tags", "env_vars", "labels", "metrics", "observers", "mounts", "secrets", "variables"}
    | {"depends_on", "endpoints", "resources", "build_args", "alerts", "triggers", "schedules", "job_variables"}
)
"""The same below the root; there nothing also takes away what would be inherited."""

NAMED = {
    "executors": "executor",
    "images": "image",
    "volumes": "volume",
    "secrets": "secret",
    "sources": "source",
    "sinks": "sink",
    "work_pools": "work_pool",
    "alerts": "alert",
}
"""Root lists whose items are merged by name, with the key of the name."""

NAMED_BELOW = {"metrics": "metric", "monitoring": "monitor", "backends": "backend", "observers": "observer"} | {
    "metrics_backends": "metrics_backend",
    "alerts_backends": "alerts_backend",
    "alerts": "alert",
}
"""The same for the lists in and below `metrics` and `monitoring`."""

_NAMELESS = "nameless"
"""Stands for the name of a file that has none."""

OWN = frozenset({"name", "type", "super", "pipelines", "services"})
"""Root keys that a file never inherits."""

DEFAULTS = ("pipeline_defaults", "task_defaults", "service_defaults")

RIVALS = {
    "schedule": ("schedule_interval",),
    "schedule_interval": ("schedule",),
    "input": ("input_type", "input_path"),
    "input_type": ("input",),
    "input_path": ("input",),
    "when": ("always_run",),
    "always_run": ("when",),
    "cmd": ("module", "function"),
    "module": ("cmd",),
    "function": ("cmd",),
    "env": ("local_path_file", "block"),
    "local_path_file": ("env", "block"),
    "block": ("env", "local_path_file"),
}
"""Other spellings of the same thing: who writes one of them does not inherit the key."""

STAND_INS: Mapping[str, Any] = {
    "str": "text",
    "int": 1,
    "float": 1.0,
    "bool": True,
    "date": datetime.date(2000, 1, 1),
    "datetime": datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC),
    "list": [],
    "dict": {},
}
"""What a required parameter is taken as while nothing runs."""


@dataclass
class Resolved:
    """One file with everything worked in: `data` is what to check and run, `variables` are as written.

    `has_errors`: some of it could not be worked in, here or in one of its supers; the problems are told.
    """

    document: Document
    name: str
    data: Map
    variables: Map
    has_errors: bool = False
    _merged: Map = field(repr=False, default_factory=Map)
    _lookup: Lookup = field(repr=False, default=environment)

    def pipeline_data(self, pipeline: str, parameters: Mapping[str, Any], lookup: Lookup | None = None) -> Map:
        """The pipeline rendered again with these run parameters; those not given have their defaults.

        Raises:
            KeyError: there is no such pipeline.
            ConfigError: a text cannot be rendered with them.
        """
        names = list(self._names())
        if pipeline not in names:
            raise KeyError(pipeline)
        index = names.index(pipeline)
        problems: list[Problem] = []
        app = _App(self._merged, lookup or self._lookup, problems)
        data: Map = app.pipeline(self._merged["pipelines"][index], ("pipelines", index), parameters)
        if problems:
            raise ConfigError(_once(problems))
        return data

    def _names(self) -> Iterator[str]:
        for one in self.data.get("pipelines") or ():
            yield str(one.get("pipeline")) if isinstance(one, Map) else ""


def resolve(documents: Iterable[Document], *, lookup: Lookup = environment) -> tuple[list[Resolved], list[Problem]]:
    """Every app among the documents, in their order, and all that is wrong with supers, defaults and variables.

    `lookup` is asked for what neither parameters nor variables define; None when it does not know either.
    """
    documents = list(documents)
    problems: list[Problem] = []
    files = _Files(documents, lookup, problems)
    resolved = []
    with without_gc():
        problems += [one for document in documents if document.has_open for one in _unclosed(document.data)]
        for one in files.apps():
            chain = files.chain(one)
            if chain is not None:
                found: list[Problem] = []
                resolved.append(_resolved(one, chain, lookup, found))
                problems += found
    return resolved, _once(problems)


def _unclosed(data: Map) -> Iterator[Problem]:
    """A warning for each text with a placeholder that is not closed; `x-` keys are free for the writer."""
    seen: set[int] = set()
    waiting: list[tuple[Any, tuple[str | int, ...]]] = [(data, ())]
    for value, keys in waiting:  # which grows
        if id(value) in seen:
            continue  # an alias stands for what is looked at already
        seen.add(id(value))
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            if type(one) is str:
                if "{{" in one and (opened := unclosed(one)) and str(key)[:2] != "x-":
                    yield _told_unclosed(data, (*keys, key), opened)
            elif type(one) in (Map, List) and str(key)[:2] != "x-":
                waiting.append((one, (*keys, key)))


def _told_unclosed(data: Map, keys: Keys, opened: str) -> Problem:
    message = f"the placeholder `{opened}` is not closed"
    hint = "close it with '}}', or write '\\{{' for literal braces"
    return Problem(mark_of(data, keys), path_text(keys), message, hint, _where(data, keys), "warning")


def _where(data: Any, keys: Keys) -> str:
    """A path in words: pipeline 'sales', task 'load'."""
    words = []
    for index, key in enumerate(keys):
        data = _at(data, key)
        word = {"pipelines": "pipeline", "tasks": "task", "services": "service", **NAMED}.get(str(keys[index - 1]))
        if isinstance(key, int) and word and index and isinstance(data, Map):
            words.append(f"{word} '{_item_name(data, word) or key + 1}'")
    return ", ".join(words)


def _once(problems: Iterable[Problem]) -> list[Problem]:
    return sorted(dict.fromkeys(problems), key=lambda problem: problem.mark)


# -- files and their supers


@dataclass(frozen=True, eq=False)
class _File:
    document: Document
    data: Map
    name: str

    @property
    def is_super(self) -> bool:
        return bool(self.data.get("type") == "super")


class _Files:
    """The files by name, and the way from one to its supers."""

    def __init__(self, documents: Iterable[Document], lookup: Lookup, problems: list[Problem]) -> None:
        self.lookup = lookup
        self.problems = problems
        self.files: list[_File] = []
        self.by_name: dict[str, _File] = {}
        self.told: set[frozenset[str]] = set()
        for document in documents:
            self._add(document)
        for file in self.files:
            if file.is_super:
                self._check_super(file)

    def _add(self, document: Document) -> None:
        data = _without_nulls(document.data)
        self._check_type(data)
        name = self._name(data)
        if name is None:  # told; what else is wrong in the file is told, too
            self.files.append(_File(document, _with_name(data), _NAMELESS))
            return
        file = _File(document, data, name)
        if name in self.by_name:
            first = self.by_name[name].data
            self._problem(data, "name", f"the name '{name}' is taken by {mark_of(first, ['name'])}", "use another name")
        else:
            self.by_name[name] = file
        self.files.append(file)

    def _problem(self, data: Map, key: str, message: str, hint: str = "") -> None:
        self.problems.append(Problem(mark_of(data, [key]), key if key in data else "", message, hint))

    def _name(self, data: Map) -> str | None:
        name = self._own_text(data, "name")
        if name is None or name == "":
            self._problem(data, "name", "`name` is required", "write `name: NAME` at the top of the file")
            return None
        if isinstance(name, dict | list):
            self._problem(data, "name", f"must be text, got {kind_of(name)}", "write `name: NAME`")
            return None
        return text_of(name)

    def _own_text(self, data: Map, key: str) -> Any:
        """A root value that is needed before the files are merged, with the file's own variables."""
        value = data.get(key)
        if not isinstance(value, str) or "{{" not in value:
            return value
        try:
            return Scope(_root_levels(data), self.lookup).text(value)
        except Flaw:
            return value  # told when the merged file is rendered

    def _check_type(self, data: Map) -> None:
        kind = data.get("type")
        if kind not in (None, "super", "sub"):
            message = f"unknown type {kind!r} of a file" if isinstance(kind, str) else "must be `sub` or `super`"
            self._problem(data, "type", message, near(str(kind), ["sub", "super"]) if isinstance(kind, str) else "")

    def _check_super(self, file: _File) -> None:
        for key in ("pipelines", "services"):
            if file.data.get(key):
                mark = mark_of(file.data, [key], on_key=True)
                message = f"the `{key}` of a super are not used"
                hint = "move them to a file without `type: super`"
                self.problems.append(Problem(mark, key, message, hint, severity="warning"))

    def apps(self) -> list[_File]:
        """The files that are apps; supers are walked too, so that theirs are told even when nobody uses them."""
        for file in self.files:
            if file.is_super:
                self.chain(file)
        return [file for file in self.files if not file.is_super]

    def chain(self, file: _File) -> list[_File] | None:
        """The file and its supers, nearest first; None, with the problem told, when the way is broken."""
        chain = [file]
        seen = {file}
        while True:
            last = chain[-1]
            name = self._own_text(last.data, "super")
            if name is None:
                return chain
            if isinstance(name, dict | list):
                self._problem(last.data, "super", f"must be the name of one file, got {kind_of(name)}")
                return None
            following = self.by_name.get(text_of(name))
            if following is None and name == "base":
                return chain
            if following is None:
                self._missing(chain, text_of(name))
                return None
            if following in seen:
                self._cycle(chain, following)
                return None
            chain.append(following)
            seen.add(following)

    def _missing(self, chain: Sequence[_File], name: str) -> None:
        first, last = chain[0], chain[-1]
        if first is last:
            supers = [file.name for file in self.files if file.is_super and file is not last]
            known = supers or [file.name for file in self.files if file is not last]
            hint = near(name, known) or "write a file with this `name` and `type: super`"
            self._problem(last.data, "super", f"super '{name}' is not found", hint)
        else:
            message = f"super '{chain[1].name}' cannot be used: its super '{name}' is not found"
            self._problem(first.data, "super", message, f"see {mark_of(last.data, ['super'])}")

    def _cycle(self, chain: Sequence[_File], again: _File) -> None:
        cycle = chain[chain.index(again) :]
        names = frozenset(file.name for file in cycle)
        inside = chain[0] is again
        if inside and names in self.told:
            return
        if inside:
            self.told.add(names)
        way = " -> ".join(file.name for file in [*cycle, again])
        places = ", ".join(file.document.shown for file in cycle)
        message = f"supers form a cycle: {way} ({places})"
        self._problem(chain[0].data, "super", message, "remove the `super` of one of them")


def _with_name(data: Map) -> Map:
    """The file as if it had a name."""
    result = data.shallow()
    result.put("name", _NAMELESS, data.marks.get("name", (data.file, data.line, data.column, data.line, data.column)))
    return result


def _without_nulls(data: Map) -> Map:
    nulls = [key for key, value in data.items() if value is None and key in SECTIONS]
    return _without(data, nulls) if nulls else data


# -- merging


def merge(child: Any, parent: Any) -> Any:
    """The child over the parent: mappings are merged, anything else is the child's; each value keeps its place."""
    if not isinstance(child, Map) or not isinstance(parent, Map) or not parent:
        return child
    result = child.shallow()
    for key, value in parent.items():
        if key not in child:
            if key not in RIVALS or child.keys().isdisjoint(RIVALS[key]):
                result.put(key, value, parent.marks[key])
        elif isinstance(value, Map) and isinstance(child[key], Map):
            result[key] = merge(child[key], value)
    return result


def merge_named(child: Any, parent: Any, key: str) -> Any:
    """Two lists of mappings merged by the text at `key`: inherited items first, then new ones."""
    if not isinstance(child, List) or not isinstance(parent, List):
        return child
    by_name: dict[str, int] = {}
    for index, item in enumerate(child):
        if (name := _item_name(item, key)) is not None:
            by_name.setdefault(name, index)
    used: set[int] = set()
    result = child.same_place()
    for index, item in enumerate(parent):
        own = by_name.get(_item_name(item, key) or "")
        if own is None or own in used:
            if item not in child:
                result.put(item, parent.marks[index])
        else:
            used.add(own)
            result.put(merge(child[own], item), child.marks[own])
    for index, item in enumerate(child):
        if index not in used:
            result.put(item, child.marks[index])
    return result


def _item_name(item: Any, key: str) -> str | None:
    if not isinstance(item, Map):
        return None
    name = item.get(key) or item.get("name")
    return None if name is None or isinstance(name, dict | list) else str(name)


def _merge_below(child: Any, parent: Any, key: str) -> Any:
    """As `merge`, but lists of named mappings are merged by name at every level."""
    if isinstance(child, List) and isinstance(parent, List) and key in NAMED_BELOW:
        if all(isinstance(item, Map) for item in [*child, *parent]):
            return merge_named(child, parent, NAMED_BELOW[key])
        return child
    if not isinstance(child, Map) or not isinstance(parent, Map):
        return child
    result = child.shallow()
    for name, value in parent.items():
        if name in child:
            result[name] = _merge_below(child[name], value, name)
        else:
            result.put(name, value, parent.marks[name])
    return result


def _merge_roots(child: Map, parent: Map) -> Map:
    result = child.shallow()
    for key, value in parent.items():
        if key in OWN or key == "pipeline_defaults" or key.startswith("x-"):
            continue
        if key not in child:
            result.put(key, value, parent.marks[key])
        elif key in NAMED:
            result[key] = merge_named(child[key], value, NAMED[key])
        elif key in ("metrics", "monitoring"):
            result[key] = _merge_below(child[key], value, key)
        else:
            result[key] = merge(child[key], value)
    return result


# -- one app


def _resolved(file: _File, chain: Sequence[_File], lookup: Lookup, problems: list[Problem]) -> Resolved:
    merged = chain[0].data
    for above in chain[1:]:
        merged = _merge_roots(merged, above.data)
    merged = _Sections(merged, [one.data for one in chain], lookup, problems).build()
    app = _App(merged, lookup, problems, plain=not any(one.document.has_placeholders for one in chain))
    data = app.data()
    name = data.get("name")
    variables = merged.get("variables")
    return Resolved(
        file.document,
        text_of(name) if name is not None and not isinstance(name, dict | list) else file.name,
        data,
        variables if isinstance(variables, Map) else Map(merged.file),
        any(one.severity == "error" for one in problems),
        merged,
        lookup,
    )


def _without(data: Map, keys: Iterable[str]) -> Map:
    result = data.shallow()
    for key in keys:
        result.pop(key, None)
        result.marks.pop(key, None)
    return result


def _without_x(item: Any) -> Any:
    """A mapping without its `x-` keys, which are free for the writer, and without its empty sections."""
    if not isinstance(item, Map):
        return item
    if None not in item.values() and "x-" not in " ".join(item):
        return item  # as most are
    free = [key for key, value in item.items() if key[:2] == "x-" or (value is None and key in SECTIONS_BELOW)]
    return _without(item, free) if free else item


class _Sections:
    """Applies the defaults of a file and its supers; the result has no `*_defaults`, `x-`, `type`, `super` left."""

    def __init__(self, merged: Map, chain: Sequence[Map], lookup: Lookup, problems: list[Problem]) -> None:
        self.merged = merged
        self.problems = problems
        variables = merged.get("variables")
        self.variables = variables if isinstance(variables, Map) else None
        self.scope = Scope(_root_levels(merged), lookup)
        self.task_defaults = self._defaults(merged, "task_defaults")
        self.service_defaults = self._defaults(merged, "service_defaults")
        self.levels = [self._defaults(data, "pipeline_defaults") for data in chain]

    def build(self) -> Map:
        free = [key for key in self.merged if key in (*DEFAULTS, "type", "super") or key[:2] == "x-"]
        result = _without(self.merged, free)
        if self.variables is None and "variables" in result:
            self._told("variables", "a mapping", result["variables"])
            result = _without(result, ["variables"])
        for key in NAMED:
            if key in result:
                result[key] = self._each(self.expand(result[key]), _without_x)
        for key, make in (("services", self.service), ("pipelines", self.pipeline)):
            if key in result:
                result[key] = self._each(self.expand(result[key]), make)
        return result

    def _told(self, key: str, wanted: str, got: Any) -> None:
        mark = mark_of(self.merged, [key])
        self.problems.append(Problem(mark, key, f"must be {wanted}, got {kind_of(got)}"))

    def _defaults(self, data: Map, key: str) -> Map:
        """A section of defaults; empty, with its problem told, when it is not a mapping."""
        value = self.expand(data.get(key))
        if isinstance(value, Map):
            return value
        if value is not None:
            self.problems.append(Problem(mark_of(data, [key]), key, f"must be a mapping, got {kind_of(value)}"))
        return Map(data.file, data.line, data.column)

    def expand(self, value: Any) -> Any:
        """What a placeholder stands for when it is a mapping or a list of `variables`: it may hold tasks."""
        for _ in range(10):
            name = whole(value)
            if name is None or self.variables is None or not isinstance(self.variables.get(name), Map | List | str):
                return value
            following = self.variables[name]
            if isinstance(following, str) and whole(following) is None:
                return value
            value = following
        return value

    def _each(self, items: Any, make: Any) -> Any:
        return rebuilt_list(items, [make(self.expand(item)) for item in items]) if isinstance(items, List) else items

    def service(self, item: Any) -> Any:
        if not isinstance(item, Map):
            return item
        item = _without_x(merge(item, self.service_defaults))
        if isinstance(item.get("endpoints"), List):
            item = _with(item, "endpoints", self._each(item["endpoints"], _without_x))
        return item

    def pipeline(self, item: Any) -> Any:
        if not isinstance(item, Map):
            return item
        own = self.expand(item.get("tasks"))
        result = item
        for level in self.levels:
            if level:
                result = merge(result, _without(level, ("tasks", "before_tasks", "after_tasks")))
        tasks = self._tasks(own, item)
        if tasks is not None:
            result = _with(result, "tasks", tasks)
        return _without_x(result)

    def _tasks(self, own: Any, item: Map) -> Any:
        """The tasks of a pipeline with those of the defaults around them; None when there are none at all."""
        if own is not None and not isinstance(own, List):
            return own
        around = next((level for level in self.levels if level.get("tasks") is not None), None)
        middle = own
        if around is not None:
            middle = self._placed(own, self.expand(around["tasks"]), around)
        before = [self._list(level, "before_tasks") for level in reversed(self.levels)]
        after = [self._list(level, "after_tasks") for level in self.levels]
        lists = [one for one in [*before, middle, *after] if one]
        if len(lists) == 1:
            joined = lists[0]
        elif not lists:
            return middle
        else:
            joined = (own if own is not None else lists[0]).same_place()
            for one in lists:
                for index, task in enumerate(one):
                    joined.put(task, one.marks[index])
        return self._finished(joined)

    def _placed(self, own: List | None, template: Any, level: Map) -> Any:
        """The default `tasks` with the pipeline's own in the place of `type: pipeline`."""
        if not isinstance(template, List):
            mark = mark_of(level, ["tasks"])
            self.problems.append(Problem(mark, "pipeline_defaults.tasks", f"must be a list, got {kind_of(template)}"))
            return own
        places = [index for index, task in enumerate(template) if _type(task) == "pipeline"]
        if not places and own is not None:
            return own
        for index in places[1:]:
            mark = mark_of(template, [index, "type"])
            path = f"pipeline_defaults.tasks[{index}].type"
            self.problems.append(Problem(mark, path, "only one task may have `type: pipeline`", "remove this one"))
        result = template.same_place()
        for index, task in enumerate(template):
            if index not in places:
                result.put(task, template.marks[index])
            elif index == places[0]:
                for place, one in enumerate(own or ()):
                    result.put(one, own.marks[place])  # type: ignore[union-attr]  # own is a list here
        return result

    def _list(self, level: Map, key: str) -> List | None:
        value = self.expand(level.get(key))
        if value is None or isinstance(value, List):
            return value
        message = f"must be a list, got {kind_of(value)}"
        self.problems.append(Problem(mark_of(level, [key]), f"pipeline_defaults.{key}", message))
        return None

    def _finished(self, tasks: List) -> List:
        """Each task with the defaults of its type; the markers `job_start` and `job_end` are gone."""
        changed = [self._task(self.expand(task)) for task in tasks]
        if any(_type(task) in ("job_start", "job_end") for task in changed):
            result = tasks.same_place()
            for index, task in enumerate(changed):
                if _type(task) not in ("job_start", "job_end"):
                    result.put(task, tasks.marks[index])
            return result
        return rebuilt_list(tasks, changed)

    def _task(self, task: Any) -> Any:
        if not isinstance(task, Map):
            return task
        if self.task_defaults:
            kind = task.get("type")
            if isinstance(kind, str) and "{{" in kind:
                try:
                    kind = self.scope.text(kind)
                except Flaw:
                    kind = None
            defaults = self.expand(self.task_defaults.get(kind)) if isinstance(kind, str) else None
            if isinstance(defaults, Map):
                task = merge(task, defaults)
            elif defaults is not None:
                message = f"must be a mapping, got {kind_of(defaults)}"
                mark = mark_of(self.task_defaults, [str(kind)])
                self.problems.append(Problem(mark, f"task_defaults.{kind}", message))
        return _without_x(task)


def _type(task: Any) -> Any:
    return task.get("type") if isinstance(task, Map) else None


def _with(data: Map, key: str, value: Any) -> Map:
    """`data` with another value at a key, whose place stays or is the value's own."""
    if key in data and data[key] is value:
        return data
    result = data.shallow()
    result[key] = value
    if key not in result.marks:
        result.marks[key] = (value.file, value.line, value.column, value.line, value.column)
    return result


def _root_levels(data: Map) -> list[Level]:
    variables = data.get("variables")
    if not isinstance(variables, Map):
        return []
    return [Level("`variables`", variables)]


class _App:
    """Renders one merged file."""

    def __init__(self, merged: Map, lookup: Lookup, problems: list[Problem], *, plain: bool = False) -> None:
        self.merged = merged
        self.problems = problems
        self.renderer = Renderer(merged, problems, self.where, plain=plain)
        self.scope = Scope(_root_levels(merged), lookup, secrets=self._secrets(), budget=Budget())

    def _secrets(self) -> list[str]:
        secrets = self.merged.get("secrets")
        names = [_item_name(item, "secret") for item in secrets] if isinstance(secrets, list) else []
        return [name for name in names if name is not None]

    def where(self, keys: Keys) -> str:
        return _where(self.merged, keys)

    def data(self) -> Map:
        result = self.merged.shallow()
        for key, value in self.merged.items():
            if key == "variables":
                result[key] = self._variables(value)
            elif key == "pipelines" and isinstance(value, List):
                each = [self.pipeline(one, (key, index)) for index, one in enumerate(value)]
                result[key] = rebuilt_list(value, each)
            elif isinstance(value, str | dict | list):
                result[key] = self.renderer.render(value, self.scope, (key,))
        return result

    def _variables(self, variables: Map) -> Map:
        """The variables as far as they are known before a run; what is wrong in them is told at their place."""
        later = {name: Unbound(name, f"{{{{{name}}}}}") for name in self._later(variables)}
        scope = Scope([*self.scope.levels, Level("later", later)], self.scope.lookup, secrets=self.scope.secrets)
        result = variables.same_place()
        result.marks = variables.marks
        for name in variables:
            try:
                value = scope.value(name)
            except Flaw as flaw:
                self.renderer.note(flaw, ("variables", name))
                value = variables[name]
            result[name] = value.stand_in if isinstance(value, Unbound) else value
        return result

    def _later(self, variables: Map) -> Iterator[str]:
        """Names that some pipeline or task defines."""
        for value in variables.values():
            if isinstance(value, Map):
                yield from value
        for pipeline in _maps(self.merged.get("pipelines")):
            for parameter in _maps(pipeline.get("parameters")):
                if isinstance(parameter.get("name"), str):
                    yield parameter["name"]
            for task in _maps(pipeline.get("tasks")):
                if isinstance(task.get("variables"), Map):
                    yield from task["variables"]

    def pipeline(self, item: Any, keys: tuple[str | int, ...], parameters: Mapping[str, Any] | None = None) -> Any:
        """One pipeline, rendered with these parameters or with their defaults and stand-ins."""
        if not isinstance(item, Map):
            return self.renderer.render(item, self.scope, keys)
        scope = self._bound(item, keys, parameters)
        result = item.shallow()
        for key, value in item.items():
            if key == "tasks" and isinstance(value, List):
                tasks = [self.task(one, scope, (*keys, key, index)) for index, one in enumerate(value)]
                result[key] = rebuilt_list(value, tasks)
            elif isinstance(value, str | dict | list):
                own = self.scope if key == "parameters" else scope
                result[key] = self.renderer.render(value, own, (*keys, key))
        return result

    def _bound(self, item: Map, keys: tuple[str | int, ...], given: Mapping[str, Any] | None) -> Scope:
        declared = item.get("parameters")
        if not declared and not given:
            return self.scope
        rendered = self.renderer.render(declared, self.scope, (*keys, "parameters"))
        values = {name: value for name, value in (_parameter(one) for one in _maps(rendered)) if name}
        return self.scope.inside(Level("the parameters", {**values, **(given or {})}, literal=True))

    def task(self, item: Any, scope: Scope, keys: tuple[str | int, ...]) -> Any:
        if isinstance(item, Map) and "incremental" in item:  # known only when the task starts
            scope = scope.inside(Level("the cursor", {"cursor": "{{cursor}}"}, literal=True))
        if not isinstance(item, Map) or "variables" not in item:
            return self.renderer.render(item, scope, keys)
        variables = self._task_variables(item["variables"], scope, keys)
        if variables is None:
            return self.renderer.render(item, scope, keys)
        # The level of the parameters, if any, stays first.
        first = [level for level in scope.levels if level.literal]
        others = [level for level in scope.levels if not level.literal]
        path = path_text((*keys, "variables"))
        level = Level("the task's `variables`", variables, path=path)
        inner = Scope([*first, level, *others], scope.lookup, secrets=scope.secrets, budget=scope.budget)
        result = item.shallow()
        for key, value in item.items():
            if key == "variables":
                result[key] = self._values(variables, inner, len(first), (*keys, key))
            elif isinstance(value, str | dict | list):
                result[key] = self.renderer.render(value, inner, (*keys, key))
        return result

    def _values(self, variables: Map, scope: Scope, level: int, keys: tuple[str | int, ...]) -> Map:
        result = variables.same_place()
        result.marks = variables.marks
        for name in variables:
            try:
                value = scope.value_at(level, name)
            except Flaw as flaw:
                self.renderer.note(flaw, (*keys, name))
                value = variables[name]
            result[name] = value.stand_in if isinstance(value, Unbound) else value
        return result

    def _task_variables(self, written: Any, scope: Scope, keys: tuple[str | int, ...]) -> Map | None:
        """The variables of a task: a mapping, or the name of a root variable that is one."""
        if isinstance(written, Map):
            return written
        if not isinstance(written, str):
            return None  # told by the type of the key
        root = self.merged.get("variables")
        root = root if isinstance(root, Map) else Map()
        try:
            name = whole(written) or text_of(scope.text(written))
        except Flaw:
            return None  # told when the task is rendered
        found = root.get(name)
        if isinstance(found, Map):
            return found
        maps = [key for key, value in root.items() if isinstance(value, Map)]
        if name in root:
            flaw = Flaw(f"variable '{name}' is {kind_of(found)}, not a mapping", near(name, maps))
        else:
            flaw = Flaw(f"there is no mapping '{name}' in the root `variables`", near(name, maps))
        self.renderer.note(flaw, (*keys, "variables"))
        return None


def _at(value: Any, key: str | int) -> Any:
    if isinstance(value, Map) and isinstance(key, str):
        return value.get(key)
    return value[key] if isinstance(value, List) and isinstance(key, int) else None


def _maps(value: Any) -> Iterator[Map]:
    if isinstance(value, list):
        yield from (one for one in value if isinstance(one, Map))


def _parameter(item: Map) -> tuple[str, Any]:
    """The name of a parameter and its default, or what stands for it until a run gives a value."""
    name = item.get("name")
    if not isinstance(name, str):
        return "", None
    if item.get("default") is not None:
        return name, item["default"]
    kind = item.get("type", "str")
    return name, Unbound(name, STAND_INS.get(kind, "text") if isinstance(kind, str) else "text")
