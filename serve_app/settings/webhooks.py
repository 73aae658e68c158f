"""Messages to addresses that callers give: whether, how they are signed, and to whom they may go."""

from __future__ import annotations

import base64
import binascii
import os
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from serve_app.fetch.settings import Outbound

SECRETS_VARIABLE = "TESSERA_WEBHOOK_SECRETS"
PREFIX = "whsec_"
_BYTES = range(24, 65)  # the specification's


def key_of(secret: SecretStr) -> bytes:
    """The key that a secret spells; raises ValueError."""
    text = secret.get_secret_value()
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not text.startswith(PREFIX) or len(key) not in _BYTES:
        raise ValueError(f"must be {PREFIX} and 24 to 64 bytes in base64")
    return key


def _secret(secret: SecretStr) -> SecretStr:
    key_of(secret)
    return secret


def _of_environment() -> tuple[SecretStr, ...]:
    return tuple(map(SecretStr, os.environ.get(SECRETS_VARIABLE, "").split()))


class WebhookSettings(Outbound):
    """Messages that tell a job's end (`webhook_url`): docs/jobs.md. Hosts are judged as those of URLs are."""

    secrets: tuple[Annotated[SecretStr, AfterValidator(_secret)], ...] = Field(
        default_factory=_of_environment,
        validate_default=True,
        description=f"`whsec_...`, each signs; without one, here or in {SECRETS_VARIABLE}, none is sent.",
    )
    total_s: float = Field(
        15,
        gt=0,
        description="Seconds for the whole; a receiver should answer first and work later.",
    )

    @property
    def enabled(self) -> bool:
        """Whether messages are sent."""
        return bool(self.secrets)
