"""What a Prefect server has, what is to change there, and changing it: all of it, or nothing. Prefect is not imported.

    found = look(api, items, projects)        the server as it is
    changes = compare(items, found)           what differs, with old and new values
    apply(api, changes)                       changes exactly that; puts it back when something fails

A kind of thing is a class in `KINDS`: how it is listed, put and removed. Each request leaves the server with a whole
thing or without it, so a deploy that was killed is finished by the next one.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol
from urllib.parse import quote

from .api_client import Api, ApiError
from .automations import Automations
from .deployable import INACTIVE, PROJECT, TAG, Item
from .errors import CallError, RainbowError, RunError

Undo = Callable[[], object]
Note = Callable[[Undo], None]
"""Is told, before a request that changes something, what takes it back; that may be done when nothing was changed."""


@dataclass(frozen=True)
class Found:
    """A thing on the server: its fields as an `Item` has them, and the server's own record of it."""

    kind: str
    name: str
    fields: Mapping[str, Any]
    record: Mapping[str, Any]
    project: str = ""


@dataclass(frozen=True)
class Difference:
    """One value that differs; `key` is a path: `schedules.nightly.schedule.cron`."""

    action: Literal["+", "~", "-"]
    key: str
    old: Any = None
    new: Any = None

    def as_dict(self) -> dict[str, Any]:
        return {"action": self.action, "key": self.key, "old": self.old, "new": self.new}


