"""Activation functions. Derivatives at kinks are PyTorch's: Relu'(0) = 0, LeakyRelu'(0) = alpha, and

Clip is differentiated as torch.clamp (1 on the closed interval), except where its lower bound is the constant 0: that
is how exporters spell ReLU6 and ReLU, whose derivative is 1 on the open interval only (torch.nn.functional.hardtanh).
"""

from __future__ import annotations

import math

import onnx_ir as ir

from onnxplain_convert.grad.backward import Backward, Gradients
from onnxplain_convert.grad.ruleset import RuleSet
from onnxplain_convert.graph.shapes import const_array

RULES = RuleSet("activations")


@RULES.rule("Relu")
def relu(b: Backward) -> ir.Value:
    return _where_positive(b, b.y, b.g, 0.0)


@RULES.rule("LeakyRelu")
def leaky_relu(b: Backward) -> ir.Value:
    return _where_positive(b, b.x, b.g, b.op.Mul(b.g, float(b.attr("alpha", 0.01))))


@RULES.rule("ThresholdedRelu")
def thresholded_relu(b: Backward) -> ir.Value:
    return b.op.Where(b.op.Greater(b.x, float(b.attr("alpha", 1.0))), b.g, _zero(b))


@RULES.rule("Shrink")
def shrink(b: Backward) -> ir.Value:
    return b.op.Where(b.op.Greater(b.op.Abs(b.x), float(b.attr("lambd", 0.5))), b.g, _zero(b))


@RULES.rule("PRelu")
def prelu(b: Backward) -> Gradients:
    x, slope = b.input(0), b.input(1)
    return (
        _where_positive(b, x, b.g, b.op.Mul(b.g, slope)) if b.wants(0) else None,
        b.op.Where(b.op.Greater(x, 0.0), _zero(b), b.op.Mul(b.g, x)) if b.wants(1) else None,
    )


@RULES.rule("Elu")
def elu(b: Backward) -> ir.Value:
    """alpha (e^x - 1) for x <= 0, whose derivative is y + alpha."""
    return _where_positive(b, b.x, b.g, b.op.Mul(b.g, b.op.Add(b.y, float(b.attr("alpha", 1.0)))))


@RULES.rule("Celu")
def celu(b: Backward) -> ir.Value:
    """alpha (e^(x / alpha) - 1) for x <= 0, whose derivative is y / alpha + 1."""
    slope = b.op.Add(b.op.Div(b.y, float(b.attr("alpha", 1.0))), 1.0)
    return _where_positive(b, b.x, b.g, b.op.Mul(b.g, slope))


@RULES.rule("Selu")
def selu(b: Backward) -> ir.Value:
    alpha, gamma = float(b.attr("alpha", 1.67326319217681884765625)), float(b.attr("gamma", 1.05070102214813232421875))
    return _where_positive(b, b.x, b.op.Mul(b.g, gamma), b.op.Mul(b.g, b.op.Add(b.y, alpha * gamma)))


@RULES.rule("Sigmoid")
def sigmoid(b: Backward) -> ir.Value:
    return b.op.Mul(b.g, b.op.Mul(b.y, b.op.Sub(1.0, b.y)))


@RULES.rule("HardSigmoid")
def hard_sigmoid(b: Backward) -> ir.Value:
    """max(0, min(1, alpha x + beta)): alpha where the result is strictly inside (0, 1)."""
    inside = b.op.And(b.op.Greater(b.y, 0.0), b.op.Less(b.y, 1.0))
    return b.op.Where(inside, b.op.Mul(b.g, float(b.attr("alpha", 0.2))), _zero(b))


@RULES.rule("HardSwish")
def hard_swish(b: Backward) -> ir.Value:
    """x max(0, min(1, x / 6 + 1/2)): 0 up to -3, x / 3 + 1/2 between, 1 from 3 on."""
    ramp = b.op.Mul(b.g, b.op.Add(b.op.Div(b.x, 3.0), 0.5))
    upper = b.op.Where(b.op.GreaterOrEqual(b.x, 3.0), b.g, ramp)
    return b.op.Where(b.op.LessOrEqual(b.x, -3.0), _zero(b), upper)


@RULES.rule("Tanh")
def tanh(b: Backward) -> ir.Value:
    return b.op.Mul(b.g, b.op.Sub(1.0, b.op.Mul(b.y, b.y)))


@RULES.rule("Softplus")
def softplus(b: Backward) -> ir.Value:
    return b.op.Mul(b.g, b.op.Sigmoid(b.x))


@RULES.rule("Softsign")
def softsign(b: Backward) -> ir.Value:
    """x / (1 + |x|): 1 / (1 + |x|)^2."""
    d = b.op.Add(b.op.Abs(b.x), 1.0)
    return b.op.Div(b.g, b.op.Mul(d, d))


@RULES.rule("Mish")
def mish(b: Backward) -> ir.Value:
    """x tanh(s), s = softplus(x): tanh(s) + x (1 - tanh(s)^2) sigmoid(x)."""
    t = b.op.Tanh(b.op.Softplus(b.x))
    bend = b.op.Mul(b.op.Mul(b.x, b.op.Sigmoid(b.x)), b.op.Sub(1.0, b.op.Mul(t, t)))
    return b.op.Mul(b.g, b.op.Add(t, bend))


