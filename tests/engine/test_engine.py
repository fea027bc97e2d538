"""Outcomes of the engine against the definition of rows, in float64 and float32."""

from __future__ import annotations

import numpy as np
import pytest

from onnxplain.engine import Engine
from onnxplain.rows import TOP, Job, Outcome, Purpose, Rows, Target
from tests.engine.artifacts import Array, Tanh, job, line, row
from tests.engine.reference import open_reference
from tests.engine.truth import truth

RNG = np.random.default_rng(3)
TOLERANCE = {"float64": 1e-12, "float32": 2e-6}
"""Of the largest element: rounding of a net of 64 units; the float64 engine is the reference evaluator."""


def jobs(dtype: str) -> dict[str, Job]:
    rng = np.random.default_rng(3)
    x = [row(rng, dtype) for _ in range(8)]
    bases = np.stack([row(rng, dtype) for _ in range(3)])
    several = Rows(
        alpha=rng.uniform(size=7),
        weight=rng.normal(size=7),
        sample=np.array([0, 0, 4, 4, 4, 5, 9]),
        noise=np.zeros(7),
        baseline=np.array([2, 2, 0, 0, 1, 1, 1]),
        check=rng.normal(size=7),
        multiply=True,
    )
    return {
        "gradient": job(x[0], Rows.table([1.0])),
        "gradient times input": job(x[1], Rows.table([1.0], multiply=True), target=3),
        "integrated gradients": job(x[2], line(50)),
        "path gradients not multiplied": job(x[2], line(13, multiply=False)),
        "smoothgrad": job(x[3], Rows.table([1.0]).repeated(11, 0.3)),
        "smoothgrad of integrated gradients": job(x[4], line(9).repeated(5, 0.2), baselines=bases),
        "many baselines, uneven samples": job(x[5], several, baselines=bases),
        "top": job(x[6], line(6), target=TOP),
        "margin": job(x[6], line(6), target=Target((2, 0), (1.0, -1.0))),
        "margin of the top": job(x[7], line(6), target=Target((-1, 0, 0), (1.0, -0.25, -0.5))),
    }


def assert_is(outcome: Outcome, expected_of: Job, net: Tanh, tolerance: float) -> None:
    expected = truth(net, expected_of)
    rows = expected_of.round.rows
    assert outcome.n_rows == len(rows)
    assert outcome.nonfinite == 0
    np.testing.assert_array_equal(outcome.top, expected.top)
    close(outcome.scores, expected.scores, tolerance, of=1.0)  # sums of 64 terms, which may cancel
    if not outcome.moments:
        return
    moments = outcome.moments["x"]
    assert moments.n == len(expected.samples)
    close(moments.mean, expected.mean, tolerance)
    close(moments.first, expected.samples[0], tolerance)
    # Squares of differences of gradients, which carry the gradients' rounding.
    deviation = np.sqrt(expected.variance.max())
    close(moments.variance, expected.variance, tolerance, of=deviation * np.abs(expected.samples).max())
    close(moments.check, expected.check, tolerance, of=np.abs(expected.gradients).max())
    # A difference of two gradients: its rounding is that of the gradients.
    close(outcome.jumps["x"], expected.jumps, tolerance, of=(expected.gradients**2).sum(axis=(1, 2, 3)).max())


def close(got: Array, expected: Array, tolerance: float, of: float | None = None) -> None:
    scale = np.abs(expected).max() if of is None else of
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * max(scale, 1e-3))


@pytest.mark.parametrize("name", jobs("float32"))
@pytest.mark.parametrize("max_rows", [1, 3, 8, 64])
def test_float32_on_onnxruntime(name: str, max_rows: int) -> None:
    net, asked = Tanh.drawn("float32"), jobs("float32")[name]
    with Engine(net.artifact(), "cpu", max_rows=max_rows) as engine:
        assert_is(engine.submit(asked).result(60), asked, net, TOLERANCE["float32"])


@pytest.mark.parametrize("name", jobs("float64"))
def test_float64_on_the_reference_evaluator(name: str) -> None:
    net, asked = Tanh.drawn("float64"), jobs("float64")[name]
    with Engine(net.artifact(), "cpu", max_rows=4, open_session=open_reference) as engine:
        assert_is(engine.submit(asked).result(60), asked, net, TOLERANCE["float64"])


