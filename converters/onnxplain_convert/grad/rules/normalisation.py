"""Normalisation. With x^ = (x - mean) inv over some axes and h the gradient arriving at x^:

    dx = inv (h - mean(h) - x^ mean(h x^))

which all of them but the local and the p-norm ones share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxplain.errors import Unsupported
from onnxplain_convert.grad.backward import Backward, Gradients
from onnxplain_convert.grad.ruleset import RuleSet
from onnxplain_convert.graph.emitter import Emitter
from onnxplain_convert.graph.geometry import reshaped
from onnxplain_convert.graph.shapes import Dims, dims

RULES = RuleSet("normalisation")

_ONE = ir.tensor(np.ones(1, np.float32), name="value")


@dataclass(frozen=True)
class Standardised:
    """``hat`` = (x - mean) inv over ``axes``; ``inv`` keeps them with length one."""

    hat: ir.Value
    inv: ir.Value
    axes: tuple[int, ...]

    def pull(self, op: Emitter, h: ir.Value) -> ir.Value:
        """The gradient in x of sum(h hat)."""
        mean = op.ReduceMean(h, list(self.axes), keepdims=1)
        along = op.ReduceMean(op.Mul(h, self.hat), list(self.axes), keepdims=1)
        return op.Mul(self.inv, op.Sub(op.Sub(h, mean), op.Mul(self.hat, along)))


def standardised(op: Emitter, x: ir.Value, axes: tuple[int, ...], epsilon: float) -> Standardised:
    """Over any axes, from the definition."""
    centred = op.Sub(x, op.ReduceMean(x, list(axes), keepdims=1))
    variance = op.ReduceMean(op.Mul(centred, centred), list(axes), keepdims=1)
    inv = op.Reciprocal(op.Sqrt(op.Add(variance, float(epsilon))))
    return Standardised(op.Mul(centred, inv), inv, axes)


def standardised_behind(op: Emitter, x: ir.Value, axis: int, epsilon: float) -> Standardised:
    """Over ``axis`` and all behind it: one LayerNormalization, where that computes inv in the precision of x."""
    rank = _rank(x)
    axes = tuple(range(axis, rank))
    if x.dtype == ir.DataType.DOUBLE:  # its third output would be float32
        return standardised(op, x, axes, epsilon)
    shape = (dims(x) or ())[axis:]
    sizes = op.ints(*shape) if _all_known(shape) else op.Shape(x, start=axis)  # type: ignore[arg-type]
    ones = op.CastLike(op.ConstantOfShape(sizes, value=_ONE), x)
    hat, _, inv = op.emit("LayerNormalization", x, ones, axis=axis, epsilon=epsilon, outputs=3)
    return Standardised(hat, op.CastLike(inv, x), axes)


@RULES.rule("LayerNormalization")
def layer_normalization(b: Backward) -> Gradients:
    """y = x^ scale + bias over ``axis`` and all behind it; outputs mean and inv as well."""
    op = b.op
    axis = b.attr("axis", -1) % _rank(b.x)
    s = standardised_behind(op, b.x, axis, b.attr("epsilon", 1e-5))
    gx = s.pull(op, op.Mul(b.g, b.input(1))) if b.gs[0] is not None else None
    if len(b.outputs) > 1 and b.gs[1] is not None:  # mean: g / n
        gx = _plus(op, gx, op.Div(op.CastLike(b.gs[1], b.x), _count(op, b.x, s.axes)))
    if len(b.outputs) > 2 and b.gs[2] is not None:  # inv = (variance + epsilon)^(-1/2): -inv^2 x^ / n
        scaled = op.Div(op.Mul(op.CastLike(b.gs[2], b.x), op.Mul(s.inv, s.inv)), _count(op, b.x, s.axes))
        gx = _plus(op, gx, op.Neg(op.Mul(scaled, s.hat)))
    gscale = op.Mul(b.g, s.hat) if b.wants(1) else None
    return gx, gscale, b.g if b.wants(2) else None


@RULES.rule("InstanceNormalization")
def instance_normalization(b: Backward) -> Gradients:
    """y = x^ scale + bias, x^ over the elements of each channel."""
    return _group_normalization(b, 0, per_channel=True)


@RULES.rule("GroupNormalization", since=21)
def group_normalization(b: Backward) -> Gradients:
    """y = x^ scale + bias, x^ over groups of channels, scale and bias per channel."""
    return _group_normalization(b, b.attr("num_groups"), per_channel=True)


@RULES.rule("GroupNormalization")
def group_normalization_18(b: Backward) -> Gradients:
    """The same with scale and bias per group: versions 18 to 20."""
    return _group_normalization(b, b.attr("num_groups"), per_channel=False)


def _group_normalization(b: Backward, groups: int, *, per_channel: bool) -> Gradients:
    """As (n, groups, elements of a group), standardised over the last axis; groups = 0: one per channel."""
    op, rows, parts = b.op, (0, groups, -1), (0, 0, -1) if per_channel else (0, groups, -1)
    s = standardised_behind(op, reshaped(op, b.x, *rows), 2, b.attr("epsilon", 1e-5))
    g = reshaped(op, b.g, *parts)
    gx = gscale = gbias = None
    if b.wants(0):
        h = op.Mul(g, op.Unsqueeze(b.input(1), [1]))
        gx = op.reshape_like(s.pull(op, reshaped(op, op.reshape_like(h, b.x), *rows) if rows != parts else h), b.x)
    if b.wants(1):
        hat = reshaped(op, op.reshape_like(s.hat, b.x), *parts) if rows != parts else s.hat
        gscale = op.ReduceSum(op.Mul(g, hat), [0, 2], keepdims=0)
    if b.wants(2):
        gbias = op.ReduceSum(g, [0, 2], keepdims=0)
    return gx, gscale, gbias


@RULES.rule("BatchNormalization")
def batch_normalization(b: Backward) -> Gradients:
    """y = (x - mean) / sqrt(var + epsilon) scale + bias, with given statistics, or in training mode the batch's."""
    if b.attr("training_mode", 0):
        return _training_batch_normalization(b)
    op, x, g = b.op, b.x, b.g
    mean, var = (op.CastLike(b.input(i), x) for i in (3, 4))
    inv = op.Reciprocal(op.Sqrt(op.Add(var, float(b.attr("epsilon", 1e-5)))))
    factor = op.Mul(op.CastLike(b.input(1), x), inv)
    gx = op.Mul(g, _per_channel(op, factor, x)) if b.wants(0) else None
    gscale = gbias = gmean = gvar = None
    if b.wants(2) or b.wants(3):
        total = _channel_sum(op, g)
        gbias, gmean = total, op.Neg(op.Mul(total, factor)) if b.wants(3) else None
    if b.wants(1) or b.wants(4):
        along = _channel_sum(op, op.Mul(g, op.Sub(x, _per_channel(op, mean, x))))
        gscale = op.Mul(along, inv)
        if b.wants(4):  # d inv / d var = -inv^3 / 2
            gvar = op.Mul(op.Mul(along, factor), op.Mul(op.Mul(inv, inv), -0.5))
    return gx, *(_like(op, v, b.inputs[i]) for i, v in ((1, gscale), (2, gbias), (3, gmean), (4, gvar)))


