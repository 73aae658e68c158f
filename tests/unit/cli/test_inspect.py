"""`tessera inspect`, run as the command is."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from serve_app import __version__
from serve_app.cli import inspect as command
from serve_app.cli import main
from serve_app.cli.arguments import build_parser, option_of, read_params
from serve_app.cli.inspect import differences, repeat
from serve_app.contracts import OutputFormat, UpscaleParams
from serve_app.errors import BrokenImage
from serve_app.imaging.encode import encode
from serve_app.models.catalog import SHIPPED, read_model_info
from tests.unit.imaging.pictures import chunk, png
from tests.unit.imaging.results import look, p3, smooth

PARAMETERS = {
    "model": "mini",
    "scale": 2.5,
    "width": None,
    "steps": 4,
    "controls": [{"name": "canny", "scale": 0.5, "start": 0.0, "end": 0.8}],
    "lora": "turbo",
    "lora_scale": 0.8,
    "prompt": "-a 'quoted' \"text\"; rm -rf $HOME `date`\nand more",
    "negative_prompt": "",
    "seed": 7,
    "output_format": "png",
    "preset": "photo",
    "fidelity": None,
    "bit_depth": 16,
    "keep_metadata": True,
    "keep_gps": False,
}
PROVENANCE = {"version": "0.1.0", "model": "mini", "seed": 7, "parameters": PARAMETERS}


@pytest.fixture
def result(tmp_path: Path) -> Path:
    path = tmp_path / "result.png"
    path.write_bytes(encode(smooth(), None, look(bit_depth=16, icc=p3(), provenance=PROVENANCE)))
    return path


def told(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert main(["inspect", str(path), "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_a_result_tells_how_it_was_made(result: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(result)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{result}: png, 56x40 px, 16 bits, profile ")
    assert lines[0].endswith("P3") or "p3" in lines[0].lower()
    assert lines[1:4] == ["version: 0.1.0", "model: mini", "seed: 7"]
    assert "again: tessera upscale IN -o OUT --model=mini --scale=2.5" in "\n".join(lines)


def test_the_same_as_json(result: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(result, capsys)
    assert (found["format"], found["width"], found["height"]) == ("png", 56, 40)
    assert found["bit_depth"] == 16
    assert found["provenance"] == PROVENANCE
    assert str(found["command"]).startswith("tessera upscale IN -o OUT")


def test_the_command_makes_it_again() -> None:
    line = repeat(PROVENANCE, option_of)
    assert line is not None
    arguments = build_parser().parse_args(shlex.split(line)[1:])
    given = {name: value for name, value in PARAMETERS.items() if value not in (None, "")}
    assert read_params(arguments) == UpscaleParams.parse(given).model_copy(update={"preset": None})


@pytest.mark.parametrize("provenance", [{}, {"parameters": "text"}, {"seed": 1}])
def test_without_parameters_there_is_no_command(provenance: dict[str, object]) -> None:
    assert repeat(provenance, option_of) is None


@pytest.mark.parametrize("model", ["../mini", "hub/model", 7, None, ["mini"]])
def test_what_is_as_it_was_and_what_cannot_be_known_is_not_told(model: object) -> None:
    here = read_model_info(SHIPPED / "mini").revision
    assert differences({"version": __version__, "model": "mini", "revision": here}) == []
    assert differences({"version": __version__, "model": model, "revision": "other"}) == []


def test_another_version_and_another_revision_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "old.png"
    old = PROVENANCE | {"version": "0.0.1", "revision": "abc"}
    path.write_bytes(encode(smooth(), None, look(provenance=old)))
    warnings = told(path, capsys)["warnings"]
    here = read_model_info(SHIPPED / "mini").revision
    assert warnings == [
        f"made by Tessera 0.0.1; this is {__version__}",
        f"made with revision abc of mini; here it is {here}",
    ]
    assert main(["inspect", str(path)]) == 0
    assert f"warning: made by Tessera 0.0.1; this is {__version__}" in capsys.readouterr().out


def test_what_a_stranger_wrote_does_not_reach_a_terminal_as_a_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = "\x1b]0;title\x07\x9b2J\r\u202egnp"
    told = {"version": bad, "model": bad, "parameters": {"prompt": bad, bad: bad}}
    text = b"iTXtTessera\0\0\0\0\0" + json.dumps(told).encode()
    plain = encode(smooth(), None, look(icc=p3().replace(b"uP3", b"\x1bP3")))
    path = tmp_path / "result.png"
    path.write_bytes(plain[:33] + len(text[4:]).to_bytes(4, "big") + text + bytes(4) + plain[33:])
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "version: \ufffd]0;title" in out
    assert not set(out) & set("\x1b\x07\x9b\r\u202e")


def test_a_profile_that_kills_its_reader_has_no_name(
    result: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def died(*_: object) -> str:
        raise BrokenImage("the decoder died")

    monkeypatch.setattr(command, "profile_name_contained", died)
    assert told(result, capsys)["profile"] is None


def test_what_somebody_else_wrote_never_fails() -> None:
    line = repeat({"parameters": {"controls": ["x", {}], "prompt": {"a": 1}}}, option_of)
    assert (
        line
        == "tessera upscale IN -o OUT --control x --control ::: '--prompt={'\"'\"'a'\"'\"': 1}'"
    )


@pytest.mark.parametrize("kind", OutputFormat)
def test_every_written_format(
    kind: OutputFormat, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "result"
    path.write_bytes(encode(smooth(), None, look(kind, provenance=PROVENANCE)))
    found = told(path, capsys)
    assert (found["format"], found["width"], found["height"]) == (kind.value, 56, 40)
    assert found["provenance"] == PROVENANCE


def test_colours_named_by_numbers_are_not_called_srgb(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wide.png"
    for primaries, profile in ((12, "none, but colours named by numbers"), (1, "sRGB")):
        cicp = chunk(b"cICP", bytes([primaries, 13, 0, 1]))
        path.write_bytes(png(1, 8, 2, [bytes(3)], before=cicp))
        assert told(path, capsys)["profile"] == profile


def test_a_file_without_provenance_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plain.jpg"
    path.write_bytes(encode(smooth(), None, look(OutputFormat.JPEG)))
    assert main(["inspect", str(path)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{path}: jpeg, 56x40 px, 8 bits, profile sRGB"
    assert second.startswith("no provenance")
    assert told(path, capsys)["command"] is None


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [(None, 2, "No such file"), (b"", 1, "empty"), (b"some text", 1, "allowed")],
)
def test_what_is_no_picture(
    content: bytes | None,
    code: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    assert main(["inspect", str(path)]) == code
    assert message in capsys.readouterr().err


def test_a_file_that_is_too_large_is_not_read(
    result: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "MOST_BYTES", 100)
    assert main(["inspect", str(result)]) == 2
    assert "larger than 100 bytes" in capsys.readouterr().err
