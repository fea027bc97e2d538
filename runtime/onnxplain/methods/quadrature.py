"""Quadrature on [0, 1]: points and weights, what a finer round adds, and how far the sum is from the integral.

The gradient along a path through a network with kinks jumps, so that the error of every rule falls as 1/n there; on a
smooth network Gauss-Legendre converges faster than any power. The estimated errors, on EfficientNet-Lite0 and a cat
against 500 midpoints: 0.098, 0.055, 0.048 where the midpoint rule's map was 0.133, 0.085, 0.056 off (n = 50, 70, 100),
0.068, 0.051, 0.037 where Gauss-Legendre's was 0.077, 0.054, 0.038 off; with 10 steps they are too low by half.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from onnxplain.rows import Floats, Rows

NAMES = ("midpoint", "gauss_legendre", "riemann_right", "riemann_left", "trapezoid")


@dataclass(frozen=True)
class Rule:
    """Points in ascending order, weights that sum to 1, and the weights of the difference to a second rule.

    In a refinement ``carry`` times the earlier sum completes this one's, and the weights sum to ``1 - carry``.
    """

    points: Floats
    weights: Floats
    check: Floats
    carry: float = 0.0

    def rows(self, multiply: bool) -> Rows:
        """The rule as one sample of rows."""
        return Rows.table(self.points, self.weights, check=self.check, multiply=multiply)


def rule(name: str, n: int) -> Rule:
    """The rule with ``n`` >= 1 points (a trapezoid needs 2)."""
    k = np.arange(n)
    equal = np.full(n, 1.0 / n)
    match name:
        case "midpoint":
            return Rule((k + 0.5) / n, equal, np.zeros(n))
        case "riemann_right":
            return Rule((k + 1.0) / n, equal, _ends(n, n))
        case "riemann_left":
            return Rule(k / n, equal, -_ends(n, n))
        case "trapezoid":
            points = np.linspace(0.0, 1.0, n) if n > 1 else np.array([0.5])
            weights = np.full(n, 1.0 / max(n - 1, 1))
            if n > 1:
                weights[[0, -1]] /= 2
            return Rule(points, weights, np.zeros(n))
        case "gauss_legendre":
            return _gauss_legendre(n)
    raise ValueError(f"no quadrature {name!r}")  # a bug here: options are checked before


def refined(name: str, n: int) -> tuple[Rule, int]:
    """What turns the rule with ``n`` points into a finer one, and that one's number of points.

    Equidistant rules keep their points (midpoint three times as many, the others twice); Gauss-Legendre starts anew.
    """
    if name == "gauss_legendre" or n == 1:
        return rule(name, 2 * n), 2 * n
    if name == "midpoint":
        fine = rule(name, 3 * n)
        return _part(fine, np.arange(3 * n) % 3 != 1, 1 / 3), 3 * n
    if name == "trapezoid":
        fine = rule(name, 2 * n - 1)
        return _part(fine, np.arange(2 * n - 1) % 2 == 1, 1 / 2), 2 * n - 1
    new = np.arange(2 * n) % 2 == (0 if name == "riemann_right" else 1)
    return _part(rule(name, 2 * n), new, 1 / 2), 2 * n


def squared_error(name: str, rows: Rows, jumps: Floats, check: float) -> float:
    """Estimated squared L2 error of the mean over the samples in ``rows``.

    A jump J somewhere between two neighbouring points at distance h leaves an error that is uniform in -hJ/2 .. hJ/2:
    ``sum J^2 h^2 / 12`` over the jumps, independent between samples. ``check`` is the squared norm of the check map.
    For a one-sided rule that is the bias of its ends, which adds up. For Gauss-Legendre it is the difference to the
    interpolating rule on every second point: about 1.8 times the error where there are kinks, and tiny where there are
    none and the jumps say far too much; so the smaller of the two.
    """
    before = np.concatenate([rows.weight[:1], rows.weight[:-1]])
    spacing = (rows.weight + before) / 2
    n_samples = int(rows.sample[-1] - rows.sample[0]) + 1
    if len(rows) == n_samples:
        return float("nan")  # one point per sample has no neighbour to compare with
    from_jumps = float(np.sum(jumps.astype(np.float64) * spacing**2)) / 12 / n_samples**2
    if name == "gauss_legendre":
        return min(from_jumps, check)
    return from_jumps + check


def _part(fine: Rule, chosen: NDArray[np.bool_], carry: float) -> Rule:
    """The points that are new; the earlier sum's check, carried over, is already that of its finer ends."""
    return Rule(fine.points[chosen], fine.weights[chosen], np.zeros(int(chosen.sum())), carry)


def _ends(length: int, n: int) -> Floats:
    """Half a step times (last - first): what a one-sided rule's sum is off by, to first order."""
    weights = np.zeros(length)
    if length > 1:
        weights[0], weights[-1] = -0.5 / n, 0.5 / n
    return weights


@lru_cache(maxsize=64)
def _gauss_legendre(n: int) -> Rule:
    """Newton's iteration on the three-term recurrence: numpy's leggauss is cubic in n, this is quadratic."""
    x = np.cos(np.pi * (np.arange(n, 0, -1) - 0.25) / (n + 0.5))
    for _ in range(4):
        value, slope = _legendre(n, x)
        x = x - value / slope
    weights = 1.0 / ((1 - x * x) * _legendre(n, x)[1] ** 2)
    points, check = (x + 1) / 2, weights.copy()
    check[::2] = -_interpolated(x[::2], x[1::2]).T @ weights[1::2]
    for array in (points, weights, check):
        array.setflags(write=False)  # shared by all callers through the cache
    return Rule(points, weights, check)


def _interpolated(kept: Floats, left: Floats) -> Floats:
    """(left, kept) values at ``left`` of the Lagrange polynomials on ``kept``, by barycentric weights.

    The full rule integrates these polynomials exactly, so its weights times them are the rule on ``kept`` alone.
    """
    gaps = np.abs(kept[:, None] - kept)
    np.fill_diagonal(gaps, 1.0)
    logs = -np.log(gaps).sum(axis=1)
    weights = np.exp(logs - logs.max()) * (-1.0) ** np.arange(len(kept))
    terms = weights / (left[:, None] - kept)
    return np.asarray(terms / terms.sum(axis=1, keepdims=True))


def _legendre(n: int, x: Floats) -> tuple[Floats, Floats]:
    """The n-th Legendre polynomial and its derivative, within (-1, 1)."""
    before, value = np.ones_like(x), x.copy()
    for k in range(2, n + 1):
        before, value = value, ((2 * k - 1) * x * value - (k - 1) * before) / k
    return value, n * (before - x * value) / (1 - x * x)
