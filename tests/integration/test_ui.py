"""The page in real Chromium, on the running application; screenshots are left in `out/page`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from playwright.sync_api import Browser, Page, expect, sync_playwright
from ray import serve

from serve_app.app import PAGE_NAME, PAGE_PREFIX, build_page_app
from serve_app.settings import PageSettings
from serve_app.testing import photo_like, png_bytes
from tests.integration.conftest import Application

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "out" / "page"
PHOTO = ROOT / "examples" / "photo.jpg"
UPLOAD = "#picture input[type=file]"
A_WHILE_MS = 60_000


@pytest.fixture(scope="module")
def url(application: Application) -> str:
    serve.run(
        build_page_app(PageSettings(server=application.url)),
        name=PAGE_NAME,
        route_prefix=PAGE_PREFIX,
    )
    SHOTS.mkdir(parents=True, exist_ok=True)
    return f"{application.url}{PAGE_PREFIX}/"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        yield started
        started.close()


@pytest.fixture
def faults() -> list[str]:
    """What went wrong in the browser, and whom else it asked."""
    return []


@pytest.fixture
def page(browser: Browser, url: str, application: Application, faults: list[str]) -> Iterator[Page]:
    """A fresh browser on the page; at the end nothing went wrong and nobody else was asked."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
    opened.on("pageerror", lambda error: faults.append(str(error)))
    own = (application.url, "data:", "blob:")
    opened.on("request", lambda r: None if r.url.startswith(own) else faults.append(r.url))
    opened.goto(url)
    expect(opened.locator("#run")).to_be_enabled()
    yield opened
    context.close()
    assert faults == []


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A picture that takes a while."""
    path = tmp_path / "large.png"
    path.write_bytes(png_bytes(photo_like(500, 700)))
    return path


def shoot(page: Page, name: str) -> None:
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)


def test_from_upload_to_download(page: Page) -> None:
    page.set_input_files(UPLOAD, PHOTO)
    expect(page.locator("#plan .plan")).to_contain_text("1200", timeout=A_WHILE_MS)
    page.locator("#run").click()
    expect(page.locator("#status .preview")).to_be_visible(timeout=A_WHILE_MS)
    shoot(page, "progress")
    expect(page.locator("figure.compare")).to_be_visible(timeout=A_WHILE_MS)
    after = page.locator("figure.compare .after")
    page.wait_for_function("document.querySelector('.compare .after').naturalWidth === 1200")
    expect(page.locator("#report")).to_contain_text("PSNR")
    shoot(page, "result")
    page.get_by_label("Where before ends and after begins").press("ArrowRight")
    page.get_by_role("button", name="100 %").click()
    assert after.bounding_box()["width"] == pytest.approx(1200, abs=2)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download PNG").click()
    assert download.value.suggested_filename == "photo-upscaled.png"
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")
    page.get_by_role("button", name="Light / dark").click()
    page.get_by_role("button", name="Fit").click()
    shoot(page, "dark")
    page.reload()
    page.get_by_role("tab", name="History").click()
    expect(page.locator("#jobs")).to_contain_text("photo.jpg", timeout=A_WHILE_MS)
    page.locator("#open").click()
    expect(page.locator("figure.compare")).to_be_visible(timeout=A_WHILE_MS)


def test_a_running_picture_is_found_after_a_reload_and_cancelled(
    page: Page, large: Path, faults: list[str]
) -> None:
    page.set_input_files(UPLOAD, large)
    expect(page.locator("#plan .plan")).to_be_visible(timeout=A_WHILE_MS)
    page.locator("#run").click()
    expect(page.locator("#status")).to_contain_text("tiles", timeout=A_WHILE_MS)
    page.reload()
    faults.clear()  # the document that was left says that its stream was cut
    expect(page.locator("#status")).to_contain_text("tiles", timeout=A_WHILE_MS)
    page.locator("#cancel").click()
    expect(page.locator("#status")).to_contain_text("Cancelled.", timeout=A_WHILE_MS)
    expect(page.locator("#run")).to_be_enabled()


def test_a_bad_file_is_refused_in_words(page: Page, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture at all")
    page.set_input_files(UPLOAD, bad)
    expect(page.locator("#plan [role=alert]")).to_contain_text("request", timeout=A_WHILE_MS)
    page.locator("#run").click()
    expect(page.locator("#status [role=alert]")).to_contain_text("no picture", timeout=A_WHILE_MS)
    shoot(page, "bad")


def test_a_preset_and_the_drawer_change_the_plan(page: Page) -> None:
    page.get_by_label("Examples").or_(page.locator(".gallery-item")).first.wait_for()
    page.set_input_files(UPLOAD, PHOTO)
    expect(page.locator("#plan .plan")).to_contain_text("1200", timeout=A_WHILE_MS)
    page.get_by_role("button", name="Advanced").first.click()
    steps = page.get_by_label("number input for Steps").first
    steps.wait_for()
    page.wait_for_timeout(1000)  # what is drawn when the drawer opens listens a moment later
    steps.click()
    steps.press("Control+a")
    steps.press_sequentially("4")
    steps.press("Tab")
    expect(page.locator("#plan .plan")).to_contain_text("4 steps", timeout=A_WHILE_MS)
    page.get_by_role("button", name="Draw a seed").first.click()
    expect(page.get_by_label("Seed").first).not_to_have_value("")
    shoot(page, "advanced")


def test_a_batch_with_a_bad_file(page: Page, tmp_path: Path) -> None:
    for number in range(2):
        picture = png_bytes(photo_like(60, 80, number))
        (tmp_path / f"{number}.png").write_bytes(picture)
    (tmp_path / "bad.png").write_bytes(b"bad")
    page.get_by_role("tab", name="Batch").click()
    page.set_input_files("#files input[type=file]", sorted(tmp_path.glob("*.png")))
    expect(page.locator("#files")).to_contain_text("bad", timeout=A_WHILE_MS)
    page.locator("#batch-run").click()
    expect(page.locator("#batch-table")).to_contain_text(
        "2 succeeded, 1 failed", timeout=A_WHILE_MS
    )
    expect(page.locator("#gallery img").first).to_be_visible(timeout=A_WHILE_MS)
    shoot(page, "batch")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download all as a ZIP").click()
    assert Path(download.value.path()).read_bytes().startswith(b"PK")


def test_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.set_input_files(UPLOAD, ROOT / "examples" / "coffee.jpg")
    expect(page.locator("#plan .plan")).to_be_visible(timeout=A_WHILE_MS)
    page.locator("#run").click()
    expect(page.locator("figure.compare")).to_be_visible(timeout=A_WHILE_MS)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    shoot(page, "phone")


def test_programs_have_named_endpoints(url: str, tmp_path: Path) -> None:
    client = Client(url, download_files=tmp_path, verbose=False)
    plan = client.predict(image=handle_file(PHOTO), params={"scale": 2}, api_name="/plan")
    assert (plan["height"], plan["width"]) == (400, 600)
    file, facts = client.predict(
        image=handle_file(PHOTO), params={"scale": 1, "seed": 3}, api_name="/upscale"
    )
    assert Path(file).read_bytes().startswith(b"\x89PNG")
    assert facts["details"]["params"]["seed"] == 3
    assert client.predict(job_id=facts["job_id"], api_name="/job")["status"] == "succeeded"
    with pytest.raises(AppError, match="steps"):
        client.predict(image=handle_file(PHOTO), params={"steps": 0}, api_name="/plan")
