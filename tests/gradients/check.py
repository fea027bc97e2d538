"""A differentiated model against central differences of the model, in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

from onnxplain.artifact import gradient_name, seed_name
from tests.reference import Reference
from tests.reference.differences import compare, jittered

TOLERANCE = 1e-6
"""Relative error of <gradient, direction> against central differences in float64, which are good to about 1e-8."""

TRIES = 6
"""How often a point without a derivative (a tie, a corner) is moved a little before it is given up."""

Feeds = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What became of one model: ``wrong`` {input: what is wrong}, ``kinks`` inputs without a derivative near by."""

    wrong: dict[str, str] = field(default_factory=dict)
    kinks: tuple[str, ...] = ()
    moved: bool = False
    """Was the point moved to find a derivative?"""


def random_seeds(model: ModelProto, feeds: Feeds, outputs: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Normal cotangents for the outputs, under the names of their inputs in the differentiated model."""
    return cotangents_of(Reference(model)(feeds, outputs), np.random.default_rng(seed))


def cotangents_of(values: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Normal numbers in the shape of each value; zero where it is infinite (a masked score)."""
    return {seed_name(name): np.where(np.isinf(y), 0, rng.standard_normal(np.shape(y))) for name, y in values.items()}


def check(
    model: ModelProto,
    differentiated: ModelProto,
    feeds: Feeds,
    seeds: Feeds,
    wrt: Sequence[str],
    outputs: Sequence[str],
    rules: str = "gradient",
) -> Verdict:
    """Gradients with respect to ``wrt`` against central differences of ``model``, in float64.

    An input whose point has no derivative is moved a little and tried again, with new seeds if that changes a shape.
    """
    onnx.checker.check_model(differentiated, full_check=True)
    rng = np.random.default_rng(1)
    forward, backward = Reference(model), Reference(differentiated)
    point = {name: np.asarray(value, np.float64) if name in wrt else value for name, value in feeds.items()}
    now, then = backward({**point, **seeds}, outputs), forward(point, outputs)
    changed = [
        name for name in outputs if not np.allclose(now[name], then[name], rtol=1e-9, atol=1e-12, equal_nan=True)
    ]
    if changed:
        return Verdict(dict.fromkeys(changed, "the differentiated graph computes another value"))
    left, wrong, moved = list(wrt), {}, False
    for attempt in range(TRIES):
        at = point if attempt == 0 else jittered(point, left, rng, 0.02)
        values = forward(at, outputs)
        if any(np.shape(values[name]) != np.shape(seeds[seed_name(name)]) for name in outputs):
            seeds = cotangents_of(values, rng)
        cotangents = {name: seeds[seed_name(name)] for name in outputs}
        found = backward({**at, **seeds}, [gradient_name(rules, name) for name in left])
        kinks = []
        for name in left:
            gradient = found[gradient_name(rules, name)]
            if gradient.shape != at[name].shape:
                wrong[name] = f"shape {gradient.shape} for an input of {at[name].shape}"
                continue
            agreement = compare(lambda f: forward(f, outputs), at, name, gradient, cotangents, rng)
            if not agreement.has_derivative:
                kinks.append(name)
            elif not agreement.error < TOLERANCE:
                wrong[name] = f"relative error {agreement.error:.1e}"
            moved = moved or attempt > 0
        left = kinks
        if not left:
            break
    return Verdict(wrong, tuple(left), moved)