def _training_batch_normalization(b: Backward) -> Gradients:
    """Outputs y, momentum mean_in + (1 - momentum) mean(x), and the same of the (population) variance."""
    op, x = b.op, b.x
    axes = (0, *range(2, _rank(x)))
    momentum = b.attr("momentum", 0.9)
    s = standardised(op, x, axes, b.attr("epsilon", 1e-5))
    scale = op.CastLike(b.input(1), x)
    gx = s.pull(op, op.Mul(b.g, _per_channel(op, scale, x))) if b.gs[0] is not None else None
    given: list[ir.Value | None] = [None, None]
    for k in (0, 1):
        g = b.gs[k + 1] if len(b.gs) > k + 1 else None
        if g is None:
            continue
        given[k] = op.Mul(g, float(momentum))
        share = op.Div(op.Mul(op.CastLike(g, x), float(1 - momentum)), _count(op, x, axes))
        share = _per_channel(op, share, x)
        if k == 1:  # d var / dx = 2 (x - mean) / n
            share = op.Mul(op.Mul(share, 2.0), op.Div(s.hat, s.inv))
        gx = _plus(op, gx, share)
    gscale = _like(op, _channel_sum(op, op.Mul(b.g, s.hat)), b.input(1)) if b.wants(1) else None
    gbias = _like(op, _channel_sum(op, b.g), b.input(2)) if b.wants(2) else None
    return gx, gscale, gbias, *given


@RULES.rule("MeanVarianceNormalization")
def mean_variance_normalization(b: Backward) -> ir.Value:
    """y = (x - mean) / (std + 1e-9), std the square root of the variance; 0 where all elements are equal."""
    op = b.op
    axes = [a % _rank(b.x) for a in b.attr("axes") or [0, 2, 3]]
    centred = op.Sub(b.x, op.ReduceMean(b.x, axes, keepdims=1))
    std = op.Sqrt(op.ReduceMean(op.Mul(centred, centred), axes, keepdims=1))
    below = op.Add(std, 1e-9)
    g = op.Sub(b.g, op.ReduceMean(b.g, axes, keepdims=1))
    slope = op.Div(centred, op.Where(op.Equal(std, 0.0), 1.0, std))  # of std in x, times n
    along = op.Div(op.ReduceMean(op.Mul(b.g, centred), axes, keepdims=1), below)
    return op.Div(op.Sub(g, op.Mul(slope, along)), below)


