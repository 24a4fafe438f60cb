"""The task type `update_service`: a pipeline ends by giving a running service a new image or a new environment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ..errors import RunError, TaskFailed, near
from ..schema import ImageName, Name, Positive
from ..tasks.base import Flaw, Place, Task

if TYPE_CHECKING:
    from ..run import Run


class UpdateService(Task):
    """Exchange the replicas of a service that is up for new ones, without a failed request; else keep the old ones."""

    type: Literal["update_service"] = "update_service"
    service: Name = Field(description="The name of the service, one of `services` of this file.")
    image: ImageName | None = Field(default=None, description="The new image; absent: that of the service.")
    replicas: Positive | None = Field(default=None, description="How many run then; absent: as many as now.")

    def check(self, place: Place) -> Iterator[Flaw]:
        """The service is one of the file, and has an image."""
        known = {one.service: one for one in place.app.services}
        if self.service not in known:
            yield Flaw(("service",), f"there is no service '{self.service}' in this file", near(self.service, known))
        elif self.image is None and known[self.service].image is None:
            yield Flaw(("service",), f"service '{self.service}' has no image", "add `image` to it, or to the task")

    def run(self, run: Run) -> Any:
        """Update it, with `env_vars` of the task besides those of the service; the output tells what runs then.

        Raises:
            TaskFailed: it is not up, or the new replicas did not become ready; the old ones serve on.
        """
        from ..check import load
        from .on_docker import Engine, settings_of

        app = next((one for one in load(run.root).apps if one.name == run.app), None)
        if app is None:
            raise TaskFailed(f"there is no file with the name '{run.app}' in the folder of this run")
        service = app.service(self.service)
        try:
            engine = Engine(run.write)
            count = self.replicas or len(engine.containers(app.name, service.service, "replica")) or None
            wanted = settings_of(service, app, image=self.image, replicas=count, secrets=run.secrets)
            engine.update(replace(wanted, env={**wanted.env, **self.env_vars}))
            return engine.status(app.name, service.service)
        except TaskFailed:
            raise
        except RunError as error:
            raise TaskFailed(str(error)) from error
