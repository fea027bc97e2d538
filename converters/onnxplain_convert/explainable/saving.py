"""Writes an artifact: whole or not at all, weights beside it where they are large."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import onnx_ir as ir

from onnxplain.errors import BadRequest
from onnxplain_convert.verify import weight_bytes

EXTERNAL_ABOVE = 2**30
"""Bytes of weights above which they are external data: one protobuf message can hold 2 GiB."""


def save(model: ir.Model, path: str | Path, *, external_data: bool = False) -> Path:
    """Write ``path`` (and ``path.data``) through a temporary folder beside it. Raises BadRequest where that fails."""
    path = Path(path)
    external = external_data or weight_bytes(model) > EXTERNAL_ABOVE
    data = path.name + ".data"
    if any(_is_file(tensor, path.with_name(data)) for tensor in _weights(model)):
        raise BadRequest(
            f"{path}: its external data {data} is read by the model that is being converted: choose another name"
        )
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            made = Path(folder) / path.name
            if external:
                ir.save(model, made, external_data=data)
                if made.with_name(data).exists():  # a model without large weights leaves no data file
                    os.replace(made.with_name(data), path.with_name(data))
            else:
                ir.save(_embedded(model), made)
            os.replace(made, path)
    except OSError as error:
        raise BadRequest(f"{path}: cannot be written ({error.strerror or error})") from error
    return path


def _weights(model: ir.Model) -> list[ir.TensorProtocol]:
    return [v.const_value for v in model.graph.initializers.values() if v.const_value is not None]


def _is_file(tensor: ir.TensorProtocol, path: Path) -> bool:
    return isinstance(tensor, ir.ExternalTensor) and Path(os.path.realpath(tensor.path)) == Path(os.path.realpath(path))


def _embedded(model: ir.Model) -> ir.Model:
    """Weights that were external in the source go into the file; the model in memory keeps its mapped ones."""
    if not any(isinstance(tensor, ir.ExternalTensor) for tensor in _weights(model)):
        return model
    copy = model.clone()
    for value in copy.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            value.const_value = ir.tensor(tensor.numpy(), dtype=tensor.dtype, name=value.name)
    return copy
