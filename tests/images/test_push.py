"""Images are pushed to a real registry, with the credentials that are named for it."""

from __future__ import annotations

import json
import stat
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from rainbow_prefect.errors import CallError, RunError
from rainbow_prefect.images.push import (
    DOCKER_HUB,
    Login,
    login_env,
    login_of,
    login_of_block,
    logins,
    push,
    registry_of,
)
from rainbow_prefect.images.recipes import Recipe
from tests.conftest import Project, Rainbow

if TYPE_CHECKING:
    import docker

SECRET = "hush-hush-27182"
ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app:1"


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("team/app:1", DOCKER_HUB),
        ("app", DOCKER_HUB),
        ("docker.io/team/app", DOCKER_HUB),
        ("localhost/app", "localhost"),
        ("127.0.0.1:5000/app:1", "127.0.0.1:5000"),
        ("ghcr.io/team/app", "ghcr.io"),
    ],
)
def test_registry_of_an_image(image: str, registry: str) -> None:
    assert registry_of(image) == registry


@pytest.mark.usefixtures("own")
def test_build_and_push(
    rainbow: Rainbow, project: Project, own: str, registry: str, docker_engine: docker.DockerClient
) -> None:
    image = f"{registry}/{own}:1"
    root = project({"rainbow.yml": f"name: {own}\nimages: [{{image: '{image}', source: code}}]\n", "code/a.py": ""})

    first = rainbow("build", root, "--push", "--json")
    again = rainbow("build", root, "--push")

    assert [(one["action"], one["state"], one["pushed"]) for one in first.json["images"]] == [
        ("build", "completed", True)
    ]
    assert again.out == f"reuse  {image}  nothing changed since it was built; pushed\n"
    with urllib.request.urlopen(f"http://{registry}/v2/{own}/tags/list", timeout=30) as answer:
        assert json.load(answer)["tags"] == ["1"]


def test_a_registry_that_is_not_there(rainbow: Rainbow, project: Project, own: str) -> None:
    image = f"127.0.0.1:1/{own}:1"
    root = project({"rainbow.yml": f"name: {own}\nimages: [{{image: '{image}', source: code}}]\n", "code/a.py": ""})

    done = rainbow("build", root, "--push", code=1)

    assert done.err.splitlines()[-1] == (
        f"Error: image '{image}': Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused"
    )
    assert done.out.startswith(f"built  {image}  not built yet, in ")
    assert done.out.endswith("; not pushed\n")


def test_a_login_is_in_a_file_for_this_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tmp_path / "docker"
    (settings / "cli-plugins").mkdir(parents=True)
    (settings / "config.json").write_text(
        json.dumps({"credsStore": "keychain", "auths": {"other": {"auth": "x"}}, "currentContext": "far"})
    )
    monkeypatch.setenv("DOCKER_CONFIG", str(settings))

    with login_env(Login("host:5000", "me", SECRET)) as env:
        folder = Path(env["DOCKER_CONFIG"])
        written = json.loads((folder / "config.json").read_text())
        assert stat.S_IMODE((folder / "config.json").stat().st_mode) == 0o600
        assert (folder / "cli-plugins").is_dir()

    assert written == {
        "credsStore": "keychain",
        "credHelpers": {"host:5000": ""},
        "auths": {"other": {"auth": "x"}, "host:5000": {"auth": "bWU6aHVzaC1odXNoLTI3MTgy"}},
        "currentContext": "far",
    }
    assert not folder.exists()
    assert SECRET not in repr(Login("host", "me", SECRET))
    with login_env(None) as env:
        assert env == {}


def test_the_docker_client_uses_the_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told by what the client itself reads: a program in its place shows the settings it was given."""
    program = tmp_path / "docker"
    program.write_text('#!/bin/sh\necho "$@"; cat "$DOCKER_CONFIG/config.json"; echo; exit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "nothing"))
    heard: list[str] = []

    failed = push(
        [Recipe("host:5000/a:1", credentials="login")],
        logins=logins({"login": f"me:{SECRET}\n"}.__getitem__, lambda name: None),
        tell=lambda image, text: heard.append(text),
    )

    assert failed["host:5000/a:1"].startswith("push host:5000/a:1 | ")
    assert '"host:5000": {"auth": "' in failed["host:5000/a:1"]
    assert SECRET not in "".join([*heard, *failed.values()])
    assert heard[0] == "pushing to host:5000"


def test_login_of_a_secret() -> None:
    assert login_of("host/a", " me:a:b \n", "s") == Login(DOCKER_HUB, "me", "a:b")
    with pytest.raises(RunError) as raised:
        login_of("ghcr.io/a", SECRET, "s")
    assert str(raised.value) == "image 'ghcr.io/a': the secret 's' is not `user:password`"


def test_login_of_prefects_docker_block() -> None:
    from prefect_docker.credentials import DockerRegistryCredentials

    block = DockerRegistryCredentials(username="me", password=SecretStr(SECRET), registry_url="https://ghcr.io/v2/")

    assert login_of_block("ghcr.io/team/a:1", block, "x/y") == Login("ghcr.io", "me", SECRET)
    with pytest.raises(RunError) as raised:
        login_of_block("team/a:1", block, "x/y")
    assert str(raised.value) == "image 'team/a:1': the block 'x/y' opens ghcr.io, not docker.io"
    hub = DockerRegistryCredentials(username="me", password=SecretStr(SECRET), registry_url="index.docker.io")
    assert login_of_block("team/a:1", hub, "x/y") == Login(DOCKER_HUB, "me", SECRET)


def test_login_of_ecr(moto: str) -> None:
    from prefect_aws import AwsCredentials
    from prefect_aws.client_parameters import AwsClientParameters

    block = AwsCredentials(
        aws_access_key_id="testing",
        aws_secret_access_key=SecretStr("testing"),
        aws_client_parameters=AwsClientParameters(endpoint_url=moto),
    )

    found = login_of_block(ECR, block, "aws-credentials/x")

    assert (found.registry, found.user) == (ECR.partition("/")[0], "AWS")
    assert found.password


def test_other_blocks_are_refused() -> None:
    class Other:
        pass

    with pytest.raises(RunError) as raised:
        login_of_block("a", Other(), "other/x")

    assert str(raised.value) == (
        "image 'a': the block 'other/x' is a Other; `credentials` takes DockerRegistryCredentials or AwsCredentials"
    )


def test_a_block_is_read_from_prefect(prefect_api: str) -> None:
    from prefect_docker.credentials import DockerRegistryCredentials

    from rainbow_prefect.blocks.credentials import credentials

    made: Any = DockerRegistryCredentials(username="me", password=SecretStr(SECRET), registry_url="ghcr.io")
    made.save("images-test", overwrite=True)

    found = credentials("docker-registry-credentials/images-test")

    assert login_of_block("ghcr.io/a", found, "x") == Login("ghcr.io", "me", SECRET)
    with pytest.raises(CallError) as raised:
        credentials("docker-registry-credentials/nothing")
    assert str(raised.value) == (
        "there is no block 'nothing' of type 'docker-registry-credentials'; save it in the Prefect UI"
    )
    with pytest.raises(CallError) as raised:
        credentials("no-such-type/a")
    assert str(raised.value) == (
        "unknown block type 'no-such-type' in 'block:no-such-type/a'; "
        "known: docker-registry-credentials, aws-credentials"
    )
