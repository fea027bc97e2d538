from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxplain.methods import quadrature
from onnxplain.rows import Floats

EQUIDISTANT = tuple(name for name in quadrature.NAMES if name != "gauss_legendre")


@pytest.mark.parametrize("name", quadrature.NAMES)
@given(n=st.integers(1, 200))
def test_weights_sum_to_one_and_points_ascend_within_the_path(name: str, n: int) -> None:
    rule = quadrature.rule(name, n)
    assert len(rule.points) == len(rule.weights) == len(rule.check) == n
    assert rule.weights.sum() == pytest.approx(1.0, abs=1e-12)
    assert rule.check.sum() == pytest.approx(0.0, abs=1e-10)  # a constant has no error under any of the rules
    assert np.all(np.diff(rule.points) > 0) or n == 1
    assert rule.points[0] >= 0 and rule.points[-1] <= 1


@pytest.mark.parametrize("n", [1, 2, 3, 10, 50, 333])
def test_gauss_legendre_is_numpys(n: int) -> None:
    x, w = np.polynomial.legendre.leggauss(n)
    rule = quadrature.rule("gauss_legendre", n)
    np.testing.assert_allclose(rule.points, (x + 1) / 2, atol=1e-14)
    np.testing.assert_allclose(rule.weights, w / 2, atol=1e-13)


@pytest.mark.parametrize("n", [4, 9, 50])
def test_gauss_legendre_and_its_nested_rule_are_exact_for_their_degrees(n: int) -> None:
    rule = quadrature.rule("gauss_legendre", n)
    degree = 2 * n - 1
    assert rule.weights @ rule.points**degree == pytest.approx(1 / (degree + 1), rel=1e-11)
    nested = len(rule.points[::2]) - 1
    assert rule.check @ rule.points**nested == pytest.approx(0.0, abs=1e-13)
    assert abs(rule.check @ rule.points ** (nested + 3)) > 0


def test_the_rules_at_four_points() -> None:
    points = {name: quadrature.rule(name, 4).points for name in EQUIDISTANT}
    np.testing.assert_allclose(points["midpoint"], [0.125, 0.375, 0.625, 0.875])
    np.testing.assert_allclose(points["riemann_right"], [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(points["riemann_left"], [0.0, 0.25, 0.5, 0.75])
    np.testing.assert_allclose(points["trapezoid"], [0.0, 1 / 3, 2 / 3, 1.0])
    np.testing.assert_allclose(quadrature.rule("trapezoid", 4).weights, [1 / 6, 1 / 3, 1 / 3, 1 / 6])


@pytest.mark.parametrize("name", quadrature.NAMES)
@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_a_refinement_is_the_finer_rule(name: str, n: int) -> None:
    def f(a: Floats) -> Floats:
        return np.asarray(np.exp(a) + (a > 0.37))

    coarse = quadrature.rule(name, n)
    more, n_fine = quadrature.refined(name, n)
    fine = quadrature.rule(name, n_fine)
    assert n_fine > n
    assert more.carry * (coarse.weights @ f(coarse.points)) + more.weights @ f(more.points) == pytest.approx(
        fine.weights @ f(fine.points), abs=1e-12
    )
    if more.carry:
        assert len(more.points) == n_fine - n, "points that were there are not asked for again"


@pytest.mark.parametrize(("name", "sign"), [("riemann_right", 1), ("riemann_left", -1)])
def test_the_check_of_a_one_sided_rule_is_its_bias(name: str, sign: int) -> None:
    """The right rule of a smooth function is too high by half a step times its rise, to first order."""
    rule = quadrature.rule(name, 200)
    error = rule.weights @ np.exp(rule.points) - (np.e - 1)
    assert rule.check @ np.exp(rule.points) == pytest.approx(error, rel=0.01)
    assert np.sign(error) == sign
