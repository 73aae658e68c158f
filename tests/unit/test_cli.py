"""The command line, in process (the seam replaced) and against a real server on loopback."""

import asyncio
import json
import signal
import subprocess
import sys
import types
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from serve_app import __version__, errors
from serve_app.api import create_api
from serve_app.cli import main
from serve_app.cli.progress import ProgressBar
from serve_app.contracts import (
    OutputFormat,
    Progress,
    ProgressCallback,
    UpscaleParams,
    Upscaler,
    UpscaleRequest,
    UpscaleResult,
)
from serve_app.settings import Settings
from serve_app.testing import FAKE_MODEL, FakeUpscaler, jpeg_bytes, photo_like, png_bytes
from tests.unit.api.live import serving_in_thread

PNG = png_bytes(photo_like(6, 8, seed=1))
JPEG = jpeg_bytes(photo_like(6, 8, seed=2))


class Local:
    """What stands in for `serve_app.local`; remembers the settings that it was opened with."""

    def __init__(self) -> None:
        self.upscaler = FakeUpscaler()
        self.settings: list[Settings] = []
        self.closed = 0

    @asynccontextmanager
    async def local_upscaler(self, settings: Settings) -> AsyncIterator[Upscaler]:
        self.settings.append(settings)
        try:
            yield self.upscaler
        finally:
            self.closed += 1


@pytest.fixture(autouse=True)
def local(monkeypatch: pytest.MonkeyPatch) -> Local:
    stand_in = Local()
    module: Any = types.ModuleType("serve_app.local")
    module.local_upscaler = stand_in.local_upscaler
    monkeypatch.setitem(sys.modules, "serve_app.local", module)
    return stand_in


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(PNG)
    return tmp_path


@pytest.fixture
def album(folder: Path) -> Path:
    """Two pictures, a text, and a folder below with one more."""
    (folder / "in" / "deep").mkdir(parents=True)
    (folder / "in" / "one.png").write_bytes(PNG)
    (folder / "in" / "two.jpg").write_bytes(JPEG)
    (folder / "in" / "notes.txt").write_text("not a picture")
    (folder / "in" / "deep" / "three.png").write_bytes(PNG)
    return folder


def run(*arguments: str | Path) -> int:
    return main(["upscale", *map(str, arguments)])


def size_of(path: Path) -> tuple[str | None, tuple[int, int]]:
    with Image.open(path) as picture:
        return picture.format, picture.size


def files_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


