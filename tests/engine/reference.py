"""The engine's other session: programs in float64 on the tests' reference evaluator, without ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tests.reference import Reference

Array = NDArray[Any]


class ReferenceSession:
    """Runs a program node by node; handles are arrays."""

    provider = "cpu"

    def __init__(self, model: onnx.ModelProto) -> None:
        self.reference = Reference(model)
        self.runs: list[int] = []

    def put(self, array: Array) -> Array:
        return np.array(array)

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str], keep: Sequence[str] = ()) -> dict[str, Array]:
        self.runs.append(len(feeds["row/request"]))
        return self.reference(feeds, [*outputs, *keep])

    def stop(self) -> None:
        pass


def open_reference(model: bytes, weights: Mapping[str, Array], provider: str) -> ReferenceSession:
    proto = onnx.load_model_from_string(model)
    for tensor in proto.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(onnx.numpy_helper.from_array(weights[tensor.name], tensor.name))
    return ReferenceSession(proto)
