"""Sigmoids, channel weights and spatial means, spelled so that ONNX Runtime keeps its blocked layout through them.

    1 - s, s an image                      ->  a convolution with one weight per channel
    g * s + (g * x) * (s * (1 - s))        ->  g * (s + (x * s) * (1 - s)), s = sigmoid(x): the gradient of SiLU
    a * b, a + b with b one per channel    ->  b repeated to the size of a by Resize
    mean and sum over rows and columns     ->  GlobalAveragePool

Exact, but for the rounding of products and sums in another order. SiLU and squeeze-and-excitation otherwise send every
image to the plain layout and back.
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from onnxplain.engine.emit import Emit
from onnxplain.engine.lowering.constants import number

BLOCKED = frozenset({"Conv", "Add", "Mul", "Sigmoid", "Relu", "Tanh"})
"""What leaves its result in the blocked layout where its operands are."""


def complement(op: Emit, node: ir.Node) -> ir.Value | None:
    """1 - s for the sigmoid of an image. None for another difference."""
    one, s = node.inputs
    if number(one) != 1 or s is None or _made_by(s, "Sigmoid") is None or _image(s) is None:
        return None
    return _scaled(op, s, -1.0, 1.0)


def added(op: Emit, node: ir.Node) -> ir.Value | None:
    """A sum that is the gradient of SiLU, or of an image and a number per channel. None for another sum."""
    a, b = node.inputs
    if a is None or b is None:
        return None
    return _silu(op, a, b) or _silu(op, b, a) or _broadcast(op, node)


def multiplied(op: Emit, node: ir.Node) -> ir.Value | None:
    """The product of an image and a number per channel. None for another product."""
    return _broadcast(op, node)


def mean(op: Emit, node: ir.Node) -> ir.Value | None:
    """The mean or the sum of a blocked image over rows and columns. None for another one."""
    x = node.inputs[0]
    size = _image(x)
    if x is None or size is None or node.attributes.get_int("keepdims", 1) != 1 or _made_by(x, *BLOCKED) is None:
        return None
    axes = ir.convenience.get_const_tensor(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] else None
    if axes is None or sorted(int(a) % 4 for a in axes.numpy().reshape(-1)) != [2, 3]:
        return None
    pooled = op("GlobalAveragePool", x)
    if node.op_type == "ReduceMean":
        return pooled
    return op("Mul", pooled, op.constant(float(prod(size[1:])), np.float32))


def _silu(op: Emit, direct: ir.Value, through: ir.Value) -> ir.Value | None:
    """g * s + (g * x) * (s * (1 - s)); ``complement`` has made a convolution of 1 - s by now."""
    outer, inner = _made_by(direct, "Mul"), _made_by(through, "Mul")
    if outer is None or inner is None or _image(direct) is None:
        return None
    g, s = outer.inputs
    sigmoid = _made_by(s, "Sigmoid")
    weighted, slope = (_made_by(v, "Mul") for v in inner.inputs)
    if g is None or s is None or sigmoid is None or weighted is None or slope is None:
        return None
    x = sigmoid.inputs[0]
    rest = slope.inputs[1]
    turned = _made_by(rest, "Conv")
    if set(weighted.inputs) != {g, x} or slope.inputs[0] is not s or turned is None or turned.inputs[0] is not s:
        return None
    known = (user.outputs[0] for user, _ in s.uses() if user.op_type == "Mul" and set(user.inputs) == {x, s})
    y = next(known, None) or _shaped(op("Mul", x, s), s)
    return op("Mul", g, _shaped(op("Add", s, _shaped(op("Mul", y, rest), s)), s))


def _broadcast(op: Emit, node: ir.Node) -> ir.Value | None:
    a, b = node.inputs
    image, weight = (a, b) if _image(a) is not None else (b, a)
    size = _image(image)
    if image is None or weight is None or size is None or _made_by(image, *BLOCKED) is None:
        return None
    shape = weight.shape
    if shape is None or image.shape is None or list(shape) != [image.shape[0], size[0], 1, 1]:
        return None
    scales = op.constant([1, 1, *size[1:]], np.float32)
    repeated = op(
        "Resize",
        _shaped(_scaled(op, weight, 1.0, None), weight),  # brings it into the blocked layout while it is small
        None,
        scales,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    return op(node.op_type, image, _shaped(repeated, image))


def _scaled(op: Emit, x: ir.Value, scale: float, shift: float | None) -> ir.Value:
    channels = x.shape[1]  # type: ignore[index]
    assert isinstance(channels, int)
    bias = [] if shift is None else [op.constant(np.full(channels, shift), np.float32)]
    return op("Conv", x, op.constant(np.full((channels, 1, 1, 1), scale), np.float32), *bias, group=channels)


def _shaped(value: ir.Value, like: ir.Value) -> ir.Value:
    """ONNX Runtime infers no row axis through Resize, and must see that two shapes are equal."""
    value.type, value.shape = like.type, like.shape
    return value


def _image(x: ir.Value | None) -> tuple[int, int, int] | None:
    """(channels, rows, columns) of float32 images of more than one element per channel."""
    if x is None or x.dtype != ir.DataType.FLOAT or x.shape is None or len(x.shape) != 4:
        return None
    c, h, w = x.shape[1:]
    return (c, h, w) if isinstance(c, int) and isinstance(h, int) and isinstance(w, int) and h * w > 1 else None


def _made_by(x: ir.Value | None, *operators: str) -> ir.Node | None:
    node = None if x is None else x.producer()
    return node if node is not None and node.op_type in operators else None
