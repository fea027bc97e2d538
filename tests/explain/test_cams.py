"""The CAM family from ONNX to map, against PyTorch's gradients on the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import onnxplain
from onnxplain import Model
from onnxplain.errors import BadRequest, Unsupported
from onnxplain_convert import convert
from tests import models
from tests.explain import reference
from tests.explain.conftest import Loaded
from tests.explain.reference import F32, X
from tests.gradients import networks

Array = NDArray[Any]


def features(x: torch.Tensor, layer: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations and gradients of the third logit of ``models.CNN`` at r1 or r2, in float64."""
    w, f = {name: value.double() for name, value in reference.weights(models.CNN).items()}, torch.nn.functional
    first = f.relu(f.conv2d(x.double(), w["w1"], w["b1"], padding=1)).requires_grad_()
    second = f.relu(f.conv2d(f.max_pool2d(first, 2), w["w2"], w["b2"], padding=1))
    score = (second.mean(dim=(2, 3)) @ w["w3"].T + w["b3"])[:, 2].sum()
    seen = first if layer == "r1" else second
    return seen.detach(), torch.autograd.grad(score, seen)[0]


def plus_plus(a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    alpha = torch.where(g > 0, g**2 / (2 * g**2 + g**3 * a.sum(dim=(2, 3), keepdim=True)), 0)
    return (alpha * g.relu()).sum(dim=(2, 3), keepdim=True) * a


SHARES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "grad_cam": lambda a, g: g.mean(dim=(2, 3), keepdim=True) * a,
    "grad_cam_plus_plus": plus_plus,
    "hires_cam": lambda a, g: g * a,
    "layer_cam": lambda a, g: g.relu() * a,
    "x_grad_cam": lambda a, g: (g * a).sum(dim=(2, 3), keepdim=True) / (a.sum(dim=(2, 3), keepdim=True) + 1e-300) * a,
}


@pytest.mark.parametrize("layer", ["r1", "r2"])
@pytest.mark.parametrize("method", SHARES)
def test_shares_and_map_are_the_formulas(cnn: Model, method: str, layer: str) -> None:
    a, g = features(torch.from_numpy(X), layer)
    shares = SHARES[method](a, g).numpy()
    e = cnn.explain(X, method, target=2, layer=layer, per_map=True)
    np.testing.assert_allclose(e.extras["maps"], shares, atol=F32)
    np.testing.assert_allclose(e.extras["layer_map"], np.maximum(shares.sum(axis=1), 0), atol=F32)
    assert e.warnings == []


def test_the_closed_form_is_the_second_and_third_derivative_of_exp_of_the_score(cnn: Model) -> None:
    """Equation 10 with derivatives by PyTorch, one element of the layer after the other, in float64."""
    x, layer = torch.from_numpy(X[:1]), "r1"
    w, f = {name: value.double() for name, value in reference.weights(models.CNN).items()}, torch.nn.functional
    a = features(x, layer)[0].requires_grad_()
    last = f.relu(f.conv2d(f.max_pool2d(a, 2), w["w2"], w["b2"], padding=1))
    score = (last.mean(dim=(2, 3)) @ w["w3"].T + w["b3"])[0, 2]
    (first,) = torch.autograd.grad(score.exp(), a, create_graph=True)
    weights = torch.zeros(8, dtype=torch.float64)
    for k, i, j in torch.nonzero(first[0].detach() > 0).tolist():
        (second,) = torch.autograd.grad(first[0, k, i, j], a, create_graph=True)
        (third,) = torch.autograd.grad(second[0, k, i, j], a, retain_graph=True)
        below = 2 * second[0, k, i, j] + a[0, k].sum() * third[0, k, i, j]
        weights[k] += (second[0, k, i, j] / below * first[0, k, i, j]).detach()
    want = (weights[:, None, None] * a[0].detach()).sum(dim=0).relu() / score.detach().exp()
    e = cnn.explain(X[:1], "grad_cam_plus_plus", target=2, layer=layer)
    np.testing.assert_allclose(e.extras["layer_map"][0], want.numpy(), atol=F32, rtol=1e-5)