@pytest.mark.parametrize("max_rows", [1, 5, 8, 64])
def test_jobs_side_by_side_are_what_they_are_alone(max_rows: int) -> None:
    net, asked = Tanh.drawn("float32"), jobs("float32")
    with Engine(net.artifact(), "cpu", max_rows=max_rows) as engine:
        for order in (list(asked), list(asked)[::-1] * 3):
            futures = [(name, engine.submit(asked[name])) for name in order]
            for name, future in futures:
                assert_is(future.result(60), asked[name], net, TOLERANCE["float32"])


def test_a_gradient_is_taken_at_the_input_exactly() -> None:
    """Whatever the baseline, and whatever the neighbours in the run want."""
    net = Tanh.drawn("float32")
    x = row(RNG) * np.float32(1e-3)
    forward = Purpose("y", None, ("x",), taps=("x",))
    plain = job(x, Rows.table([1.0]), baselines=np.full((1, *x.shape), 1e3, np.float32), purpose=forward)
    noisy = job(x, Rows.table([1.0]).repeated(3, 0.1), purpose=forward)
    with Engine(net.artifact(), "cpu") as engine:
        futures = [engine.submit(j) for j in (noisy, plain, noisy)]
        tapped = futures[1].result(60).taps["x"]
    np.testing.assert_array_equal(tapped[0], x)


def test_taps_come_back_per_row() -> None:
    net, asked = Tanh.drawn("float32"), line(11)
    purpose = Purpose("y", "gradient", (), taps=("h",), tap_gradients=("h",))
    with Engine(net.artifact(), "cpu", max_rows=4) as engine:
        x = row(RNG)
        outcome = engine.submit(job(x, asked, purpose=purpose)).result(60)
    points = asked.alpha[:, None] * x.reshape(1, 18)
    close(outcome.taps["h"], np.tanh(points @ net.w), 1e-6)
    close(outcome.tap_gradients["h"], np.broadcast_to(net.v[:, 1], (11, 64)), 1e-6)
    assert not outcome.moments
    assert not outcome.jumps


def test_forward_runs_give_scores_and_no_maps() -> None:
    net = Tanh.drawn("float32")
    asked = job(row(RNG), line(5), purpose=Purpose("y"), target=TOP)
    with Engine(net.artifact(), "cpu") as engine:
        assert_is(engine.submit(asked).result(60), asked, net, 1e-6)


def test_half_precision_sums_in_single() -> None:
    net = Tanh.drawn("float16")
    rng = np.random.default_rng(0)
    asked = job(row(rng, "float16"), Rows.table([1.0]).repeated(64, 0.1))
    with Engine(net.artifact(), "cpu") as engine:
        outcome = engine.submit(asked).result(60)
    assert outcome.moments["x"].mean.dtype == np.float32
    close(outcome.moments["x"].mean, truth(net, asked).mean, 3e-3)


def test_one_program_one_session() -> None:
    """Methods that differ in rows only share a program."""
    opened = []

    def counting(model: bytes, weights: dict[str, Array], provider: str) -> object:
        opened.append(1)
        return open_reference(model, weights, provider)

    net = Tanh.drawn("float64")
    with Engine(net.artifact(), "cpu", open_session=counting) as engine:  # type: ignore[arg-type]
        for future in [engine.submit(j) for j in jobs("float64").values()]:
            future.result(60)
    assert len(opened) == 1


@pytest.mark.parametrize("rows", ["independent", "fixed(3)", "fixed(1)", "coupled"])
def test_row_axes(rows: str) -> None:
    net = Tanh.drawn("float32")
    batch = rows[6:-1] if rows.startswith("fixed") else "n"
    with Engine(net.artifact(rows, batch), "cpu") as engine:
        asked = [job(row(RNG), line(7)), job(row(RNG), Rows.table([1.0]).repeated(4, 0.1))]
        for one, future in [(a, engine.submit(a)) for a in asked]:
            assert_is(future.result(60), one, net, TOLERANCE["float32"])


def test_weights_can_be_replaced() -> None:
    """The audit's engine: other weights in the same artifact, forward and backward together."""
    net, other = Tanh.drawn("float32"), Tanh.drawn("float32", seed=1)
    asked = job(row(RNG), line(7))
    with Engine(net.artifact(), "cpu", weights={"w": other.w, "v": other.v}) as engine:
        assert_is(engine.submit(asked).result(60), asked, other, TOLERANCE["float32"])
    with Engine(net.artifact(), "cpu") as engine:
        assert_is(engine.submit(asked).result(60), asked, net, TOLERANCE["float32"])
