"""Moments of several rounds put together, and the error that a finite number of samples leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxplain.rows import Floats, Moments


@dataclass(frozen=True)
class Total:
    """Of one tensor over ``n`` samples, in float64: mean map, sum of squared deviations, mean check map."""

    n: int
    mean: Floats
    deviations: Floats
    check: Floats

    @property
    def variance(self) -> Floats:
        """Population variance."""
        return self.deviations / self.n

    @property
    def mean_square(self) -> Floats:
        return self.variance + self.mean**2

    @property
    def squared_error_of_mean(self) -> float:
        """Squared L2 norm of the mean's standard error; nan for a single sample."""
        if self.n < 2:
            return float("nan")
        return float(np.sum(self.deviations)) / (self.n - 1) / self.n


def total(parts: Sequence[Moments]) -> Total:
    """Chan, Golub and LeVeque's update, exact in any order of the parts."""
    n = sum(part.n for part in parts)
    means = [part.first.astype(np.float64) + part.sum.astype(np.float64) / part.n for part in parts]
    mean = sum((part.n / n) * each for part, each in zip(parts, means, strict=True))
    deviations = sum(
        np.maximum(part.squares.astype(np.float64) - part.sum.astype(np.float64) ** 2 / part.n, 0.0)
        + part.n * (each - mean) ** 2
        for part, each in zip(parts, means, strict=True)
    )
    check = sum((part.n / n) * part.check.astype(np.float64) for part in parts)
    return Total(n, np.asarray(mean), np.asarray(deviations), np.asarray(check))


def of_maps(maps: Sequence[Floats]) -> Moments:
    """The moments of maps that are there one by one."""
    first = np.asarray(maps[0], np.float64)
    away = [np.asarray(each, np.float64) - first for each in maps]
    return Moments(
        n=len(maps),
        first=first,
        sum=np.asarray(sum(away)),
        squares=np.asarray(sum(each**2 for each in away)),
        check=np.zeros_like(first),
    )


def norm2(array: Floats) -> float:
    """Squared L2 norm in float64."""
    flat = np.asarray(array, np.float64).ravel()
    return float(flat @ flat)


def relative(squared_error: float, map_: Floats) -> float:
    """The root of a squared error as a fraction of the map's L2 norm (0 for 0 of 0)."""
    size = norm2(map_)
    if squared_error == 0.0:
        return 0.0
    return float(np.sqrt(squared_error / size)) if size > 0 else float("nan" if np.isnan(squared_error) else "inf")
