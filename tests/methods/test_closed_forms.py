"""What the papers give in closed form; numpy evaluates the points, so that only plans and reductions are tested."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxplain.methods import METHODS
from onnxplain.methods.method import Reduced
from onnxplain.methods.quadrature import NAMES
from tests.methods import fake, functions

Array = NDArray[np.float64]


def explained(method: str, gradients: Any, x: Array, baseline: Array | None = None, **options: Any) -> Array:
    return np.asarray(reduced(method, gradients, x, baseline, **options).attributions["x"], np.float64)


def reduced(method: str, gradients: Any, x: Array, baseline: Array | None = None, **options: Any) -> Reduced:
    engine = fake.FakeEngine(gradients, {"x": x}, None if baseline is None else {"x": baseline})
    return engine.run(METHODS[method].plan(fake.ask(method, {"x": x}, **options)))


def test_integrated_gradients_sees_what_the_gradient_does_not() -> None:
    """f = 1 - ReLU(1 - x) at 2 from 0: f rose by 1 and its gradient is 0 (Sundararajan et al. 2017, section 2.1)."""
    gradients = functions.all_rules(functions.bounded)
    assert explained("gradient", gradients, np.array([2.0])) == 0.0
    assert explained("integrated_gradients", gradients, np.array([2.0])) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("twin", [functions.twin_f, functions.twin_g])
@pytest.mark.parametrize("quadrature", NAMES)
def test_integrated_gradients_of_the_twins(twin: Any, quadrature: str) -> None:
    """(1.5, -0.5) for both at (3, 1) from 0; one kink costs a rule at most one of its 1000 steps."""
    got = explained(
        "integrated_gradients", functions.all_rules(twin), np.array([3.0, 1.0]), quadrature=quadrature, n_steps=1000
    )
    np.testing.assert_allclose(got, [1.5, -0.5], atol=3e-3)


@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet"])
@pytest.mark.parametrize("x", [(3.0, 1.0), (5.0, 0.5), (9.0, 7.0), (2.0, -1.0)])
def test_guided_backprop_and_deconvnet_give_x2_nothing(method: str, x: tuple[float, float]) -> None:
    """Section 2.1 and appendix B: the signal to x2 is negative and stopped."""
    assert explained(method, functions.all_rules(functions.twin_f), np.array(x))[1] == 0.0


@pytest.mark.parametrize("quadrature", NAMES)
def test_a_linear_model(quadrature: str) -> None:
    """SmoothGrad is the gradient is w, VarGrad 0, IG w (x - b), and every error is 0."""
    w, x, b = np.array([1.0, -2.0, 0.5]), np.array([3.0, 1.0, -4.0]), np.array([1.0, 1.0, 1.0])
    gradients = {"gradient": lambda p: {"x": w}}
    for method in ("gradient", "smoothgrad"):
        np.testing.assert_allclose(explained(method, gradients, x), w, atol=1e-14)
    np.testing.assert_allclose(explained("vargrad", gradients, x), 0.0, atol=1e-14)
    np.testing.assert_allclose(explained("gradient_x_input", gradients, x), w * x, atol=1e-14)
    ig = reduced("integrated_gradients", gradients, x, b, quadrature=quadrature, n_steps=7)
    np.testing.assert_allclose(ig.attributions["x"], w * (x - b), atol=1e-12)
    assert ig.error["x"] == pytest.approx(0.0, abs=1e-12)
    without = explained("integrated_gradients", gradients, x, b, multiply_by_inputs=False)
    np.testing.assert_allclose(without, w, atol=1e-12)


def test_a_symmetric_function_gets_equal_attributions() -> None:
    gradients = {"gradient": lambda p: {"x": np.array([np.cos(p["x"].sum())] * 2)}}
    first, second = explained("integrated_gradients", gradients, np.array([0.7, 0.7]))
    assert first == second


@pytest.mark.parametrize("base", ["gradient", "gradient_x_input", "integrated_gradients", "guided_backprop"])
def test_smoothgrad_squared_is_smoothgrad_square_plus_vargrad(base: str) -> None:
    x = np.array([1.3, 0.4])
    gradients = functions.all_rules(functions.twin_f)
    got = {
        name: explained(name, gradients, x, base=base, noise_scale=0.8)
        for name in ("smoothgrad", "smoothgrad_squared", "vargrad")
    }
    assert got["vargrad"].max() > 0
    # In float64, the same samples whatever the statistic and however they are cut into rounds.
    np.testing.assert_allclose(got["smoothgrad_squared"], got["smoothgrad"] ** 2 + got["vargrad"], rtol=1e-12)


def test_smoothgrad_of_a_square_is_known() -> None:
    """d(x^2)/dx = 2x under noise s: mean 2x, variance 4 s^2, mean square their sum. Tolerance: 4 standard errors."""
    gradients = {"gradient": lambda p: {"x": 2 * p["x"]}}
    x, n, scale = np.array([1.0, 2.0]), 4000, 0.3
    options: Mapping[str, Any] = {"n_samples": n, "noise_scale": scale}
    np.testing.assert_allclose(explained("smoothgrad", gradients, x, **options), 2 * x, atol=4 * 2 * scale / np.sqrt(n))
    np.testing.assert_allclose(explained("vargrad", gradients, x, **options), 4 * scale**2, rtol=4 * np.sqrt(2 / n))