@RULES.rule("Gelu")
def gelu(b: Backward) -> ir.Value:
    return _gelu_tanh(b) if b.attr("approximate", "none") == "tanh" else _gelu_exact(b)


def _gelu_exact(b: Backward) -> ir.Value:
    """x P(x), P the normal distribution: P(x) + x p(x)."""
    op, x = b.op, b.x
    distribution = op.Mul(op.Add(op.Erf(op.Mul(x, math.sqrt(0.5))), 1.0), 0.5)
    density = op.Mul(op.Exp(op.Mul(op.Mul(x, x), -0.5)), 1.0 / math.sqrt(2.0 * math.pi))
    return op.Mul(b.g, op.Add(distribution, op.Mul(x, density)))


def _gelu_tanh(b: Backward) -> ir.Value:
    """x (1 + tanh(u)) / 2, u = sqrt(2/pi) (x + 0.044715 x^3)."""
    op, x, c = b.op, b.x, math.sqrt(2.0 / math.pi)
    square = op.Mul(x, x)
    t = op.Tanh(op.Mul(op.Mul(x, c), op.Add(op.Mul(square, 0.044715), 1.0)))
    du = op.Mul(op.Add(op.Mul(square, 3.0 * 0.044715), 1.0), c)
    bend = op.Mul(op.Mul(x, du), op.Sub(1.0, op.Mul(t, t)))
    return op.Mul(b.g, op.Mul(op.Add(op.Add(t, 1.0), bend), 0.5))


@RULES.rule("Softmax")
def softmax(b: Backward) -> ir.Value:
    y = b.y
    if _is_mended(y):
        y = b.op.Where(b.op.IsNaN(y), _zero(b), y)
    weighted = b.op.Mul(b.g, y)
    total = b.op.ReduceSum(weighted, [b.attr("axis", -1)], keepdims=1)
    return b.op.Sub(weighted, b.op.Mul(y, total))


def _is_mended(y: ir.Value) -> bool:
    """Does the model itself replace what a fully masked row gives (0 / 0)? Then nothing goes back through that row."""
    users = [user for user in y.consumers() if user.graph is y.producer().graph]  # type: ignore[union-attr]
    return any(
        user.op_type in ("IsNaN", "Where") or (user.op_type in ("Cast", "Identity") and _is_mended(user.outputs[0]))
        for user in users
    )


@RULES.rule("LogSoftmax")
def log_softmax(b: Backward) -> ir.Value:
    total = b.op.ReduceSum(b.g, [b.attr("axis", -1)], keepdims=1)
    return b.op.Sub(b.g, b.op.Mul(b.op.Exp(b.y), total))


@RULES.rule("Clip")
def clip(b: Backward) -> Gradients:
    """min(max(x, low), high); where low > high the result is high."""
    op, x = b.op, b.x
    low = b.input(1) if b.has(1) else None
    high = b.input(2) if b.has(2) else None
    if low is None and high is None:
        return (b.g,)
    below = op.Less(x, low) if low is not None else None
    above = op.Greater(x, high) if high is not None else None
    gx = b.g
    if b.wants(0):
        bound = const_array(low)
        rectifies = bound is not None and (bound == 0).all()
        inside = [] if low is None else [op.Greater(x, low) if rectifies else op.GreaterOrEqual(x, low)]
        if high is not None:
            inside.append(op.Less(x, high) if rectifies else op.LessOrEqual(x, high))
        gx = op.Where(inside[0] if len(inside) == 1 else op.And(*inside), b.g, _zero(b))
    glow = ghigh = None
    if low is not None and below is not None and b.wants(1):
        chosen = below if high is None else op.And(below, op.LessOrEqual(low, high))
        glow = op.Where(chosen, b.g, _zero(b))
    if high is not None and above is not None and b.wants(2):
        chosen = above if low is None else op.Or(above, op.Greater(low, high))
        ghigh = op.Where(chosen, b.g, _zero(b))
    return gx, glow, ghigh


@RULES.rule("Dropout")
def dropout(b: Backward) -> ir.Value:
    """The identity at inference; in training mode the mask over (1 - ratio)."""
    mode = const_array(b.inputs[2]) if b.has(2) else False
    if mode is not None and not mode:
        return b.g
    if len(b.node.outputs) < 2:
        b.node.resize_outputs(2)
    mask = b.node.outputs[1]
    mask.dtype, mask.name = ir.DataType.BOOL, mask.name or f"{b.y.name}/mask"
    b.op.typed(mask, b.y)
    ratio = b.input(1) if b.has(1) else b.op.const(0.5, b.g.dtype)
    ratio = b.op.Cast(ratio, to=b.g.dtype) if ratio.dtype != b.g.dtype else ratio
    kept = b.op.Where(mask, b.op.Div(b.g, b.op.Sub(1.0, ratio)), _zero(b))
    return b.op.Where(b.input(2), kept, b.g)


def _where_positive(b: Backward, x: ir.Value, positive: ir.Value, otherwise: ir.Value | float) -> ir.Value:
    return b.op.Where(b.op.Greater(x, 0.0), positive, otherwise)


def _zero(b: Backward) -> ir.Value:
    return b.op.const(0.0, b.g.dtype)
