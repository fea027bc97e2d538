"""Intervals and verdicts on numbers whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from onnxplain.sanity.bootstrap import Bootstrap, Interval
from onnxplain.sanity.verdict import INSENSITIVE, SENSITIVE, UNDECIDED, Verdict, judge

DRAWS, IMAGES = 5, 8


def judged(levels: list[float], null: float, spread: float = 0.02, **changed: float) -> Verdict:
    rng = np.random.default_rng(0)
    curve = np.array(levels)[:, None, None] + spread * rng.standard_normal((len(levels), DRAWS, IMAGES))
    base = null + 0.002 * rng.standard_normal((DRAWS, IMAGES))
    settings = {"limit": 0.5, "ceiling": 0.9, **changed}
    return judge(curve, "shuffled", base, Bootstrap(DRAWS, IMAGES, 2000, 0), **settings)


def test_the_published_curves_get_the_papers_verdicts() -> None:
    """CNN on MNIST, absolute Spearman, cascading (Adebayo et al. 2018, released notebook)."""
    assert judged([0.601, 0.396, 0.106, 0.082], 0.0).verdict == SENSITIVE  # gradient
    assert judged([0.556, 0.344, 0.290, 0.299], 0.0).verdict == SENSITIVE  # Grad-CAM
    assert judged([0.888, 0.773, 0.628, 0.444], 0.0).verdict == INSENSITIVE  # guided backpropagation
    times_input = judged([0.993, 0.993, 0.993, 0.992], 0.993)  # 0.99 is what the input times noise gives
    assert times_input.verdict == UNDECIDED and "alike by 0.99 already" in times_input.reason


def test_retained_is_measured_from_the_null() -> None:
    found = judged([0.6, 0.6], 0.2, spread=0.0)
    assert found.retained.mean == pytest.approx(0.5, abs=0.002) and found.null_mean == pytest.approx(0.2, abs=0.002)
    assert judged([0.9, 0.6, 0.3], 0.0).half == 3 and judged([0.9, 0.8], 0.0).half is None


def test_wide_spread_and_missing_values_are_undecided() -> None:
    assert judged([0.5, 0.5], 0.0, spread=1.0).verdict == UNDECIDED
    empty = np.full((2, DRAWS, IMAGES), np.nan)
    null = np.zeros((DRAWS, IMAGES))
    found = judge(empty, "shuffled", null, Bootstrap(DRAWS, IMAGES, 200, 0), limit=0.5, ceiling=0.9)
    assert found.verdict == UNDECIDED and "constant" in found.reason
    one = judge(np.zeros((2, 1, 1)), "shuffled", np.zeros((1, 1)), Bootstrap(1, 1, 200, 0), limit=0.5, ceiling=0.9)
    assert one.verdict == UNDECIDED and "too few for an interval: draws 1, images 1" in one.reason


def test_intervals_hold_the_mean_as_often_as_they_say() -> None:
    """Draws and images both vary: an interval over images alone would be far too narrow."""
    rng, held, narrow = np.random.default_rng(1), 0, 0
    for trial in range(200):
        values = rng.standard_normal((8, 1)) + rng.standard_normal((1, 8)) + 0.2 * rng.standard_normal((8, 8))
        found = Bootstrap(8, 8, 400, trial).interval(values)
        held += found.low <= 0 <= found.high
        alone = Bootstrap(1, 8, 400, trial).interval(values.mean(axis=0, keepdims=True))
        narrow += alone.low <= 0 <= alone.high
    assert 0.84 < held / 200 <= 0.99  # 95 % in the limit; percentile intervals of eight are a little short
    assert narrow / 200 < held / 200 - 0.1


def test_undefined_values_are_left_out_of_means() -> None:
    values = np.array([[1.0, np.nan], [3.0, 2.0]])
    assert Bootstrap(2, 2, 500, 0).interval(values).mean == 2.0
    assert np.isnan(Interval.of(float("nan"), np.full(10, np.nan)).low)
    one_row = Bootstrap(3, 2, 500, 0).interval(np.array([[1.0, 3.0]]))  # a control without draws
    assert one_row.mean == 2.0 and one_row.low >= 1.0