def test_cam_has_the_last_layers_weights(cnn: Model) -> None:
    """Closed form: sum_k w_k A_k with the weights read from the file; Grad-CAM is 1/30 of it, on 6 x 5 places."""
    w, (a, _) = reference.weights(models.CNN), features(torch.from_numpy(X), "r2")
    e = cnn.explain(X, "cam", target=2)
    want = np.einsum("k,nkij->nij", w["w3"][2].numpy(), a.numpy())
    assert want.min() < 0
    np.testing.assert_allclose(e.extras["layer_map"], want, atol=2e-5)  # 30 times a gradient
    grad = cnn.explain(X, "grad_cam", target=2, relu=False)
    np.testing.assert_allclose(grad.extras["layer_map"] * 30, e.extras["layer_map"], atol=1e-6)
    np.testing.assert_allclose(
        e.scores, e.extras["layer_map"].mean(axis=(1, 2)) + w["b3"][2].numpy(), atol=2e-5
    )  # what Zhou et al. start from: the score is the map's mean and the bias
    margin = cnn.explain(X, "cam", target=(2, 4)).extras["layer_map"]
    other = cnn.explain(X, "cam", target=4).extras["layer_map"]
    np.testing.assert_allclose(margin, e.extras["layer_map"] - other, atol=2e-5)


def test_cam_refuses_what_is_no_average_and_linear_layer(cnn: Model, loaded: Loaded) -> None:
    with pytest.raises(Unsupported, match=r"between '.*' and 'z'.*MaxPool, Conv, Relu.*take grad_cam"):
        cnn.explain(X, "cam", layer=next(x.name for x in cnn.manifest.layers if x.tensor == "r1"))
    with pytest.raises(Unsupported, match="Softmax"):
        cnn.explain(X, "cam", output="p")
    with pytest.raises(Unsupported, match="global average pooling"):
        loaded(models.SEGMENTER).explain(X[:1], "cam")


def test_probabilities_are_not_piecewise_linear_in_a_layer(cnn: Model) -> None:
    (said,) = cnn.explain(X, "grad_cam_plus_plus", output="p").warnings
    assert "not piecewise linear (Softmax)" in said
    smoothed = cnn.explain(X, "smoothgrad", base="grad_cam_plus_plus", output="p", n_samples=4)
    assert smoothed.warnings == [said]


def test_smooth_without_noise_and_with_little(cnn: Model) -> None:
    """The corrected form is Grad-CAM++ without noise, and comes close to it with little."""
    name = "smooth_grad_cam_plus_plus"
    own: dict[str, Any] = {"target": 2, "numerator": "corrected", "seed": 1}
    plain = cnn.explain(X, "grad_cam_plus_plus", target=2).extras["layer_map"]
    still = cnn.explain(X, name, **own, noise_scale=0.0)
    np.testing.assert_allclose(still.extras["layer_map"], plain, atol=F32)
    assert still.error is not None and (still.error["x"] < 1e-6).all()
    little = cnn.explain(X, name, **own, noise_scale=1e-4).extras["layer_map"]
    np.testing.assert_allclose(little, plain, rtol=0.05, atol=0.01 * plain.max())


def test_behind_average_pooling_noise_changes_nothing(cnn: Model) -> None:
    """The gradient is a constant there, so that the derivatives' means are Grad-CAM++'s own, and known exactly."""
    e = cnn.explain(X, "smooth_grad_cam_plus_plus", target=2, numerator="corrected")
    plain = cnn.explain(X, "grad_cam_plus_plus", target=2).extras["layer_map"]
    np.testing.assert_allclose(e.extras["layer_map"], plain, atol=F32)
    assert e.error is not None and (e.error["x"] < 1e-6).all()


