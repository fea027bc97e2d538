"""Changing the resolution. Resize is linear in its input and works on one axis after the other."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain.errors import Unsupported
from onnxplain_convert.grad.backward import Backward
from onnxplain_convert.grad.ruleset import RuleSet
from onnxplain_convert.graph.geometry import reshaped, vector
from onnxplain_convert.graph.shapes import Dim, const_array, dims, same

RULES = RuleSet("resampling")

_ONE = ir.tensor(np.ones(1, np.float32), name="value")

_REPEATS = {
    ("asymmetric", "floor"),
    ("tf_half_pixel_for_nn", "floor"),
    *(
        (coordinates, rounding)
        for coordinates in ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel")
        for rounding in ("round_prefer_floor", "round_prefer_ceil")
    ),
}
"""(coordinates, rounding) under which nearest-neighbour upsampling by a whole factor f takes element o // f for o."""


@dataclass(frozen=True)
class _Axis:
    """One axis that a Resize changes."""

    index: int
    place: int
    """Where roi, scales and sizes speak of it."""
    factor: float | None
    """Output over input size, where that is known."""


@RULES.rule("Resize")
def resize(b: Backward) -> ir.Value:
    """y = x A for each axis, so g A'. Whole nearest-neighbour factors are sums over windows."""
    axes = _resized(b)
    factors = _repeats(b, axes)
    op, g = b.op, b.g
    if factors is not None:
        if not axes:
            return g
        window = {"kernel_shape": factors, "strides": factors}
        return op.typed(op.Mul(op.AveragePool(g, **window), float(prod(factors))), b.x)
    rank = b.rank(b.x)
    for axis in reversed(axes):
        matrix = _matrix(b, axis)
        if axis.index == rank - 1:
            g = op.MatMul(g, op.Transpose(matrix, perm=[1, 0]))
        elif axis.index == rank - 2:
            g = op.MatMul(matrix, g)
        else:
            perm = list(range(rank))
            perm[axis.index], perm[-2] = perm[-2], perm[axis.index]
            g = op.Transpose(op.MatMul(matrix, op.Transpose(g, perm=perm)), perm=perm)
    return op.typed(g, b.x)


def _resized(b: Backward) -> list[_Axis]:
    """The axes that the node changes, as far as is known."""
    have, want = dims(b.x), dims(b.y)
    if have is None or want is None:
        raise Unsupported(
            f"Resize {b.node.name!r}: the rank of {b.x.name!r} is not known. Give the model's inputs shapes."
        )
    rank = len(have)
    named = [a % rank for a in b.attr("axes") or range(rank)]
    scales = const_array(b.inputs[2]) if b.has(2) else None
    roi = const_array(b.inputs[1]) if b.has(1) else None
    crops = b.attr("coordinate_transformation_mode") == "tf_crop_and_resize"
    stretches = b.attr("keep_aspect_ratio_policy", "stretch") == "stretch" or not b.has(3)
    axes = []
    for place, axis in enumerate(named):
        factor: float | None = None
        if scales is not None and scales.size:
            factor = float(scales[place])
        elif stretches:
            factor = _factor(have[axis], want[axis])
        whole = not crops or (roi is not None and roi[place] == 0 and roi[place + len(named)] == 1)
        if factor != 1 or not whole:
            axes.append(_Axis(axis, place, factor))
    return sorted(axes, key=lambda a: a.index)


def _factor(have: Dim, want: Dim) -> float | None:
    if same(have, want):
        return 1.0
    return want / have if isinstance(have, int) and isinstance(want, int) and have else None


def _repeats(b: Backward, axes: list[_Axis]) -> list[int] | None:
    """How often each spatial element is repeated, where repeating is all that the node does."""
    rank = b.rank(b.x)
    coordinates = b.attr("coordinate_transformation_mode", "half_pixel")
    rounding = b.attr("nearest_mode", "round_prefer_floor")
    if b.attr("mode", "nearest") != "nearest" or (coordinates, rounding) not in _REPEATS or not 3 <= rank <= 5:
        return None if axes else []
    factors = [1] * (rank - 2)
    for axis in axes:
        if axis.index < 2 or axis.factor is None or axis.factor != int(axis.factor):
            return None
        factors[axis.index - 2] = int(axis.factor)
    return factors


