"""The page in one process, without Ray: the same components on an upscaler of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from gradio_client import Client, handle_file

from serve_app.settings import Settings
from serve_app.testing import FAKE_MODEL, FakeUpscaler, photo_like, png_bytes
from serve_app.ui.backend import Offer
from serve_app.ui.files import Shelf
from serve_app.ui.look import HEAD, compare
from serve_app.ui.memory import MemoryBackend
from serve_app.ui.page import build_page, mounted

OFFER = Offer(models=(FAKE_MODEL,))


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    shelf = Shelf(folder=tmp_path)
    page = build_page(MemoryBackend(FakeUpscaler(), Settings()), OFFER, shelf)
    _, address, _ = page.launch(
        server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **mounted(shelf)
    )
    yield address
    page.close()


def test_a_program_upscales_and_submits(url: str, tmp_path: Path):
    picture = tmp_path / "a.png"
    picture.write_bytes(png_bytes(photo_like(10, 20)))
    client = Client(url, verbose=False, download_files=tmp_path)
    file, facts = client.predict(
        image=handle_file(picture), params={"scale": 2}, api_name="/upscale"
    )
    assert Path(file).read_bytes().startswith(b"\x89PNG")
    assert (facts["height"], facts["width"]) == (20, 40)
    assert client.predict(api_name="/models")["models"][0]["name"] == "fake"
    told = client.predict(images=[handle_file(picture)], params={"scale": 2}, api_name="/submit")
    assert told["counts"]["total"] == 1


def test_nothing_of_the_pages_own_comes_from_another_host():
    assert "http://" not in HEAD + str(mounted(Shelf())["css"])
    assert "https://" not in HEAD + str(mounted(Shelf())["css"])


def test_a_slider_without_a_source_shows_the_result_alone():
    told = compare("", "b.png", 10, 20)
    assert 'class="compare alone"' in told
    assert "Before" not in told.split("<input")[0].split("<figure")[1].split("<div")[2]
    assert 'alt="Before"' in compare("a.png", "b.png", 10, 20)
