"""Resolves where a model or a part of it lives: a folder, a hub id, an fsspec URL. Loads no weight.

What lives elsewhere is fetched to this node when it is asked for and part by part: a GPU replica never fetches
text encoders, the prompt encoder never fetches the transformer, the gateway only the description.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from serve_app.errors import ConfigurationError
from serve_app.model_info import ModelInfo
from serve_app.models.copies import changed_files, copy_once, origin_of, record, sha256_of

NETWORKS = ("transformer", "vae")
DEPTH_ESTIMATOR = "depth_estimator"
OTHER_PARTS = (
    "scheduler",
    "text_encoder",
    "text_encoder_2",
    "tokenizer",
    "tokenizer_2",
    DEPTH_ESTIMATOR,
)

_SOURCE = re.compile(
    r"(?P<url>[a-z][a-z0-9+.]*://[^/]*(/[^:]*)?)(:(?P<below>.+))?"
    r"|(?P<name>[^@:]+)(@(?P<revision>[^:]+))?(:(?P<subfolder>.+))?"
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_LARGE = re.compile("[0-9a-f]{64}")
_SMALL = re.compile("[0-9a-f]{40}")
# configurations, weights, tokenizers
PART_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
DESCRIPTION_FILES = ("*.json", "prompt_embeds*.safetensors")


def cache_folder(stated: str | None) -> Path:
    """The node-local cache: `model.cache_dir`, else a folder of the user's cache."""
    if stated:
        return Path(stated).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tessera"


def is_remote(source: str) -> bool:
    """Whether a source names a URL or a pinned hub id, and no folder."""
    parts = _SOURCE.fullmatch(source)
    return parts is not None and bool(
        parts["url"] or (parts["revision"] and _HUB_ID.fullmatch(parts["name"]))
    )


def fetch(source: str, cache_dir: str | None = None, wanted: Sequence[str] = PART_FILES) -> Path:
    """Brings the files of a remote folder to this node.

    Args:
        source: `URL[:SUBFOLDER]` or `OWNER/NAME[@REVISION][:SUBFOLDER]`.
        cache_dir: `model.cache_dir`.
        wanted: Patterns of their names; subfolders are never fetched.

    Returns:
        A folder on this node.

    Raises:
        ConfigurationError: saying what cannot be had and why.
    """
    parts = _SOURCE.fullmatch(source)
    if parts is None:
        raise ConfigurationError(f"model: {source!r} is no source", field="model.source")
    cache = cache_folder(cache_dir)
    if parts["url"]:
        url = "/".join(filter(None, (parts["url"].rstrip("/"), parts["below"])))
        return copy_once(url, cache, wanted)
    below = f"{parts['subfolder']}/" if parts["subfolder"] else ""
    patterns = [below + pattern for pattern in wanted]
    return _from_hub(parts["name"], parts["revision"], below, patterns, cache_dir) / below


def fetch_description(source: str, cache_dir: str | None = None) -> Path:
    """Brings a remote model's description to this node, in a folder that knows where the parts are.

    Raises:
        ConfigurationError: see `fetch`.
    """
    folder = fetch(source, cache_dir, DESCRIPTION_FILES)
    if origin_of(folder):
        return folder
    return copy_once(folder.as_uri(), cache_folder(cache_dir), DESCRIPTION_FILES, origin=source)


def find_part(info: ModelInfo, folder: Path, name: str, cache_dir: str | None = None) -> Path:
    """The folder of one part of a model, fetched if it lives elsewhere.

    Args:
        info: The model's description; its `components` say what lives elsewhere.
        folder: Of the model, see `catalog.find_model`.
        name: `transformer`, `vae`, `scheduler`, a text encoder or tokenizer, or a control's component.
        cache_dir: `model.cache_dir`.

    Raises:
        ConfigurationError: naming the part, if it is nowhere.
    """
    stated = info.components.get(name)
    origin = origin_of(folder)
    try:
        if stated is None:
            found = fetch(_below(origin, name), cache_dir) if origin else folder / name
        else:
            found = _stated_part(stated, folder, name, cache_dir)
    except ConfigurationError as error:
        detail = f"{name}: {error.detail}"
        raise ConfigurationError(detail, field=name, allowed=error.allowed) from error
    if not found.is_dir():
        raise ConfigurationError(f"{name}: there is no folder {found}", field=name)
    return found


