"""Quantised models: the straight-through estimator (Bengio et al. 2013).

Integer codes that come from a quantisation are treated as the real numbers they stand for: rounding is differentiated
as the identity inside the representable range and as zero outside it. Gradients of codes are in units of one code and
have a floating-point type. Zero points are held fixed; the walk names every node that rounds.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxplain.errors import Unsupported
from onnxplain_convert.grad.backward import Backward, Gradients
from onnxplain_convert.grad.ruleset import RuleSet
from onnxplain_convert.graph.emitter import Emitter
from onnxplain_convert.graph.shapes import dims, static_dims

RULES = RuleSet("quantisation")

_RANGES = {
    ir.DataType.UINT8: (0, 255), ir.DataType.INT8: (-128, 127),
    ir.DataType.UINT16: (0, 65535), ir.DataType.INT16: (-32768, 32767),
    ir.DataType.UINT4: (0, 15), ir.DataType.INT4: (-8, 7),
    ir.DataType.FLOAT8E4M3FN: (-448, 448), ir.DataType.FLOAT8E4M3FNUZ: (-240, 240),
    ir.DataType.FLOAT8E5M2: (-57344, 57344), ir.DataType.FLOAT8E5M2FNUZ: (-57344, 57344),
}  # fmt: skip


@RULES.rule("QuantizeLinear")
def quantize_linear(b: Backward) -> Gradients:
    x, op = b.input(0), b.op
    scale, zero = _per_element(b, 1, x), _per_element(b, 2, x) if b.has(2) else None
    codes = op.Div(x, scale if scale.dtype == x.dtype else op.Cast(scale, to=x.dtype))
    codes = codes if zero is None else op.Add(codes, op.Cast(zero, to=x.dtype))
    return b.through(_representable(b, codes))


@RULES.rule("DynamicQuantizeLinear")
def dynamic_quantize_linear(b: Backward) -> Gradients:
    """The scale is (max - min) / 255 over the input and zero, so nothing is outside the range."""
    op, zero = b.op, b.op.const(0.0, b.x.dtype)
    high, low = op.Max(op.ReduceMax(b.x, keepdims=0), zero), op.Min(op.ReduceMin(b.x, keepdims=0), zero)
    scale = op.Div(op.Sub(high, low), 255.0)
    return b.through(op.Add(op.Div(b.x, scale), op.Cast(b.outputs[2], to=b.x.dtype)), scale)


@RULES.rule("DequantizeLinear")
def dequantize_linear(b: Backward) -> Gradients:
    """(code - zero) * scale."""
    op, scale = b.op, _per_element(b, 1, b.x)
    gscale = None
    if b.wants(1):
        codes = op.Cast(b.x, to=b.g.dtype)
        codes = op.Sub(codes, op.Cast(_per_element(b, 2, b.x), to=b.g.dtype)) if b.has(2) else codes
        weighted = op.Mul(b.g, codes)
        gscale = _gathered(b, weighted, b.input(1))
    gx = op.Mul(b.g, op.Cast(scale, to=b.g.dtype) if scale.dtype != b.g.dtype else scale)
    return gx, gscale


@RULES.rule("MatMulInteger")
def matmul_integer(b: Backward) -> Gradients:
    """(A - zero_a) (B - zero_b)."""
    x, w = (_codes(b, i, i + 2, vector=1 - i) for i in (0, 1))
    return b.through(b.op.MatMul(x, w))


@RULES.rule("ConvInteger")
def conv_integer(b: Backward) -> Gradients:
    """The convolution of x - zero_x with w - zero_w; padding is zero in real terms."""
    x, w = (_codes(b, i, i + 2) for i in (0, 1))
    return b.through(b.op.Conv(x, w, **_attributes(b)))


@RULES.rule("QLinearMatMul")
def qlinear_matmul(b: Backward) -> Gradients:
    op = b.op
    x = op.Mul(_codes(b, 0, 2, vector=1), _aligned(b, 1, vector=1))
    w = op.Mul(_codes(b, 3, 5, vector=0), _aligned(b, 4, vector=0))
    y = op.Add(op.Div(op.MatMul(x, w), _aligned(b, 6, vector=1)), op.Cast(_aligned(b, 7, vector=1), to=b.g.dtype))
    return b.through(_representable(b, y))


@RULES.rule("QLinearConv")
def qlinear_conv(b: Backward) -> Gradients:
    """The bias is in units of scale_x * scale_w."""
    op = b.op
    x = op.Mul(_codes(b, 0, 2), b.input(1))
    scale = _per_filter(b, 4)
    w = op.Mul(op.Sub(op.Cast(b.input(3), to=b.g.dtype), op.Cast(_per_filter(b, 5), to=b.g.dtype)), scale)
    bias = None
    if b.has(8):
        bias = op.Mul(op.Cast(b.input(8), to=b.g.dtype), op.Mul(b.input(4), b.input(1)))
    y = op.Add(op.Div(op.Conv(x, w, bias, **_attributes(b)), b.input(6)), op.Cast(b.input(7), to=b.g.dtype))
    return b.through(_representable(b, y))


def _representable(b: Backward, codes: ir.Value) -> ir.Value:
    assert b.y.dtype is not None
    if b.y.dtype not in _RANGES:
        raise Unsupported(
            f"{b.node.op_type} {b.node.name!r} (opset {b.opset}) quantises to {b.y.dtype}, of unknown range; "
            f"known: {', '.join(str(t) for t in _RANGES)}"
        )
    low, high = (b.op.const(float(v), codes.dtype) for v in _RANGES[b.y.dtype])
    inside = b.op.And(b.op.GreaterOrEqual(codes, low), b.op.LessOrEqual(codes, high))
    return b.op.Where(inside, codes, b.op.const(0.0, codes.dtype))


def _codes(b: Backward, index: int, zero: int, vector: int | None = None) -> ir.Value:
    """An operand's codes less their zero point, as floating-point numbers."""
    codes = b.op.Cast(b.input(index), to=b.g.dtype)
    if not b.has(zero):
        return codes
    return b.op.Sub(codes, b.op.Cast(_aligned(b, zero, vector), to=b.g.dtype))


