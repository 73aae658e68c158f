"""What lives elsewhere is found by folder, hub id and URL, and fetched part by part."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import fsspec
import huggingface_hub.constants
import pytest

from serve_app.errors import ConfigurationError
from serve_app.model_info import ModelInfo
from serve_app.models.catalog import find_model, read_model_info
from serve_app.models.source import cache_folder, check_components, fetch, find_part, is_remote

DESCRIPTION = {
    "name": "house",
    "description": "For tests.",
    "license": "Apache-2.0",
    "tile_px": 64,
    "overlap_px": 16,
    "align_px": 16,
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "somebody/house"
FILES = {
    "tessera.json": json.dumps(DESCRIPTION),
    "whole-model.safetensors": "large and not needed",
    "transformer/config.json": "{}",
    "transformer/weights.safetensors": "w" * 1000,
    "text_encoder/model.safetensors": "t",
}


def info(**changes: Any) -> ModelInfo:
    return ModelInfo.model_validate(DESCRIPTION | changes)


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    return write(tmp_path / "elsewhere", FILES)


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(tmp_path / "cache")


def names(folder: Path) -> set[str]:
    return {str(f.relative_to(folder)) for f in folder.rglob("*") if not f.name.startswith(".")}


# URLs


def test_a_model_behind_a_url_brings_its_description_only(elsewhere: Path, cache: str):
    folder = find_model(elsewhere.as_uri(), cache)
    assert names(folder) == {"tessera.json"}
    assert read_model_info(folder).name == "house"


def test_its_parts_follow_when_they_are_asked_for(elsewhere: Path, cache: str):
    folder = find_model(elsewhere.as_uri(), cache)
    part = find_part(info(), folder, "transformer", cache)
    assert names(part) == {"config.json", "weights.safetensors"}
    fetched = {name for name in names(Path(cache)) if name.endswith(".safetensors")}
    assert {Path(name).name for name in fetched} == {"weights.safetensors"}


def test_a_part_that_a_url_lacks_is_named(elsewhere: Path, cache: str):
    folder = find_model(elsewhere.as_uri(), cache)
    with pytest.raises(ConfigurationError, match="vae") as caught:
        find_part(info(), folder, "vae", cache)
    assert caught.value.field == "vae"


def test_a_url_without_a_description_says_how_to_write_one(elsewhere: Path, cache: str):
    (elsewhere / "tessera.json").write_text("")
    (elsewhere / "tessera.json").rename(elsewhere / "model_index.json")
    with pytest.raises(ConfigurationError, match=r"docs/flux\.md") as caught:
        find_model(elsewhere.as_uri(), cache)
    assert caught.value.field == "model.source"


# Parts that a description places


@pytest.mark.parametrize("below", [":transformer", "/transformer"])
def test_a_component_may_be_a_url(elsewhere: Path, tmp_path: Path, cache: str, below: str):
    home = write(tmp_path / "home", {"tessera.json": "{}"})
    placed = info(components={"transformer": elsewhere.as_uri() + below})
    assert names(find_part(placed, home, "transformer", cache)) == {
        "config.json",
        "weights.safetensors",
    }


def test_a_url_keeps_its_port_and_its_host(cache: str):
    files = fsspec.filesystem("memory")
    files.pipe({"/host:8000/house/vae/config.json": b"{}"})
    assert names(fetch("memory://host:8000/house:vae", cache)) == {"config.json"}


@pytest.mark.parametrize("stated", ["../elsewhere/transformer", "../elsewhere:transformer"])
def test_a_component_may_be_a_folder(elsewhere: Path, tmp_path: Path, stated: str):
    home = write(tmp_path / "home", {"tessera.json": "{}"})
    found = find_part(info(components={"transformer": stated}), home, "transformer")
    assert found.resolve() == elsewhere / "transformer"


def test_a_part_of_a_local_model_is_its_folder(elsewhere: Path):
    assert find_part(info(), elsewhere, "transformer") == elsewhere / "transformer"
    with pytest.raises(ConfigurationError, match="vae"):
        find_part(info(), elsewhere, "vae")


@pytest.mark.parametrize("stated", ["", ":only", "@main"])
def test_a_malformed_source_is_named(elsewhere: Path, stated: str):
    with pytest.raises(ConfigurationError) as caught:
        find_part(info(components={"vae": stated}), elsewhere, "vae")
    assert caught.value.field == "vae"
    assert caught.value.allowed == "SOURCE[@REVISION][:SUBFOLDER]"


def test_only_parts_that_the_model_has_may_be_placed():
    control = {"picture": "given", "component": "union", "mode": 4}
    controls = {"upscale": {"picture": "source"}, "pose": control}
    check_components(info(controls=controls, components={"union": "x", "tokenizer_2": "y"}))
    with pytest.raises(ConfigurationError) as caught:
        check_components(info(components={"union": "x"}))
    assert caught.value.field == "union"
    assert "controlnet" in str(caught.value.allowed)


# The hub


@pytest.mark.parametrize(
    ("source", "remote"),
    [
        ("somebody/house@main", True),
        (f"somebody/house@{COMMIT}", True),
        ("somebody/house", False),
        ("./somebody/house@main", False),
        ("house@main", False),
        ("s3://bucket/house", True),
        ("https://example.com:8000/house", True),
        ("mini", False),
    ],
)
def test_remote_sources_are_told_from_folders(source: str, remote: bool):
    assert is_remote(source) is remote


def test_an_unpinned_hub_id_is_no_model(cache: str):
    with pytest.raises(ConfigurationError) as caught:
        find_model("somebody/house", cache)
    assert "OWNER/NAME@REVISION" in str(caught.value.allowed)


def test_offline_a_hub_id_that_is_not_here_says_so(cache: str):
    assert huggingface_hub.constants.HF_HUB_OFFLINE
    with pytest.raises(ConfigurationError) as caught:
        find_model(f"{REPOSITORY}@main", cache)
    assert caught.value.field == "model.source"
    assert "HF_HUB_OFFLINE=0" in caught.value.detail


@pytest.fixture
def downloaded(cache: str) -> Path:
    """The hub's own cache as its client leaves it: content by digest, a snapshot of links, a listing."""
    home = Path(cache) / "hub" / f"models--{REPOSITORY.replace('/', '--')}"
    listing = {}
    for name, content in FILES.items():
        raw = content.encode()
        large = name.endswith(".safetensors")
        git = hashlib.sha1(b"blob %d\0" % len(raw) + raw).hexdigest()
        digest = hashlib.sha256(raw).hexdigest() if large else git
        listing[name] = {
            "size": len(raw),
            "blob_id": git,
            "lfs_sha256": digest if large else None,
            "lfs_size": len(raw) if large else None,
            "xet_hash": None,
        }
        write(home, {f"blobs/{digest}": content})
        link = home / "snapshots" / COMMIT / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(home / "blobs" / digest)
    write(home, {"refs/main": COMMIT})
    from huggingface_hub._snapshot_download import TreeCacheEntry, write_tree_cache

    write_tree_cache(str(home), COMMIT, {k: TreeCacheEntry(**v) for k, v in listing.items()})
    return home


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_a_hub_model_that_is_here_loads_offline(downloaded: Path, cache: str, revision: str):
    folder = find_model(f"{REPOSITORY}@{revision}", cache)
    assert names(folder) == {"tessera.json"}
    part = find_part(read_model_info(folder), folder, "transformer", cache)
    assert part == downloaded / "snapshots" / COMMIT / "transformer"
    assert names(part) == {"config.json", "weights.safetensors"}