def test_smooth_reports_an_honest_error(cnn: Model) -> None:
    """Against a map of 2000 samples; with the printed numerator most of it is bias, which halves alone do not see."""
    name = "smooth_grad_cam_plus_plus"
    own: dict[str, Any] = {"target": 2, "weighting": "equal", "denominator": "positive", "layer": "r1"}
    truth = cnn.explain(X[:1], name, **own, n_samples=2000, seed=99).attributions["x"]
    reported, true = [], []
    for seed in range(12):
        e = cnn.explain(X[:1], name, **own, seed=seed)
        assert e.error is not None
        reported.append(float(e.error["x"][0]))
        true.append(float(np.linalg.norm(e.attributions["x"] - truth) / np.linalg.norm(truth)))
    assert 0.5 < np.mean(reported) / np.mean(true) < 2.0
    precise = cnn.explain(X, name, **own, numerator="corrected", tolerance=0.05, seed=0)
    assert precise.error is not None and precise.converged.all() and (precise.error["x"] <= 0.05).all()


def test_chosen_maps_and_neurons(cnn: Model) -> None:
    whole = cnn.explain(X, "grad_cam", target=2, relu=False).extras["layer_map"]
    parts = [cnn.explain(X, "grad_cam", target=2, relu=False, maps=maps) for maps in ([0, 1, 2], "3,4", 5)]
    np.testing.assert_allclose(sum(each.extras["layer_map"] for each in parts), whole, atol=F32)
    assert [each.options["maps"] for each in parts] == [[0, 1, 2], [3, 4], [5]]
    e = cnn.explain(X, "hires_cam", target=2, relu=False, neurons="1:2,5:4")
    full = cnn.explain(X, "hires_cam", target=2, relu=False).extras["layer_map"]
    np.testing.assert_allclose(e.extras["layer_map"][:, [1, 5], [2, 4]], full[:, [1, 5], [2, 4]], atol=F32)
    assert np.count_nonzero(e.extras["layer_map"]) <= 2 * len(X)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"maps": [6]}, r"maps=\[6\]: layer '.*' has 6 feature maps, 0 to 5"),
        ({"maps": -1}, "give whole numbers from 0"),
        ({"maps": [0.5]}, "give whole numbers from 0"),
        ({"maps": "1,b"}, "give whole numbers from 0"),
        ({"maps": np.array([2**63], np.uint64)}, "give whole numbers from 0"),
        ({"maps": True}, "give whole numbers from 0"),
        ({"maps": {}}, "give whole numbers from 0"),
        ({"maps": []}, "give whole numbers from 0"),
        ({"neurons": [(0, 5)]}, r"neurons=\[\[0, 5\]\].*6 x 5"),
        ({"neurons": [(0, 1), 2]}, "or positions"),
        ({"threshold": 1.5}, "the most is 1"),
        ({"layer_layout": "nhwc"}, "available: auto"),
        ({"layer_layout": "tokens"}, "read as tokens"),
        ({"layer": "g"}, None),
    ],
)
def test_wrong_options_are_one_clear_error(cnn: Model, options: dict[str, Any], match: str | None) -> None:
    if match is None:  # a map of one place is coarse, not wrong
        assert cnn.explain(X, "grad_cam", **options).extras["layer_map"].shape == (3, 1, 1)
        return
    with pytest.raises(BadRequest, match=match):
        cnn.explain(X, "grad_cam", **options)


def test_activations_that_are_not_finite_have_no_components(cnn: Model) -> None:
    with pytest.raises(BadRequest, match="not finite"):
        cnn.explain(np.full_like(X[:1], np.nan), "eigen_cam", target=0, check_finite=False)
    assert cnn.explain(np.full_like(X[:1], np.nan), "grad_cam_plus_plus", target=0, check_finite=False).warnings


