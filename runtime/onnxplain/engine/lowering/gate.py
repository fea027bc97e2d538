"""The gates of ReLU and ReLU6 as products, in operators that keep the blocked layout.

    Where(y > 0, g, 0)              ->  g * clip(3e38 * y, 0, 1)
    Where(0 < x and x < c, g, 0)    ->  g * clip(steep * (c - u), 0, 1), u = leaky(y - 2**-100), y = clip(x, 0, c)

``leaky`` is a LeakyRelu whose negative slope takes y = 0 to u = c; elsewhere below c, u is below c as y is. ``y`` is
never negative and never above c, so the clips end at 0 or 1 to the last bit, but for activations between 0 and 1e-37,
which are next to denormal: c - u is exact at u = c since ``steep`` is a power of two. A closed gate makes NaN of an
infinite gradient where Where makes zero: such a row is counted as not finite.

The products are convolutions with one weight per channel, since ONNX Runtime knows no blocked product with a constant;
what follows a convolution it computes within it. Measured on top of the convolutions' lowering (CPU time of a whole
gradient, one thread): EfficientNet-Lite0, batch 4, 138 -> 126 ms; a small ResNet, batch 8, 96 -> 91 ms. Two
hyperbolic tangents for a ReLU6 instead (tanh(3e38 * y) * tanh(steep * (c - y))) cost MobileNetV2 10 percent more.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from onnxplain.engine.emit import Emit
from onnxplain.engine.lowering.constants import number

STEEP = 3e38
NEAR = 2.0**-100
BLOCKED = frozenset({"Conv", "Add", "Mul"})
"""What leaves its result in the blocked layout; after others, as ConvTranspose, a product costs more than Where."""
CEILINGS = (1e-3, 1e6)
"""Values of c for which the arithmetic above holds."""


def as_product(op: Emit, node: ir.Node) -> ir.Value | None:
    """The output of ``node``, a gate on images in float32, as a product. None where it is another Where."""
    condition, gradient, otherwise = node.inputs
    if condition is None or gradient is None or number(otherwise) != 0:
        return None
    found, source = _gate(condition), gradient.producer()
    if found is None or source is None or source.op_type not in BLOCKED:
        return None
    y, ceiling = found
    same = y.shape is not None and y.shape == gradient.shape and len(y.shape) == 4
    channels = y.shape[1] if same and y.shape is not None else None
    if not isinstance(channels, int) or y.dtype != ir.DataType.FLOAT:
        return None
    if ceiling is None:
        return op("Mul", gradient, _clipped(op, _scaled(op, y, channels, STEEP, None)))
    steep = 2.0 ** (125 - max(0, math.ceil(math.log2(ceiling))))
    near = _scaled(op, y, channels, 1.0, -NEAR)
    folded = op("LeakyRelu", near, alpha=-ceiling / NEAR)
    return op("Mul", gradient, _clipped(op, _scaled(op, folded, channels, -steep, ceiling * steep)))


def _scaled(op: Emit, y: ir.Value, channels: int, scale: float, shift: float | None) -> ir.Value:
    """scale * y + shift."""
    weight = op.constant(np.full((channels, 1, 1, 1), scale), np.float32)
    bias = [] if shift is None else [op.constant(np.full(channels, shift), np.float32)]
    return op("Conv", y, weight, *bias, group=channels)


def _clipped(op: Emit, value: ir.Value) -> ir.Value:
    return op("Clip", value, op.constant(0, np.float32), op.constant(1, np.float32))


def _gate(condition: ir.Value) -> tuple[ir.Value, float | None] | None:
    """The activation that a gate belongs to and its ceiling, None for a ReLU. None altogether for another condition."""
    node = condition.producer()
    if node is None:
        return None
    if node.op_type == "Greater":
        y, threshold = node.inputs
        relu = None if y is None else y.producer()
        if y is not None and relu is not None and relu.op_type == "Relu" and number(threshold) == 0:
            return y, None
        return None
    sides = {v.producer().op_type: v.producer() for v in node.inputs if v is not None and v.producer() is not None}  # type: ignore[union-attr]
    above, below = sides.get("Greater"), sides.get("Less")
    if node.op_type != "And" or above is None or below is None or above.inputs[0] is not below.inputs[0]:
        return None
    x, floor, ceiling = above.inputs[0], number(above.inputs[1]), number(below.inputs[1])
    if x is None or floor != 0 or ceiling is None or not CEILINGS[0] <= ceiling <= CEILINGS[1]:
        return None
    for user, position in x.uses():
        if user.op_type == "Clip" and position == 0 and [number(v) for v in user.inputs[1:]] == [floor, ceiling]:
            return user.outputs[0], ceiling
    return None
