"""What an outcome should be, from the definition of rows in plain numpy and float64: no batching, no graphs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxplain.engine.noise import keys
from onnxplain.rows import Job, Rows
from tests.engine.artifacts import Array, Tanh


def squares(counter: Array, key: int) -> Array:
    """Widynski 2020, listing of squares32, with Python's integers."""
    mask = 2**64 - 1

    def one(ctr: int) -> int:
        y = x = (ctr * key) & mask
        z = (y + key) & mask
        for step in (y, z, y):
            x = (x * x + step) & mask
            x = (x >> 32) | ((x << 32) & mask)
        return ((x * x + z) & mask) >> 32

    return np.array([one(int(c)) for c in counter], np.float64)


def normal(key: int, size: int) -> Array:
    half = (size + 1) // 2
    u, v = ((squares(np.arange(half) + start, key) + 0.5) / 2**32 for start in (0, half))
    radius, angle = np.sqrt(-2 * np.log(u)), 2 * np.pi * v
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:size]


@dataclass(frozen=True)
class Truth:
    """Every row's score, top and gradient (times displacement); and per sample the weighted sum."""

    scores: Array
    top: Array
    gradients: Array
    samples: Array
    check: Array
    jumps: Array

    @property
    def mean(self) -> Array:
        return np.asarray(self.samples.mean(0))

    @property
    def variance(self) -> Array:
        return np.asarray(self.samples.var(0))


def displacement(job: Job, r: int, name: str = "x") -> Array:
    rows, x = job.round.rows, job.inputs[name].astype(np.float64)
    key = int(keys(job.seed, name, rows.sample[r : r + 1])[0])
    noise = normal(key, x.size).reshape(x.shape) if rows.noise[r] else np.zeros(x.shape)
    noisy = x + rows.noise[r] * job.scale[name] * noise
    return np.asarray(noisy - job.baselines[name][rows.baseline[r]])


def truth(net: Tanh, job: Job) -> Truth:
    net, rows = net.wide(), job.round.rows
    moved = [displacement(job, r) for r in range(len(rows))]
    points = np.stack([job.baselines["x"][rows.baseline[r]] + rows.alpha[r] * moved[r] for r in range(len(rows))])
    y = net(points)
    seed = np.zeros_like(y)
    for index, weight in zip(job.target.index, job.target.weight, strict=True):
        where = y.argmax(1) if index == -1 else np.full(len(y), index)
        np.add.at(seed, (np.arange(len(y)), where), weight)
    gradients = net.gradient(points, seed)
    if rows.multiply:
        gradients = gradients * np.stack(moved)
    return Truth(
        scores=np.asarray((seed * y).sum(1)),
        top=y.argmax(1),
        gradients=gradients,
        samples=_sums(rows, gradients),
        check=np.tensordot(rows.check, gradients, 1),
        jumps=_jumps(rows, gradients),
    )


def _sums(rows: Rows, gradients: Array) -> Array:
    return np.stack(
        [
            np.tensordot(rows.weight[rows.sample == s], gradients[rows.sample == s], 1)
            for s in dict.fromkeys(rows.sample.tolist())
        ]
    )


def _jumps(rows: Rows, gradients: Array) -> Array:
    jumps: NDArray[np.float64] = np.zeros(len(rows))
    for r in range(1, len(rows)):
        if rows.sample[r] == rows.sample[r - 1]:
            jumps[r] = np.sum((gradients[r] - gradients[r - 1]) ** 2)
    return jumps