def _matrix(b: Backward, axis: _Axis) -> ir.Value:
    """The interpolation along one axis as a matrix (in, out): what the node itself makes of the identity.

    So it has the coordinates, the borders and the rounding of whatever runtime computes the forward pass.
    """
    op, n = b.op, len(b.attr("axes") or dims(b.x) or ())
    eye = _identity(b, axis.index)
    attributes: dict[str, Any] = {k: a.value for k, a in b.node.attributes.items() if k != "axes"}
    attributes["extrapolation_value"] = None  # a constant, which has no gradient
    roi = None
    if b.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
        zero, one = (op.const(np.array([v], np.float32), b.input(1).dtype) for v in (0, 1))
        start, end = (op.Gather(b.input(1), [p]) for p in (axis.place, axis.place + n))
        roi = op.Concat(zero, start, one, end, axis=0)
    if not b.has(3):  # scales may be there beside sizes, and empty
        given = const_array(b.input(2))
        if given is not None:
            scales = op.const(np.array([1, given[axis.place]], np.float32))
        else:
            scales = op.Concat(op.const(np.ones(1, np.float32)), op.Gather(b.input(2), [axis.place]), axis=0)
        return op.Resize(eye, roi, scales, **attributes)
    if b.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
        return _matrix_keeping_aspect(b, axis, eye, attributes)
    return op.Resize(eye, roi, None, vector(op, *(op.dim(v, axis.index) for v in (b.x, b.y))), **attributes)


def _matrix_keeping_aspect(b: Backward, axis: _Axis, eye: ir.Value, attributes: dict[str, Any]) -> ir.Value:
    """The tightest axis sets the scale of all: the identity is spread over the others, and one line of them taken."""
    op, named = b.op, b.attr("axes") or range(b.rank(b.x))
    first = max(1, 4 - len(named))  # cubic interpolation wants four axes
    here = [first + place for place in range(len(named))]
    others = [a for a in here if a != first + axis.place]
    ones = [1] * (first - 1)
    lines = op.Unsqueeze(eye, [*range(1, first), *others])
    lines = op.Expand(lines, vector(op, 1, *ones, *(op.dim(b.x, a) for a in named)))
    resized = op.Resize(lines, None, None, b.input(3), **attributes, axes=here)
    line = op.Slice(resized, [0] * len(others), [1] * len(others), others) if others else resized
    return op.Squeeze(line, [*range(1, first), *others])


def _identity(b: Backward, axis: int) -> ir.Value:
    op, size = b.op, b.op.dim(b.x, axis)
    square = op.ConstantOfShape(vector(op, size, size), value=_ONE)
    return op.EyeLike(square, dtype=int(b.g.dtype or ir.DataType.FLOAT))


@RULES.rule("SpaceToDepth")
def space_to_depth(b: Backward) -> ir.Value:
    return b.op.DepthToSpace(b.g, blocksize=b.attr("blocksize"), mode="DCR")


@RULES.rule("DepthToSpace")
def depth_to_space(b: Backward) -> ir.Value:
    """SpaceToDepth puts the block's place in front of the channel (DCR); CRD has it behind."""
    block = b.attr("blocksize")
    gx = b.op.SpaceToDepth(b.g, blocksize=block)
    if b.attr("mode", "DCR") == "CRD":
        channels = (dims(b.y) or (None, None))[1]
        if isinstance(channels, int):
            parts = reshaped(b.op, gx, 0, block * block, channels, -1)
        else:
            parts = b.op.Reshape(gx, vector(b.op, 0, block * block, b.op.dim(b.y, 1), -1))
        gx = b.op.reshape_like(b.op.Transpose(parts, perm=[0, 2, 1, 3]), b.x)
    return gx
