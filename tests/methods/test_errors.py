"""The error that a map carries is near the error that it has, on functions whose converged maps are at hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxplain.errors import LimitExceeded
from onnxplain.methods import METHODS
from onnxplain.methods.method import Reduced
from onnxplain.methods.quadrature import NAMES
from tests.methods import fake, functions

SIZE = 300
X = np.random.default_rng(1).normal(size=SIZE) * 2


def run(method: str, net: functions.ReluNet, **options: Any) -> tuple[Reduced, fake.FakeEngine]:
    engine = fake.FakeEngine({"gradient": net.gradient}, {"x": X})
    about = fake.manifest({"x": X}, kinks=() if net.smooth else ("Relu",))
    return engine.run(METHODS[method].plan(fake.ask(method, {"x": X}, about, **options))), engine


def distance(map_: Any, truth: Any) -> float:
    return float(np.linalg.norm(map_ - truth) / np.linalg.norm(map_))


@pytest.fixture(scope="module", params=range(3))
def kinky(request: pytest.FixtureRequest) -> tuple[functions.ReluNet, Any]:
    net = functions.ReluNet(SIZE, seed=request.param)
    converged, _ = run("integrated_gradients", net, n_steps=2000)
    return net, converged.attributions["x"]


@pytest.mark.parametrize("quadrature", NAMES)
@pytest.mark.parametrize("n", [10, 30, 100])
def test_with_kinks(kinky: tuple[functions.ReluNet, Any], quadrature: str, n: int) -> None:
    """Within a factor of two: the estimate is an expectation over where the kinks lie, and a path has dozens."""
    net, truth = kinky
    got, _ = run("integrated_gradients", net, quadrature=quadrature, n_steps=n)
    assert 0.5 < got.error["x"] / distance(got.attributions["x"], truth) < 2.0


def test_a_smooth_network_takes_gauss_legendre_and_its_error_is_seen_to_vanish() -> None:
    net = functions.ReluNet(SIZE, seed=5, smooth=True)
    converged, _ = run("integrated_gradients", net, quadrature="gauss_legendre", n_steps=200)
    truth = converged.attributions["x"]
    assert converged.attributions["x"].sum() == pytest.approx(net.score(X) - net.score(0 * X), rel=1e-9)
    for n in (6, 12, 24):
        got, _ = run("integrated_gradients", net, n_steps=n)
        assert distance(got.attributions["x"], truth) <= got.error["x"] < 0.3 / 3 ** (n / 6)


def test_completeness_at_the_rules_own_pace() -> None:
    net = functions.ReluNet(SIZE, seed=2)
    gap = [abs(run("integrated_gradients", net, n_steps=n)[0].attributions["x"].sum() - net.score(X) + net.score(0 * X))
           for n in (10, 3000)]  # fmt: skip
    assert gap[1] < 1e-3 * abs(net.score(X) - net.score(0 * X)) < gap[0]


def test_one_step_says_that_it_knows_nothing() -> None:
    got, _ = run("integrated_gradients", functions.ReluNet(SIZE), n_steps=1)
    assert np.isnan(got.error["x"])


@pytest.mark.parametrize("quadrature", NAMES)
def test_tolerance_adds_rounds_and_keeps_the_points(kinky: tuple[functions.ReluNet, Any], quadrature: str) -> None:
    net, truth = kinky
    got, engine = run("integrated_gradients", net, quadrature=quadrature, n_steps=10, tolerance=0.02)
    assert got.converged and got.error["x"] <= 0.02
    assert 0.5 < got.error["x"] / distance(got.attributions["x"], truth) < 2.0
    assert len(engine.rounds) > 1
    if quadrature != "gauss_legendre":
        alphas = np.concatenate([each.rows.alpha for each in engine.rounds])
        assert len(np.unique(alphas.round(12))) == len(alphas) == engine.n_rows


@pytest.mark.parametrize("method", ["integrated_gradients", "smoothgrad", "vargrad"])
def test_a_cap_stops_the_precision_and_says_so(method: str) -> None:
    got, engine = run(method, functions.ReluNet(SIZE), tolerance=1e-5, max_rows=300)
    assert not got.converged
    assert 100 < engine.n_rows <= 300
    assert got.error["x"] > 1e-5


@pytest.mark.parametrize("method", ["smoothgrad", "smoothgrad_squared", "vargrad"])
def test_noise(method: str) -> None:
    """On the mean of four networks: the estimate for squares rests on one difference, and is itself uncertain."""
    ratios = []
    for seed in range(4):
        net = functions.ReluNet(SIZE, seed=seed)
        many, _ = run(method, net, n_samples=1500)
        got, _ = run(method, net, n_samples=100)
        ratios.append(got.error["x"] / distance(got.attributions["x"], many.attributions["x"]))
    assert np.mean(ratios) == pytest.approx(1.0, rel=0.3)


def test_more_samples_are_other_samples() -> None:
    got, engine = run("smoothgrad", functions.ReluNet(SIZE), n_samples=20, tolerance=0.05)
    assert got.converged and got.error["x"] <= 0.05
    samples = np.concatenate([each.rows.sample for each in engine.rounds])
    np.testing.assert_array_equal(samples, np.arange(len(samples)))
    again, _ = run("smoothgrad", functions.ReluNet(SIZE), n_samples=len(samples))
    np.testing.assert_allclose(got.attributions["x"], again.attributions["x"], rtol=1e-10)
    assert got.error["x"] == pytest.approx(again.error["x"], rel=1e-10)


def test_smoothgrad_of_integrated_gradients_is_the_product_of_the_tables() -> None:
    net = functions.ReluNet(SIZE, seed=4)
    got, engine = run("smoothgrad", net, base="integrated_gradients", n_steps=10, n_samples=8)
    (only,) = engine.rounds
    assert len(only.rows) == 80
    assert only.rows.multiply
    alone, _ = run("smoothgrad", net, base="integrated_gradients", n_steps=1000, n_samples=8)
    assert got.error["x"] > alone.error["x"], "fewer steps, more error from the quadrature"


def test_rows_beyond_the_limit_are_refused_before_they_are_made() -> None:
    with pytest.raises(LimitExceeded, match="1000000000 rows"):
        run("smoothgrad", functions.ReluNet(SIZE), base="integrated_gradients", n_steps=10_000, n_samples=100_000)
