"""Small models in ONNX's text form, and running them in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

Array = NDArray[Any]


def model(opset: int, body: str, ir_version: int = 8, extra: str = "") -> onnx.ModelProto:
    """``body``: ``(float[2, 3] x) => (float[2, 3] y) { ... }``; ``extra``: further opset imports."""
    imports = ", ".join([f'"": {opset}', *([extra] if extra else [])])
    return onnx.parser.parse_model(f"<ir_version: {ir_version}, opset_import: [{imports}]> graph {body}")


def run(proto: onnx.ModelProto | ir.Model, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """All outputs by name, in ONNX Runtime on the CPU without rewriting the graph: opset against opset, not fusion."""
    if isinstance(proto, ir.Model):
        proto = ir.to_proto(proto)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [x.name for x in session.get_outputs()]
    results: list[Any] = list(session.run(names, dict(feeds)))
    return dict(zip(names, results, strict=True))


def normal(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def constant(proto: onnx.ModelProto, **arrays: Array) -> onnx.ModelProto:
    """The model with initializers added."""
    for name, array in arrays.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return proto
