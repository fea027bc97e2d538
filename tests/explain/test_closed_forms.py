"""Closed forms of the papers through converter, engine and methods."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onnxplain import Model
from tests import models
from tests.explain import reference
from tests.explain.conftest import Loaded
from tests.explain.reference import DRAW, F32, X


def test_integrated_gradients_sees_what_the_gradient_does_not(loaded: Loaded) -> None:
    model = loaded(models.BOUNDED)
    x = np.array([[2.0]], np.float32)
    assert model.explain(x).attributions["x"] == 0.0
    e = model.explain(x, "integrated_gradients")
    np.testing.assert_allclose(e.attributions["x"], 1.0, atol=F32)
    assert e.baseline_scores is not None and e.convergence_delta is not None
    assert (e.scores[0], e.baseline_scores[0]) == (1.0, 0.0)
    assert e.convergence_delta[0] == pytest.approx(0.0, abs=F32)


@pytest.mark.parametrize("twin", [models.TWIN_F, models.TWIN_G])
def test_the_twins(loaded: Loaded, twin: str) -> None:
    x = np.array([[3.0, 1.0]], np.float32)
    e = loaded(twin).explain(x, "integrated_gradients", n_steps=1000)
    np.testing.assert_allclose(e.attributions["x"], [[1.5, -0.5]], atol=3e-3)  # one kink, at most one of 1000 steps off


@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet"])
def test_guided_backprop_and_deconvnet_give_x2_nothing(loaded: Loaded, method: str) -> None:
    x = np.array([[3.0, 1.0], [5.0, 0.5], [9.0, 7.0]], np.float32)
    maps = loaded(models.TWIN_F).explain(x, method).attributions["x"]
    assert not maps[:, 1].any()
    assert maps[0, 0] == 1.0


def test_a_linear_model(loaded: Loaded) -> None:
    model, w = loaded(models.LINEAR), models.weights(models.model(models.LINEAR))["w"]
    x, b = DRAW.normal(size=(2, 2, 4)).astype(np.float32)
    for method in ("gradient", "smoothgrad"):
        np.testing.assert_allclose(model.explain(x, method, target=1).attributions["x"], [w[:, 1]] * 2, atol=F32)
    e = model.explain(x, "integrated_gradients", target=1, baseline=b, n_steps=3)
    np.testing.assert_allclose(e.attributions["x"], w[:, 1] * (x - b), atol=F32)
    np.testing.assert_allclose(model.explain(x, "vargrad", target=1).attributions["x"], 0.0, atol=F32)


def test_smoothgrad_squared_is_smoothgrad_square_plus_vargrad(cnn: Model) -> None:
    maps = {
        name: cnn.explain(X, name, seed=7, n_samples=40).attributions["x"].astype(np.float64)
        for name in ("smoothgrad", "smoothgrad_squared", "vargrad")
    }
    want = maps["smoothgrad"] ** 2 + maps["vargrad"]
    np.testing.assert_allclose(maps["smoothgrad_squared"], want, rtol=1e-5, atol=1e-5 * want.max())


def test_integrated_gradients_is_the_integral_and_complete(cnn: Model) -> None:
    """Against 1000 midpoints of torch's own gradient; both in float32."""
    alphas = (np.arange(1000) + 0.5) / 1000
    points = (alphas[:, None, None, None] * X[:1]).astype(np.float32)
    truth = X[0] * reference.gradient(points, lambda y: y[:, 2]).mean(axis=0)
    e = cnn.explain(X[:1], "integrated_gradients", target=2, n_steps=1000)
    np.testing.assert_allclose(e.attributions["x"][0], truth, atol=1e-5)
    assert e.baseline_scores is not None and e.convergence_delta is not None and e.error is not None
    np.testing.assert_allclose(e.baseline_scores, reference.cnn(torch.zeros(1, 3, 12, 10))[:, 2].numpy(), atol=F32)
    gap = e.attributions["x"].astype(np.float64).sum() - (e.scores - e.baseline_scores)
    np.testing.assert_allclose(e.convergence_delta, gap, atol=1e-5)
    assert abs(gap) < 1e-3
    coarse = cnn.explain(X[:1], "integrated_gradients", target=2, n_steps=20)
    assert coarse.error is not None
    off = np.linalg.norm(coarse.attributions["x"][0] - truth) / np.linalg.norm(truth)
    assert 0.5 < coarse.error["x"][0] / off < 2.0


@pytest.mark.parametrize("layer", [None, "r1"])
def test_grad_cam_on_a_layer(cnn: Model, layer: str | None) -> None:
    """Equations 1 and 2 by torch's autograd, on the last feature map and on the first."""
    w, f = reference.weights(models.CNN), torch.nn.functional
    first = f.relu(f.conv2d(torch.from_numpy(X), w["w1"], w["b1"], padding=1)).requires_grad_()
    last = f.relu(f.conv2d(f.max_pool2d(first, 2), w["w2"], w["b2"], padding=1))
    score = (last.mean(dim=(2, 3)) @ w["w3"].T + w["b3"])[:, 3].sum()
    seen = last if layer is None else first
    (gradient,) = torch.autograd.grad(score, seen)
    cam = (gradient.mean(dim=(2, 3), keepdim=True) * seen).sum(dim=1, keepdim=True).detach()
    e = cnn.explain(X, "grad_cam", target=3, relu=False, layer=layer)
    np.testing.assert_allclose(e.extras["layer_map"], cam[:, 0].numpy(), atol=F32)
    want = f.interpolate(cam, (12, 10), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(e.attributions["x"], want.numpy(), atol=F32)
