"""Secrets out of AWS Secrets Manager, by themselves and by prefect-aws' block, against moto's HTTP server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rainbow_prefect import blocks as blocks_of
from rainbow_prefect.blocks import aws as aws_of_blocks
from rainbow_prefect.errors import RunError
from rainbow_prefect.secrets import Secret, Secrets
from tests.conftest import Project, Rainbow, free_port

VALUE = "kept-by-aws-Zz9"


def keep(name: str, value: str | bytes, region: str = "eu-west-1") -> str:
    """Keep a value with AWS; gives its ARN."""
    import boto3

    client = boto3.Session().client("secretsmanager", region_name=region)
    try:
        kind = {"SecretString": value} if isinstance(value, str) else {"SecretBinary": value}
        arn: str = client.create_secret(Name=name, **kind)["ARN"]
        return arn
    finally:
        client.close()


def read(**declared: str) -> str:
    secrets = Secrets([Secret(secret="db", **declared)], Path(), load_aws=aws_of_blocks.secret, environ={})
    return secrets.get("db")


def test_value_by_name(aws: str) -> None:
    keep("prod/db", VALUE)

    assert read(aws_secret="prod/db") == VALUE


def test_value_of_another_region(aws: str) -> None:
    keep("prod/db", VALUE, region="us-east-2")

    assert read(aws_secret="prod/db", region="us-east-2") == VALUE


def test_arn_says_its_region(aws: str) -> None:
    assert read(aws_secret=keep("prod/db", VALUE, region="us-east-2")) == VALUE


def test_value_of_bytes_is_text(aws: str) -> None:
    keep("text", f"{VALUE} ü\n".encode())
    keep("no-text", b"\xff\xfe\x00")

    assert read(aws_secret="text") == f"{VALUE} ü"
    with pytest.raises(RunError) as told:
        read(aws_secret="no-text")
    assert str(told.value) == "secret 'db': the AWS secret no-text is not UTF-8 text; store it as base64 text"


def test_secret_that_is_not_there(aws: str) -> None:
    with pytest.raises(RunError) as told:
        read(aws_secret="prod/bd")

    assert str(told.value) == (
        "secret 'db': cannot read the AWS secret prod/bd: ResourceNotFoundException: "
        "Secrets Manager can't find the specified secret; correct `aws_secret` or `region`"
    )


def test_secret_that_is_empty(aws: str) -> None:
    keep("blank", " \n")

    with pytest.raises(RunError) as told:
        read(aws_secret="blank")

    assert str(told.value) == "secret 'db': the AWS secret blank is empty; write the value into it"


def test_no_region(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")

    with pytest.raises(RunError) as told:
        read(aws_secret="prod/db")

    assert str(told.value) == "secret 'db': no AWS region is known; write `region`, or set AWS_DEFAULT_REGION"


def test_aws_that_does_not_answer(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)  # it tries eight times

    with pytest.raises(RunError) as told:
        read(aws_secret="prod/db")

    assert str(told.value) == (
        "secret 'db': cannot read the AWS secret prod/db: it cannot be reached; "
        "check `endpoint_url`, `region` and the network"
    )


def test_outside_of_a_run() -> None:
    with pytest.raises(RunError) as told:
        Secrets([Secret(secret="db", aws_secret="prod/db")]).get("db")

    assert str(told.value) == "secret 'db': AWS Secrets Manager is asked only while a pipeline runs"


YAML = """
    name: shop
    secrets:
      - {secret: db, aws_secret: prod/db}
      - {secret: api, block: aws-secret/api-block}
      - {secret: cloud, aws_secret: prod/cloud, credentials: "block:aws-credentials/cloud-keys", region: us-east-2}
    pipelines:
      - pipeline: sales
        tasks:
          - task: load
            type: python
            source: code
            cmd: python -u load.py
            env_vars: {API: "{{secret.api}}", CLOUD: "{{secret.cloud}}"}
            secrets: [{secret: db, remote_path: keys}]
            output_path: out.json
"""
CODE = """
    import json
    import os

    password = json.load(open("keys/credentials"))["password"]
    print("db", password, "api", os.environ["API"], "cloud", os.environ["CLOUD"])
    json.dump([len(password), len(os.environ["API"]), len(os.environ["CLOUD"])], open("out.json", "w"))
"""


@pytest.fixture
def blocks(aws: str, prefect_api: str) -> None:
    from prefect_aws import AwsCredentials, AwsSecret
    from pydantic import SecretStr

    keys: dict[str, Any] = {"aws_access_key_id": "testing", "aws_secret_access_key": SecretStr("testing-secret")}
    credentials = AwsCredentials(**keys, region_name="eu-west-1")
    credentials.save("cloud-keys", overwrite=True)
    AwsSecret(aws_credentials=credentials, secret_name="prod/api").save("api-block", overwrite=True)


def test_a_run_reads_them_and_shows_none(
    aws: str, blocks: None, project: Project, rainbow: Rainbow, prefect_server: str
) -> None:
    values = {"prod/db": json.dumps({"username": "bob", "password": "in-json-Yy8"}), "prod/api": f"api-{VALUE}"}
    for name, value in values.items():
        keep(name, value)
    keep("prod/cloud", f"cloud-{VALUE}", region="us-east-2")
    root = project({"rainbow.yml": YAML, "code/load.py": CODE})

    done = rainbow("run", root, "--json")

    (task,) = done.json["tasks"]
    assert task["output"] == [len("in-json-Yy8"), len(f"api-{VALUE}"), len(f"cloud-{VALUE}")]
    assert "db ******** api ******** cloud ********" in task["log_tail"]
    for shown in (done.out, done.err, rainbow("show", root, "--json").out):
        assert VALUE not in shown and "in-json-Yy8" not in shown


def test_block_that_is_not_there(project: Project, rainbow: Rainbow, aws: str, prefect_server: str) -> None:
    keep("prod/db", "{}")
    root = project({"rainbow.yml": YAML.replace("api-block", "none"), "code/load.py": CODE})

    done = rainbow("run", root, "--json", code=1)

    assert done.json["tasks"][0]["message"].endswith(
        "secret 'api': cannot read the Prefect block aws-secret/none (ValueError); create it in the Prefect UI under Blocks"
    )


def test_block_that_cannot_read_its_secret(blocks: None) -> None:
    secrets = Secrets([Secret(secret="api", block="aws-secret/api-block")], Path(), blocks_of.secret, environ={})

    with pytest.raises(RunError) as told:
        secrets.get("api")

    assert str(told.value) == (
        "secret 'api': the Prefect block aws-secret/api-block cannot read its secret: "
        "ResourceNotFoundException: Secrets Manager can't find the specified secret."
    )


def test_block_with_more_than_one_value(prefect_api: str) -> None:
    from prefect_docker import DockerRegistryCredentials

    login = DockerRegistryCredentials(username="bob", password="hunter2", registry_url="127.0.0.1:1")  # type: ignore[arg-type]
    login.save("many-values", overwrite=True)
    reference = f"{DockerRegistryCredentials.get_block_type_slug()}/many-values"

    with pytest.raises(RunError) as told:
        Secrets([Secret(secret="hub", block=reference)], Path(), blocks_of.secret, environ={}).get("hub")

    assert str(told.value) == (
        f"secret 'hub': the Prefect block {reference} holds no single value; name a block of type secret or aws-secret"
    )