def test_a_component_may_be_a_hub_id(downloaded: Path, tmp_path: Path, cache: str):
    home = write(tmp_path / "home", {"tessera.json": "{}"})
    placed = info(components={"vae": f"{REPOSITORY}@main:transformer"})
    assert names(find_part(placed, home, "vae", cache)) == {"config.json", "weights.safetensors"}


@pytest.mark.parametrize("name", ["weights.safetensors", "config.json"])
def test_what_is_broken_of_a_download_is_not_used(downloaded: Path, cache: str, name: str):
    """Offline it cannot be had again; that the broken file is gone is what lets the client fetch it."""
    folder = find_model(f"{REPOSITORY}@main", cache)
    broken = downloaded / "snapshots" / COMMIT / "transformer" / name
    blob = broken.resolve()
    find_part(info(), folder, "transformer", cache)
    content = blob.read_bytes()
    blob.write_bytes(b"X" + content[1:])
    with pytest.raises(ConfigurationError, match="HF_HUB_OFFLINE=0"):
        find_part(info(), folder, "transformer", cache)
    assert not blob.exists()
    blob.write_bytes(content)
    broken.symlink_to(blob)
    assert (find_part(info(), folder, "transformer", cache) / name).read_bytes() == content


# The cache


def test_the_cache_is_the_stated_folder_or_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert cache_folder(str(tmp_path)) == tmp_path
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder(None) == tmp_path / "xdg" / "tessera"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder(None) == tmp_path / "home" / ".cache" / "tessera"
