"""Files that commands take: a model's inputs as declared, and a picture or arrays as a model's input."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxplain import picture
from onnxplain.artifact import MANIFEST_KEY, Manifest, TensorSpec
from onnxplain.cli.pictures import Flags
from onnxplain.errors import BadModel, BadRequest
from onnxplain.trust import own_files, read_proto


def is_plain(path: Path) -> bool:
    """False for an artifact. Raises BadModel for a file that is no model, or whose weights are not its own."""
    proto = read_proto(path)
    own_files(proto, path, links=True)
    return all(entry.key != MANIFEST_KEY for entry in proto.metadata_props)


def graph_inputs(path: Path) -> tuple[TensorSpec, ...]:
    """The inputs that an ONNX file declares, weights left out. Raises BadModel where it cannot be read."""
    try:
        graph = ir.load(path).graph
    except Exception as error:  # protobuf, onnx and the file system each raise their own
        raise BadModel(f"{path}: not a readable ONNX file ({error})") from error
    return tuple(
        TensorSpec(
            value.name or "",
            value.dtype.numpy().name if value.dtype else "float32",
            tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape or ()),
        )
        for value in graph.inputs
        if value.name not in graph.initializers
    )


@dataclass(frozen=True)
class Given:
    """An input file as read: one array per model input, and where it was a picture, what the model saw of it."""

    arrays: dict[str, NDArray[np.generic]]
    seen: picture.Seen | None
    spec: TensorSpec | None


def read_input(path: Path, manifest: Manifest, flags: Flags) -> tuple[Given, list[str]]:
    """A picture, a .npy (the one input, with its batch axis) or a .npz (one array per input), and warnings.

    Raises BadRequest for files that are none of these.
    """
    if path.suffix.lower() in (".npy", ".npz"):
        return Given(_arrays(path, manifest), None, None), []
    spec = picture.picture_input(manifest.inputs)
    how, warning = flags.preprocessing(spec, manifest.preprocessing)
    seen = picture.prepare(picture.read(path), how, spec.dtype)
    return Given({spec.name: seen.array}, seen, spec), [warning] if warning else []


def _arrays(path: Path, manifest: Manifest) -> dict[str, NDArray[np.generic]]:
    try:
        loaded = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise BadRequest(f"{path}: no such file") from error
    except (OSError, ValueError, EOFError) as error:
        raise BadRequest(f"{path}: not a readable {path.suffix} file of plain numbers ({error})") from error
    if isinstance(loaded, np.ndarray):
        names = [spec.name for spec in manifest.inputs]
        if len(names) != 1:
            raise BadRequest(
                f"{path}: one array, and the model has the inputs {', '.join(names)}: give an .npz with one each"
            )
        return {names[0]: loaded}
    with loaded:
        return {name: loaded[name] for name in loaded.files}
