"""How a pipeline is deployed, as it is written in YAML: work pools, where workers find the code, limits. No behaviour."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema, model_validator

from .schema import Config, Count, ImageName, Name, Positive, Text, kind_of, wrong

DEFAULT_POOL = "rainbow"
"""The work pool of pipelines that name none: of type `process`, made when it is missing."""

CODE_FOLDER = "/app"
"""Where a worker image holds the code."""


class WorkPool(Config):
    """A Prefect work pool: where workers take runs from."""

    work_pool: Text = Field(min_length=1, max_length=200, description="The name of the work pool.")
    type: Literal["process", "docker", "kubernetes", "ecs"] = Field(
        default="process", description="What its workers start for each run."
    )
    description: str = Field(default="", description="What it is for; shown in the Prefect UI.")
    concurrency_limit: Positive | None = Field(
        default=None, description="The most runs that its workers have under way at once."
    )
    job_variables: dict[str, Any] = Field(
        default_factory=dict,
        description="What its workers are told for each run: `image`, `env`, `cpu`, ... as its type has them.",
    )


_KEYS: Mapping[str, frozenset[str]] = {
    "local": frozenset({"path"}),
    "image": frozenset({"image", "base_image", "requirements", "push", "platform"}),
    "git": frozenset({"repository", "commit", "branch", "path", "credentials"}),
    "s3": frozenset({"bucket", "folder", "credentials"}),
}
_NEEDS = {"git": "repository", "s3": "bucket", "image": "image"}
_COMMIT = re.compile(r"[0-9a-fA-F]{40}\Z")


class Trigger(Config):
    """What starts a deployed pipeline beside its schedules: the end of another one, or an event of Prefect."""

    after: Name | None = Field(default=None, description="The pipeline after whose runs it starts.")
    state: Literal["completed", "failed", "ended"] = Field(
        default="completed", description="How those runs must have ended."
    )
    event: str | None = Field(
        default=None, min_length=1, description="The event on which it starts, e.g. `orders.arrived`."
    )
    match: dict[str, Text] = Field(
        default_factory=dict, description="Labels that the resource of the event must have; `*` stands for anything."
    )
    parameters: dict[str, Any] = Field(default_factory=dict, description="What its runs are given.")
    active: bool = Field(default=True, description="Whether it starts runs.")

    @model_validator(mode="after")
    def _one_cause(self) -> Trigger:
        if (self.after is None) == (self.event is None):
            raise wrong("a trigger has either `after` or `event`", hint="write one of them")
        if self.event is None and self.match:
            raise wrong("`match` is for `event` only", hint="remove it", at="match")
        if self.after is None and "state" in self.model_fields_set:
            raise wrong("`state` is for `after` only", hint="remove it", at="state")
        return self


class Code(Config):
    """Where a worker finds this file and the code beside it."""

    type: Literal["local", "image", "git", "s3"] = Field(
        default="local",
        description="`local`: a folder that workers see; `image`: a worker image that holds all; `git`; `s3`.",
    )
    path: str | None = Field(
        default=None,
        description="local: the folder as workers see it, absent: this one. git: where in the repository this file is.",
    )
    image: ImageName | None = Field(
        default=None, description="image: the name; without a tag, each content gets one of its own."
    )
    base_image: ImageName | None = Field(
        default=None, description="image: the image to start from; absent: Python, with rainbow-prefect installed."
    )
    requirements: str | None = Field(
        default=None, description="image: a requirements file to install, relative to this file."
    )
    push: bool = Field(default=False, description="image: push it to its registry.")
    platform: str | None = Field(default=None, description="image: the platform, e.g. `linux/amd64`.")
    repository: str | None = Field(default=None, description="git: the address of the repository.")
    commit: str | None = Field(
        default=None, description="git: the commit; absent: the one that is checked out where `deploy` runs."
    )
    branch: str | None = Field(default=None, description="git: the branch that has the commit.")
    bucket: str | None = Field(default=None, description="s3: the bucket.")
    folder: str = Field(default="", description="s3: the folder in the bucket; `deploy` writes it.")
    credentials: str | None = Field(
        default=None, description="git, s3: what opens it: `block:TYPE/NAME`; absent: what the worker has."
    )

    @model_validator(mode="after")
    def _fits(self) -> Code:
        for key in sorted(self.model_fields_set - {"type"} - _KEYS[self.type]):
            kinds = " or ".join(f"`type: {kind}`" for kind, keys in _KEYS.items() if key in keys)
            raise wrong(f"'{key}' is not for code of type '{self.type}'", hint=f"it is for {kinds}", at=key)
        needed = _NEEDS.get(self.type)
        if needed is not None and getattr(self, needed) is None:
            raise wrong(f"`{needed}` is required for code of type '{self.type}'", hint=f"write `{needed}: ...`")
        if self.commit is not None and not _COMMIT.match(self.commit):
            raise wrong(f"'{self.commit}' is not a commit", hint="write all of its 40 digits", at="commit")
        if self.credentials is not None and not self.credentials.startswith("block:"):
            raise wrong(
                f"'{self.credentials}' is not a reference to a block", hint="write `block:TYPE/NAME`", at="credentials"
            )
        return self


class ConcurrencyLimit(Config):
    """How many runs of one deployment are under way at once, and what happens to one more."""

    limit: Positive = Field(description="The most runs at once.")
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"] = Field(
        default="ENQUEUE", description="`ENQUEUE`: one more waits; `CANCEL_NEW`: it is cancelled."
    )
    grace_period_seconds: Annotated[Count, Field(ge=60, le=86400)] | None = Field(
        default=None, description="Seconds that a run may take to start before its place is given away."
    )


def _limit(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | Mapping | ConcurrencyLimit):
        raise wrong(f"must be a number or a mapping, got {kind_of(value)}", hint="write e.g. `concurrency_limit: 1`")
    return {"limit": value} if isinstance(value, int) else value


def _code(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


def _pool_name(value: Any) -> str:
    if isinstance(value, str) and value.strip():
        return value
    raise wrong(f"must be the name of a work pool, got {kind_of(value)}", hint="declare pools in the root `work_pools`")


AnyConcurrencyLimit = Annotated[ConcurrencyLimit, BeforeValidator(_limit)]
AnyCode = Annotated[Code, BeforeValidator(_code)]
PoolName = Annotated[str, PlainValidator(_pool_name), WithJsonSchema({"type": "string"})]
JobVariables = dict[str, Any]
Slug = Name
"""What tells a schedule of a deployment from the others, also when its time changes."""
