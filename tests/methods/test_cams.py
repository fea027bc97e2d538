"""The CAM family against its formulas, written out in numpy in float64, index by index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxplain.artifact import Layer, Manifest
from onnxplain.errors import BadRequest, Unsupported
from onnxplain.methods import METHODS
from onnxplain.methods.method import Reduced
from tests.methods import fake

Array = NDArray[np.float64]
DRAW = np.random.default_rng(1)
K, H, W = 4, 3, 5
A, G = np.maximum(DRAW.normal(size=(K, H, W)), 0.0), DRAW.normal(size=(K, H, W))
X = DRAW.normal(size=(2, 9, 15))
PLACES = [(i, j) for i in range(H) for j in range(W)]
CAMS = ("cam", "grad_cam", "grad_cam_plus_plus", "hires_cam", "layer_cam", "x_grad_cam", "eigen_cam")


def layer(name: str, op: str, *shape: int | str, weights: tuple[str, ...] = ()) -> Layer:
    return Layer(name, op, f"{name}_out", ("N", *shape), weights)


FEATURES = layer("relu", "Relu", K, H, W)
HEAD = (layer("mean", "GlobalAveragePool", K, 1, 1), layer("flat", "Flatten", K), layer("y", "Gemm", 2, weights=("w",)))


def about(*layers: Layer) -> Manifest:
    return fake.manifest({"x": X}, layers=layers)


def run(
    method: str, a: Array = A, g: Array = G, layers: tuple[Layer, ...] = (FEATURES, *HEAD), **options: Any
) -> Reduced:
    engine = fake.FakeEngine({}, {"x": X}, taps=lambda p: (a, g))
    return engine.run(METHODS[method].plan(fake.ask(method, {"x": X}, about(*layers), **options)))


def weighted(weights: Array, a: Array = A) -> Array:
    """``ReLU(sum_k w_k A_k)``."""
    return np.array([[max(sum(weights[k] * a[k, i, j] for k in range(K)), 0.0) for j in range(W)] for i in range(H)])


def plus_plus(a: Array = A, g: Array = G) -> Array:
    """Equations 10 and 19 as printed, e^S left out; 0 / 0 where there is no gradient is 0."""
    weights = np.zeros(K)
    for k in range(K):
        for i, j in PLACES:
            if g[k, i, j] == 0:
                continue
            below = 2 * g[k, i, j] ** 2 + sum(a[k, p, q] * g[k, i, j] ** 3 for p, q in PLACES)
            weights[k] += g[k, i, j] ** 2 / below * max(g[k, i, j], 0.0)
    return weighted(weights, a)


def test_grad_cam_plus_plus_is_the_formula() -> None:
    np.testing.assert_allclose(run("grad_cam_plus_plus").extras["layer_map"], plus_plus(), rtol=1e-12)


def test_grad_cam_plus_plus_counts_occurrences_alike() -> None:
    """The paper's figure 3: a map that fires on a smaller region keeps its weight, where Grad-CAM's mean shrinks it."""
    a, g = np.zeros((K, H, W)), np.zeros((K, H, W))
    a[0, 0, 0] = a[1, :2, :2] = 1.0
    g[0, 0, 0], g[1, :2, :2] = 4.0, 1.0  # each occurrence speaks as much: 4
    mean = run("grad_cam", a, g).extras["layer_map"]
    assert mean[0, 0] == pytest.approx(8 / 15) and mean[1, 1] == pytest.approx(4 / 15)
    np.testing.assert_allclose(run("grad_cam_plus_plus", a, g).extras["layer_map"], plus_plus(a, g), rtol=1e-12)


def test_places_without_gradient_have_alpha_zero() -> None:
    g = np.where(G > 0.5, G, 0.0)
    with np.errstate(all="raise"):
        got = run("grad_cam_plus_plus", A, g).extras["layer_map"]
    weights = np.array([sum(g[k, i, j] / (2 + g[k, i, j] * A[k].sum()) for i, j in PLACES) for k in range(K)])
    np.testing.assert_allclose(got, weighted(weights), rtol=1e-12)


FORMULAS: dict[str, Callable[[], Array]] = {
    "hires_cam": lambda: np.maximum((G * A).sum(axis=0), 0),
    "layer_cam": lambda: (np.maximum(G, 0) * A).sum(axis=0),
    "x_grad_cam": lambda: weighted(
        np.array([sum(A[k, i, j] / A[k].sum() * G[k, i, j] for i, j in PLACES) for k in range(K)])
    ),
}


@pytest.mark.parametrize("method", FORMULAS)
def test_the_map_is_the_papers(method: str) -> None:
    np.testing.assert_allclose(run(method).extras["layer_map"], FORMULAS[method](), rtol=1e-12)


def test_x_grad_cam_of_a_silent_map() -> None:
    a = A.copy()
    a[2] = 0.0
    with np.errstate(all="raise"):
        got = run("x_grad_cam", a)
    assert np.isfinite(got.extras["layer_map"]).all()


def test_eigen_cam_is_the_projection_on_the_first_component_and_asks_for_no_gradient() -> None:
    matrix = A.reshape(K, -1).T
    values, vectors = np.linalg.eigh(matrix.T @ matrix)
    first = matrix @ vectors[:, values.argmax()]
    engine = fake.FakeEngine({}, {"x": X}, taps=lambda p: (A, G))
    got = engine.run(METHODS["eigen_cam"].plan(fake.ask("eigen_cam", {"x": X}, about(FEATURES, *HEAD))))
    np.testing.assert_allclose(got.extras["layer_map"].ravel(), np.abs(first), atol=1e-12)
    (round_,) = engine.rounds
    assert round_.purpose.rules is None and round_.purpose.tap_gradients == ()


CONSTANT = np.broadcast_to(DRAW.normal(size=(K, 1, 1)), (K, H, W)) / (H * W)
"""Gradients behind global average pooling: w_k / places."""


def test_cam_is_grad_cam_times_the_places_behind_global_average_pooling() -> None:
    got = run("cam", A, CONSTANT)
    weights = CONSTANT[:, 0, 0] * H * W
    np.testing.assert_allclose(got.extras["layer_map"], np.einsum("k,kij->ij", weights, A), atol=1e-12)
    assert got.extras["layer_map"].min() < 0, "signed, as in the paper"
    grad = run("grad_cam", A, CONSTANT, relu=False)
    np.testing.assert_allclose(got.extras["layer_map"], H * W * grad.extras["layer_map"], atol=1e-12)
    np.testing.assert_allclose(got.attributions["x"], H * W * grad.attributions["x"], atol=1e-12)


@pytest.mark.parametrize(
    "head",
    [
        (layer("mean", "ReduceMean", K), layer("m", "MatMul", 2, weights=("w",)), layer("y", "Add", 2, weights=("b",))),
        (layer("mean", "AveragePool", K, 1, 1), layer("drop", "Dropout", K, 1, 1),
         layer("fc", "Conv", 2, 1, 1, weights=("w",)), layer("y", "Flatten", 2)),
    ],
)  # fmt: skip
def test_cam_recognises_other_spellings(head: tuple[Layer, ...]) -> None:
    assert np.any(run("cam", A, CONSTANT, (FEATURES, *head)).extras["layer_map"])


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ((layer("flat", "Flatten", K * H * W), layer("y", "Gemm", 2, weights=("w",))), "here it is Gemm"),
        ((HEAD[0], layer("a", "Gemm", 9, weights=("w",)), layer("r", "Relu", 9), layer("y", "Gemm", 2, weights=("v",))),
         "GlobalAveragePool, Gemm, Relu, Gemm"),
        ((layer("pool", "AveragePool", K, 2, 2), layer("y", "Gemm", 2, weights=("w",))), "AveragePool, Gemm"),
        ((HEAD[0], layer("y", "MatMul", 2)), "MatMul"),
        ((HEAD[0], layer("fc", "Gemm", 2, weights=("w",)), layer("y", "Softmax", 2)), "Softmax"),
    ],
)  # fmt: skip
def test_cam_refuses_other_heads(head: tuple[Layer, ...], said: str) -> None:
    head = (*head[:-1], Layer("y", head[-1].op, "y", head[-1].shape, head[-1].initializers))
    with pytest.raises(Unsupported, match=rf"global average pooling and one linear layer.*{said}.*grad_cam"):
        run("cam", A, CONSTANT, (FEATURES, *head))


def test_cam_refuses_gradients_that_differ_between_places() -> None:
    with pytest.raises(Unsupported, match="differ between places"):
        run("cam", A, G)


@pytest.mark.parametrize("method", [name for name in CAMS if name != "eigen_cam"])
def test_chosen_maps_sum_to_the_whole_before_the_relu(method: str) -> None:
    g = CONSTANT if method == "cam" else G
    whole = run(method, g=g, relu=False, per_map=True)
    parts = [run(method, g=g, relu=False, maps=np.array(maps)) for maps in ([0, 2], [1], [3])]
    total = np.sum([part.extras["layer_map"] for part in parts], axis=0)
    np.testing.assert_allclose(total, whole.extras["layer_map"], atol=1e-12)
    np.testing.assert_allclose(parts[0].extras["layer_map"], whole.extras["maps"][[0, 2]].sum(axis=0), atol=1e-12)
    np.testing.assert_allclose(whole.extras["maps"].sum(axis=0), whole.extras["layer_map"], atol=1e-12)


@pytest.mark.parametrize("method", CAMS)
def test_chosen_neurons_are_a_layer_of_their_own(method: str) -> None:
    """As a layer that has only those places, here two rows of five; elsewhere the map is zero."""
    a, g = A[:, 1:], (CONSTANT if method == "cam" else G)[:, 1:]
    chosen = np.array([(i, j) for i, j in PLACES if i > 0])
    got = run(method, g=CONSTANT if method == "cam" else G, neurons=chosen)
    alone = run(method, a, g * (15 / 10 if method == "cam" else 1), (layer("relu", "Relu", K, 2, W), *HEAD))
    np.testing.assert_allclose(got.extras["layer_map"][1:], alone.extras["layer_map"], atol=1e-12)
    assert not got.extras["layer_map"][0].any()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"maps": np.array([1, 4])}, r"maps=\[1, 4\]: layer 'relu' has 4 feature maps, 0 to 3"),
        ({"maps": np.array([[1, 2]])}, r"maps=\[\[1, 2\]\]"),
        ({"neurons": np.array([[3, 0]])}, r"neurons=\[\[3, 0\]\].*'relu' has 3 x 5"),
        ({"neurons": np.array([2, 1])}, "give places of 2 numbers"),
        ({"layer_layout": "tokens"}, r"\[4, 3, 5\] read as tokens"),
    ],
)
def test_what_the_layer_does_not_have(options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        run("grad_cam", **options)


def test_the_closed_form_says_where_it_is_an_approximation() -> None:
    assert run("grad_cam_plus_plus").warnings == ()
    squashed = (FEATURES, layer("sigmoid", "Sigmoid", K, H, W), layer("gate", "Mul", K, H, W), *HEAD)
    (said,) = run("grad_cam_plus_plus", layers=squashed, layer="relu").warnings
    assert "'relu' the score is not piecewise linear (Mul, Sigmoid)" in said
    before = (layer("tanh", "Tanh", K, H, W), FEATURES, *HEAD)
    assert run("grad_cam_plus_plus", layers=before, layer="relu").warnings == (), (
        "what is before the layer is no matter"
    )
    (said,) = run("grad_cam_plus_plus", A - 1, G).warnings
    assert "negative sums" in said


def test_every_cam_localises() -> None:
    a = np.zeros((K, H, W))
    a[:, 0, 0], a[:, 2, 3:] = 1.0, 2.0
    got = run("grad_cam", a, np.ones((K, H, W)), interpolation="nearest")
    np.testing.assert_array_equal(got.extras["boxes/x"], [[6, 9, 9, 15, 18], [0, 0, 3, 3, 9]])
    np.testing.assert_array_equal(got.extras["mask/x"], got.attributions["x"][0] > 0)
    high = run("grad_cam", a, np.ones((K, H, W)), interpolation="nearest", threshold=0.5)
    np.testing.assert_array_equal(high.extras["boxes/x"], [[6, 9, 9, 15, 18]])


# --- Smooth Grad-CAM++ ---


def smooth(taps: Callable[[float], tuple[Array, Array]], score: Callable[[float], float], **options: Any) -> Reduced:
    """``taps`` and ``score`` of the noisy input's mean."""
    engine = fake.FakeEngine({}, {"x": X}, taps=lambda p: taps(p["x"].mean()), score=lambda p: score(p["x"].mean()))
    name = "smooth_grad_cam_plus_plus"
    return engine.run(METHODS[name].plan(fake.ask(name, {"x": X}, about(FEATURES, *HEAD), **options)))


