"""Formats that are not read, each with its own first bytes, whatever a library at hand could do with them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from PIL import Image

from tests.corpus.case import UNSUPPORTED, Case, bad
from tests.corpus.originals import PHOTO, saved
from tests.corpus.parts import box

_TEXTS = {
    "svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "svg-entities": b'<!DOCTYPE s [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><svg>&b;</svg>',
    "svg-that-reads-files": b'<svg><image href="file:///etc/passwd"/></svg>',
    "html": b"<!DOCTYPE html><html></html>",
    "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (w) file\n",
    "xpm": b'/* XPM */\nstatic char *a[] = {"1 1 1 1", "a c #000000", "a"};\n',
    "xbm": b"#define a_width 8\n#define a_height 1\nstatic char a_bits[] = {0x00};\n",
    "hdr": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 1\n\1\1\1\1",
    "mvg": b"push graphic-context\nviewbox 0 0 9 9\nfill 'url(https://localhost/a.jpg)'\n",
    "fits": b"SIMPLE  =                    T" + b" " * 2850,
    "psd": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 9, 9, 8, 3) + bytes(20),
    "psb": b"8BPS\0\2" + bytes(6) + struct.pack(">HIIHH", 3, 9, 9, 8, 3) + bytes(20),
    "fpx": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504),
    "mic": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1000),
    "wmf": b"\xd7\xcd\xc6\x9a" + bytes(40),
    "emf": b"\1\0\0\0" + bytes(36) + b" EMF" + bytes(60),
    "dcx": b"\xb1\x68\xde\x3a" + bytes(60),
    "fli": struct.pack("<IHHHH", 200, 0xAF12, 1, 9, 9) + bytes(120),
    "icns": b"icns" + struct.pack(">I", 60) + bytes(52),
    "iptc": b"\x1c\x02\x05\0\4test" + bytes(60),
    "mpeg": b"\0\0\1\xb3\1\0\1\x14" + bytes(60),
    "mp3": b"ID3\4\0\0\0\0\0\0" + bytes(60),
    "exr": b"\x76\x2f\x31\x01\2\0\0\0" + bytes(60),
    "matlab": b"MATLAB 5.0 MAT-file" + bytes(200),
    "nifti": struct.pack("<I", 348) + bytes(340) + b"n+1\0",
    "zip": b"PK\3\4" + bytes(60),
    "gzip": b"\x1f\x8b\x08" + bytes(60),
    "elf": b"\x7fELF\2\1\1" + bytes(60),
    "jpeg-2000-stream": b"\xff\x4f\xff\x51" + bytes(60),
    "jpeg-xl-stream": b"\xff\x0a" + bytes(60),
    "jpeg-xl": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(60),
    "jpeg-2000": b"\0\0\0\x0cjP  \r\n\x87\n" + box(b"ftyp", b"jp2 " + bytes(4) + b"jp2 "),
    "qoi": b"qoif" + struct.pack(">II", 1, 1) + b"\3\0\xc0" + bytes(7) + b"\1",
    "riff-wave": b"RIFF" + struct.pack("<I", 40) + b"WAVEfmt " + bytes(30),
    "riff-avi": b"RIFF" + struct.pack("<I", 40) + b"AVI LIST" + bytes(30),
    "mp4": box(b"ftyp", b"isom" + bytes(4) + b"isommp42") + box(b"moov") + box(b"mdat", bytes(60)),
    "quicktime": box(b"ftyp", b"qt  " + bytes(4) + b"qt  ") + box(b"moov"),
    "raw-cr3": box(b"ftyp", b"crx " + bytes(4) + b"crx isom") + box(b"moov"),
}
_BY_PILLOW = (
    "ppm",
    "ico",
    "tga",
    "dds",
    "pcx",
    "sgi",
    "msp",
    "spider",
    "eps",
    "pdf",
    "jpeg2000",
)


def cases() -> Iterator[Case]:
    """Each is 415, by its first bytes."""
    for name, data in _TEXTS.items():
        yield bad("format not read", name, data, {UNSUPPORTED})
    photo = Image.fromarray(PHOTO)
    for kind in _BY_PILLOW:
        image = {"msp": photo.convert("1"), "spider": photo.convert("F")}.get(kind, photo)
        yield bad("format not read", f"{kind}-file", saved(image, kind), {UNSUPPORTED})