class TestOutput:
    @pytest.mark.parametrize(
        ("name", "kind"),
        [("b.png", "PNG"), ("b.jpg", "JPEG"), ("b.JPEG", "JPEG"), ("b.webp", "WEBP")],
    )
    def test_a_file_whose_suffix_tells_the_format(
        self, folder: Path, name: str, kind: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("a.png", "-o", name) == 0
        assert size_of(folder / name) == (kind, (32, 24))
        assert capsys.readouterr().out == f"a.png -> {name} (32x24, seed 7)\n"

    @pytest.mark.parametrize("output", ["out", "out/", "made/below"])
    def test_a_folder_is_made(self, folder: Path, output: str) -> None:
        assert run("a.png", "-o", output, "--scale", "2") == 0
        assert size_of(folder / output / "a.png") == ("PNG", (16, 12))

    def test_a_folder_takes_the_format_asked_for(self, folder: Path) -> None:
        assert run("a.png", "-o", "out", "--output-format", "webp") == 0
        assert files_in(folder / "out") == ["a.webp"]

    def test_a_folder_takes_the_models_format(self, folder: Path, local: Local) -> None:
        defaults = FAKE_MODEL.defaults.model_copy(update={"output_format": OutputFormat.JPEG})
        local.upscaler.model_infos = [FAKE_MODEL.model_copy(update={"defaults": defaults})]
        assert run("a.png", "-o", "out") == 0
        assert files_in(folder / "out") == ["a.jpeg"]

    def test_existing_files_stand_unless_told(
        self, folder: Path, local: Local, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (folder / "b.png").write_bytes(b"old")
        assert run("a.png", "-o", "b.png") == 1
        assert (folder / "b.png").read_bytes() == b"old"
        assert local.upscaler.requests == []
        assert "b.png exists; --overwrite replaces it" in capsys.readouterr().err
        assert run("a.png", "-o", "b.png", "--overwrite") == 0
        assert size_of(folder / "b.png") == ("PNG", (32, 24))

    def test_an_input_is_never_overwritten(self, folder: Path) -> None:
        assert run("a.png", "-o", "./a.png", "--overwrite") == 1
        assert run("a.png", "-o", ".", "--overwrite") == 1
        assert (folder / "a.png").read_bytes() == PNG

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (["a.png", "-o", "b.gif"], "suffix must be one of .png, .jpg, .jpeg, .webp"),
            (["a.png", "-o", "b.png", "--output-format", "jpeg"], "contradicts"),
            (["a.png", "a.png", "-o", "b.png"], "need a folder"),
            ([".", "-o", "b.png"], "need a folder"),
            (["a.png", "-o", "out", "--steps", "0"], "--steps: steps: Input should be"),
            (["a.png", "-o", "out", "--scale", "2", "--width", "9"], "not both"),
            (["a.png", "-o", "out", "--output-format", "gif"], "png, jpeg, webp"),
            (["empty", "-o", "out"], "no picture"),
        ],
    )
    def test_mistakes_are_told_before_anything_starts(
        self,
        folder: Path,
        local: Local,
        arguments: list[str],
        reason: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        (folder / "empty").mkdir()
        assert run(*arguments) == 2
        assert reason in capsys.readouterr().err
        assert local.settings == []

    @pytest.mark.parametrize(
        "arguments",
        [
            ["a.png"],
            ["-o", "out"],
            ["a.png", "-o", "out", "--stepz", "3"],
            ["a.png", "-o", "out", "--step", "3"],  # no abbreviations
            ["a.png", "-o", "out", "-j", "0"],
        ],
    )
    def test_what_the_parser_refuses(self, folder: Path, arguments: list[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            run(*arguments)
        assert caught.value.code == 2

    def test_a_failed_write_leaves_no_half_file(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (folder / "b.png").write_bytes(b"old")

        def fail(path: Path, content: bytes) -> int:
            with path.open("wb") as file:
                file.write(content[:10])
            raise OSError(28, "No space left on device", str(path))

        monkeypatch.setattr(Path, "write_bytes", fail)
        assert run("a.png", "-o", "b.png", "--overwrite") == 1
        assert (folder / "b.png").read_bytes() == b"old"
        assert files_in(folder) == ["a.png", "b.png"]
        assert "No space left on device" in capsys.readouterr().err


class TestFolders:
    def test_top_level_only(self, album: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("in", "-o", "out") == 0
        assert files_in(album / "out") == ["one.png", "two.png"]
        assert "in/notes.txt: skipped, not a picture" in capsys.readouterr().err

    def test_recursive_keeps_paths(self, album: Path) -> None:
        assert run("in", "-o", "out", "--recursive") == 0
        assert files_in(album / "out") == ["deep/three.png", "one.png", "two.png"]

    def test_files_and_folders_together(self, album: Path) -> None:
        assert run("a.png", "in", "-o", "out") == 0
        assert files_in(album / "out") == ["a.png", "one.png", "two.png"]

    def test_sources_that_share_a_name_are_told_apart(self, album: Path) -> None:
        (album / "in" / "one.jpg").write_bytes(JPEG)
        (album / "other").mkdir()
        (album / "other" / "a.png").write_bytes(PNG)
        assert run("in", "a.png", "other", "-o", "out") == 0
        assert files_in(album / "out") == [
            "a.png-2.png",
            "a.png.png",
            "one.jpg.png",
            "one.png.png",
            "two.png",
        ]

    def test_a_picture_of_a_kind_that_is_not_read_is_skipped(
        self, album: Path, local: Local, capsys: pytest.CaptureFixture[str]
    ) -> None:
        local.upscaler.error = [errors.UnsupportedImage("TIFF is not read."), None]
        assert run("in", "-o", "out") == 0
        assert files_in(album / "out") == ["two.png"]
        assert "in/one.png: skipped, TIFF is not read." in capsys.readouterr().err

    def test_one_failure_is_that_pictures_alone(
        self, album: Path, local: Local, capsys: pytest.CaptureFixture[str]
    ) -> None:
        local.upscaler.error = [errors.BrokenImage("It ends too early."), None]
        assert run("in", "missing.png", "-o", "out") == 1
        assert files_in(album / "out") == ["two.png"]
        told = capsys.readouterr().err
        assert "in/one.png: It ends too early." in told
        assert "missing.png: No such file or directory" in told
        assert "2 of 3 failed" in told

    def test_a_named_file_that_is_no_picture_is_a_failure(self, album: Path) -> None:
        assert run("in/notes.txt", "-o", "out") == 1


class TestParameters:
    def test_every_parameter_has_an_option(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main(["upscale", "--help"])
        assert caught.value.code == 0
        told = " ".join(capsys.readouterr().out.split())
        short = {"controls": "--control", "lora_scale": "--lora"}
        for name, field in UpscaleParams.model_fields.items():
            assert f"{short.get(name, '--' + name.replace('_', '-'))} " in told
            assert str(field.description) in told
        assert "(1 to 100)" in told
        assert "(one of png, jpeg, webp, avif, tiff, jxl)" in told

    def test_values_arrive_as_they_were_given(self, folder: Path, local: Local) -> None:
        given = {
            "steps": 3,
            "strength": 0.5,
            "guidance_scale": 2.5,
            "control_scale": 0.25,
            "control_start": 0.125,
            "control_end": 0.75,
            "true_cfg_scale": 1.0,
            "seed": 2**63 - 1,
            "quality": 55,
            "width": 64,
            "height": 48,
            "prompt": "",
            "negative_prompt": "",
        }
        options = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
        assert run("a.png", "-o", "b.webp", *options) == 0
        expected = UpscaleParams(output_format="webp", **given)
        assert local.upscaler.requests[0].params == expected
        assert local.upscaler.requests[0].image == PNG

    def test_the_model_is_what_this_process_loads(self, folder: Path, local: Local) -> None:
        assert run("a.png", "-o", "b.png", "--model", "./models/mine") == 0
        assert local.settings == [Settings(model="./models/mine")]
        assert local.upscaler.requests[0].params.model is None
        assert local.closed == 1

    def test_a_model_that_cannot_be_used(
        self, folder: Path, local: Local, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def refuse(settings: Settings) -> Any:
            raise errors.ConfigurationError("model: 'x' is neither here nor there")

        sys.modules["serve_app.local"].local_upscaler = refuse  # type: ignore[attr-defined]
        assert run("a.png", "-o", "b.png", "--model", "x") == 1
        assert capsys.readouterr().err == "tessera: model: 'x' is neither here nor there\n"


def test_a_report_is_written_beside_each_output(album: Path, local: Local) -> None:
    assert run("in", "-o", "out", "--report") == 0
    outputs = list(Path("out").rglob("*.png"))
    assert outputs
    for path in outputs:
        told = json.loads(path.with_name(f"{path.name}.json").read_text())
        assert told["output"] == str(path)
        assert told["report"] is None  # the fake measures nothing
        assert told["params"]["seed"] == 7
        assert "image" not in told
    assert run("in", "-o", "out", "--report") == 1


def test_json_lines(album: Path, local: Local, capsys: pytest.CaptureFixture[str]) -> None:
    local.upscaler.error = [None, errors.TileFailed("Tile 3 failed.")]
    assert run("in", "-o", "out", "--json") == 1
    done, failed = map(json.loads, capsys.readouterr().out.splitlines())
    assert (done["input"], done["output"]) == ("in/one.png", "out/one.png")
    assert (done["width"], done["height"], done["params"]["seed"]) == (32, 24, 7)
    assert done["timings_s"] == {"prepare": 0.0123, "denoise": 1.5, "finish": 0.25}
    assert "image" not in done
    assert failed == {"input": "in/two.jpg", "error": "Tile 3 failed."}


@pytest.mark.parametrize(("options", "most"), [([], 1), (["-j", "3"], 3), (["-j", "9"], 5)])
def test_concurrency(folder: Path, local: Local, options: list[str], most: int) -> None:
    (folder / "in").mkdir()
    for number in range(5):
        (folder / "in" / f"{number}.png").write_bytes(PNG)

    class Slow(FakeUpscaler):
        async def upscale(
            self, request: UpscaleRequest, on_progress: ProgressCallback | None = None
        ) -> UpscaleResult:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            for _ in range(200):  # long enough for the others to have read their files
                await asyncio.sleep(0.001)
                if self.running == most:
                    break
            self.running -= 1
            return await FakeUpscaler().upscale(request, on_progress)

    local.upscaler = Slow()
    assert run("in", "-o", "out", *options) == 0
    assert local.upscaler.most_running == most
    assert len(files_in(folder / "out")) == 5


class TestProgress:
    STEPS = tuple(
        Progress(
            stage="denoise", tiles_done=done // 8, tiles_total=2, steps_done=done, steps_total=16
        )
        for done in (0, 8, 16)
    )

    def test_a_bar_only_where_it_is_wanted(
        self, folder: Path, local: Local, capsys: pytest.CaptureFixture[str]
    ) -> None:
        local.upscaler.progress = list(self.STEPS)
        assert run("a.png", "-o", "b.png") == 0
        assert capsys.readouterr().err == ""
        assert run("a.png", "-o", "c.png", "--progress") == 0
        told = capsys.readouterr()
        assert "2 tiles, 1/1 pictures" in told.err
        assert "16/16" in told.err
        assert told.out == "a.png -> c.png (32x24, seed 7)\n"

    def test_pictures_not_begun_count_as_the_mean(self) -> None:
        with ProgressBar(4, shown=True) as bar:
            bar.report(Path("a"), self.STEPS[1])
            assert (bar._bar.n, bar._bar.total) == (8, 64)
            bar.end(Path("a"))
            assert (bar._bar.n, bar._bar.total) == (16, 64)
            bar.report(Path("b"), self.STEPS[0].model_copy(update={"steps_total": 32}))
            assert (bar._bar.n, bar._bar.total) == (16, 96)
            bar.end(Path("c"))  # failed before it began
            bar.end(Path("d"))
            bar.end(Path("b"))
            assert (bar._bar.n, bar._bar.total) == (48, 48)


class TestServer:
    @pytest.fixture
    def fake(self) -> FakeUpscaler:
        return FakeUpscaler(progress=TestProgress.STEPS)

    @pytest.fixture
    def url(self, fake: FakeUpscaler) -> Iterator[str]:
        with serving_in_thread(create_api(fake, Settings())) as url:
            yield url

    def test_pictures_go_through_the_server(
        self, album: Path, fake: FakeUpscaler, local: Local, url: str
    ) -> None:
        assert run("in", "-o", "out", "--server", url, "--model", "fake", "--seed", "5") == 0
        assert size_of(album / "out" / "two.png") == ("PNG", (32, 24))
        assert sorted(request.image for request in fake.requests) == sorted([PNG, JPEG])
        params = fake.requests[0].params
        assert (params.model, params.seed) == ("fake", 5)
        assert local.settings == []

    def test_progress_comes_from_the_server(
        self, folder: Path, url: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("a.png", "-o", "b.png", "--server", url, "--progress") == 0
        assert "16/16" in capsys.readouterr().err

    def test_a_problem_is_a_sentence(
        self, folder: Path, url: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("a.png", "-o", "b.png", "--server", url, "--prompt", "cat") == 1
        told = capsys.readouterr().err
        assert "a.png: prompt: the model fake reads no prompts; allowed: absent or empty" in told
        assert "(request " in told

    def test_a_server_that_is_not_ready(
        self, folder: Path, fake: FakeUpscaler, url: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fake.is_ready = False
        assert run("a.png", "-o", "b.png", "--server", url) == 3
        assert f"{url} is not ready" in capsys.readouterr().err

    def test_no_server(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("a.png", "-o", "b.png", "--server", "http://127.0.0.1:1") == 3
        assert "http://127.0.0.1:1 cannot be reached" in capsys.readouterr().err
        assert main(["models", "--server", "http://127.0.0.1:1"]) == 3

    def test_models_of_the_server(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["models", "--server", url]) == 0
        assert capsys.readouterr().out.startswith("fake: Enlarges by repeating pixels.\n")
        assert main(["models", "--server", url, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == [FAKE_MODEL.model_dump(mode="json")]


def test_models_shipped_here_need_no_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("alpha", "mini"):
        (tmp_path / name).mkdir()
        info = FAKE_MODEL.model_copy(update={"name": name})
        (tmp_path / name / "tessera.json").write_text(info.model_dump_json())
    monkeypatch.setattr("serve_app.models.catalog.SHIPPED", tmp_path)
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[::2]] == ["mini", "alpha"]
    assert "tiles of 256 px" in lines[1]
    assert "no prompts" in lines[1]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"tessera {__version__}\n"


def test_no_command_is_a_mistake() -> None:
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2


def test_the_keyboard_interrupts(
    folder: Path, local: Local, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(FakeUpscaler):
        async def upscale(
            self, request: UpscaleRequest, on_progress: ProgressCallback | None = None
        ) -> UpscaleResult:
            signal.raise_signal(signal.SIGINT)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
            raise AssertionError

    local.upscaler = Interrupted()
    # a shell that starts the tests in the background has the signal ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run("a.png", "-o", "b.png") == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert local.upscaler.cancelled.is_set()
    assert local.closed == 1
    assert files_in(folder) == ["a.png"]
    assert "interrupted" in capsys.readouterr().err


def test_it_starts_without_torch_or_ray() -> None:
    code = (
        "import sys, serve_app.cli.arguments as a; a.build_parser();"
        "print([m for m in ('torch', 'ray', 'diffusers', 'fastapi') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
