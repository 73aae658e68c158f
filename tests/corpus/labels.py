"""Files that are not called what they are, that are two things at once, or that are hardly anything."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator

import numpy as np

from tests.corpus.case import BROKEN, EITHER, REFUSED, UNSUPPORTED, Case, bad, good
from tests.corpus.originals import FORMATS, PHOTO, TOLERANCE, original
from tests.corpus.parts import chunk, segment

_HTML = b"<html><script>alert(document.cookie)</script></html>"
_PDF = b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"


def cases() -> Iterator[Case]:
    """Wrong names, polyglots, and next to nothing."""
    yield from _misnamed()
    yield from _polyglots()
    for name, data in (
        ("nothing", b""),
        ("a-zero", b"\0"),
        ("a-letter", b"a"),
        ("a-newline", b"\n"),
        ("4096-zeros", bytes(4096)),
        ("noise", np.random.default_rng(3).bytes(4096)),
        ("half-a-magic", b"\x89PNG"),
    ):
        yield bad("next to nothing", name, data, {BROKEN, UNSUPPORTED})
    weighty = original("png") + bytes(17 * 2**20)
    yield bad("over the upload limit", "png-and-17-mib", weighty, {413})


def _misnamed() -> Iterator[Case]:
    lies = (
        "image/jpeg",
        "image/png",
        "text/html",
        "application/x-sh",
        "image/svg+xml",
        "",
        "a/b; c=\xe9",
    )
    names = ("a.jpg", "a.png", "../../etc/passwd", "a.php", "a.svg", "a" * 300, "\xe4\u202egnp.exe")
    for number, kind in enumerate(FORMATS):
        other = number % len(lies)
        sent = {"filename": names[other], "media_type": lies[other]}
        yield good("mislabelled", kind, original(kind), PHOTO, TOLERANCE[kind], **sent)
    for name, data in (("pdf", _PDF), ("html", _HTML), ("script", b"#!/bin/sh\nexit 0\n")):
        sent = {"filename": "a.png", "media_type": "image/png"}
        yield Case("mislabelled", f"{name}-as-png", data, frozenset({UNSUPPORTED}), **sent)


def _polyglots() -> Iterator[Case]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("run.sh", "exit 0")
    for kind in FORMATS:
        data = original(kind) + archive.getvalue()
        # What lies behind a picture is no part of it, where the format says where it ends.
        yield Case("polyglot", f"{kind}-and-zip", data, EITHER, (48, 64))
    jpeg, png, gif = original("jpeg"), original("png"), original("gif")
    hidden = jpeg[:2] + segment(0xFE, _PDF) + jpeg[2:]
    yield good("polyglot", "jpeg-with-pdf-in-comment", hidden, PHOTO, TOLERANCE["jpeg"])
    html = jpeg[:2] + segment(0xFE, _HTML) + jpeg[2:]
    yield good("polyglot", "jpeg-with-html-in-comment", html, PHOTO, TOLERANCE["jpeg"])
    text = png[:33] + chunk(b"tEXt", b"Comment\0" + _HTML) + png[33:]
    yield good("polyglot", "png-with-html-in-text", text, PHOTO)
    php = png[:33] + chunk(b"tEXt", b"Comment\0<?php system($_GET[0]); ?>") + png[33:]
    yield good("polyglot", "png-with-php-in-text", php, PHOTO)
    yield bad("polyglot", "pdf-before-jpeg", _PDF + jpeg, {UNSUPPORTED})
    yield bad("polyglot", "html-before-png", _HTML + png, {UNSUPPORTED})
    yield bad("polyglot", "jpeg-magic-on-png", b"\xff\xd8\xff" + png[3:], REFUSED)
    yield bad("polyglot", "png-magic-on-gif", b"\x89PNG\r\n\x1a\n" + gif[8:], REFUSED)
    script = b"GIF89a/*" + gif[8:] + b"*/=1;alert(1)"
    yield bad("polyglot", "gif-and-javascript", script, EITHER)
