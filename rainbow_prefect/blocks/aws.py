"""Secrets out of AWS Secrets Manager; boto3 is imported when the first one is read."""

from __future__ import annotations

from ..errors import MissingExtra, RunError
from ..executors import _aws
from ..secrets import Secret


def secret(declared: Secret) -> str:
    """The value of a secret that has an `aws_secret`.

    Raises:
        RunError: it is not there or cannot be read; the text says why.
    """
    name, what = declared.aws_secret or "", f"secret '{declared.secret}'"
    try:
        client = _aws.client(
            "secretsmanager",
            credentials=declared.credentials,
            region=declared.region or _region_of(name),
            endpoint_url=None,
            what=what,
        )
    except MissingExtra as error:
        raise RunError(str(error)) from None
    try:
        found = client.get_secret_value(SecretId=name)
    except Exception as error:  # botocore's own, and the network's
        raise RunError(f"{what}: cannot read the AWS secret {name}: {_reason(error)}") from None
    try:
        return found["SecretString"] if "SecretString" in found else bytes(found["SecretBinary"]).decode()
    except UnicodeDecodeError:
        raise RunError(f"{what}: the AWS secret {name} is not UTF-8 text; store it as base64 text") from None


def _region_of(name: str) -> str | None:
    """The region in `arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME`."""
    parts = name.split(":")
    return parts[3] or None if parts[0] == "arn" and len(parts) > 3 else None


def _reason(error: Exception) -> str:
    hints = {
        "ResourceNotFoundException": "correct `aws_secret` or `region`",
        "AccessDeniedException": "allow secretsmanager:GetSecretValue",
    }
    hint = hints.get(_aws.code(error))
    return f"{_aws.reason(error).rstrip('.')}; {hint}" if hint else _aws.reason(error)
