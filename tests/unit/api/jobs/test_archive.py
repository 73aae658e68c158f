"""ZIPs of strangers."""

import io
import struct
import zipfile

import pytest

from serve_app.api.jobs.archive import expand
from serve_app.errors import InvalidParameter, TooLarge
from tests.unit.api.jobs.conftest import zipped


def expanded(
    data: bytes, entries: int = 5, each: int = 10_000, total: int = 20_000
) -> list[tuple[str, bytes]]:
    return list(expand(io.BytesIO(data), entries, each, total))


def test_names_lose_their_folders_and_leftovers_are_passed_over() -> None:
    files = {
        "a/b/c.png": b"1",
        "../../d.png": b"2",
        "/e.png": b"3",
        "f/": b"",
        ".DS_Store": b"4",
        "__MACOSX/g": b"5",
    }
    assert expanded(zipped(files)) == [("c.png", b"1"), ("d.png", b"2"), ("e.png", b"3")]


@pytest.mark.parametrize(
    "files",
    [
        {f"{n}": b"1" for n in range(6)},
        {"a": bytes(10_001)},
        {"a": bytes(9000), "b": bytes(9000), "c": bytes(9000)},
        {f"{n}": b"" for n in range(50)},
    ],
    ids=["entries", "file", "total", "directory"],
)
def test_over_a_limit(files: dict[str, bytes]) -> None:
    with pytest.raises(TooLarge) as raised:
        expanded(zipped(files))
    assert raised.value.field == "archive"


def test_a_bomb() -> None:
    data = zipped({"a": bytes(4 * 2**20)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(InvalidParameter, match="far more"):
        expanded(data, each=2**30, total=2**30)


def changed(data: bytes, at: int, value: int, form: str = "<H") -> bytes:
    """Rewrites a field of the only entry's record in the directory."""
    place = data.index(b"PK\1\2") + at
    size = struct.calcsize(form)
    return data[:place] + struct.pack(form, value) + data[place + size :]


GOOD = zipped({"a": b"abc"})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\5\6",
        b"nothing at all, but longer than the end of a ZIP",
        GOOD[:-30],
        GOOD[:31] + b"xyz" + GOOD[34:],
        changed(GOOD, 8, 1),
        changed(GOOD, 10, 99),
        changed(GOOD, 16, 0, "<L"),
        changed(GOOD, 24, 2, "<L"),
        changed(GOOD, 42, 7777, "<L"),
        GOOD[:-22] + b"PK\6\7" + bytes(16) + GOOD[-22:],
        zipped({}),
    ],
)
def test_lies(data: bytes) -> None:
    with pytest.raises(InvalidParameter) as raised:
        expanded(data)
    assert raised.value.field == "archive"
