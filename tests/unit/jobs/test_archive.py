"""ZIPs of strangers."""

import io
import struct
import zipfile
import zlib

import pytest

from serve_app.errors import InvalidParameter, TooLarge
from serve_app.jobs.archive import expand
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


def made(entries: int, size: int, told: int) -> bytes:
    """Entries that are all one and the same packed file, and an end that tells of some number of them."""
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = pack.compress(bytes(size)) + pack.flush()
    facts = (20, 0, 8, 0, 0, zlib.crc32(bytes(size)), len(packed), size, 1, 0)
    file = struct.pack("<4s5H3L2H", b"PK\3\4", *facts) + b"a" + packed
    record = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, *facts, 0, 0, 0, 0, 0) + b"a"
    end = (b"PK\5\6", 0, 0, told, told, entries * len(record), len(file), 0)
    return file + record * entries + struct.pack("<4s4H2LH", *end)


def test_one_packed_file_under_many_names_is_unpacked_once() -> None:
    """Each alone is within the limits; together they were 200 times more than an archive may unpack to."""
    one, many = made(1, 2**20, 1), made(100, 2**20, 100)
    assert [len(data) for _, data in expanded(one, each=2**20, total=2**30)] == [2**20]
    with pytest.raises(InvalidParameter, match="over each other"):
        expanded(many, entries=1000, each=2**20, total=2**30)


def test_an_end_that_tells_of_fewer_entries_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """430,000 in 20 MB took 12 s and 134 MiB to be counted."""
    monkeypatch.setattr(zipfile, "ZipFile", None)
    with pytest.raises(TooLarge, match="more than 5 files"):
        expanded(made(11, 10, told=1))


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
