"""The reference: an ONNX model evaluated in float64, node by node, without ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import FunctionProto, ModelProto
from onnx.reference import ReferenceEvaluator

from tests.reference.kernels import KERNELS
from tests.reference.precision import FLOAT64

Array = NDArray[Any]


class _WithKernels(ReferenceEvaluator):
    """onnx gives subgraphs and functions to the same class, but kernels only to the former: so they are set here."""

    def __init__(self, proto: Any, **options: Any) -> None:
        if isinstance(proto, FunctionProto):
            proto = FLOAT64.function(proto)
        super().__init__(proto, **{**options, "new_ops": list(KERNELS)})


class Reference:
    """``model`` in float64: call it with feeds by name (floats of any width), get outputs by name."""

    def __init__(self, model: ModelProto) -> None:
        self.model = FLOAT64.model(model)
        self.outputs = tuple(output.name for output in self.model.graph.output)
        self._evaluator = _WithKernels(self.model)

    def __call__(self, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """Outputs by name, all of them unless told which. Division by zero and the like give inf or nan, silently."""
        names = list(outputs or self.outputs)
        with np.errstate(all="ignore"):
            values = self._evaluator.run(names, {name: widened(value) for name, value in feeds.items()})
        return dict(zip(names, values, strict=True))


def widened(value: Any) -> Any:
    """A tensor (or a sequence of them) in float64 where it is floating point."""
    if isinstance(value, list):
        return [widened(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "fV":
        return np.asarray(value, np.float64)
    return value
