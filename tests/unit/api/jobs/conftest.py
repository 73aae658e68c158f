import io
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_app.api import create_api
from serve_app.api.jobs.desk import Desk
from serve_app.contracts import UpscaleParams, UpscaleRequest
from serve_app.jobs.blobs import Blobs
from serve_app.jobs.records import ResultRecord
from serve_app.jobs.store import Store
from serve_app.settings import Settings
from serve_app.testing import FakeUpscaler, photo_like, png_bytes

PICTURES = [png_bytes(photo_like(6, 8, seed=seed)) for seed in range(3)]
PNG = PICTURES[0]
FILES = [("image", (f"{n}.png", data)) for n, data in enumerate(PICTURES)]
URL = "/v1/jobs"


def settings_of(**changes: Any) -> Settings:
    jobs = {"items_per_job": 5, "upload_bytes": 100_000, "poll_s": 0.01, "tenant_items": 8}
    return Settings.parse({"images": {"upload_bytes": 50_000}, "jobs": jobs} | changes)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    found = await Store.open(f"sqlite:///{tmp_path}/jobs.db")
    yield found
    await found.close()


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(str(tmp_path / "blobs"))


class Door:
    """The HTTP door over a real store and real blobs, and a runner that does what it is told."""

    def __init__(self, store: Store, blobs: Blobs, settings: Settings) -> None:
        async def opened() -> Store:
            return store

        self.store, self.blobs, self.upscaler = store, blobs, FakeUpscaler()
        desk = Desk(opened, blobs, settings.jobs)
        transport = httpx.ASGITransport(create_api(self.upscaler, settings, desk=desk))
        self.http = httpx.AsyncClient(transport=transport, base_url="http://tessera")

    async def submitted(self, **sent: Any) -> str:
        response = await self.http.post(URL, **({"files": FILES} | sent))
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    async def work(self, most: int = 100) -> int:
        """Runs items that wait; one that cannot be run fails."""
        leases = await self.store.claim("runner", 60, most)
        for lease in leases:
            item = lease.item
            data = await self.blobs.get(item.source or "")
            params = UpscaleParams.parse(item.params)
            try:
                result = await self.upscaler.upscale(
                    UpscaleRequest(image=data, params=params, request_id="r")
                )
            except Exception:
                await self.store.fail(lease, {"detail": "broken"}, retryable=False)
                continue
            blob = await self.blobs.put(result.image)
            details = {
                "params": result.params.model_dump(mode="json"),
                "timings_s": result.timings_s,
                "tiles": result.tiles,
                "source_width": result.source_width,
            }
            size = (result.width, result.height)
            record = ResultRecord(blob.name, result.media_type, *size, blob.size_bytes, details)
            await self.store.succeed(lease, record)
        return len(leases)


@pytest.fixture
async def door(store: Store, blobs: Blobs) -> AsyncIterator[Door]:
    found = Door(store, blobs, settings_of())
    yield found
    await found.http.aclose()


def zipped(files: dict[str, bytes], **how: Any) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", **how) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return made.getvalue()
