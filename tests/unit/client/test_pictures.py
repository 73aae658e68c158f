import io
from pathlib import Path

import pytest
from PIL import Image

from serve_app.client.pictures import Named, bytes_of, file_name, part_of

PNG = b"\x89PNG and so on"


async def test_what_callers_have_becomes_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    with path.open("rb") as file:
        assert await bytes_of(file) == PNG
    for picture in (path, str(path), PNG, bytearray(PNG), io.BytesIO(PNG), Named("a", PNG)):
        assert await bytes_of(picture) == PNG


async def test_a_pillow_image_keeps_its_pixels_and_its_profile() -> None:
    image = Image.effect_noise((7, 5), 40).convert("RGBA")
    image.info["icc_profile"] = b"profile"
    with Image.open(io.BytesIO(await bytes_of(image))) as found:
        assert found.tobytes() == image.tobytes()
        assert found.info["icc_profile"] == b"profile"


@pytest.mark.parametrize("wrong", [None, 3, io.StringIO("text")])
async def test_what_is_no_picture_is_told(wrong: object) -> None:
    with pytest.raises(TypeError, match=f"not {type(wrong).__name__}"):
        await bytes_of(wrong)  # type: ignore[arg-type]


async def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await bytes_of(tmp_path / "none.png")


async def test_files_stay_files_in_a_job(tmp_path: Path) -> None:
    assert await part_of(str(tmp_path / "a.png"), 0) == tmp_path / "a.png"
    assert await part_of(PNG, 3) == Named("picture-3", PNG)
    assert await part_of(Named("b.png", PNG), 3) == Named("b.png", PNG)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jpg", "a.png"),
        ("../../etc/x.y.jpg", "x.y.png"),
        ("c:\\d\\e", "e.png"),
        ("..", "picture.png"),
    ],
)
def test_results_never_leave_their_folder(name: str, expected: str) -> None:
    assert file_name(name, "image/png") == expected
