"""Images of tests have a name of their own and are removed at the end."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import docker


@pytest.fixture
def own(docker_engine: docker.DockerClient, base_image: str) -> Iterator[str]:
    """What the names of the images of this test begin with; they are removed when it ends."""
    import docker.errors

    prefix = f"rainbow-test-{uuid.uuid4().hex[:12]}"
    yield prefix
    for image in docker_engine.images.list():
        for tag in image.tags:
            if prefix in tag:
                with contextlib.suppress(docker.errors.APIError):
                    docker_engine.images.remove(tag, force=True)
    with contextlib.suppress(docker.errors.APIError):
        docker_engine.images.prune({"dangling": True, "label": f"rainbow.app={prefix}"})
