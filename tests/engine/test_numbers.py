"""Numerical promises: independence of packing, variance far below the mean, rows that are not finite, memory."""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest

from onnxplain.engine import Engine
from onnxplain.rows import Job, Outcome, Rows
from tests.engine.artifacts import Tanh, job, line, row
from tests.engine.gated import Gate
from tests.engine.truth import truth

NET = Tanh.drawn("float32")


def relative(a: Outcome, b: Outcome, part: str = "mean") -> float:
    x, y = getattr(a.moments["x"], part), getattr(b.moments["x"], part)
    return float(np.linalg.norm(x - y) / np.linalg.norm(y))


def some(rows: Rows, which: Sequence[int]) -> Rows:
    columns = {f.name: getattr(rows, f.name)[list(which)] for f in dataclasses.fields(rows) if f.name != "multiply"}
    return dataclasses.replace(rows, **columns)


def run(asked: Job, max_rows: int, neighbours: list[Job] | None = None) -> Outcome:
    with Engine(NET.artifact(), "cpu", max_rows=max_rows) as engine:
        others = [engine.submit(one) for one in neighbours or []]
        outcome = engine.submit(asked).result(60)
        for other in others:
            other.result(60)
        return outcome


@pytest.mark.parametrize("part", ["mean", "variance"])
def test_results_depend_on_neither_batch_size_nor_neighbours(part: str) -> None:
    rng = np.random.default_rng(0)
    asked = job(row(rng), line(10).repeated(7, 0.3))
    alone = run(asked, 1)
    company = [job(row(rng) * 100, Rows.table([1.0], multiply=True).repeated(n, 5.0)) for n in (3, 30, 1)]
    for max_rows in (2, 7, 8, 64):
        assert relative(run(asked, max_rows), alone, part) < 1e-6
        assert relative(run(asked, max_rows, company), alone, part) < 1e-6


def test_the_order_of_samples_does_not_matter() -> None:
    """Noise belongs to the sample's number, so samples 0..19 asked in two halves are the same samples."""
    asked = job(row(np.random.default_rng(0)), Rows.table([1.0]).repeated(20, 0.3))
    rows = asked.round.rows
    halves = [run(job(asked.inputs["x"], some(rows, half)), 4).moments["x"].mean for half in (range(10), range(10, 20))]
    whole = run(asked, 7).moments["x"].mean
    np.testing.assert_allclose(np.mean(halves, 0), whole, rtol=0, atol=1e-6 * np.abs(whole).max())


def test_variance_a_million_times_below_the_square_of_the_mean() -> None:
    """VarGrad where gradients differ by 1/1000: E[g^2] - E[g]^2 in float32 would leave nothing of it."""
    asked = job(row(np.random.default_rng(1)), Rows.table([1.0]).repeated(100, 2e-4))
    got, expected = run(asked, 8).moments["x"].variance, truth(NET, asked)
    ratio = np.sqrt(expected.variance.mean()) / np.abs(expected.mean).mean()
    assert 1e-4 < ratio < 2e-3
    assert np.linalg.norm(got - expected.variance) < 1e-3 * np.linalg.norm(expected.variance)


def test_rows_that_are_not_finite_are_zeroed_and_counted() -> None:
    """A baseline of infinity gives NaN, an input of 1e30 times its gradient a row too large to be squared."""
    rng = np.random.default_rng(2)
    good = job(row(rng), line(6))
    x = row(rng)
    bad_bases = np.stack([np.zeros_like(x), np.full_like(x, np.inf)])
    rows = dataclasses.replace(line(6), baseline=np.array([0, 0, 1, 0, 1, 0]))
    poisoned = job(x, rows, baselines=bad_bases)
    huge = job(np.full_like(x, 1e30), Rows.table([1e-30, 1.0], multiply=True))
    with Engine(NET.artifact(), "cpu", max_rows=64) as engine:
        futures = [engine.submit(one) for one in (poisoned, good, huge, good)]
        outcomes = [future.result(60) for future in futures]
    assert [outcome.nonfinite for outcome in outcomes] == [2, 0, 1, 0]
    clean = truth(NET, job(x, some(rows, [0, 1, 3, 5])))
    np.testing.assert_allclose(outcomes[0].moments["x"].mean, clean.samples[0], rtol=0, atol=1e-6)
    for outcome in (outcomes[1], outcomes[3]):
        np.testing.assert_allclose(outcome.moments["x"].mean, truth(NET, good).mean, rtol=0, atol=1e-6)
        assert np.all(np.isfinite(outcome.moments["x"].variance))


def test_memory_does_not_grow_with_the_rows() -> None:
    """A million rows cost their scalars and no more: nothing of rows x elements, no table of rows x rows."""
    n = 20_000
    x = row(np.random.default_rng(3))
    gate = Gate()
    with Engine(NET.artifact(), "cpu", open_session=gate, max_rows=256) as engine:
        engine.submit(job(x, line(512))).result(60)
        asked = job(x, line(n))
        tracemalloc.start()
        outcome = engine.submit(asked).result(120)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert outcome.n_rows == n
    assert max(gate.sizes) == 256
    scalars = n * 8 * 4  # scores, top, jumps, and the copy of one of them in another type
    assert peak < scalars + 4 * 2**20  # and the tables of one run
