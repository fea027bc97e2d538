"""Central differences of a vector-Jacobian product, and whether the function has a derivative there at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Function = Callable[[Mapping[str, Any]], Mapping[str, Any]]

STEP = 1e-5
"""In units of the input: the error of a central difference is then 1e-10 (truncation) and 1e-11 (rounding)."""

KINK = 1e-2
"""One-sided slopes of a smooth function differ by STEP times its curvature; at a kink by the jump itself."""

AGREE = 1e-7
"""How well the central differences of two step sizes agree on smooth functions, relative to the slope's scale."""


EPSILON, ROUNDINGS = float(np.finfo(np.float64).eps), 8.0
"""Every term of sum(seed * y) is off by some roundings, which a difference divides by its step."""


@dataclass(frozen=True)
class Slope:
    """The derivative of sum(seed * y) along a direction of one input; ``noise`` is what rounding makes of it."""

    value: float
    noise: float


def projection(
    function: Function, feeds: Mapping[str, Any], name: str, direction: Array, seeds: Mapping[str, Array]
) -> Callable[[float], float]:
    """t -> sum(seed * y(x + t * direction)), moving one input; nan where the shape of y changes on the way."""

    def along(t: float) -> float:
        y = function({**feeds, name: feeds[name] + t * direction})
        if any(np.shape(y[output]) != np.shape(seed) for output, seed in seeds.items()):
            return np.nan
        return float(sum(np.sum(_products(seed, y[output])) for output, seed in seeds.items()))

    return along


def _products(seed: Array, y: Array) -> Array:
    """seed * y, zero where the seed is: infinite outputs are left out by a zero seed, others are noticed."""
    with np.errstate(invalid="ignore"):
        return np.where(seed == 0, 0.0, seed * y)


def central(along: Callable[[float], float], step: float = STEP) -> float:
    """The central difference of a projection at 0."""
    return (along(step) - along(-step)) / (2 * step)


def slope(
    function: Function, feeds: Mapping[str, Any], name: str, direction: Array, seeds: Mapping[str, Array]
) -> Slope | None:
    """d/dt of sum(seed * y(x + t * direction)) at 0 in float64, None where there is none (a kink, a jump, not finite).

    Central differences with two step sizes have to agree, and so do the two one-sided ones: at a tie or a corner the
    former alone would see the mean of both sides.
    """
    along = projection(function, feeds, name, direction, seeds)
    middle = along(0.0)
    values = [along(t) for t in (-STEP, -STEP / 2, STEP / 2, STEP)]
    if not np.all(np.isfinite([middle, *values])):
        return None
    y = function(feeds)
    noise = ROUNDINGS * EPSILON * float(sum(np.sum(np.abs(_products(s, y[o]))) for o, s in seeds.items())) / STEP
    wide, narrow = (values[3] - values[0]) / (2 * STEP), (values[2] - values[1]) / STEP
    left, right = (middle - values[0]) / STEP, (values[3] - middle) / STEP
    scale = max(abs(narrow), noise, 1e-3)
    if abs(wide - narrow) > AGREE * scale + 10 * noise or abs(left - right) > KINK * scale + 10 * noise:
        return None
    return Slope((4 * narrow - wide) / 3, noise)


@dataclass(frozen=True)
class Agreement:
    """Gradient against differences over several random directions: the worst relative error, or no derivative."""

    error: float
    directions: int
    has_derivative: bool = True


def compare(
    function: Function,
    feeds: Mapping[str, Any],
    name: str,
    gradient: Array,
    seeds: Mapping[str, Array],
    rng: np.random.Generator,
    directions: int = 2,
) -> Agreement:
    """<gradient, direction> against the slope, for random directions.

    The error is relative to the gradient's norm, which is the size of <gradient, direction> for a normal direction.
    What the differences' own rounding explains is none.
    """
    worst = 0.0
    if not np.size(feeds[name]):
        return Agreement(worst, directions)  # an empty input has an empty gradient
    for _ in range(directions):
        direction = rng.standard_normal(np.shape(feeds[name]))
        found = slope(function, feeds, name, direction, seeds)
        if found is None:
            return Agreement(np.inf, directions, has_derivative=False)
        told = float(np.sum(gradient * direction))
        scale = max(float(np.linalg.norm(gradient)), abs(found.value), 1e-6)
        worst = max(worst, (abs(told - found.value) - found.noise) / scale)
        if np.isnan(told):
            worst = np.inf
    return Agreement(worst, directions)


def jittered(feeds: Mapping[str, Any], names: list[str], rng: np.random.Generator, size: float) -> dict[str, Any]:
    """The feeds with noise on the named inputs: off ties and corners, still where the function is defined.

    What is infinite or too large for a difference to be seen is brought within 100.
    """

    def moved(x: Array) -> Array:
        x = np.clip(np.nan_to_num(x), -100.0, 100.0)
        spread = max(float(np.std(x)), 0.1) if x.size else 0.0
        return x + size * spread * rng.standard_normal(x.shape)

    return {name: moved(value) if name in names else value for name, value in feeds.items()}
