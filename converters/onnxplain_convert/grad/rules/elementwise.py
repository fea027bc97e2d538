"""Arithmetic and functions on elements, with broadcasting (which the walk undoes).

Kinks follow PyTorch: |x|' at 0 is 0; of equal operands of Max and Min each gets an equal share.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from onnxplain_convert.grad.backward import Backward, Gradients
from onnxplain_convert.grad.ruleset import RuleSet
from onnxplain_convert.graph.shapes import const_array, is_float

RULES = RuleSet("elementwise")

RULES.has_no_gradient(
    "piecewise constant: its derivative is zero wherever it exists",
    "Floor", "Ceil", "Round", "Sign", "ArgMax", "ArgMin", "Hardmax", "IsNaN", "IsInf", "NonZero",
    "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "Not", "And", "Or", "Xor",
    "TfIdfVectorizer", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "NonMaxSuppression",
)  # fmt: skip
RULES.has_no_gradient(
    "its result depends on the shape of its input, not on the values",
    "Shape", "Size", "ConstantOfShape", "EyeLike",
)  # fmt: skip
RULES.has_no_gradient(
    "random: there is no derivative of a draw",
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli",
)  # fmt: skip


@RULES.rule("Identity")
def identity(b: Backward) -> ir.Value:
    return b.g


@RULES.rule("Cast", "CastLike")
def cast(b: Backward) -> ir.Value:
    same = b.x.dtype == b.g.dtype or not is_float(b.x)  # gradients of quantised codes keep a floating-point type
    return b.g if same else b.op.Cast(b.g, to=b.x.dtype)


@RULES.rule("Add")
def add(b: Backward) -> Gradients:
    return b.g, b.g


@RULES.rule("Sum")
def sum_(b: Backward) -> Gradients:
    return (b.g,) * len(b.inputs)


@RULES.rule("Mean")
def mean(b: Backward) -> Gradients:
    return (b.op.Div(b.g, float(len(b.inputs))),) * len(b.inputs)


@RULES.rule("Sub")
def sub(b: Backward) -> Gradients:
    return b.g, b.op.Neg(b.g) if b.wants(1) else None


@RULES.rule("Mul")
def mul(b: Backward) -> Gradients:
    x, y = b.input(0), b.input(1)
    return b.op.Mul(b.g, y) if b.wants(0) else None, b.op.Mul(b.g, x) if b.wants(1) else None


@RULES.rule("Div")
def div(b: Backward) -> Gradients:
    gx = b.op.Div(b.g, b.input(1))
    return gx, b.op.Neg(b.op.Mul(gx, b.y)) if b.wants(1) else None


@RULES.rule("Mod")
def mod(b: Backward) -> Gradients:
    """x - y * trunc(x / y): between the jumps of trunc the derivatives are 1 and -trunc(x / y)."""
    x, y = b.input(0), b.input(1)
    quotient = b.op.Round(b.op.Div(b.op.Sub(x, b.y), y))
    return b.g, b.op.Neg(b.op.Mul(b.g, quotient)) if b.wants(1) else None


@RULES.rule("Neg")
def neg(b: Backward) -> ir.Value:
    return b.op.Neg(b.g)


@RULES.rule("Abs")
def abs_(b: Backward) -> ir.Value:
    return b.op.Mul(b.g, b.op.Sign(b.x))


@RULES.rule("Reciprocal")
def reciprocal(b: Backward) -> ir.Value:
    return b.op.Neg(b.op.Mul(b.g, b.op.Mul(b.y, b.y)))


@RULES.rule("Sqrt")
def sqrt(b: Backward) -> ir.Value:
    return b.op.Div(b.g, b.op.Mul(b.y, 2.0))


@RULES.rule("Exp")
def exp(b: Backward) -> ir.Value:
    return b.op.Mul(b.g, b.y)


@RULES.rule("Log")
def log(b: Backward) -> ir.Value:
    return b.op.Div(b.g, b.x)


@RULES.rule("Pow")
def pow_(b: Backward) -> Gradients:
    """d x^p = p x^(p-1) dx + x^p log(x) dp; where p is 0 the first is 0, where x is 0 and p >= 0 the second."""
    x, p, op = b.input(0), b.input(1), b.op
    gx = gp = None
    if b.wants(0):
        constant = const_array(p)
        if constant is not None and (constant == 2).all():
            gx = op.Mul(b.g, op.Mul(x, 2.0))
        else:
            exponent = op.Cast(p, to=x.dtype) if p.dtype != x.dtype else p
            less = op.Sub(exponent, op.const(1.0, x.dtype))
            slope = op.Mul(exponent, op.Pow(x, less))
            if constant is None or (constant == 0).any():
                slope = op.Where(op.Equal(exponent, op.const(0.0, x.dtype)), op.const(0.0, x.dtype), slope)
            gx = op.Mul(b.g, slope)
    if b.wants(1):
        zero = op.const(0.0, x.dtype)
        power = op.Cast(p, to=x.dtype) if p.dtype != x.dtype else p
        flat = op.And(op.Equal(x, zero), op.GreaterOrEqual(power, zero))
        logs = op.Log(op.Where(flat, op.const(1.0, x.dtype), x))
        gp = op.Mul(b.g, op.Mul(b.y, logs))
        gp = op.Cast(gp, to=p.dtype) if p.dtype != x.dtype else gp
    return gx, gp


@RULES.rule("Where")
def where(b: Backward) -> Gradients:
    c, zero = b.input(0), b.op.const(0.0, b.g.dtype)
    return (
        None,
        b.op.Where(c, b.g, zero) if b.wants(1) else None,
        b.op.Where(c, zero, b.g) if b.wants(2) else None,
    )


@RULES.rule("Max", "Min")
def extremum(b: Backward) -> Gradients:
    """Equal operands share the gradient equally (as torch.maximum and torch.amax do)."""
    if len(b.inputs) == 1:
        return (b.g,)
    hit = [b.op.Cast(b.op.Equal(x, b.y), to=b.g.dtype) for x in b.inputs]
    count = hit[0]
    for h in hit[1:]:
        count = b.op.Add(count, h)
    share = b.op.Div(b.g, count)
    return tuple(b.op.Mul(share, h) if b.wants(i) else None for i, h in enumerate(hit))


@RULES.rule("Range")
def range_(b: Backward) -> Gradients:
    """start + i * delta; how many there are is piecewise constant in all three."""
    count = b.op.Reshape(b.op.Shape(b.y), b.op.const(np.zeros(0, np.int64)))
    i = b.op.Range(b.op.const(np.int64(0)), count, b.op.const(np.int64(1)))
    weighted = b.op.Mul(b.g, b.op.Cast(i, to=b.g.dtype))
    return b.op.ReduceSum(b.g, keepdims=0), None, b.op.ReduceSum(weighted, keepdims=0)


@RULES.rule("Erf")
def erf(b: Backward) -> ir.Value:
    return b.op.Mul(b.g, b.op.Mul(b.op.Exp(b.op.Neg(b.op.Mul(b.x, b.x))), 2.0 / math.sqrt(math.pi)))


@RULES.rule("Sin")
def sin(b: Backward) -> ir.Value:
    return b.op.Mul(b.g, b.op.Cos(b.x))


@RULES.rule("Cos")
def cos(b: Backward) -> ir.Value:
    return b.op.Neg(b.op.Mul(b.g, b.op.Sin(b.x)))


@RULES.rule("Tan")
def tan(b: Backward) -> ir.Value:
    return b.op.Mul(b.g, b.op.Add(b.op.Mul(b.y, b.y), 1.0))


@RULES.rule("Sinh")
def sinh(b: Backward) -> ir.Value:
    return b.op.Mul(b.g, b.op.Mul(b.op.Add(b.op.Exp(b.x), b.op.Exp(b.op.Neg(b.x))), 0.5))


@RULES.rule("Cosh")
def cosh(b: Backward) -> ir.Value:
    return b.op.Mul(b.g, b.op.Mul(b.op.Sub(b.op.Exp(b.x), b.op.Exp(b.op.Neg(b.x))), 0.5))


@RULES.rule("Asin")
def asin(b: Backward) -> ir.Value:
    return b.op.Div(b.g, b.op.Sqrt(_one_minus_square(b)))


@RULES.rule("Acos")
def acos(b: Backward) -> ir.Value:
    return b.op.Neg(b.op.Div(b.g, b.op.Sqrt(_one_minus_square(b))))


@RULES.rule("Atan")
def atan(b: Backward) -> ir.Value:
    return b.op.Div(b.g, b.op.Add(b.op.Mul(b.x, b.x), 1.0))


@RULES.rule("Asinh")
def asinh(b: Backward) -> ir.Value:
    return b.op.Div(b.g, b.op.Sqrt(b.op.Add(b.op.Mul(b.x, b.x), 1.0)))


@RULES.rule("Acosh")
def acosh(b: Backward) -> ir.Value:
    return b.op.Div(b.g, b.op.Sqrt(b.op.Sub(b.op.Mul(b.x, b.x), 1.0)))


@RULES.rule("Atanh")
def atanh(b: Backward) -> ir.Value:
    return b.op.Div(b.g, _one_minus_square(b))


def _one_minus_square(b: Backward) -> ir.Value:
    return b.op.Sub(1.0, b.op.Mul(b.x, b.x))