@RULES.rule("LpNormalization")
def lp_normalization(b: Backward) -> ir.Value:
    """y = x / |x|_p: (g - d|x|_p/dx sum(g y)) / |x|_p, where d|x|_2/dx = y and d|x|_1/dx = sign(x); 0 at the origin."""
    # at 0 the slope of |x| is taken as 1, which is what onnx's reference implementation (without absolute values) has
    op, axis = b.op, [b.attr("axis", -1)]
    one = b.attr("p", 2) == 1
    norm = op.ReduceL1(b.x, axis, keepdims=1) if one else op.ReduceL2(b.x, axis, keepdims=1)
    origin = op.Equal(norm, 0.0)
    norm = op.Where(origin, 1.0, norm)
    y = op.Div(b.x, norm)
    slope = op.Where(op.Less(b.x, 0.0), op.const(-1.0, b.x.dtype), op.const(1.0, b.x.dtype)) if one else y
    gx = op.Sub(b.g, op.Mul(slope, op.ReduceSum(op.Mul(b.g, y), axis, keepdims=1)))
    return op.Where(origin, 0.0, op.Div(gx, norm))


@RULES.rule("LRN")
def local_response_normalization(b: Backward) -> ir.Value:
    """y = x D^-beta, D = bias + alpha / size sum over the neighbouring channels of x^2:

    g D^-beta - 2 alpha beta / size x sum over the channels whose neighbour this is of g x D^(-beta - 1).
    """
    op, size = b.op, b.attr("size")
    alpha, beta, bias = b.attr("alpha", 1e-4), b.attr("beta", 0.75), b.attr("bias", 1.0)
    channels = (dims(b.x) or (None, None))[1]
    if not isinstance(channels, int):
        raise Unsupported(f"LRN {b.node.name!r}: the number of channels of {b.x.name!r} is not known. Give it a shape.")
    places = np.arange(channels)
    offset = places[None, :] - places[:, None]
    band = (offset >= -((size - 1) // 2)) & (offset <= size // 2)
    near, far = (op.const(matrix[:, :, None], b.g.dtype) for matrix in (band, band.T))
    x, g = (reshaped(op, v, 0, 0, -1) for v in (b.x, b.g))
    below = op.Add(op.Mul(op.Conv(op.Mul(x, x), near), float(alpha / size)), float(bias))
    scaled = op.Mul(g, op.Pow(below, float(-beta)))
    shared = op.Conv(op.Div(op.Mul(scaled, x), below), far)
    gx = op.Sub(scaled, op.Mul(op.Mul(x, float(2 * alpha * beta / size)), shared))
    return op.reshape_like(gx, b.x)


def _per_channel(op: Emitter, value: ir.Value, x: ir.Value) -> ir.Value:
    """(channels,) as (channels, 1, ...), which broadcasts to (n, channels, ...)."""
    behind = _rank(x) - 2
    return op.Unsqueeze(value, list(range(1, 1 + behind))) if behind > 0 else value


def _channel_sum(op: Emitter, g: ir.Value) -> ir.Value:
    return op.ReduceSum(g, [a for a in range(_rank(g)) if a != 1], keepdims=0)


def _count(op: Emitter, x: ir.Value, axes: tuple[int, ...]) -> ir.Value:
    """How many elements a mean over these axes is made of, in the type of x."""
    sizes = [(dims(x) or ())[a] for a in axes]
    if _all_known(tuple(sizes)):
        return op.const(float(np.prod([int(s) for s in sizes])), x.dtype)  # type: ignore[arg-type]
    return op.CastLike(op.ReduceProd(op.Gather(op.Shape(x), list(axes)), keepdims=0), x)


def _plus(op: Emitter, a: ir.Value | None, b: ir.Value) -> ir.Value:
    return b if a is None else op.Add(a, b)


def _like(op: Emitter, g: ir.Value | None, like: ir.Value | None) -> ir.Value | None:
    """In the type of its input: statistics may be float32 beside float16 data."""
    return g if g is None or like is None or g.dtype == like.dtype else op.CastLike(g, like)


def _rank(x: ir.Value) -> int:
    shape = dims(x)
    if shape is None:
        raise Unsupported(
            f"the rank of {x.name!r} is not known. Give the model's inputs shapes (symbolic axes will do)."
        )
    return len(shape)


def _all_known(sizes: Dims) -> bool:
    return all(isinstance(s, int) for s in sizes)
