"""A body becomes a job: every parameter judged now, every seed drawn now, so that nothing is left to chance.

It refuses to know how bodies are read, and who runs the job.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from serve_app.api.body import PRIORITY_FIELD, priority_of, tenant_of
from serve_app.api.jobs.desk import Desk
from serve_app.api.jobs.gathering import Draft, Gathered, gather
from serve_app.contracts import (
    MAX_SEED,
    ModelInfo,
    Priority,
    ResolvedParams,
    UpscaleParams,
    Upscaler,
    resolve,
)
from serve_app.errors import InvalidParameter, RequestError
from serve_app.fetch.target import Refused, target_of
from serve_app.jobs.planning import check_control_names, model_of, plan_of
from serve_app.jobs.records import JobRecord, NewItem, NewJob
from serve_app.presets import with_preset
from serve_app.settings import Settings, WebhookSettings

KEY_HEADER = "Idempotency-Key"
WEBHOOK_FIELD = "webhook_url"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


async def submit(
    request: Request, upscaler: Upscaler, desk: Desk, settings: Settings
) -> tuple[JobRecord, bool]:
    """Takes a job in; see `jobs.submitting.Submitting.submit` for what it returns.

    Raises:
        RequestError: the body, a parameter or the only picture is at fault, or a quota is used up.
    """
    tenant, key = tenant_of(request.headers), _key(request)
    found = await gather(request, desk, settings)
    priority = priority_of(found.given.pop(PRIORITY_FIELD, None), Priority.BATCH)
    webhook_url = webhook_of(found.given.pop(WEBHOOK_FIELD, None), settings.jobs.webhooks)
    order = Order(tenant, request.state.request_id, priority, key, webhook_url)
    return await take_in(found, order, upscaler, desk, settings)


@dataclass(frozen=True, slots=True)
class Order:
    """Who asks for a job, and how; see `jobs.records.NewJob`."""

    tenant: str
    request_id: str
    priority: Priority = Priority.BATCH
    key: str | None = None
    webhook_url: str | None = None


async def take_in(
    found: Gathered, order: Order, upscaler: Upscaler, desk: Desk, settings: Settings
) -> tuple[JobRecord, bool]:
    """Takes pictures in that are kept already; returns and raises as `submit`."""
    judge = _Judge(await upscaler.models(), settings, found)
    job = NewJob(
        tenant=order.tenant,
        params=judge.stored(found.given),
        priority=order.priority,
        idempotency_key=order.key,
        digest=_digest(found, order.priority, order.webhook_url),
        webhook_url=order.webhook_url,
        request_id=order.request_id,
    )
    items = [judge.item(draft) for draft in found.drafts]
    return await (await desk.store()).submit(job, items, desk.quotas)


class _Judge:
    """Judges parameters, each set of them once."""

    def __init__(self, models: Sequence[ModelInfo], settings: Settings, found: Gathered) -> None:
        self._models = models
        self._settings = settings
        self._found = found
        self._alone = len(found.drafts) == 1
        self._known: dict[str, tuple[UpscaleParams, ResolvedParams, ModelInfo]] = {}

    def stored(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters as JSON, a preset's own filled in: it may be another tomorrow."""
        return self._judged(given)[0].model_dump(mode="json", exclude_none=True)

    def item(self, draft: Draft) -> NewItem:
        """A picture with all that it needs; raises where it is the only one and cannot be done."""
        params, resolved, model = self._judged(_merged(self._found.given, draft.given))
        seed = secrets.randbelow(MAX_SEED + 1) if params.seed is None else params.seed
        stored = params.model_copy(update={"seed": seed}).model_dump(mode="json", exclude_none=True)
        images = self._found.control_images
        pixels = self._pixels(draft, resolved, model)
        return NewItem(draft.name, stored, draft.source, draft.url, dict(images), pixels)

    def _judged(self, given: Mapping[str, Any]) -> tuple[UpscaleParams, ResolvedParams, ModelInfo]:
        key = json.dumps(given, sort_keys=True)
        if key not in self._known:
            params = with_preset(UpscaleParams.parse(given), self._settings.requests.presets)
            model = model_of(params, self._models)
            resolved = resolve(params, model, drawn_seed=0)
            check_control_names(list(self._found.control_images), resolved, model)
            self._known[key] = params, resolved, model
        return self._known[key]

    def _pixels(self, draft: Draft, params: ResolvedParams, model: ModelInfo) -> int:
        """Pixels of the result; 0 for a picture that is not there yet, or that will fail by itself."""
        if draft.fault is not None and self._alone:
            raise draft.fault
        if draft.seen is None:
            return 0
        try:
            plan, frames = plan_of(draft.seen, params, model, self._settings.images)
        except RequestError:
            if self._alone:
                raise
            return 0
        return plan.result.pixels * frames


def _merged(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The job's parameters under a picture's own; a size of its own takes the place of the job's."""
    sizes = ("scale", "width", "height")
    sized = any(name in own for name in sizes)
    return {k: v for k, v in shared.items() if not (sized and k in sizes)} | dict(own)


def _key(request: Request) -> str | None:
    key = request.headers.get(KEY_HEADER)
    if key is not None and _KEY.fullmatch(key) is None:
        raise InvalidParameter(
            f"{KEY_HEADER}: not a key",
            field=KEY_HEADER,
            allowed="1 to 255 visible ASCII characters",
        )
    return key


def webhook_of(given: Any, rules: WebhookSettings) -> str | None:
    """A webhook's address, judged by its spelling; where it leads is judged each time that it is called.

    Raises:
        InvalidParameter: none that would be called.
    """
    if given is None:
        return None
    if not rules.enabled:
        raise InvalidParameter(
            f"{WEBHOOK_FIELD}: webhooks are switched off here",
            field=WEBHOOK_FIELD,
            allowed="absent",
        )
    try:
        target_of(given if isinstance(given, str) else "", rules)
    except Refused as refused:
        raise InvalidParameter(
            f"{WEBHOOK_FIELD}: {refused.reason}", field=WEBHOOK_FIELD, allowed=refused.allowed
        ) from None
    return str(given)


def _digest(found: Gathered, priority: Priority, webhook_url: str | None) -> str:
    """Of all that was asked; drawn seeds are not."""
    pictures = [[d.name, d.source, d.url, d.given] for d in found.drafts]
    whole = [pictures, found.given, found.control_images, priority, webhook_url]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
