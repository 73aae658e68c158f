"""Jobs in memory, on any upscaler."""

import asyncio
import zipfile
from pathlib import Path

import pytest

from serve_app.contracts import Priority, Progress, UpscaleParams, UpscaleRequest, UpscaleResult
from serve_app.errors import InvalidParameter, NotFound, TileFailed, TooLarge, WrongState
from serve_app.settings import Settings
from serve_app.testing import FakeUpscaler, photo_like, png_bytes
from serve_app.ui.backend import Backend
from serve_app.ui.memory import MemoryBackend

PROGRESS = Progress(stage="denoise", tiles_done=1, tiles_total=4, steps_done=1, steps_total=4)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(photo_like(20, 30)))
    return path


def backend(upscaler: FakeUpscaler) -> Backend:
    return MemoryBackend(upscaler, Settings())


async def told(found: Backend, job_id: str) -> list[str]:
    return [told.kind async for told in found.follow(job_id, "")]


async def test_a_picture_from_plan_to_file(picture: Path, tmp_path: Path):
    found = backend(FakeUpscaler(progress=[PROGRESS]))
    plan = await found.plan(picture, UpscaleParams(scale=2), "")
    assert (plan.height, plan.width, plan.estimated_s) == (40, 60, None)
    job = await found.submit([picture], UpscaleParams(scale=2), Priority.INTERACTIVE, "")
    assert await told(found, job.id) == ["item.progress", "job.finished"]
    assert (await found.job(job.id, "")).status == "succeeded"
    (item,) = await found.items(job.id, "")
    assert item.result is not None
    assert (item.result.height, item.result.width) == (40, 60)
    await found.result(job.id, 0, "", tmp_path / "out.png")
    assert (tmp_path / "out.png").stat().st_size == item.result.size_bytes
    assert await found.preview(job.id, 0, "") is None


async def test_a_zip_goes_in_and_comes_out(picture: Path, tmp_path: Path):
    packed = tmp_path / "in.zip"
    with zipfile.ZipFile(packed, "w") as file:
        file.write(picture, "x/one.png")
        file.write(picture, "two.png")
    found = backend(FakeUpscaler())
    job = await found.submit([packed], UpscaleParams(scale=2), Priority.BATCH, "")
    await told(found, job.id)
    await found.archive(job.id, "", tmp_path / "out.zip")
    assert zipfile.ZipFile(tmp_path / "out.zip").namelist() == ["0-one.png", "1-two.png"]


@pytest.mark.parametrize(
    ("files", "compression", "kind"),
    [
        ({"a.png": bytes(2 * 2**20)}, zipfile.ZIP_DEFLATED, InvalidParameter),
        ({f"{n}.png": bytes(30_000) for n in range(14)}, zipfile.ZIP_STORED, TooLarge),
        ({}, zipfile.ZIP_STORED, InvalidParameter),
    ],
    ids=["bomb", "more than is held", "empty"],
)
async def test_a_zip_that_unpacks_to_too_much_is_refused(
    files: dict[str, bytes], compression: int, kind: type[Exception], tmp_path: Path
):
    """A thousand pictures at the limit are 64 GB, from a ZIP of 64 MB."""
    packed = tmp_path / "in.zip"
    with zipfile.ZipFile(packed, "w", compression) as file:
        for name, data in files.items():
            file.writestr(name, data)
    limit = 100_000 if kind is TooLarge else 4 * 2**20
    found = MemoryBackend(FakeUpscaler(), Settings.parse({"images": {"upload_bytes": limit}}))
    with pytest.raises(kind):
        await found.submit([packed], UpscaleParams(scale=2), Priority.BATCH, "")


async def test_what_is_no_zip_is_refused_as_such(tmp_path: Path):
    packed = tmp_path / "in.zip"
    packed.write_bytes(b"no ZIP at all")
    with pytest.raises(InvalidParameter):
        await backend(FakeUpscaler()).submit([packed], UpscaleParams(), Priority.BATCH, "")


async def test_a_failure_is_kept_and_tried_again(picture: Path, tmp_path: Path):
    found = backend(FakeUpscaler(error=[TileFailed("no"), None]))
    job = await found.submit([picture], UpscaleParams(scale=2), Priority.BATCH, "")
    await told(found, job.id)
    (item,) = await found.items(job.id, "")
    assert item.error is not None
    assert item.error["detail"] == "no"
    with pytest.raises(WrongState):
        await found.result(job.id, 0, "", tmp_path / "out")
    await found.retry(job.id, "")
    await told(found, job.id)
    assert (await found.job(job.id, "")).status == "succeeded"


async def test_a_cancelled_job_stops_its_work(picture: Path):
    upscaler = FakeUpscaler(gate=asyncio.Event())
    found = backend(upscaler)
    job = await found.submit([picture, picture], UpscaleParams(scale=2), Priority.BATCH, "")
    await upscaler.started.wait()
    cancelled = await found.cancel(job.id, "")
    assert (cancelled.status, cancelled.counts["cancelled"]) == ("cancelled", 2)
    assert upscaler.cancelled.is_set()


async def test_a_job_is_its_tenants_alone(picture: Path):
    found = backend(FakeUpscaler())
    job = await found.submit([picture], UpscaleParams(scale=2), Priority.BATCH, "one")
    with pytest.raises(NotFound):
        await found.job(job.id, "two")
    offer = await found.offer()
    assert offer.models[0].name == "fake"
    assert "art" in offer.presets


async def test_what_nobody_expected_is_an_answer_too(picture: Path):
    class Broken(FakeUpscaler):
        async def upscale(
            self, request: UpscaleRequest, on_progress: object = None
        ) -> UpscaleResult:
            raise RuntimeError("secret")

    found = backend(Broken())
    job = await found.submit([picture], UpscaleParams(scale=2), Priority.BATCH, "")
    await told(found, job.id)
    (item,) = await found.items(job.id, "")
    assert item.error is not None
    assert (item.status, "secret" in str(item.error)) == ("failed", False)
