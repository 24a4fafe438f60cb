"""Prefect automations that start a pipeline after another one or on an event: what is wanted, and how a server has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .api_client import Api
from .deployable import TAG, Item, name_of, plain

if TYPE_CHECKING:
    from .app import Pipeline
    from .deploy import Change, Found, Note
    from .deployment import Trigger

KIND = "automation"
MARK = "rainbow"
"""The tag of automations that a deploy made; only such ones are ever changed or removed."""

_EVENTS = {
    "completed": ["prefect.flow-run.Completed"],
    "failed": ["prefect.flow-run.Crashed", "prefect.flow-run.Failed", "prefect.flow-run.TimedOut"],
}
_EVENTS["ended"] = sorted([*_EVENTS["completed"], *_EVENTS["failed"]])
_TRIGGER = ("expect", "match", "match_related")


def automations(pipelines: Iterable[Pipeline]) -> list[Item]:
    """An automation for each trigger of these pipelines; `run` names the deployment that it starts."""
    return [_item(pipeline, one) for pipeline in pipelines for one in pipeline.triggers]


def _item(pipeline: Pipeline, trigger: Trigger) -> Item:
    if trigger.after is not None:
        words = f"after {trigger.after}{'' if trigger.state == 'completed' else f' {trigger.state}'}"
        event: dict[str, Any] = {
            "expect": _EVENTS[trigger.state],
            "match": {"prefect.resource.id": "prefect.flow-run.*"},
            "match_related": {"prefect.resource.name": trigger.after, "prefect.resource.role": "flow"},
        }
    else:
        words = f"on {trigger.event}"
        event = {"expect": [trigger.event], "match": dict(trigger.match), "match_related": {}}
    known = {one.name: one for one in pipeline.run_parameters}
    given = {
        name: plain(known[name].value_of(value)) if name in known else value
        for name, value in trigger.parameters.items()
    }
    fields = {"enabled": trigger.active, "trigger": event, "run": name_of(pipeline), "parameters": given}
    return Item(KIND, f"{name_of(pipeline)} {words}", fields, pipeline.app.name)


class Automations:
    """Automations of triggers; their tags tell which project they are of."""

    name = KIND

    def look(self, api: Api, items: Sequence[Item], projects: Sequence[str]) -> list[Found]:
        if not projects:
            return []
        records = [one for one in self._records(api, MARK) if self._project(one) in projects]
        ids = {one["actions"][0].get("deployment_id") for one in records if one["actions"]}
        names = _names(api, sorted(ids - {None}))
        return [self._found(one, names) for one in records]

    def put(self, api: Api, change: Change, note: Note) -> None:
        assert change.item is not None
        data = self._sent(api, change.item)
        if change.found is None:
            note(lambda: self._remove_named(api, change.name))
            earlier = [one for one in self._records(api, MARK) if one["name"] == change.name]
            if not earlier:  # else an earlier attempt made it, whose answer was lost
                api.post("automations/", data)
            return
        before, path = _resent(change.found.record), f"automations/{change.found.record['id']}"
        note(lambda: api.put(path, before))
        api.put(path, data)

    def remove(self, api: Api, change: Change, note: Note) -> None:
        assert change.found is not None
        before = _resent(change.found.record)
        note(lambda: api.post("automations/", before))
        api.delete(f"automations/{change.found.record['id']}")

    def _records(self, api: Api, tag: str) -> list[Any]:
        return api.pages("automations/filter", {"automations": {"tags": {"all_": [tag]}}})

    def _project(self, record: Mapping[str, Any]) -> str:
        tags = [one for one in record.get("tags") or () if one.startswith(TAG)]
        return str(tags[0]).removeprefix(TAG) if tags else ""

    def _found(self, record: Mapping[str, Any], names: Mapping[str, str]) -> Found:
        from .deploy import Found

        trigger, action = record["trigger"], (record["actions"] or [{}])[0]
        event = {key: trigger.get(key) for key in _TRIGGER}
        event["expect"] = sorted(event["expect"] or ())
        fields = {
            "enabled": record["enabled"],
            "trigger": event,
            "run": names.get(str(action.get("deployment_id"))),
            "parameters": action.get("parameters") or {},
        }
        return Found(self.name, record["name"], fields, record, self._project(record))

    def _remove_named(self, api: Api, name: str) -> None:
        for one in self._records(api, MARK):
            if one["name"] == name:
                api.delete(f"automations/{one['id']}")

    def _sent(self, api: Api, item: Item) -> dict[str, Any]:
        from urllib.parse import quote

        flow, _, name = str(item.fields["run"]).partition("/")
        deployment = api.get(f"deployments/name/{quote(flow, safe='')}/{quote(name, safe='')}")
        trigger = {"type": "event", "posture": "Reactive", "threshold": 1, "within": 0, "after": []}
        return {
            "name": item.name,
            "description": "A trigger of rainbow.yml; `rainbow deploy` changes it.",
            "enabled": item.fields["enabled"],
            "tags": [MARK, f"{TAG}{item.project}"],
            "trigger": {**trigger, "for_each": ["prefect.resource.id"], **item.fields["trigger"]},
            "actions": [
                {
                    "type": "run-deployment",
                    "source": "selected",
                    "deployment_id": deployment["id"],
                    "parameters": item.fields["parameters"],
                }
            ],
        }


def _names(api: Api, ids: Sequence[str]) -> dict[str, str]:
    """FLOW/DEPLOYMENT by id."""
    if not ids:
        return {}
    asked = {"deployments": {"id": {"any_": list(ids)}}}
    flows = {one["id"]: one["name"] for one in api.pages("flows/filter", asked)}
    records = api.pages("deployments/filter", asked)
    return {one["id"]: f"{flows.get(one['flow_id'])}/{one['name']}" for one in records}


def _resent(record: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("name", "description", "enabled", "tags", "trigger", "actions", "actions_on_trigger", "actions_on_resolve")
    return {key: record[key] for key in kept if key in record}