@dataclass(frozen=True)
class Change:
    """A thing to add, change or remove."""

    action: Literal["+", "~", "-"]
    kind: str
    name: str
    item: Item | None = None
    found: Found | None = None
    differences: tuple[Difference, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {
            "action": self.action,
            "kind": self.kind,
            "name": self.name,
            "differences": [one.as_dict() for one in self.differences],
        }


class Kind(Protocol):
    """How one kind of thing is listed, put and removed; each of these may be done twice."""

    name: str

    def look(self, api: Api, items: Sequence[Item], projects: Sequence[str]) -> list[Found]:
        """The things of these names, and all others of these projects."""

    def put(self, api: Api, change: Change, note: Note) -> None:
        """Add or change one."""

    def remove(self, api: Api, change: Change, note: Note) -> None:
        """Remove one."""


# -- work pools


class WorkPools:
    """Work pools: made and changed, never removed, since others may use them."""

    name = "work pool"

    def look(self, api: Api, items: Sequence[Item], projects: Sequence[str]) -> list[Found]:
        names = [one.name for one in items]
        if not names:
            return []
        records = api.pages("work_pools/filter", {"work_pools": {"name": {"any_": names}}})
        wanted = {one.name: one for one in items}
        return [self._found(record, wanted[record["name"]]) for record in records]

    def _found(self, record: Mapping[str, Any], item: Item) -> Found:
        if record["type"] != item.fields["type"]:
            raise CallError(
                f"work pool '{item.name}' is of type '{record['type']}' on the server, not '{item.fields['type']}'; "
                "use another name, or write its type"
            )
        return Found(self.name, item.name, {key: record.get(key) for key in item.fields}, record)

    def put(self, api: Api, change: Change, note: Note) -> None:
        assert change.item is not None
        path = f"work_pools/{quote(change.name, safe='')}"
        if change.found is None:
            note(lambda: api.delete(path))
            self._create(api, change.item)
            return
        changed = {key: one for key, one in change.item.fields.items() if key != "type"}
        before = {key: change.found.record.get(key) for key in changed}
        note(lambda: api.patch(path, before))
        api.patch(path, changed)

    def _create(self, api: Api, item: Item) -> None:
        data = {"name": item.name, **item.fields, "base_job_template": _template(api, item.fields["type"])}
        try:
            api.post("work_pools/", data)
        except ApiError as error:
            if error.status != 409:  # an earlier attempt, whose answer was lost, or another deploy made it
                raise

    def remove(self, api: Api, change: Change, note: Note) -> None:
        raise AssertionError("a work pool is never removed")


def _template(api: Api, kind: str) -> Any:
    """Prefect's own settings of a pool of this type, which a worker would add when it starts."""
    for types in api.get("collections/views/aggregate-worker-metadata").values():
        if kind in types:
            return types[kind]["default_base_job_configuration"]
    return {}


# -- deployments

_KEPT = ("flow_id", "paused", "enforce_parameter_schema")
_SCHEDULE = ("schedule", "active", "parameters", "slug")


class Deployments:
    """Deployments with their schedules; one request changes all of one."""

    name = "deployment"

    def look(self, api: Api, items: Sequence[Item], projects: Sequence[str]) -> list[Found]:
        names = sorted({one.name.partition("/")[2] for one in items} | set(projects))
        ours = {
            "operator": "or_",
            "name": {"any_": names},
            "tags": {"operator": "or_", "any_": [f"{TAG}{one}" for one in projects]},
        }
        if not names:
            return []
        records = api.pages("deployments/filter", {"deployments": ours, "sort": "CREATED_DESC"})
        flows = {one["id"]: one["name"] for one in api.pages("flows/filter", {"deployments": ours, "sort": "NAME_ASC"})}
        unique = {one["id"]: one for one in records if one["flow_id"] in flows}
        return [_found(one, flows[one["flow_id"]]) for one in unique.values()]

    def put(self, api: Api, change: Change, note: Note) -> None:
        assert change.item is not None
        flow_name, _, name = change.name.partition("/")
        if change.found is None:
            flow, is_new = api.make("flows/", {"name": flow_name})
            note(lambda: self._take_back(api, change.name, flow["id"] if is_new else None))
            kept = {"flow_id": flow["id"], "paused": False, "enforce_parameter_schema": True}
        else:
            before = _resent(change.found.record)
            note(lambda: api.post("deployments/", before))
            kept = {key: change.found.record[key] for key in _KEPT}
        api.post("deployments/", {"name": name, **kept, **_sent(change.item.fields)})

    def _take_back(self, api: Api, name: str, flow: str | None) -> None:
        """Remove a deployment that was new, and its flow when that was new, too."""
        for one in self.look(api, [Item(self.name, name, {})], []):
            if one.name == name:
                api.delete(f"deployments/{one.record['id']}")
        if flow is not None:
            api.delete(f"flows/{flow}")

    def remove(self, api: Api, change: Change, note: Note) -> None:
        assert change.found is not None
        before = _resent(change.found.record)
        note(lambda: api.post("deployments/", before))
        api.delete(f"deployments/{change.found.record['id']}")


def _sent(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an item as Prefect takes them."""
    schedules = [{**one, "slug": slug} for slug, one in fields["schedules"].items()]
    return {**fields, "schedules": schedules}


def _found(record: Mapping[str, Any], flow: str) -> Found:
    limit = record.get("global_concurrency_limit")
    labels = {key: one for key, one in (record.get("labels") or {}).items() if not key.startswith("prefect.")}
    fields = {
        **{key: record.get(key) for key in ("description", "entrypoint", "work_pool_name", "job_variables")},
        **{key: record.get(key) for key in ("pull_steps", "parameter_openapi_schema", "parameters", "tags")},
        "schedules": {_slug(one, index): _schedule(one) for index, one in enumerate(record.get("schedules") or ())},
        "concurrency_limit": limit["limit"] if limit else None,
        "concurrency_options": record.get("concurrency_options"),
        "labels": labels,
    }
    return Found("deployment", f"{flow}/{record['name']}", fields, record, str(labels.get(PROJECT, "")))


def _slug(schedule: Mapping[str, Any], index: int) -> str:
    return str(schedule.get("slug") or f"without a slug, {index + 1}")


def _schedule(one: Mapping[str, Any]) -> dict[str, Any]:
    schedule = {key: value for key, value in one["schedule"].items() if value is not None}
    if schedule.get("day_or") is True:
        del schedule["day_or"]
    return {"schedule": schedule, "active": one["active"], "parameters": one.get("parameters") or {}}


def _resent(record: Mapping[str, Any]) -> dict[str, Any]:
    """What puts a deployment back as the server told it."""
    fields = _found(record, "").fields
    kept = ("description", "version", "path", "work_queue_name", "storage_document_id", "infrastructure_document_id")
    schedules = [{key: one.get(key) for key in _SCHEDULE} for one in record.get("schedules") or ()]
    sent = {**fields, **{key: record.get(key) for key in ("name", *_KEPT, *kept)}, "schedules": schedules}
    limit = record.get("global_concurrency_limit")
    if limit and limit["name"] != f"deployment:{record['id']}":
        sent |= {"concurrency_limit": None, "global_concurrency_limit_id": limit["id"]}
    return sent


KINDS: tuple[Kind, ...] = (WorkPools(), Deployments(), Automations())
"""In the order in which things are made; they are removed the other way round."""


# -- what is to change


@dataclass
class Changes:
    """All that differs; `left` are things of the project that no file has any more and that stay."""

    changes: list[Change] = field(default_factory=list)
    left: list[Found] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {"changes": [one.as_dict() for one in self.changes], "left": [one.name for one in self.left]}


def look(api: Api, items: Sequence[Item], projects: Sequence[str]) -> list[Found]:
    """The server as it is: the things of these items, and what else it has of these projects.

    Raises:
        CallError: a work pool has another type there, or one that no file declares is not there.
        RunError: the server does not answer.
    """
    found: list[Found] = []
    for kind in KINDS:
        found += kind.look(api, [one for one in items if one.kind == kind.name], projects)
    _check_pools(api, items)
    return found


def _check_pools(api: Api, items: Sequence[Item]) -> None:
    declared = {one.name for one in items if one.kind == WorkPools.name}
    named = {str(one.fields["work_pool_name"]): one.name for one in items if one.kind == Deployments.name}
    others = sorted(named.keys() - declared)
    if not others:
        return
    there = {one["name"] for one in api.pages("work_pools/filter", {"work_pools": {"name": {"any_": others}}})}
    for name in others:
        if name not in there:
            raise CallError(
                f"deployment '{named[name]}': there is no work pool '{name}' on the server and the file does not "
                f"declare it; add `work_pools: [{{work_pool: {name}, type: process}}]`"
            )


def compare(items: Sequence[Item], found: Sequence[Found], *, prune: bool, is_whole: bool = True) -> Changes:
    """What makes the server as the items want it; only with `prune` what no file has any more is removed.

    With `is_whole` false the items are some of the project only, and no other thing counts.
    """
    there = {(one.kind, one.name): one for one in found}
    changes = Changes()
    for item in items:
        change = _compared(item, there.pop((item.kind, item.name), None))
        if change is not None:
            changes.changes.append(change)
    projects = {one.project for one in items} - {""}
    left = [one for one in there.values() if one.project in projects] if is_whole else []
    if prune:
        changes.changes += [Change("-", one.kind, one.name, found=one) for one in left]
    else:
        changes.left = left
    return changes


def _compared(item: Item, found: Found | None) -> Change | None:
    if found is None:
        fields = {key: one for key, one in item.fields.items() if one not in (None, {}, [])}
        differences = [Difference("+", key, new=one) for key, one in fields.items()]
        return Change("+", item.kind, item.name, item, differences=tuple(differences))
    item = _settled(item, found)
    differences = [one for key in item.fields for one in _differing(key, found.fields.get(key), item.fields[key])]
    return Change("~", item.kind, item.name, item, found, tuple(differences)) if differences else None


def _settled(item: Item, found: Found) -> Item:
    """The item with what people decided on the server, and with other values that are as good as its own."""
    if item.kind != Deployments.name:
        return item
    by_file = str(found.fields["labels"].get(INACTIVE, "")).split(",")
    schedules = {}
    for slug, one in item.fields["schedules"].items():
        there = found.fields["schedules"].get(slug)
        kept: dict[str, Any] = {}
        if there is not None and not there["active"] and slug not in by_file:
            kept["active"] = False
        if there is not None and slug in item.also and there["schedule"] == item.also[slug]:
            kept["schedule"] = there["schedule"]
        schedules[slug] = {**one, **kept}
    fields = {**item.fields, "schedules": schedules}
    if sorted(fields["tags"]) == sorted(found.fields["tags"] or ()):
        fields["tags"] = found.fields["tags"]
    return replace(item, fields=fields)


_DEEP = ("schedules", "job_variables", "labels", "pull_steps", "parameter_openapi_schema", "concurrency_options")


def _differing(key: str, old: Any, new: Any) -> Iterator[Difference]:
    """The values that differ, each with its path."""
    if old == new or (old in (None, {}, []) and new in (None, {}, [])):
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys([*old, *new]):
            yield from _differing(f"{key}.{name}", old.get(name), new.get(name))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new) and _has_maps(old, new):
        for index, (was, will) in enumerate(zip(old, new, strict=True)):
            yield from _differing(f"{key}[{index}]", was, will)
    else:
        action: Literal["+", "~", "-"] = "+" if old in (None, {}, []) else "-" if new in (None, {}, []) else "~"
        yield Difference(action, key, old, new)


def _has_maps(*lists: list[Any]) -> bool:
    return all(isinstance(one, dict) for some in lists for one in some)


# -- changing it


def apply(api: Api, changes: Sequence[Change]) -> None:
    """Make all changes. When one fails, those made before it are put back.

    Raises:
        RunError: a change failed; tells what was put back, and what was not.
        KeyboardInterrupt: it was interrupted; what was changed is put back.
    """
    journal = _Journal()
    try:
        for kind in KINDS:
            mine = [one for one in changes if one.kind == kind.name and one.action != "-"]
            api.each(journal.noting(api, kind.put), mine)
        for kind in reversed(KINDS):
            mine = [one for one in changes if one.kind == kind.name and one.action == "-"]
            api.each(journal.noting(api, kind.remove), mine)
    except RainbowError as error:
        told = journal.put_back()
        name = f"{journal.failed.kind} '{journal.failed.name}': " if journal.failed else ""
        raise RunError(f"{name}{error}; {told}") from error
    except KeyboardInterrupt:
        journal.put_back()
        raise


class _Journal:
    """What was changed, and how to put it back."""

    def __init__(self) -> None:
        self.undos: list[tuple[Change, Undo]] = []
        self.done: list[Change] = []
        self.failed: Change | None = None
        self._lock = threading.Lock()

    def noting(self, api: Api, do: Callable[[Api, Change, Note], None]) -> Callable[[Change], None]:
        def work(change: Change) -> None:
            try:
                do(api, change, lambda undo: self.undos.append((change, undo)))
            except RainbowError:
                with self._lock:
                    self.failed = self.failed or change
                raise
            self.done.append(change)

        return work

    def put_back(self) -> str:
        """Take back all that was done, the last first; tells what was, and what could not be."""
        left = {}
        for change, undo in reversed(self.undos):
            try:
                undo()
            except RainbowError as error:
                left[change.name] = f"{change.kind} '{change.name}' ({error})"
        count = sum(one.name not in left for one in self.done)
        if left:
            more = f" and {len(left) - 3} more" if len(left) > 3 else ""
            return (
                f"{_count(count)} put back, but not {'; '.join(list(left.values())[:3])}{more}; "
                "when the server answers again, `rainbow deploy` finishes what is left"
            )
        return f"{_count(count)} put back, so all is as it was" if count else "nothing was changed"


def _count(number: int) -> str:
    return "1 change was" if number == 1 else f"{number} changes were"


def shown(value: Any) -> str:
    """A value in one line."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
