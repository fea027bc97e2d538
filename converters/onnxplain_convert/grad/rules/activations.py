"""Activation functions. At a kink the derivative is PyTorch's: Relu'(0) = 0, Clip' = 1 on the closed interval."""

from __future__ import annotations

import onnx_ir as ir

from onnxplain_convert.grad.backward import Backward
from onnxplain_convert.grad.ruleset import RuleSet

RULES = RuleSet("activations")


@RULES.rule("Relu")
def relu(b: Backward) -> ir.Value:
    return b.op.Where(b.op.Greater(b.y, 0.0), b.g, 0.0)


@RULES.rule("Tanh")
def tanh(b: Backward) -> ir.Value:
    return b.op.Mul(b.g, b.op.Sub(1.0, b.op.Mul(b.y, b.y)))