def check_components(info: ModelInfo) -> None:
    """Refuses a description that places parts which the model does not have.

    Raises:
        ConfigurationError: naming the first one.
    """
    controls = dict.fromkeys(control.component for control in info.controls.values())
    known = (*NETWORKS, *controls, *OTHER_PARTS)
    for name in info.components:
        if name not in known:
            raise ConfigurationError(
                f"components.{name}: no such component",
                field=name,
                allowed=f"one of {', '.join(known)}",
            )


def _below(origin: str, name: str) -> str:
    return f"{origin.rstrip('/')}{'/' if ':' in origin else ':'}{name}"


def _stated_part(stated: str, folder: Path, name: str, cache_dir: str | None) -> Path:
    parts = _SOURCE.fullmatch(stated)
    if parts is None:
        raise ConfigurationError(
            f"components.{name}: {stated!r}", field=name, allowed="SOURCE[@REVISION][:SUBFOLDER]"
        )
    local = folder / (parts["name"] or "")
    if parts["url"] or (not local.is_dir() and _HUB_ID.fullmatch(parts["name"])):
        return fetch(stated, cache_dir)
    return local / (parts["subfolder"] or "")


def _from_hub(
    repository: str,
    revision: str | None,
    below: str,
    patterns: Sequence[str],
    cache_dir: str | None,
) -> Path:
    """Downloads a part of a repository with the hub's own client, and again what is broken of it."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError

    def download() -> Path:
        folder = snapshot_download(
            repository,
            revision=revision,
            cache_dir=cache_folder(cache_dir) / "hub" if cache_dir else None,
            allow_patterns=list(patterns),
            ignore_patterns=f"{below}*/*",
        )
        return Path(folder)

    try:
        folder = download()
        if _drop_broken(folder, patterns, cache_folder(cache_dir)):
            folder = download()
    except Exception as error:  # its transports raise their own
        advice = "check the name and the revision"
        if isinstance(error, GatedRepoError):
            advice = "accept its licence on the hub, then `hf auth login`"
        elif isinstance(error, LocalEntryNotFoundError):
            advice = "it is not on this machine; HF_HUB_OFFLINE=0 allows fetching"
        raise ConfigurationError(
            f"{repository}@{revision or 'main'} cannot be had from the hub ({advice}): {error}",
            field="model.source",
        ) from error
    return folder


def _drop_broken(folder: Path, patterns: Sequence[str], cache: Path) -> bool:
    """Deletes files whose content is not what the hub's cache names them by; says whether there were any.

    What was found whole is recorded, so that a later start compares sizes and times only.
    """
    names = sorted({str(f.relative_to(folder)) for p in patterns for f in folder.glob(p)})
    key = hashlib.sha256(json.dumps([str(folder), names]).encode()).hexdigest()[:16]
    seen = cache / "hub-checked" / f"{key}.json"
    seen.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{seen}.lock"):
        if seen.is_file() and not changed_files(folder, json.loads(seen.read_bytes())):
            return False
        seen.unlink(missing_ok=True)
        broken = [folder / name for name in names if not _is_named_by_content(folder / name)]
        for pointer in broken:
            pointer.resolve().unlink(missing_ok=True)
            pointer.unlink(missing_ok=True)
        if not broken:
            partial = seen.with_suffix(".partial")
            partial.write_text(json.dumps(record(folder, names)))
            partial.rename(seen)
        return bool(broken)


def _is_named_by_content(pointer: Path) -> bool:
    """Large files are named by their SHA-256, small ones by git's SHA-1 of them."""
    blob = pointer.resolve()
    if _LARGE.fullmatch(blob.name):
        return sha256_of(blob) == blob.name
    if _SMALL.fullmatch(blob.name):
        content = blob.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == blob.name
    return True
