"""Operators whose derivative jumps: on a network that has one, quadrature converges as 1/n whatever the rule."""

from __future__ import annotations

KINKED = frozenset({
    "Relu", "LeakyRelu", "PRelu", "ThresholdedRelu", "Selu", "Shrink", "Clip", "HardSigmoid", "HardSwish",
    "Abs", "Max", "Min", "MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin", "ReduceL1", "TopK", "MaxRoiPool",
})  # fmt: skip
"""Elu and Celu are left out: at their default alpha = 1 the derivative is continuous."""
