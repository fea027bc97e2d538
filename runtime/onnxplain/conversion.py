"""Plain ONNX files are converted on the way in, and the artifacts kept in the user's cache folder by digest."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

import platformdirs

from onnxplain.artifact import MANIFEST_KEY, Artifact
from onnxplain.errors import BadModel, BadRequest
from onnxplain.trust import own_files, read_proto

ARTIFACT = "model.explain.onnx"


def opened(source: str | os.PathLike[str] | Artifact, cache: str | os.PathLike[str] | None = None) -> Artifact:
    """An artifact as it is, or made of a plain ONNX file. Raises BadModel, or Unsupported where it has no derivative.

    Where the cache folder cannot be written to, the artifact is made in memory, each time anew.
    """
    if isinstance(source, Artifact):
        return source
    if not isinstance(source, (str, os.PathLike)):
        raise BadRequest(f"load takes a path or an Artifact, got a {type(source).__name__}: convert it first")
    path = Path(source)
    proto = read_proto(path)
    own_files(proto, path, links=True)
    plain = all(entry.key != MANIFEST_KEY for entry in proto.metadata_props)
    del proto
    if not plain:
        return Artifact.open(path)
    try:
        return Artifact.open(converted(path, cache))
    except OSError:
        from onnxplain_convert import convert

        return convert(path)


def converted(path: str | os.PathLike[str], cache: str | os.PathLike[str] | None = None) -> Path:
    """The artifact of a plain ONNX file in the cache folder, converted now unless it is there already.

    It is kept under the digest of the file, its external data and the converter. Raises BadModel, Unsupported, or
    OSError where the folder cannot be written to.
    """
    path = Path(path)
    folder = Path(cache) if cache is not None else Path(platformdirs.user_cache_dir("onnxplain", appauthor=False))
    kept = folder / "artifacts" / _digest(path)
    if not _whole(kept):
        _make(path, kept)
    return kept / ARTIFACT


def _digest(path: Path) -> str:
    digest = hashlib.sha256(_converter().encode())
    for file in (path, *own_files(read_proto(path), path, links=True)):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def _converter() -> str:
    """The converter's own sources and what it works with: a changed converter makes artifacts anew, released or not."""
    import onnxplain_convert

    digest = hashlib.sha256()
    folder = Path(onnxplain_convert.__file__).parent
    for file in (*sorted(folder.rglob("*.py")), Path(__file__).with_name("artifact.py")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    for name in ("onnx", "onnx-ir", "onnxscript"):
        digest.update(importlib.metadata.version(name).encode() + b"\0")
    return digest.hexdigest()


def _whole(kept: Path) -> bool:
    """Is there an artifact that can be read? One that cannot (a full disk, another program) is removed."""
    if not kept.exists():
        return False
    try:
        Artifact.open(kept / ARTIFACT)
    except BadModel:
        shutil.rmtree(kept, ignore_errors=True)
        return False
    return True


def _make(path: Path, kept: Path) -> None:
    """Converted beside its place and moved there at once: other processes see all of it or nothing."""
    from onnxplain_convert import convert

    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        made = Path(folder) / "new"
        made.mkdir()
        convert(path, made / ARTIFACT)
        # Another process may have been first: its artifact is the same.
        with contextlib.suppress(OSError):
            made.rename(kept)
        if not (kept / ARTIFACT).exists():
            made.rename(kept)
