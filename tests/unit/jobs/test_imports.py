from pathlib import Path

import pytest

from serve_app.errors import InvalidParameter
from serve_app.jobs.blobs import Blobs
from serve_app.jobs.imports import Import, Imports


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("a/x/2.png", "a/x/10.png", "a/x/deep/1.png", "a/y/3.png", "b/x/secret.png"):
        path = tmp_path / "kept/imports" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (tmp_path / "outside.png").write_bytes(b"outside")
    return tmp_path / "kept"


async def test_a_folder_and_those_below_in_order(place: Path) -> None:
    imports = Imports(Blobs(str(place)), "a")
    found = await imports.listed("x")
    assert found == [Import("x/10.png", 10), Import("x/2.png", 9), Import("x/deep/1.png", 14)]
    assert await imports.read(found[1]) == b"a/x/2.png"
    assert [one.path for one in await imports.listed("/x/deep/")] == ["x/deep/1.png"]
    assert len(await imports.listed("")) == 4


@pytest.mark.parametrize(
    "prefix", ["..", "../b", "x/../../b", "./x", "x\\..", "x\0", "z", "../../outside.png"]
)
async def test_nothing_else_is_seen(place: Path, prefix: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        await Imports(Blobs(str(place)), "a").listed(prefix)
    assert caught.value.field == "prefix"


async def test_links_are_passed_over(place: Path) -> None:
    (place / "imports/a/x/link.png").symlink_to(place.parent / "outside.png")
    (place / "imports/a/x/folder").symlink_to(place / "imports/b", target_is_directory=True)
    imports = Imports(Blobs(str(place)), "a")
    assert len(await imports.listed("x")) == 3
    for path in ("x/link.png", "x/folder/x/secret.png", "x/gone.png"):
        with pytest.raises(InvalidParameter):
            await imports.read(Import(path, 1))