def test_boxes_of_rows_with_fewer_are_filled_up(cnn: Model) -> None:
    e = cnn.explain(X, "layer_cam", target=2, layer="r1", threshold=0.5)
    mask, boxes = e.extras["mask/x"], e.extras["boxes/x"]
    assert mask.shape == (3, 12, 10) and boxes.shape[0] == 3 and boxes.shape[2] == 5
    counts = [int(np.count_nonzero(row[:, 4])) for row in boxes]
    assert max(counts) == boxes.shape[1] and min(counts) >= 1
    for k, row in enumerate(boxes):
        found = row[: counts[k]]
        assert not row[counts[k] :].any() and (np.diff(found[:, 4]) <= 0).all()
        assert found[:, 4].sum() == mask[k].sum()
        np.testing.assert_array_equal(mask[k] > 0, e.attributions["x"][k, 0] > 0.5 * e.attributions["x"][k].max())


def test_a_language_models_tokens(loaded: Loaded) -> None:
    """A layer of (tokens, features): a map over the tokens, by the formula."""
    model, w = loaded(models.TEXT), reference.weights(models.TEXT)
    ids, mask = np.array([[3, 7, 7, 1, 9]]), np.ones((1, 5), np.int64)
    hidden = torch.tanh(w["table"][torch.from_numpy(ids)] @ w["w1"])
    layer = next(each.name for each in model.manifest.layers if each.tensor == "t")
    e = model.explain({"ids": ids, "mask": mask}, "grad_cam", target=1, layer=layer, relu=False)
    np.testing.assert_allclose(e.extras["layer_map"], (hidden @ w["w2"][:, 1]).numpy(), atol=F32)
    np.testing.assert_allclose(e.attributions["ids"][..., 0], e.extras["layer_map"], atol=F32)


# --- vision transformers ---


@pytest.fixture(scope="module")
def vit() -> Iterator[tuple[Any, Model]]:
    torch.manual_seed(0)
    module: Any = networks.vit().eval().requires_grad_(False)
    with onnxplain.load(convert(module, example=(torch.randn(2, 3, 32, 32),)), provider="cpu") as model:
        yield module, model


def test_a_vision_transformers_tokens_are_its_grid(vit: tuple[Any, Model]) -> None:
    """By default what enters the last block's attention: behind it the class token alone reaches the logits."""
    module, model = vit
    seen: dict[str, torch.Tensor] = {}

    def keep(_: Any, __: Any, result: torch.Tensor) -> torch.Tensor:
        seen["a"] = result.detach().clone().requires_grad_()
        return seen["a"]

    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    last = module.model.vit.layers[-1].layernorm_before.register_forward_hook(keep)
    score = module(x)[:, 3].sum()
    last.remove()
    (gradients,) = torch.autograd.grad(score, seen["a"])
    a, g = (each.detach()[:, 1:].reshape(3, 4, 4, -1).permute(0, 3, 1, 2) for each in (seen["a"], gradients))
    assert g.abs().max() > 0
    for method in ("grad_cam", "hires_cam", "layer_cam"):
        e = model.explain(x.numpy(), method, target=3, relu=False)
        want = SHARES[method](a, g).sum(dim=1).numpy()
        assert e.attributions["x"].shape == (3, 1, 32, 32)
        np.testing.assert_allclose(e.extras["layer_map"], want, atol=1e-5 * np.abs(want).max() + 1e-9, rtol=1e-3)
    (said,) = [x for x in model.explain(x.numpy(), "grad_cam_plus_plus").warnings if "piecewise linear" in x]
    assert "Gelu" in said


def test_a_layer_that_is_no_grid(vit: tuple[Any, Model]) -> None:
    _, model = vit
    x = np.zeros((1, 3, 32, 32), np.float32)
    pooled = [layer for layer in model.manifest.layers if layer.op == "Gather"][-1]
    with pytest.raises(BadRequest, match=r"rows of shape \[32\]: neither feature maps .* nor tokens on a grid"):
        model.explain(x, "grad_cam", layer=pooled.name)
