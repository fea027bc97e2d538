"""ONNX itself: a path, the bytes of a file, or a ModelProto."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from onnxplain.errors import BadModel, BadRequest
from onnxplain.trust import check_external_data, check_no_external_data, read_proto
from onnxplain_convert.canonical import parse
from onnxplain_convert.frontends.source import Array, Source
from onnxplain_convert.verify import evaluator

TAKES = "an ONNX file (path, bytes or ModelProto)"


def handles(obj: Any) -> bool:
    """A path of any name (what it holds is looked at later), bytes, or a ModelProto."""
    return isinstance(obj, str | Path | bytes | bytearray | onnx.ModelProto)


def to_onnx(obj: Any, example: Any = None) -> Source:
    """Read the model. Raises BadModel where it is broken, truncated, or its external data is not its own."""
    if isinstance(obj, str | Path):
        path = Path(obj)
        proto = read_proto(path)
        check_external_data(path)
        check_weights(proto)
        model = parse(proto)
        ir.external_data.set_base_dir(model.graph, path.parent)
        original: Path | bytes = path
        name = path.name
    else:
        proto = obj if isinstance(obj, onnx.ModelProto) else _parsed(bytes(obj))
        check_no_external_data(proto)
        check_weights(proto)
        model = parse(proto)
        original = proto.SerializeToString()
        name = ""

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        return evaluator(original)(feeds, [v.name for v in proto.graph.output])

    info = {
        "framework": "onnx",
        "producer": " ".join(x for x in (proto.producer_name, proto.producer_version) if x),
        "opset": {x.domain or "ai.onnx": x.version for x in proto.opset_import},
        "file": name,
    }
    return Source(model, info, run, _named(example, model))


def _parsed(data: bytes) -> onnx.ModelProto:
    try:
        model = onnx.ModelProto()
        model.ParseFromString(data)
        return model
    except DecodeError as error:
        raise BadModel(
            f"not an ONNX model, or a truncated one (protobuf cannot parse its {len(data)} bytes)"
        ) from error


def check_weights(proto: onnx.ModelProto) -> None:
    """Every initializer holds the values that its shape and type take. Raises BadModel naming it."""
    for tensor in proto.graph.initializer:
        try:
            onnx.checker.check_tensor(tensor)
        except onnx.checker.ValidationError as error:
            if tensor.data_location != onnx.TensorProto.EXTERNAL:
                raise BadModel(f"initializer {tensor.name!r} is broken: {str(error).strip()}") from error


def _named(example: Any, model: ir.Model) -> dict[str, Array] | None:
    """An example as arrays by input name: an array for a model with one input, or a mapping."""
    if example is None:
        return None
    if isinstance(example, Mapping):
        return {str(name): np.asarray(value) for name, value in example.items()}
    names = [v.name or "" for v in model.graph.inputs if v.name not in model.graph.initializers]
    values = example if isinstance(example, tuple) else (example,)
    if len(values) != len(names):
        raise BadRequest(f"the example has {len(values)} arrays, the model {len(names)} inputs: {', '.join(names)}")
    return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}
