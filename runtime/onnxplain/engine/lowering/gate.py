"""A ReLU's gate as a product: Where(y > 0, g, 0) -> g * tanh(3e38 * y), in operators that keep the blocked layout.

``y`` is the ReLU's output, so it is not negative, and 3e38 * y saturates the tanh for every y above 3e-38: the factor
is 0 or 1 exactly, but for activations smaller than that, which are next to denormal. A closed gate makes NaN of an
infinite gradient where Where makes zero: such a row is counted as not finite.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxplain.engine.emit import Emit

STEEP = 3e38


def as_product(op: Emit, node: ir.Node) -> ir.Value | None:
    """The output of ``node``, a gate on the output of a ReLU over images in float32. None where it is another Where."""
    condition, gradient, otherwise = node.inputs
    greater = None if condition is None else condition.producer()
    if greater is None or greater.op_type != "Greater" or gradient is None:
        return None
    y, threshold = greater.inputs
    relu = None if y is None else y.producer()
    if y is None or relu is None or relu.op_type != "Relu" or not (_is_zero(threshold) and _is_zero(otherwise)):
        return None
    same = y.shape is not None and y.shape == gradient.shape and len(y.shape) == 4
    channels = y.shape[1] if same and y.shape is not None else None
    if not isinstance(channels, int) or y.dtype != ir.DataType.FLOAT:
        return None
    weight = op.constant(np.full((channels, 1, 1, 1), STEEP), np.float32)
    return op("Mul", gradient, op("Tanh", op("Conv", y, weight, group=channels)))


def _is_zero(value: ir.Value | None) -> bool:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return tensor is not None and tensor.size == 1 and not tensor.numpy().any()
