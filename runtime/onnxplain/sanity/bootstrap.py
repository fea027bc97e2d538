"""Confidence intervals of means over draws and images, both resampled: two draws of one image are not independent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
LEVEL = 95.0


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % percentile interval; nan where nothing was defined."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, mean: float, resampled: Array) -> Interval:
        known = resampled[np.isfinite(resampled)]
        if not known.size:
            return cls(mean, float("nan"), float("nan"))
        low, high = np.percentile(known, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
        return cls(mean, float(low), float(high))


class Bootstrap:
    """The same resamples for every quantity of an audit, so that differences between quantities have intervals too."""

    def __init__(self, draws: int, images: int, resamples: int, seed: int) -> None:
        random = np.random.Generator(np.random.Philox(seed))
        self._draws = random.multinomial(draws, np.full(draws, 1 / draws), resamples).astype(np.float64)
        self._images = random.multinomial(images, np.full(images, 1 / images), resamples).astype(np.float64)

    def means(self, values: Array) -> Array:
        """(resamples,) of ``values`` (draws, images), what is not defined left out; one draw stands for all."""
        draws = self._draws if len(values) == self._draws.shape[1] else np.ones((len(self._draws), 1))
        known = np.isfinite(values)
        total = np.einsum("bd,dn,bn->b", draws, np.where(known, values, 0.0), self._images, optimize=True)
        count = np.einsum("bd,dn,bn->b", draws, known.astype(np.float64), self._images, optimize=True)
        found: Array = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
        return found

    def interval(self, values: Array) -> Interval:
        """Of the mean of ``values`` (draws, images)."""
        return Interval.of(mean(values), self.means(values))


def mean(values: Array) -> float:
    """Of what is defined; nan where nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")
