"""Noise: Squares bit for bit, and statistics of what comes out of a program."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from onnxplain.engine import Engine
from onnxplain.engine.noise import keys
from onnxplain.rows import Purpose, Rows
from tests.engine.artifacts import Array, Tanh, job
from tests.engine.reference import open_reference
from tests.engine.truth import normal, squares

N_SAMPLES = 4000
FORWARD = Purpose("y", None, ("x",), taps=("x",))


def drawn(n_samples: int, seed: int = 5, max_rows: int = 64, dtype: str = "float32", first: int = 0) -> Array:
    """(n_samples, 18) noise as the engine draws it, taken from the model's input."""
    net = Tanh.drawn(dtype)
    rows = Rows.table([1.0]).repeated(n_samples, 1.0)
    rows = dataclasses.replace(rows, sample=rows.sample + first)
    asked = job(np.zeros((2, 3, 3), dtype), rows, seed=seed, purpose=FORWARD)
    reference = {"open_session": open_reference} if dtype == "float64" else {}
    with Engine(net.artifact(), "cpu", max_rows=max_rows, **reference) as engine:  # type: ignore[arg-type]
        return np.asarray(engine.submit(asked).result(120).taps["x"]).reshape(n_samples, 18)


@pytest.fixture(scope="module")
def noise() -> Array:
    return drawn(N_SAMPLES)


@pytest.mark.parametrize(("counter", "key"), [(0, 1), (123456789, 0xC58EFD154CE32F6D), (2**40, 2**64 - 1)])
def test_squares_is_the_papers_listing(counter: int, key: int) -> None:
    """The truth of these tests against the paper's C code line by line, on numpy's wrapping uint64."""
    with np.errstate(over="ignore"):
        half, ctr, k = np.uint64(32), np.uint64(counter), np.uint64(key)
        x = y = ctr * k
        z = y + k
        x = x * x + y
        x = (x >> half) | (x << half)
        x = x * x + z
        x = (x >> half) | (x << half)
        x = x * x + y
        x = (x >> half) | (x << half)
        expected = int((x * x + z) >> half)
    assert squares(np.array([counter]), key).tolist() == [expected]


def test_the_program_draws_what_numpy_draws() -> None:
    expected = np.stack([normal(int(k), 18) for k in keys(5, "x", np.arange(6))])
    np.testing.assert_allclose(drawn(6, dtype="float64"), expected, rtol=0, atol=1e-13)  # the same formula in float64
    np.testing.assert_allclose(drawn(6), expected, rtol=0, atol=2e-6)  # angles of up to 2 pi rounded to float32


def test_draws_depend_on_seed_tensor_and_sample_alone() -> None:
    a = drawn(12)
    rounding = 3e-7  # the vector kernels of Log and Cos round the ends of an array otherwise than its middle
    np.testing.assert_allclose(drawn(12, max_rows=5), a, rtol=0, atol=rounding)
    np.testing.assert_allclose(drawn(5, first=7), a[7:], rtol=0, atol=rounding)
    assert np.abs(a - drawn(12, seed=6)).min() > 0
    assert set(keys(5, "x", np.arange(99))).isdisjoint(keys(5, "z", np.arange(99)))


def test_normal(noise: Array) -> None:
    """Mean, variance, kurtosis within 4 standard errors; Kolmogorov-Smirnov not below 1e-4. The seed is fixed."""
    n = noise.size
    assert abs(noise.mean()) < 4 / np.sqrt(n)
    assert abs(noise.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs(stats.kurtosis(noise.ravel())) < 4 * np.sqrt(24 / n)
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-4
    assert all(stats.kstest(column, "norm").pvalue > 1e-5 for column in noise.T)


def test_elements_and_samples_are_independent(noise: Array) -> None:
    """No correlation between elements, between squares of elements (Box-Muller pairs), or between samples."""
    bound = 5 / np.sqrt(N_SAMPLES)  # the largest of 153 pairs is above it once in 10^4 sets of independent normals
    for values in (noise, noise**2):
        correlation = np.corrcoef(values.T)
        assert np.abs(correlation - np.eye(18)).max() < bound
    lagged = [np.corrcoef(noise[:-lag].ravel(), noise[lag:].ravel())[0, 1] for lag in (1, 2, 3, 64)]
    assert np.abs(lagged).max() < 5 / np.sqrt(noise.size)


def test_neighbouring_seeds_are_independent(noise: Array) -> None:
    other = drawn(N_SAMPLES, seed=6)
    assert abs(np.corrcoef(noise.ravel(), other.ravel())[0, 1]) < 5 / np.sqrt(noise.size)


def test_keys_are_half_ones_and_odd() -> None:
    bits = np.unpackbits(keys(0, "x", np.arange(4096)).view(np.uint8)).reshape(4096, 64)
    assert abs(bits.mean() - 0.5) < 0.01
    assert len(np.unique(keys(0, "x", np.arange(10**5)))) == 10**5
    assert np.all(keys(0, "x", np.arange(100)) % 2 == 1)
