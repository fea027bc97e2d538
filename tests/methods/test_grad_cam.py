from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from onnxplain.artifact import Layer, TensorSpec
from onnxplain.errors import BadRequest, NotFound
from onnxplain.methods import METHODS, feature_map, upsampling
from onnxplain.methods.method import Reduced
from tests.methods import fake

Array = NDArray[np.float64]
DRAW = np.random.default_rng(0)
ACTIVATIONS, GRADIENTS = DRAW.normal(size=(4, 3, 5)), DRAW.normal(size=(4, 3, 5))
X = DRAW.normal(size=(2, 9, 20))


def layer(name: str, op: str, *shape: int | str) -> Layer:
    return Layer(name, op, f"{name}_out", ("N", *shape))


LAYERS = (layer("conv1", "Conv", 2, 9, 20), layer("relu1", "Relu", 4, 3, 5), layer("pool", "MaxPool", 4, 2, 2))
HEAD = (layer("mean", "GlobalAveragePool", 4, 1, 1), layer("fc", "Gemm", 10))


def run(method: str, x: Array = X, **options: Any) -> tuple[Reduced, fake.FakeEngine]:
    about = fake.manifest({"x": x}, layers=LAYERS + HEAD)
    engine = fake.FakeEngine(
        {"guided": lambda p: {"x": 2 * p["x"]}}, {"x": x}, taps=lambda p: (ACTIVATIONS * p["x"].mean(), GRADIENTS)
    )
    return engine.run(METHODS[method].plan(fake.ask(method, {"x": x}, about, **options))), engine


def formula() -> Array:
    """Equations 1 and 2 in torch."""
    alpha = torch.from_numpy(GRADIENTS).mean(dim=(1, 2))
    return (alpha[:, None, None] * torch.from_numpy(ACTIVATIONS * X.mean())).sum(0).numpy()


def test_the_map_is_the_papers_at_both_resolutions() -> None:
    got, engine = run("grad_cam")
    np.testing.assert_allclose(got.extras["layer_map"], np.maximum(formula(), 0), atol=1e-14)
    want = torch.nn.functional.interpolate(
        torch.from_numpy(np.maximum(formula(), 0))[None, None], (9, 20), mode="bilinear", align_corners=False
    )
    assert got.attributions["x"].shape == (1, 9, 20)
    np.testing.assert_allclose(got.attributions["x"], want[0].numpy(), atol=1e-14)
    assert engine.n_rows == 1
    (round_,) = engine.rounds
    assert round_.purpose.wrt == () and round_.purpose.taps == round_.purpose.tap_gradients == ("relu1_out",)


def test_signed_and_nearest() -> None:
    got, _ = run("grad_cam", relu=False, interpolation="nearest")
    want = torch.nn.functional.interpolate(torch.from_numpy(formula())[None, None], (9, 20), mode="nearest")
    assert want.min() < 0
    np.testing.assert_allclose(got.attributions["x"], want[0].numpy(), atol=1e-14)


def test_guided_grad_cam_is_the_product_under_two_rule_sets_in_one_round() -> None:
    got, engine = run("guided_grad_cam")
    cam, _ = run("grad_cam")
    np.testing.assert_allclose(got.attributions["x"], 2 * X * cam.attributions["x"], atol=1e-13)
    assert [each.purpose.rules for each in engine.rounds] == ["guided", "gradient"]


@pytest.mark.parametrize("base", ["grad_cam", "guided_grad_cam"])
def test_smoothing_of_a_base_that_is_not_linear(base: str) -> None:
    """One plan per sample: the mean and variance of the maps that the base gives on the same noise, one by one."""
    n = 20  # more than are held at a time
    got = {name: run(name, base=base, n_samples=n)[0] for name in ("smoothgrad", "vargrad", "smoothgrad_squared")}
    maps = []
    for sample in range(n):
        noise = np.random.default_rng([sample, 0]).standard_normal(X.shape)
        maps.append(run(base, X + 0.15 * (X.max() - X.min()) * noise)[0].attributions["x"])
    np.testing.assert_allclose(got["smoothgrad"].attributions["x"], np.mean(maps, axis=0), atol=1e-13)
    np.testing.assert_allclose(got["vargrad"].attributions["x"], np.var(maps, axis=0), atol=1e-13)
    np.testing.assert_allclose(
        got["smoothgrad_squared"].attributions["x"], np.mean(np.square(maps), axis=0), atol=1e-13
    )
    error = np.linalg.norm(np.std(maps, axis=0, ddof=1)) / np.sqrt(n) / np.linalg.norm(np.mean(maps, axis=0))
    assert got["smoothgrad"].error["x"] == pytest.approx(error, rel=1e-10)


def test_tolerance_on_a_base_that_is_not_linear() -> None:
    got, engine = run("smoothgrad", base="grad_cam", n_samples=10, tolerance=0.05)
    assert got.converged and got.error["x"] <= 0.05
    samples = np.concatenate([each.rows.sample for each in engine.rounds])
    np.testing.assert_array_equal(samples, np.arange(len(samples)))
    assert len(samples) > 10


def test_the_default_layer_is_the_last_that_computes_a_map_on_the_path() -> None:
    def chosen(*layers: Layer, on_path: tuple[Layer, ...] | None = None) -> str:
        about = fake.manifest({"x": X}, layers=layers if on_path is None else on_path)
        return feature_map.default_layer(replace(about, layers=layers), "fc_out").name

    assert chosen(*LAYERS, *HEAD) == "relu1"
    assert chosen(*LAYERS, layer("concat", "Concat", 8, 3, 5), *HEAD) == "concat"
    assert chosen(*LAYERS, layer("relu9", "Relu", 8, "h", "w"), *HEAD) == "relu9"
    aside = layer("relu9", "Relu", 8, 3, 5)
    assert chosen(*LAYERS, aside, *HEAD, on_path=(*LAYERS, *HEAD)) == "relu1"
    with pytest.raises(BadRequest, match=r"no feature map.*layer="):
        chosen(layer("tokens", "Add", 197, 768), *HEAD)


def test_a_layer_of_another_rank_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"rows of shape \[4, 3, 5\]: neither feature maps.*rows are x \[7\]"):
        run("grad_cam", np.ones(7), layer="relu1")
    with pytest.raises(NotFound, match="nearest: relu1"):
        run("grad_cam", layer="relu2")


def test_channels_last() -> None:
    about = fake.manifest({"x": X})
    assert upsampling.channels_last(about, TensorSpec("x", "float32", (224, 224, 3)))
    assert not upsampling.channels_last(about, TensorSpec("x", "float32", (3, 224, 224)))
    assert upsampling.upsampled(np.ones((2, 2)), (8, 9, 3), True, "bilinear").shape == (8, 9, 1)


def test_a_map_larger_than_the_input_is_reduced_between_centres() -> None:
    got = upsampling.upsampled(np.arange(8.0)[None], (1, 1, 4), False, "bilinear")
    want = torch.nn.functional.interpolate(torch.arange(8.0)[None, None, None], (1, 4), mode="bilinear")
    np.testing.assert_allclose(got, want[0].numpy())
