"""The message and its proof, read by the specification's own library."""

import json
import time

import pytest
from pydantic import SecretStr, ValidationError
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from serve_app.jobs.records import Delivery
from serve_app.jobs.webhooks import DELAYS_S, SPREAD, body_of, headers_of, next_try
from serve_app.settings import WebhookSettings
from serve_app.settings.webhooks import SECRETS_VARIABLE, key_of

SECRET = f"whsec_{'A' * 32}"
OTHER = f"whsec_{'B' * 44}"
NOW = 1_800_000_000.0


def delivery() -> Delivery:
    data = {"status": "succeeded", "counts": {"total": 2}}
    facts = (7, "job_" + "0" * 26, "job.finished", data, "https://a.example/")
    return Delivery(*facts, "pending", 0, NOW, NOW, None, None, None)


def sent(*secrets: str) -> tuple[bytes, dict[str, str]]:
    body = body_of(delivery())
    return body, headers_of(delivery(), body, [key_of(SecretStr(s)) for s in secrets], time.time())


def test_the_public_library_believes_it() -> None:
    body, headers = sent(SECRET)
    told = Webhook(SECRET).verify(body, headers)
    assert told == json.loads(body)
    assert told["type"] == "job.finished"
    assert told["timestamp"] == "2027-01-15T08:00:00.000Z"
    assert told["data"]["url"] == f"/v1/jobs/{delivery().job_id}"
    assert told["data"]["status"] == "succeeded"


def test_what_was_changed_or_signed_by_another_is_not_believed() -> None:
    body, headers = sent(SECRET)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body.replace(b"succeeded", b"cancelled"), headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body, headers | {"webhook-id": "msg_8"})


def test_while_a_secret_is_changed_both_are_believed() -> None:
    body, headers = sent(OTHER, SECRET)
    for secret in (SECRET, OTHER):
        Webhook(secret).verify(body, headers)


def test_tries_are_spread_over_a_day() -> None:
    whole = sum(DELAYS_S)
    assert 23 * 3600 <= whole <= 25 * 3600
    at = NOW
    for attempts in range(1, len(DELAYS_S) + 1):
        soonest, latest = (next_try(attempts, at, spread) for spread in (-1, 1))
        assert soonest is not None
        assert latest is not None
        assert latest - soonest == pytest.approx(2 * SPREAD * DELAYS_S[attempts - 1])
    assert next_try(len(DELAYS_S) + 1, at, 0) is None


@pytest.mark.parametrize("bad", ["", "whsec_", "whsec_AAAA", "A" * 32, "whsec_" + "!" * 32])
def test_a_secret_that_is_none(bad: str) -> None:
    with pytest.raises(ValidationError, match="whsec_"):
        WebhookSettings(secrets=(SecretStr(bad),))


def test_secrets_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not WebhookSettings().enabled
    monkeypatch.setenv(SECRETS_VARIABLE, f"{SECRET} {OTHER}")
    assert [s.get_secret_value() for s in WebhookSettings().secrets] == [SECRET, OTHER]
    assert SECRET not in repr(WebhookSettings())
