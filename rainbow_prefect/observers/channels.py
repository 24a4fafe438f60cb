"""The channels of alerts: `webhook`, `slack`, `email`, `sns` and `pagerduty`."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.error import HTTPError, URLError

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr

from ..errors import RunError
from ..masking import PLACEHOLDER, sensitive
from ..schema import Text, wrong
from .alerts import Alert, Message

SECONDS = 5.0
"""How long one attempt may take; the end of a run waits for alerts, but not for long."""

_PAUSES = (0.5, 1.5, 0.0)
"""After each attempt that was certainly not taken."""


def _secret(value: str) -> str:
    if PLACEHOLDER.search(value):
        return value
    raise wrong("a secret must not stand in the file", hint="declare it in `secrets` and write {{secret.NAME}}")


def _url(value: str) -> str:
    """An address without a password in it; those of Slack are passwords as a whole."""
    if PLACEHOLDER.search(value):
        return value
    scheme, slashes, rest = value.partition("://")
    if not slashes or scheme not in ("http", "https"):
        raise wrong(f"must be an address such as https://example.com/hook, got '{value[:60]}'")
    if "@" in rest.partition("/")[0] or rest.startswith("hooks.slack.com/services/"):
        raise wrong("a secret must not stand in the file", hint="declare it in `secrets` and write {{secret.NAME}}")
    return value


def _headers(value: dict[str, str]) -> dict[str, str]:
    for name, one in value.items():
        if (sensitive(name) or name.lower() == "authorization") and not PLACEHOLDER.search(one):
            raise wrong(f"the value of '{name}' must not stand in the file", hint="write {{secret.NAME}}")
    return value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


SecretText = Annotated[str, AfterValidator(_secret)]
Url = Annotated[str, AfterValidator(_url)]
Addresses = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class Webhook(Alert):
    """The message as JSON, posted to an address.

    Its keys are occasion, title, text, app, pipeline, task, flow_run_id, time, seconds, cause, last_lines, link, retry,
    failures and key. With `secret` the header `X-Rainbow-Signature` is `sha256=` and the HMAC of the body.
    """

    type: Literal["webhook"] = "webhook"
    url: Url = Field(description="Where it is posted to.")
    headers: Annotated[dict[str, Text], AfterValidator(_headers)] = Field(
        default_factory=dict, description="Headers, e.g. `Authorization: Bearer {{secret.token}}`."
    )
    secret: SecretText | None = Field(default=None, description="What signs the body: `{{secret.NAME}}`.")

    def send(self, message: Message) -> None:
        body = json.dumps(message.as_dict()).encode()
        headers = dict(self.headers)
        if self.secret is not None:
            digest = hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest()
            headers["X-Rainbow-Signature"] = f"sha256={digest}"
        post(self.url, body, headers)


class Slack(Alert):
    """A message for Slack, Mattermost, Rocket.Chat and others with webhooks like those of Slack."""

    type: Literal["slack"] = "slack"
    url: Url = Field(description="The webhook: `{{secret.NAME}}`, since who knows it may write.")
    channel: str | None = Field(default=None, description="Another channel, where the server allows it.")

    def send(self, message: Message) -> None:
        mark = {"recovery": ":large_green_circle:", "success": ":large_green_circle:", "test": ":bell:"}
        title = f"{mark.get(message.occasion, ':red_circle:')} *{_escaped(message.title)}*"
        if message.link:
            title += f" (<{message.link}|run>)"
        data = {"text": f"{title}\n```{_escaped(message.text)[:2800]}```"}
        if self.channel is not None:
            data["channel"] = self.channel
        post(self.url, json.dumps(data).encode())


def _escaped(text: str) -> str:
    """Source: api.slack.com/reference/surfaces/formatting, escaping text."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("```", "'''")


class Email(Alert):
    """A mail, by SMTP."""

    type: Literal["email"] = "email"
    host: str = Field(description="The mail server.")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(default=587, description="Its port.")
    tls: Literal["starttls", "ssl", "none"] | None = Field(
        default=None, description="How it is encrypted; absent: `ssl` on port 465, `none` on port 25, else `starttls`."
    )
    user: str | None = Field(default=None, description="Who logs in.")
    password: SecretText | None = Field(default=None, description="With what: `{{secret.NAME}}`.")
    sender: str = Field(alias="from", description="Who it is from.")
    to: Addresses = Field(min_length=1, description="Who it is for.")

    def send(self, message: Message) -> None:
        from email.message import EmailMessage
        from email.utils import format_datetime, make_msgid

        mail = EmailMessage()
        mail["Subject"] = message.title
        mail["From"] = self.sender
        mail["To"] = ", ".join(self.to)
        mail["Date"] = format_datetime(datetime.fromtimestamp(message.time, UTC))
        mail["Message-ID"] = make_msgid(domain="rainbow.invalid")
        mail.set_content(message.text + "\n")
        self._deliver(mail)

    def _deliver(self, mail: Any) -> None:
        import smtplib
        import ssl

        tls = self.tls or {465: "ssl", 25: "none"}.get(self.port, "starttls")
        context = ssl.create_default_context()
        try:
            link = (
                smtplib.SMTP_SSL(self.host, self.port, timeout=SECONDS, context=context)
                if tls == "ssl"
                else smtplib.SMTP(self.host, self.port, timeout=SECONDS)
            )
            with link:
                if tls == "starttls":
                    link.starttls(context=context)
                if self.user is not None:
                    link.login(self.user, self.password or "")
                link.send_message(mail)
        except smtplib.SMTPNotSupportedError as error:
            raise RunError(f"{self.host}:{self.port}: {error}; set `tls: none` if it needs no encryption") from error
        except smtplib.SMTPAuthenticationError as error:
            raise RunError(f"{self.host}:{self.port} refused user and password ({error.smtp_code})") from error
        except (smtplib.SMTPException, OSError) as error:
            raise RunError(f"{self.host}:{self.port}: {_words(error)}") from error


class Sns(Alert):
    """A message to a topic of AWS SNS; region and credentials are found as the AWS command line finds them."""

    type: Literal["sns"] = "sns"
    topic_arn: str = Field(description="The ARN of the topic.")
    region: str | None = Field(default=None, description="The AWS region; absent: that of the ARN.")
    endpoint_url: str | None = Field(default=None, description="Another address of SNS, e.g. a VPC endpoint.")
    _client: Any = PrivateAttr(default=None)

    def send(self, message: Message) -> None:
        from .cloudwatch import client

        parts = self.topic_arn.split(":")
        region = self.region or (parts[3] if len(parts) > 3 else None)
        if self._client is None:
            self._client = client("sns", region, self.endpoint_url)
        subject = message.title.encode("ascii", "replace").decode()[:100]
        self._client.publish(TopicArn=self.topic_arn, Subject=subject, Message=f"{message.title}\n\n{message.text}")


class PagerDuty(Alert):
    """An incident of PagerDuty, which a recovery resolves.

    Source: its Events API v2, developer.pagerduty.com/docs/send-alert-event.
    """

    type: Literal["pagerduty"] = "pagerduty"
    routing_key: SecretText = Field(description="The integration key: `{{secret.NAME}}`.")
    url: Url = Field(default="https://events.pagerduty.com/v2/enqueue", description="Where it is posted to.")
    severity: Literal["critical", "error", "warning", "info"] = Field(
        default="critical", description="How grave a failure is."
    )

    def send(self, message: Message) -> None:
        is_over = message.occasion in ("recovery", "success")
        event: dict[str, Any] = {
            "routing_key": self.routing_key,
            "event_action": "resolve" if is_over else "trigger",
            "dedup_key": message.key,
        }
        if not is_over:
            event["payload"] = self._payload(message)
            event["client"] = "rainbow-prefect"
            event["links"] = [{"href": message.link, "text": "the run in Prefect"}] if message.link else []
        post(self.url, json.dumps(event).encode())

    def _payload(self, message: Message) -> dict[str, Any]:
        grave = {"long_run": "warning", "late_start": "warning", "test": "info"}
        first = message.cause.split("\n")[0]
        return {
            "summary": f"{message.title}: {first}"[:1024],
            "source": message.app,
            "severity": grave.get(message.occasion, self.severity),
            "timestamp": message.as_dict()["time"],
            "component": message.task or message.pipeline,
            "group": message.pipeline,
            "class": message.occasion,
            "custom_details": {
                "cause": message.cause[:20_000],
                "last_lines": list(message.lines),
                "run": message.run_id,
                "retry": message.retry,
            },
        }


def post(url: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
    """Post JSON; tried again only when it was certainly not taken: nobody listened, or the answer was 429 or 5xx.

    Raises:
        RunError: it was not taken; says the answer, never the address, which may be a secret.
    """
    for pause in _PAUSES:
        why, may_retry = _posted(url, body, headers or {})
        if not why:
            return
        if not may_retry:
            break
        time.sleep(pause)
    raise RunError(why)


def _posted(url: str, body: bytes, headers: Mapping[str, str]) -> tuple[str, bool]:
    """Why it was not taken ('' when it was), and whether another attempt can do no harm."""
    from http.client import HTTPException
    from urllib.parse import urlsplit
    from urllib.request import ProxyHandler, Request, build_opener

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return "its url is not an address of http or https", False
    request = Request(url, body, {"Content-Type": "application/json", "User-Agent": "rainbow-prefect", **headers})  # noqa: S310
    near = [ProxyHandler({})] if parts.hostname in ("127.0.0.1", "localhost", "::1") else []
    try:
        with build_opener(*near).open(request, timeout=SECONDS):
            return "", False
    except HTTPError as error:
        with error:
            return f"{parts.hostname} answered {error.code} {error.reason}", error.code == 429 or error.code >= 500
    except URLError as error:
        reason = error.reason
        unheard = isinstance(reason, ConnectionRefusedError) or not isinstance(reason, TimeoutError | ConnectionError)
        return f"{parts.hostname}: {_words(reason)}", unheard
    except (OSError, HTTPException, ValueError) as error:
        return f"{parts.hostname}: {_words(error)}", False


def _words(error: Any) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return str(text).strip().split("\n")[0]
