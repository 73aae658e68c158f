from typing import Any

from serve_app.jobs.blobs import Blobs
from serve_app.jobs.store import Store
from tests.unit.api.jobs.conftest import URL, Door, settings_of

HOOK = "https://a.example/hook"
WEBHOOKS = {"secrets": [f"whsec_{'A' * 32}"]}


async def test_the_log_is_read_and_a_message_sent_again(store: Store, blobs: Blobs) -> None:
    door = Door(store, blobs, settings_of(jobs={"webhooks": WEBHOOKS}))
    job_id = await door.submitted(data={"webhook_url": HOOK})
    here = f"{URL}/{job_id}/deliveries"

    async def log() -> list[dict[str, Any]]:
        answer = await door.http.get(here)
        assert answer.status_code == 200
        found: list[dict[str, Any]] = answer.json()["deliveries"]
        return found

    assert await log() == []
    await door.work()
    [message] = await log()
    assert (message["kind"], message["url"], message["status"]) == ("job.finished", HOOK, "pending")
    assert message["message_id"].startswith("msg_")
    await store.undelivered(message["number"], "the host answered 500", None, 500)
    [message] = await log()
    assert (message["status"], message["last_status"], message["attempts"]) == ("failed", 500, 1)
    again = await door.http.post(f"{here}/{message['number']}/retry")
    assert (again.status_code, again.json()["status"], again.json()["attempts"]) == (
        200,
        "pending",
        0,
    )
    for path in (f"{here}/{message['number'] + 1}/retry", f"{here}/x/retry"):
        assert (await door.http.post(path)).status_code in (404, 422)
    other = {"X-Tenant-Id": "another"}
    assert (await door.http.get(here, headers=other)).status_code == 404
    answer = await door.http.post(f"{here}/{message['number']}/retry", headers=other)
    assert answer.status_code == 404
