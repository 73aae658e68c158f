"""Opens a ZIP of pictures that a stranger sent: entry by entry, within limits, its names on no disk.

It refuses to know pictures.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO

from serve_app.errors import InvalidParameter, TooLarge

FIELD = "archive"
MOST_RATIO = 200
"""Unpacked bytes for a packed one; pictures are packed already, text reaches 10."""
_FREE_BYTES = 2**20  # so little unpacked does no harm, whatever its ratio
_ENTRY_BYTES = 1024  # of the directory, for an entry; a name has some 50
_RECORD, _END, _END64 = b"PK\1\2", b"PK\5\6", b"PK\6\7"
_RECORD_BYTES = 46  # before a record's name
_END_BYTES, _END64_BYTES, _COMMENT_BYTES = 22, 20, 65535
_ALLOWED = "a ZIP of pictures, stored or deflated, without a password"


def expand(
    file: IO[bytes], most_entries: int, entry_bytes: int, total_bytes: int
) -> Iterator[tuple[str, bytes]]:
    """Unpacks a ZIP's files one by one; folders and what systems leave behind are passed over.

    Args:
        file: The archive; seekable.
        most_entries: Files at most.
        entry_bytes: Bytes of one file, unpacked.
        total_bytes: Of all.

    Yields:
        A file's name without its folders, and its bytes.

    Raises:
        InvalidParameter: not a ZIP that is read here, or one that lies about itself.
        TooLarge: over a limit.
    """
    _check_directory(file, most_entries)
    try:
        with zipfile.ZipFile(file) as archive:
            entries = [entry for entry in archive.infolist() if _wanted(entry)]
            _check_entries(entries, most_entries, entry_bytes, total_bytes)
            _check_apart(entries, file.seek(0, 2))
            for entry in entries:
                yield PurePosixPath(entry.filename).name, archive.read(entry)
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, UnicodeDecodeError) as error:
        raise _malformed(str(error)) from None
    except (NotImplementedError, RuntimeError, OSError, ValueError) as error:
        raise _malformed(f"it cannot be unpacked: {error}") from None


def _check_directory(file: IO[bytes], most_entries: int) -> None:
    """Judges the directory before it is read whole: its size, and how many records it really has."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _END_BYTES - _COMMENT_BYTES - _END64_BYTES))
    tail = file.read()
    at = len(tail) - _END_BYTES
    if at < 0 or tail[at : at + 4] != _END or tail[-2:] != b"\0\0":
        at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _END_BYTES:
        raise _malformed("it is no ZIP file, or its end is missing")
    if tail[max(0, at - _END64_BYTES) :].startswith(_END64):
        raise _malformed("ZIP64 archives are not read")
    entries, directory_bytes = struct.unpack_from("<HL", tail, at + 10)
    if entries > 2 * most_entries or directory_bytes > 2 * most_entries * _ENTRY_BYTES:
        raise _too_many(most_entries)
    end = size - len(tail) + at
    file.seek(max(0, end - directory_bytes))
    if _records(file.read(min(directory_bytes, end))) > 2 * most_entries:
        raise _too_many(most_entries)


def _records(directory: bytes) -> int:
    """How many records a directory has, whatever its end says of that: each becomes an object of a kilobyte."""
    count, at = 0, 0
    while directory.startswith(_RECORD, at) and at + _RECORD_BYTES <= len(directory):
        at += _RECORD_BYTES + sum(struct.unpack_from("<3H", directory, at + 28))
        count += 1
    return count


def _wanted(entry: zipfile.ZipInfo) -> bool:
    path = PurePosixPath(entry.filename)
    hidden = path.name.startswith(".") or "__MACOSX" in path.parts
    return not entry.is_dir() and not hidden and path.name not in ("", "Thumbs.db", "desktop.ini")


def _check_entries(
    entries: list[zipfile.ZipInfo], most_entries: int, entry_bytes: int, total_bytes: int
) -> None:
    if not entries:
        raise InvalidParameter(f"{FIELD}: it holds no file", field=FIELD, allowed=_ALLOWED)
    if len(entries) > most_entries:
        raise _too_many(most_entries)
    for entry in entries:
        if entry.flag_bits & 1:
            raise _malformed("a file in it is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _malformed("a file in it is packed in a way that is not read")
        if entry.file_size > entry_bytes:
            raise _too_large(
                f"a file in it has {entry.file_size} bytes", f"{entry_bytes} bytes a file"
            )
        if entry.file_size > max(_FREE_BYTES, MOST_RATIO * entry.compress_size):
            raise _malformed("a file in it unpacks to far more than it is packed to")
    if (total := sum(entry.file_size for entry in entries)) > total_bytes:
        raise _too_large(f"its files have {total} bytes", f"{total_bytes} bytes unpacked")


def _check_apart(entries: list[zipfile.ZipInfo], size: int) -> None:
    """Refuses entries that share their packed bytes: a small file would be unpacked again and again."""
    if sum(entry.compress_size for entry in entries) > size:
        raise _malformed("its files lie over each other")


def _malformed(reason: str) -> InvalidParameter:
    return InvalidParameter(f"{FIELD}: {reason}", field=FIELD, allowed=_ALLOWED)


def _too_large(detail: str, allowed: str) -> TooLarge:
    return TooLarge(f"{FIELD}: {detail}", field=FIELD, allowed=f"at most {allowed}")


def _too_many(most: int) -> TooLarge:
    return _too_large(f"it holds more than {most} files", f"{most} files")
