"""Small graphs to lower, and to run as they are and lowered."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from onnxplain.engine.session import open_session
from tests.engine.artifacts import Array


def parsed(text: str) -> ir.Model:
    """A model in ONNX's textual syntax, with the shapes that inference finds."""
    return ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text), strict_mode=True))


def run(model: ir.Model, feeds: dict[str, Array]) -> Array:
    """The output named out, by ONNX Runtime on one thread, of a model that ONNX's checker accepts."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = open_session(proto.SerializeToString(), {}, "cpu", threads=1)
    return np.asarray(session.run(feeds, ["out"])["out"])


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]