def _aligned(b: Backward, index: int, vector: int | None) -> ir.Value:
    """A parameter that may be one per row (``vector`` 1) or per column (0) of a matrix."""
    value = b.input(index)
    if vector == 1 and b.rank(value) == 1 and static_dims(value) != (1,):
        return b.op.Unsqueeze(value, [1])
    return value


def _per_filter(b: Backward, index: int) -> ir.Value:
    """A parameter of the weight, which may be one per output channel, in the weight's rank."""
    value, rank = b.input(index), b.rank(b.input(3))
    return b.op.Reshape(value, [-1] + [1] * (rank - 1)) if dims(value) not in ((), (1,)) else value


def _attributes(b: Backward) -> dict[str, object]:
    return {name: b.attr(name) for name in b.node.attributes}


def _per_element(b: Backward, index: int, x: ir.Value) -> ir.Value:
    """A scale or zero point so that it broadcasts with ``x``: one in all, one per ``axis``, or one per block on it."""
    op, value, shape = b.op, b.input(index), dims(x) or ()
    rank = b.rank(value)
    if rank == 0 or static_dims(value) == (1,):
        return value
    axis = b.attr("axis", 1) % len(shape)
    if rank == 1:
        return op.Unsqueeze(value, [k for k in range(len(shape)) if k != axis]) if len(shape) > 1 else value
    return _repeated(op, value, axis, b.attr("block_size", 0), x)


def _repeated(op: Emitter, value: ir.Value, axis: int, size: int, x: ir.Value) -> ir.Value:
    """Each block's value for all its elements; the last block may be cut off."""
    wide = op.Unsqueeze(value, [axis + 1])
    ones = [1] * (len(dims(value) or ()) + 1)
    ones[axis + 1] = size
    spread = op.Expand(wide, np.asarray(ones, np.int64))
    before, after = op.Slice(op.Shape(value), [0], [axis]), op.Slice(op.Shape(value), [axis + 1], [2**31])
    joined = op.Reshape(spread, op.Concat(before, op.ints(-1), after, axis=0))
    return op.Slice(joined, [0], op.dim(x, axis), [axis])


def _gathered(b: Backward, weighted: ir.Value, scale: ir.Value) -> ir.Value:
    """What arrives at every element, summed to the shape of the scale."""
    op, shape = b.op, dims(b.x) or ()
    rank = b.rank(scale)
    if rank == 0 or static_dims(scale) == (1,):
        return op.reshape_like(op.ReduceSum(weighted, keepdims=0), scale)
    axis = b.attr("axis", 1) % len(shape)
    if rank == 1:
        others = [k for k in range(len(shape)) if k != axis]
        return op.ReduceSum(weighted, others, keepdims=0) if others else weighted
    size = b.attr("block_size", 0)
    blocks = op.Mul(op.dim(scale, axis), op.ints(size))
    missing = op.Sub(blocks, op.dim(b.x, axis))
    pads = op.Concat(op.ints(0), missing, axis=0)
    padded = op.Pad(weighted, pads, None, op.ints(axis))
    before, after = op.Slice(op.Shape(padded), [0], [axis]), op.Slice(op.Shape(padded), [axis + 1], [2**31])
    split = op.Reshape(padded, op.Concat(before, op.dim(scale, axis), op.ints(size), after, axis=0))
    return op.typed(op.ReduceSum(split, [axis + 1], keepdims=0), scale)
