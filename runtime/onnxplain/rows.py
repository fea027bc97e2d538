"""Rows: what a method asks of the engine, and what it gets back. The one contract that both sides import.

A row is one point at which the model is evaluated, given by scalars. It stands for

    x_row = b + alpha * (x + sigma * noise(key) - b)

with ``b`` a baseline and ``noise`` standard normal. Rows of one *sample* are summed with their weights (times the
displacement ``x + sigma * noise - b`` where the method multiplies by it); samples are then averaged into moments.
An explanation is a weighted moment of gradients over rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """A table of n rows; every field is an array of length n. Rows of one sample stand next to each other."""

    alpha: Floats
    """Position on the path from the baseline (0) to the noisy input (1)."""
    weight: Floats
    """Weight of the row's gradient in its sample's sum."""
    sample: Ints
    """Sample number: ascending, rows of one sample contiguous."""
    noise: Floats
    """Standard deviation of the noise as a fraction of each input's scale (``Job.scale``); 0 is no noise."""
    baseline: Ints
    """Index into the job's baselines."""
    check: Floats
    """Weight of the row in the difference between two quadrature rules (0 where there is no second rule)."""
    multiply: bool = False
    """Multiply the gradients by the displacement ``x + sigma * noise - b``."""

    def __len__(self) -> int:
        return len(self.alpha)

    @classmethod
    def table(
        cls,
        alpha: Floats | list[float],
        weight: Floats | list[float] | None = None,
        *,
        check: Floats | None = None,
        multiply: bool = False,
    ) -> Rows:
        """One sample without noise against baseline 0; weight 1 where none is given."""
        a = np.asarray(alpha, np.float64)
        zeros = np.zeros(len(a))
        return cls(
            alpha=a,
            weight=np.ones(len(a)) if weight is None else np.asarray(weight, np.float64),
            sample=zeros.astype(np.int64),
            noise=zeros,
            baseline=zeros.astype(np.int64),
            check=zeros if check is None else np.asarray(check, np.float64),
            multiply=multiply,
        )

    def repeated(self, n_samples: int, noise: float) -> Rows:
        """These rows as one sample, ``n_samples`` times over, each with noise of its own (SmoothGrad of any base)."""
        n = len(self)
        return Rows(
            alpha=np.tile(self.alpha, n_samples),
            weight=np.tile(self.weight, n_samples),
            sample=np.repeat(np.arange(n_samples, dtype=np.int64), n),
            noise=np.full(n * n_samples, noise),
            baseline=np.tile(self.baseline, n_samples),
            check=np.tile(self.check / n_samples, n_samples),
            multiply=self.multiply,
        )


@dataclass(frozen=True)
class Purpose:
    """What a program computes: rows with equal purposes (and models and shapes) share runs.

    ``rules`` None is a forward run. ``wrt``: tensors whose gradients are summed into moments. ``taps``: inner tensors
    of the forward pass returned per row, and ``tap_gradients`` those whose gradients are returned per row.
    """

    output: str
    rules: str | None = None
    wrt: tuple[str, ...] = ()
    taps: tuple[str, ...] = ()
    tap_gradients: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """What is explained, as weights on flat positions of one row of the output: the score is sum(weight * y[index]).

    ``index`` (k,) int64, ``weight`` (k,). An index of -1 stands for the row's own largest position.
    """

    index: tuple[int, ...]
    weight: tuple[float, ...] = (1.0,)

    @property
    def is_top(self) -> bool:
        return -1 in self.index


TOP = Target((-1,))


@dataclass(frozen=True)
class Round:
    """Rows for one purpose: what a plan yields (several at a time where a method needs two rule sets)."""

    purpose: Purpose
    rows: Rows


@dataclass(frozen=True)
class Moments:
    """Of one differentiated tensor over the samples of a round; every map has the shape of one row.

    ``first`` is the first sample, ``sum`` the sum of (sample - first), ``squares`` the sum of (sample - first)**2:
    moments are taken about the first sample, or float32 loses the variance. ``check`` is the map of the difference
    between the two quadrature rules.
    """

    n: int
    first: Floats
    sum: Floats
    squares: Floats
    check: Floats

    @property
    def mean(self) -> Floats:
        return self.first + self.sum / self.n

    @property
    def variance(self) -> Floats:
        """Population variance over the samples."""
        return np.maximum(self.squares / self.n - (self.sum / self.n) ** 2, 0.0)

    @property
    def mean_square(self) -> Floats:
        return self.variance + self.mean**2


@dataclass(frozen=True)
class Outcome:
    """What a round gave. Arrays over rows are in the order of the round's rows."""

    n_rows: int
    scores: Floats
    """(n,) sum(target weight * y) of every row."""
    top: Ints
    """(n,) flat position of the largest output of every row."""
    moments: Mapping[str, Moments] = field(default_factory=dict)
    jumps: Mapping[str, Floats] = field(default_factory=dict)
    """Per differentiated tensor (n,): squared L2 norm of the difference between this row's gradient (times the
    displacement where asked for) and that of the row before it in the same sample; 0 for a sample's first row."""
    taps: Mapping[str, Floats] = field(default_factory=dict)
    """Per tapped tensor (n, ...)."""
    tap_gradients: Mapping[str, Floats] = field(default_factory=dict)
    nonfinite: int = 0
    """Rows whose gradient was not finite: set to zero before the sums."""


@dataclass(frozen=True)
class Job:
    """One round of one input row, as the engine gets it from ``explain``."""

    round: Round
    inputs: Mapping[str, NDArray[np.generic]]
    """Per program input one row, without the row axis: differentiated tensors first, then what is held fixed."""
    baselines: Mapping[str, Floats]
    """Per differentiated tensor (n_baselines, ...)."""
    target: Target
    seed: int = 0
    """uint64 seed of the request and its row; the engine mixes in the tensor and the sample."""
    scale: Mapping[str, float] = field(default_factory=dict)
    """Per differentiated tensor what a noise of 1.0 means in its units (its max - min)."""
