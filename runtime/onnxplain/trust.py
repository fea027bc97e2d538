"""Is a model file's external data its own? Checked before anything reads it, for files that are not trusted.

A model names files beside it that hold its weights. ONNX Runtime 1.31 refuses `..`, absolute names and symbolic links
there, but reads through hard links, and `onnx.load` does not look at sparse tensors at all; so a model could show the
contents of any file of this machine in its outputs. Here every tensor is looked at: dense and sparse, in attributes,
subgraphs and functions.

The check and the reading are two steps: who can write into the folder in between can swap files. Folders that others
can write into are not a place for models.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError, Message

from onnxplain.errors import BadModel

LARGEST = 2**31 - 1
"""Bytes that protobuf can read as one message."""


@dataclass(frozen=True)
class Stored:
    """A tensor whose data is outside the model file."""

    name: str
    location: str
    offset: int
    length: int | None
    needed: int
    """Bytes that its type and shape take."""


def check_external_data(path: str | Path, *, links: bool = False) -> list[Path]:
    """The files of external data of the model at ``path``, each once, after all of them were found to be its own.

    Own means: a relative name without `..`, of a regular file in the model's folder (or below) that has no other hard
    link and holds the bytes that are asked of it. With ``links`` symbolic links are followed as long as they end in the
    model's folder or in the folder that the model file itself is linked to, as in the Hugging Face cache.

    Raises BadModel that names the tensor, where something is not so or the file is not an ONNX model.
    """
    return own_files(read_proto(Path(path)), Path(path), links=links)


def own_files(model: onnx.ModelProto, path: Path, *, links: bool = False) -> list[Path]:
    """The same for a model that `read_proto` has read from ``path``."""
    return sorted({_own_file(path, stored, links) for stored in external_tensors(model)})


def check_no_external_data(model: onnx.ModelProto, where: str = "model") -> None:
    """For models that came as bytes: ONNX Runtime would read their external data from the current directory."""
    for stored in external_tensors(model):
        raise BadModel(
            f"{where}: tensor {stored.name!r} has external data ({stored.location!r}) but the model came without a"
            " folder: give it as a file with its data beside it, or as one self-contained file"
        )


def read_proto(path: Path) -> onnx.ModelProto:
    """The model file without its external data. Raises BadModel where it is not a readable ONNX model."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise BadModel(f"{path.name}: not a file")
        if size > LARGEST:
            raise BadModel(
                f"{path.name}: {size} bytes in one protobuf file, at most {LARGEST} can be read:"
                " store the weights as external data"
            )
        content = path.read_bytes()
    except OSError as error:
        raise BadModel(f"{path.name}: cannot be read ({error.strerror})") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except (DecodeError, UnicodeDecodeError) as error:
        raise BadModel(
            f"{path.name}: not an ONNX model, or a truncated one (protobuf cannot parse its {size} bytes)"
        ) from error
    if not model.HasField("graph"):
        raise BadModel(f"{path.name}: not an ONNX model (it has no graph; {size} bytes)")
    return model


def external_tensors(model: onnx.ModelProto) -> Iterator[Stored]:
    """Every tensor of the model, wherever it stands, whose data is outside the file."""
    for tensor in _tensors(model):
        # A reader may go by either of the two signs, so both count.
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            yield _stored(tensor)


def _tensors(message: Message) -> Iterator[onnx.TensorProto]:
    # By reflection over every message field instead of a list of the places known today: a place that a later ONNX
    # adds is looked at too.
    stack: list[Message] = [message]
    while stack:
        here = stack.pop()
        if isinstance(here, onnx.TensorProto):
            yield here
            continue
        for field, content in here.ListFields():
            if field.message_type is None:
                continue
            repeated = not isinstance(content, Message)
            stack.extend(content if repeated else [content])


def _stored(tensor: onnx.TensorProto) -> Stored:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if len(entries) != len(tensor.external_data):
        # Readers differ in which of two entries they take; what was checked must be what is read.
        raise BadModel(f"tensor {tensor.name!r}: external data with the same key twice")
    if any(size < 0 for size in tensor.dims):
        raise BadModel(f"tensor {tensor.name!r}: a negative axis in {list(tensor.dims)}")
    length = _number(tensor, entries.get("length"))
    needed = math.ceil(math.prod(tensor.dims) * _bits(tensor) / 8)
    offset = _number(tensor, entries.get("offset")) or 0
    return Stored(tensor.name, entries.get("location", ""), offset, length, needed)


def _number(tensor: onnx.TensorProto, text: str | None) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise BadModel(f"tensor {tensor.name!r}: {text[:40]!r} is not a length or offset of external data")
    return int(text)


def _bits(tensor: onnx.TensorProto) -> int:
    try:
        return ir.DataType(tensor.data_type).bitwidth
    except (ValueError, TypeError) as error:
        raise BadModel(f"tensor {tensor.name!r}: type {tensor.data_type} cannot have external data") from error


def _own_file(model: Path, stored: Stored, links: bool) -> Path:
    where = f"{model.name}: external data {stored.location!r} of tensor {stored.name!r}"
    name = stored.location
    parts = PurePosixPath(name).parts
    if not name or "\x00" in name or "\\" in name or PureWindowsPath(name).drive:
        raise BadModel(f"{where} is not a relative file name")
    if PurePosixPath(name).is_absolute() or ".." in parts:
        raise BadModel(f"{where} leaves the model's folder")
    folder = model.parent
    target = folder / name
    if not links:
        for end in range(1, len(parts) + 1):
            if folder.joinpath(*parts[:end]).is_symlink():
                raise BadModel(f"{where} is a symbolic link: put the file itself there")
    real = Path(os.path.realpath(target))
    homes = [Path(os.path.realpath(folder)), *([Path(os.path.realpath(model)).parent] if links else [])]
    if not any(real.is_relative_to(home) for home in homes):
        raise BadModel(f"{where} leaves the model's folder")
    try:
        status = real.stat()
    except OSError as error:
        raise BadModel(f"{where} cannot be read ({error.strerror}): copy it together with the model") from error
    if not stat.S_ISREG(status.st_mode):
        raise BadModel(f"{where} is not a regular file")
    if status.st_nlink != 1:
        raise BadModel(
            f"{where} has {status.st_nlink} hard links, so it may be any file of this machine: put a copy there"
        )
    length = stored.needed if stored.length is None else stored.length
    if length < stored.needed:
        raise BadModel(f"{where} has length {length}, its type and shape take {stored.needed} bytes")
    if stored.offset + length > status.st_size:
        raise BadModel(f"{where} ends at byte {stored.offset + length}, the file has {status.st_size}")
    return real
