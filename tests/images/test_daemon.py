"""What the engine has: asked for one by one or in a list, the answer is the same."""

from __future__ import annotations

import docker

from rainbow_prefect.images import daemon


def test_few_are_asked_for_as_many_are_listed(docker_engine: docker.DockerClient, base_image: str) -> None:
    absent = [f"rainbow-absent/image-{number}:1" for number in range(daemon._FEW)]

    few = daemon.images([base_image, absent[0]])
    many = daemon.images([base_image, *absent])

    assert few.unknown == many.unknown == ""
    assert few.get(base_image) == many.get(base_image) is not None
    assert few.get(absent[0]) is many.get(absent[0]) is None


def test_what_no_image_can_be_named_is_not_there(docker_engine: docker.DockerClient) -> None:
    found = daemon.images(["Upper/CASE:1", "a b:1", "{{x}}"])

    assert (found.unknown, dict(found.found)) == ("", {})
