from __future__ import annotations

import re

import pytest

from serve_app.models import revision
from serve_app.models.catalog import SHIPPED, read_model_info
from serve_app.models.revision import find_revision


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "vae").mkdir()
    (tmp_path / "tessera.json").write_text("{}")
    (tmp_path / "vae" / "w.safetensors").write_bytes(b"0123456789")
    return tmp_path


def test_other_weights_are_another_revision(folder):
    before = find_revision(folder)
    assert re.fullmatch("[0-9a-f]{16}", before)
    (folder / "README.md").write_text("says nothing of what is computed")
    assert find_revision(folder) == before
    (folder / "vae" / "w.safetensors").write_bytes(b"0123456780")
    assert find_revision(folder) != before


def test_of_a_large_file_both_ends_count(folder, monkeypatch):
    monkeypatch.setattr(revision, "WHOLE_BYTES", 4)
    before = find_revision(folder)
    (folder / "vae" / "w.safetensors").write_bytes(b"0123456780")
    assert find_revision(folder) != before


def test_a_pinned_commit_is_the_revision(folder, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    monkeypatch.setattr(revision, "origin_of", lambda _: f"owner/name@{commit}")
    assert find_revision(folder) == commit


def test_the_shipped_model_says_its_revision():
    info = read_model_info(SHIPPED / "mini")
    assert info.revision == find_revision(SHIPPED / "mini")
