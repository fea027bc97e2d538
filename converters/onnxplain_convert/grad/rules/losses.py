"""Losses that exporters leave at the end of a training graph, differentiated through their definitions."""

from __future__ import annotations

import onnx_ir as ir

from onnxplain_convert.grad.backward import Backward, Gradients
from onnxplain_convert.grad.ruleset import RuleSet

RULES = RuleSet("losses")


@RULES.rule("NegativeLogLikelihoodLoss")
def negative_log_likelihood_loss(b: Backward) -> Gradients:
    return b.through(_likelihood(b, b.x))


@RULES.rule("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy_loss(b: Backward) -> Gradients:
    """The loss above of LogSoftmax over the classes; the log-probabilities are its second output."""
    log_probabilities = b.op.LogSoftmax(b.x, axis=1)
    return b.through(_likelihood(b, log_probabilities), log_probabilities)


def _likelihood(b: Backward, x: ir.Value) -> ir.Value:
    """-weight[t] * x[n, t, ...], reduced; where t is ``ignore_index`` the weight is 0. x is (n, classes, ...)."""
    op, target, zero = b.op, b.input(1), b.op.const(0.0, x.dtype)
    ignored = b.attr("ignore_index")
    is_ignored = None if ignored is None else op.Equal(target, op.const(ignored, target.dtype))
    safe = target if is_ignored is None else op.Where(is_ignored, op.const(0, target.dtype), target)
    picked = op.Squeeze(op.GatherElements(x, op.Unsqueeze(safe, [1]), axis=1), [1])
    weight = op.Gather(b.input(2), safe) if b.has(2) else None
    if is_ignored is not None:
        weight = op.Where(is_ignored, zero, op.const(1.0, x.dtype) if weight is None else weight)
    loss = op.Neg(picked if weight is None else op.Mul(picked, weight))
    reduction = b.attr("reduction", "mean")
    if reduction == "none":
        return loss
    if reduction == "sum" or weight is None:
        return op.ReduceSum(loss, keepdims=0) if reduction == "sum" else op.ReduceMean(loss, keepdims=0)
    total = op.ReduceSum(weight, keepdims=0)
    return op.Div(op.ReduceSum(loss, keepdims=0), total)
