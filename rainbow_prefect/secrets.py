"""Secrets: where their values come from, and that none is ever shown; the values live in memory only."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from .errors import RunError, near
from .schema import Config, Name, wrong
from .variables import reveal

PLACES = ("env", "local_path_file", "block", "aws_secret")
"""The keys of an entry of `secrets` that say where its value is; it has one of them."""


class Secret(Config):
    """One entry of the root section `secrets`: its name and the one place its value comes from."""

    secret: Name = Field(description="The name of the secret; `{{secret.NAME}}` is its value.")
    env: str | None = Field(default=None, min_length=1, description="The environment variable that holds the value.")
    local_path_file: str | None = Field(
        default=None, min_length=1, description="The file that holds the value, relative to this file's folder."
    )
    block: str | None = Field(
        default=None,
        min_length=1,
        description="The Prefect block that holds the value: NAME of a Secret block, or TYPE/NAME, e.g. aws-secret/NAME.",
    )
    aws_secret: str | None = Field(
        default=None, min_length=1, description="The name or ARN of the value in AWS Secrets Manager."
    )
    region: str | None = Field(
        default=None, min_length=1, description="The AWS region of `aws_secret`; absent: that of its ARN or of the run."
    )
    credentials: str | None = Field(
        default=None,
        min_length=1,
        description="What reads `aws_secret`: `block:aws-credentials/NAME`; absent: the run.",
    )

    @model_validator(mode="after")
    def _one_place(self) -> Secret:
        places = [key for key in PLACES if getattr(self, key) is not None]
        if not places:
            raise wrong(
                f"secret '{self.secret}' says nowhere where its value is",
                hint=f"add one of: {', '.join(PLACES)}",
            )
        if len(places) > 1:
            raise wrong(f"secret '{self.secret}' has more than one place: {', '.join(places)}", hint="keep one of them")
        for key in ("region", "credentials"):
            if getattr(self, key) is not None and self.aws_secret is None:
                raise wrong(f"`{key}` is for `aws_secret` only", hint="remove it", at=key)
        if self.credentials is not None and not re.fullmatch(r"block:aws-credentials/[^/\s]+", self.credentials):
            raise wrong(
                "does not name a block of credentials", hint="write block:aws-credentials/NAME", at="credentials"
            )
        return self

    @property
    def reference(self) -> str:
        """The block as `TYPE/NAME`; '' without one."""
        block = (self.block or "").removeprefix("block:")
        return block if not block or "/" in block else f"secret/{block}"


class Secrets:
    """The values of an app's `secrets`, read when first asked for; and the masker that knows them.

    `load_block` reads a Prefect block by `TYPE/NAME`, `load_aws` what stands in AWS Secrets Manager. Environment
    variables whose names are those of secrets are known to the masker from the start, since user code inherits them.
    """

    def __init__(
        self,
        declared: Iterable[Secret] = (),
        root: Path = Path(),
        load_block: Callable[[str], str] | None = None,
        *,
        load_aws: Callable[[Secret], str] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._declared = {one.secret: one for one in declared}
        self._root = root
        self._load_block = load_block
        self._load_aws = load_aws
        self._environ = os.environ if environ is None else environ
        self._found: dict[str, str] = {}
        self._lock = threading.Lock()
        from .masking import Masker, secret_values

        self._masker = Masker(secret_values(dict(self._environ)))

    def __repr__(self) -> str:
        return f"Secrets({', '.join(self._declared)})"

    def __contains__(self, name: object) -> bool:
        return name in self._declared

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all that are declared."""
        return tuple(self._declared)

    def get(self, name: str) -> str:
        """The value, without the newline at its end.

        Raises:
            RunError: it is not declared, or its place is empty or cannot be read; the text says what to do.
        """
        return self.raw(name).rstrip("\r\n")

    def raw(self, name: str) -> str:
        """The value exactly as it is stored, for a file that holds it.

        Raises:
            RunError: as in `get`.
        """
        with self._lock:
            if name not in self._found:
                value = self._read(name)
                self._masker.learn(value.rstrip("\r\n"))
                self._found[name] = value
            return self._found[name]

    def path(self, name: str) -> Path | None:
        """The file that holds the value, None when it comes from elsewhere."""
        declared = self._declared.get(name)
        if declared is None or declared.local_path_file is None:
            return None
        return self._root / Path(declared.local_path_file).expanduser()

    def learn_all(self) -> None:
        """Read every secret that can be read, so that the masker knows it even when no task asked for it."""
        for name in self._declared:
            try:
                self.raw(name)
            except RunError:  # told when a task needs it
                continue

    def learn(self, value: Any) -> None:
        """Mask this value from now on; text, bytes and numbers."""
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        if value is not None and not isinstance(value, bool):
            self._masker.learn(str(value))

    def learn_from(self, data: Any) -> None:
        """Mask from now on what stands in this data under a name of a secret, and the passwords of its URLs."""
        from .masking import secret_values

        for value in secret_values(data):
            self._masker.learn(value)

    def render(self, value: Any) -> Any:
        """The same value with each `{{secret.NAME}}` replaced, at any depth; a `Config` gives a copy.

        Raises:
            RunError: as in `get`.
        """
        if isinstance(value, str):
            return reveal(value, self.get)
        if isinstance(value, Config):
            changed = {}
            for name in value.model_fields_set:
                old = getattr(value, name)
                new = self.render(old)
                if new is not old:
                    changed[name] = new
            return value.model_copy(update=changed) if changed else value
        if isinstance(value, Mapping):
            mapped = {key: self.render(one) for key, one in value.items()}
            return mapped if any(mapped[key] is not value[key] for key in mapped) else value
        if isinstance(value, list | tuple):
            items = [self.render(one) for one in value]
            if all(new is old for new, old in zip(items, value, strict=True)):
                return value
            return items if isinstance(value, list) else tuple(items)
        return value

    def mask(self, text: str) -> str:
        """The text without any known secret, and without the passwords of URLs."""
        return self._masker.mask(text)

    def mask_data(self, data: Any) -> Any:
        """The same JSON data without any known secret."""
        return self._masker.mask_data(data)

    def _read(self, name: str) -> str:
        declared = self._declared.get(name)
        if declared is None:
            hint = near(name, self._declared)
            raise RunError(f"secret '{name}' is not declared; {hint or 'add it to the root section `secrets`'}")
        if declared.env is not None:
            value = self._environ.get(declared.env)
            if not value:
                what = "is not set" if value is None else "is empty"
                raise RunError(
                    f"secret '{name}': the environment variable {declared.env} {what}; set it before the run"
                )
            return value
        if declared.local_path_file is not None:
            return self._read_file(name, declared.local_path_file)
        if declared.aws_secret is not None:
            return self._read_aws(name, declared)
        return self._read_block(name, declared.reference)

    def _read_file(self, name: str, shown: str) -> str:
        path = self.path(name)
        assert path is not None
        try:
            value = path.read_text(encoding="utf-8")
        except OSError as error:
            raise RunError(f"secret '{name}': cannot read {shown}: {error.strerror}; create the file") from None
        except UnicodeDecodeError:
            raise RunError(f"secret '{name}': {shown} is not UTF-8 text; store it as base64 text") from None
        if not value.strip():
            raise RunError(f"secret '{name}': {shown} is empty; write the value into it")
        return value

    def _read_block(self, name: str, reference: str) -> str:
        if self._load_block is None:
            raise RunError(f"secret '{name}': the block {reference} can be read only while a pipeline runs")
        try:
            value = str(self._load_block(reference))
        except RunError as error:
            raise RunError(f"secret '{name}': {error}") from None
        except Exception as error:
            raise RunError(
                f"secret '{name}': cannot read the Prefect block {reference} ({type(error).__name__}); "
                f"create it in the Prefect UI under Blocks"
            ) from error
        if not value.strip():
            raise RunError(f"secret '{name}': the Prefect block {reference} is empty; edit it in the Prefect UI")
        return value

    def _read_aws(self, name: str, declared: Secret) -> str:
        if self._load_aws is None:
            raise RunError(f"secret '{name}': AWS Secrets Manager is asked only while a pipeline runs")
        value = self._load_aws(declared)
        if not value.strip():
            raise RunError(f"secret '{name}': the AWS secret {declared.aws_secret} is empty; write the value into it")
        return value
