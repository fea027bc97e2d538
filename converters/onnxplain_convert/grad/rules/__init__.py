"""The standard rule set ``gradient``: the operator families, merged in one explicit list."""

from __future__ import annotations

from onnxplain_convert.grad.rules import (
    activations,
    control,
    convolution,
    elementwise,
    indexing,
    linear,
    losses,
    movement,
    normalisation,
    pooling,
    quantisation,
    recurrent,
    reductions,
    regions,
    resampling,
    sampling,
    sequences,
    signal,
)
from onnxplain_convert.grad.ruleset import RuleSet

FAMILIES = (
    elementwise.RULES,
    activations.RULES,
    linear.RULES,
    reductions.RULES,
    movement.RULES,
    indexing.RULES,
    control.RULES,
    recurrent.RULES,
    losses.RULES,
    quantisation.RULES,
    signal.RULES,
    sequences.RULES,
    convolution.RULES,
    pooling.RULES,
    normalisation.RULES,
    resampling.RULES,
    sampling.RULES,
    regions.RULES,
)

GRADIENT = RuleSet("gradient").merged(FAMILIES)