def noisy(m: float) -> tuple[Array, Array]:
    return A * (1 + m), G + 5 * m


def means(n: int, noise: float = 0.15) -> list[float]:
    spread = X.max() - X.min()
    draws = [np.random.default_rng([sample, 0]).standard_normal(X.shape) for sample in range(n)]
    return [float((X + noise * spread * draw).mean()) for draw in draws]


@pytest.mark.parametrize("numerator", ["paper", "corrected"])
@pytest.mark.parametrize("weighting", ["exp_score", "equal"])
@pytest.mark.parametrize("n", [2, 5, 40])
def test_smooth_grad_cam_plus_plus_is_the_formula(numerator: str, weighting: str, n: int) -> None:
    """With e^S written out, over n samples; the activations are the clean input's."""

    def score(m: float) -> float:
        return 30.0 * m

    e = [np.exp(score(m)) if weighting == "exp_score" else 1.0 for m in means(n)]
    d = [np.mean([w * noisy(m)[1] ** p for w, m in zip(e, means(n), strict=True)], axis=0) for p in (1, 2, 3)]
    a = noisy(X.mean())[0]
    alpha = d[0 if numerator == "paper" else 1] / (2 * d[1] + a.sum(axis=(1, 2), keepdims=True) * d[2])
    want = weighted((alpha * np.maximum(d[0], 0)).sum(axis=(1, 2)), a)
    got = smooth(noisy, score, n_samples=n, numerator=numerator, weighting=weighting).extras["layer_map"]
    np.testing.assert_allclose(got / got.max(), want / want.max(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(got * np.mean(e), want, rtol=1e-10, atol=1e-12)


def test_a_denominator_that_can_vanish_is_said_and_can_be_held_positive() -> None:
    """Gradients of 3 and -4 in turn: the mean is positive with more threes, the mean cube negative."""
    draw = iter([0.0, *([3.0, 3.0, -4.0, 3.0] * 10)])

    def taps(_: float) -> tuple[Array, Array]:
        return np.ones((K, H, W)), np.full((K, H, W), next(draw))

    cube, square, mean = (81 - 64) / 4, (27 + 16) / 4, 5 / 4
    assert 2 * square + 15 * cube > 0
    got = smooth(taps, lambda m: m, n_samples=4, weighting="equal", layer="relu")
    np.testing.assert_allclose(got.extras["layer_map"], K * 15 * mean**2 / (2 * square + 15 * cube), rtol=1e-12)
    assert got.warnings == ()
    draw = iter([0.0, *([3.0, 2.0, -3.5, 2.0] * 10)])
    got = smooth(taps, lambda m: m, n_samples=4, weighting="equal", relu=False)
    cube, square, mean = (27 + 16 - 42.875) / 4, (17 + 12.25) / 4, 3.5 / 4
    np.testing.assert_allclose(got.extras["layer_map"], K * 15 * mean**2 / (2 * square + 15 * cube), rtol=1e-12)
    draw = iter([0.0, *([3.0, 2.0, -4.5, 2.0] * 10)])
    got = smooth(taps, lambda m: m, n_samples=4, weighting="equal", relu=False)
    assert got.extras["layer_map"].max() < 0
    assert "denominator=positive" in got.warnings[0]
    draw = iter([0.0, *([3.0, 2.0, -4.5, 2.0] * 10)])
    got = smooth(taps, lambda m: m, n_samples=4, weighting="equal", denominator="positive")
    np.testing.assert_allclose(got.extras["layer_map"], K * 15 * (2.5 / 4) ** 2 / (2 * (17 + 20.25) / 4), rtol=1e-12)
    assert got.warnings == ()


def test_without_noise_the_corrected_form_is_grad_cam_plus_plus() -> None:
    got = smooth(lambda m: (A, G), lambda m: 1000.0, noise_scale=0.0, numerator="corrected")
    np.testing.assert_allclose(got.extras["layer_map"], plus_plus(), rtol=1e-12)
    assert got.error["x"] < 1e-15 and got.converged


def test_scores_that_overflow_change_nothing_but_the_scale() -> None:
    low = smooth(noisy, lambda m: 30 * m).extras["layer_map"]
    high = smooth(noisy, lambda m: 30 * m + 5000).extras["layer_map"]
    np.testing.assert_allclose(high, low, rtol=1e-9)


def test_smooth_tolerance_and_its_cap() -> None:
    got = smooth(noisy, lambda m: m, tolerance=0.02, n_samples=4)
    assert got.converged and got.error["x"] <= 0.02
    stopped = smooth(noisy, lambda m: 30 * m, tolerance=1e-6, max_rows=30)
    assert not stopped.converged


def test_a_sample_that_outweighs_the_others_is_said() -> None:
    (said,) = smooth(noisy, lambda m: 2000 * m).warnings
    assert "25 samples say as much as" in said and "weighting=equal" in said
    assert smooth(noisy, lambda m: 2000 * m, weighting="equal").warnings == ()


def test_chosen_maps_of_the_smooth_one_sum_to_the_whole() -> None:
    whole = smooth(noisy, lambda m: m, relu=False)
    parts = [smooth(noisy, lambda m: m, relu=False, maps=np.array(maps)) for maps in ([0, 3], [1, 2])]
    np.testing.assert_allclose(
        parts[0].extras["layer_map"] + parts[1].extras["layer_map"], whole.extras["layer_map"], atol=1e-12
    )
