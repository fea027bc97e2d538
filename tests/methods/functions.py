"""Functions whose attributions the papers give in closed form, with their gradients under the three rule sets.

Every gate is written by hand from its definition:
gradient 1[x > 0] g, guided 1[x > 0] 1[g > 0] g, deconvnet 1[g > 0] g.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Point = Mapping[str, Array]
Gate = Callable[[Array, Array], Array]

GATES: dict[str, Gate] = {
    "gradient": lambda x, g: np.where(x > 0, g, 0.0),
    "guided": lambda x, g: np.where((x > 0) & (g > 0), g, 0.0),
    "deconvnet": lambda x, g: np.where(g > 0, g, 0.0),
}


def bounded(gate: Gate) -> Callable[[Point], Point]:
    """f = 1 - ReLU(1 - x): constant from 1 on (Sundararajan et al. 2017, section 2.1)."""
    return lambda p: {"x": -gate(1 - p["x"], -np.ones_like(p["x"]))}


def twin_f(gate: Gate) -> Callable[[Point], Point]:
    """f = ReLU(ReLU(x1) - 1 - ReLU(x2)) (Sundararajan et al. 2017, appendix B)."""

    def gradient(p: Point) -> Point:
        (x1, x2) = p["x"]
        g = gate(np.maximum(x1, 0) - 1 - np.maximum(x2, 0), np.ones_like(x1))
        return {"x": np.stack([gate(x1, g), gate(x2, -g)])}

    return gradient


def twin_g(gate: Gate) -> Callable[[Point], Point]:
    """g = ReLU(ReLU(x1 - 1) - ReLU(x2)): the same function as f, another network."""

    def gradient(p: Point) -> Point:
        (x1, x2) = p["x"]
        g = gate(np.maximum(x1 - 1, 0) - np.maximum(x2, 0), np.ones_like(x1))
        return {"x": np.stack([gate(x1 - 1, g), gate(x2, -g)])}

    return gradient


def all_rules(function: Callable[[Gate], Callable[[Point], Point]]) -> dict[str, Callable[[Point], Point]]:
    return {name: function(gate) for name, gate in GATES.items()}


class ReluNet:
    """Random ReLU network of ``depth`` layers on one vector, with its score and gradient in float64."""

    def __init__(self, size: int, hidden: int = 48, depth: int = 3, seed: int = 0, smooth: bool = False) -> None:
        draw = np.random.default_rng(seed)
        sizes = [size] + [hidden] * depth
        self.weights = [draw.normal(size=pair) * np.sqrt(2 / pair[0]) for pair in itertools.pairwise(sizes)]
        self.biases = [draw.normal(size=hidden) * 0.3 for _ in range(depth)]
        self.last = draw.normal(size=hidden) / np.sqrt(hidden)
        self.smooth = smooth

    def _forward(self, x: Array) -> tuple[Array, list[Array]]:
        slopes = []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = x @ weight + bias
            slopes.append(1 / (1 + np.exp(-x)) if self.smooth else (x > 0).astype(np.float64))
            x = np.logaddexp(0, x) if self.smooth else np.maximum(x, 0)
        return x, slopes

    def score(self, x: Array) -> float:
        return float(self._forward(x)[0] @ self.last)

    def gradient(self, point: Point) -> Point:
        _, slopes = self._forward(point["x"])
        g = self.last
        for weight, slope in zip(self.weights[::-1], slopes[::-1], strict=True):
            g = weight @ (g * slope)
        return {"x": g}
