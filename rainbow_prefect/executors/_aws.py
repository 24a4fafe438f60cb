"""Clients of AWS for the executors and the exchange; boto3 is imported when the first one is asked for."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from ..errors import MissingExtra, RunError, TaskFailed
from ..schema import wrong

BLOCK = "block:aws-credentials/"

_lock = threading.Lock()
_clients: dict[tuple[Any, ...], tuple[Any, list[str]]] = {}
_ENVIRONMENT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_SECRETS_MANAGER",
)


def credentials_of(value: str) -> str:
    """Checks a field `credentials`: it names a block, it never holds a key."""
    if value.startswith(BLOCK) and len(value) > len(BLOCK):
        return value
    raise wrong(
        "does not name a block of credentials",
        hint=f"write {BLOCK}NAME, and save the keys with prefect_aws.AwsCredentials(...).save('NAME')",
    )


def client(
    service: str,
    *,
    credentials: str | None,
    region: str | None,
    endpoint_url: str | None,
    what: str,
    learn: Callable[[str], None] = lambda _: None,
) -> Any:
    """A client of boto3, the same for the same settings; `what` needs it, `learn` is told secret keys.

    Raises:
        MissingExtra: boto3 or prefect-aws is not installed.
        RunError: the block cannot be read, or no region is known.
    """
    surroundings = tuple(os.environ.get(name) for name in _ENVIRONMENT)
    key = (service, credentials, region, endpoint_url, surroundings)
    with _lock:
        if key not in _clients:
            if len(_clients) > 64:
                _clients.clear()
            hidden: list[str] = []
            made = _made(service, credentials, region, endpoint_url, what, hidden.append)
            _clients[key] = made, hidden
        found, secret_keys = _clients[key]
    for one in secret_keys:
        learn(one)
    return found


def _made(
    service: str,
    credentials: str | None,
    region: str | None,
    endpoint_url: str | None,
    what: str,
    learn: Callable[[str], None],
) -> Any:
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise MissingExtra(what, "aws") from None
    try:
        if credentials is None:
            session = boto3.Session(region_name=region or os.environ.get("AWS_REGION") or None)
        else:
            session = _session_of(credentials, region, what, learn)
        if not session.region_name and service != "s3":
            raise RunError(f"{what}: no AWS region is known; write `region`, or set AWS_DEFAULT_REGION")
        config = Config(
            retries={"mode": "standard", "max_attempts": 8},  # waits and tries again when AWS says "slow down"
            connect_timeout=10,
            read_timeout=60,
            max_pool_connections=50,
            signature_version="s3v4" if service == "s3" else None,
            s3={"addressing_style": "path"} if endpoint_url else None,
        )
        return session.client(
            service, region_name=session.region_name or "us-east-1", endpoint_url=endpoint_url, config=config
        )
    except (BotoCoreError, ValueError) as error:
        raise RunError(f"{what}: {error}") from None


def _session_of(credentials: str, region: str | None, what: str, learn: Callable[[str], None]) -> Any:
    import boto3

    try:
        from prefect_aws import AwsCredentials
    except ImportError:
        raise MissingExtra(f"{what} with {credentials}", "aws") from None
    try:
        block: Any = AwsCredentials.load(credentials.removeprefix(BLOCK))
    except Exception as error:  # the Prefect server may say no in many ways
        raise RunError(
            f"{what}: cannot read the Prefect block {credentials.removeprefix('block:')} ({type(error).__name__}); "
            "create it in the Prefect UI under Blocks"
        ) from None
    secret = block.aws_secret_access_key
    for value in (secret.get_secret_value() if secret else None, block.aws_session_token):
        if value:
            learn(value)
    return boto3.Session(
        aws_access_key_id=block.aws_access_key_id,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
        aws_session_token=block.aws_session_token,
        profile_name=block.profile_name,
        region_name=region or block.region_name or os.environ.get("AWS_REGION") or None,
    )


def reason(error: Exception) -> str:
    """What AWS or the network said, in one line without any URL: `AccessDenied: not authorized to ...`."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        told = response.get("Error", {})
        code, message = str(told.get("Code", "?")), " ".join(str(told.get("Message", "")).split())
        return f"{code}: {message}" if message else code
    name = type(error).__name__
    if name == "EndpointConnectionError":
        return "it cannot be reached; check `endpoint_url`, `region` and the network"
    if name in ("NoCredentialsError", "PartialCredentialsError"):
        return "no credentials were found; name a block in `credentials`, or set AWS_ACCESS_KEY_ID and its secret"
    text = " ".join(str(error).split())
    return name if "://" in text else f"{name}: {text}"


def code(error: Exception) -> str:
    """The code of an error of AWS, '' when it is none."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def failed(doing: str, error: Exception, hint: str = "") -> TaskFailed:
    """The error that is told when a call to AWS failed."""
    return TaskFailed(f"{doing}: {reason(error)}{f'; {hint}' if hint else ''}")
