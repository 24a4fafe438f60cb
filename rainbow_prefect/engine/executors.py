"""The executors of a run: those that are Prefect blocks are loaded, and secrets are put where they are named."""

from __future__ import annotations

from ..executors.base import BlockReference, Executor
from ..plan import Plan
from ..secrets import Secrets

_HOST = "block:docker-host/"


def executors_of(plan: Plan, secrets: Secrets) -> dict[str, Executor]:
    """The executor of each step, by the name of the step; steps of one executor share it.

    Raises:
        CallError, RunError: a block or a secret cannot be used; the text says what to do.
    """
    made: dict[str, Executor] = {}
    for step in plan.steps:
        if step.executor_name not in made:
            made[step.executor_name] = ready(step.executor, secrets)
    return {step.name: made[step.executor_name] for step in plan.steps}


def ready(executor: Executor, secrets: Secrets) -> Executor:
    """One executor as a run uses it.

    Raises:
        CallError, RunError: as in `executors_of`.
    """
    if isinstance(executor, BlockReference):
        from ..blocks import executor as saved

        executor = saved(executor.block, name=executor.executor)
        secrets.learn_from(executor.model_dump(mode="json"))
    host = getattr(executor, "host", None)
    if isinstance(host, str) and host.startswith(_HOST):
        from ..blocks import docker_host

        executor = executor.model_copy(update={"host": docker_host(host.removeprefix("block:"))})
    made: Executor = secrets.render(executor)
    return made
