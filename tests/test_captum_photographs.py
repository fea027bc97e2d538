"""Integrated gradients and Grad-CAM of a trained network on photographs, against Captum on the same weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import captum.attr
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import onnxplain
import onnxplain_convert
from onnxplain.engine import Engine
from onnxplain.explain import Model
from onnxplain_convert import verify
from tests.engine.reference import open_reference
from tests.gradients.networks import exported, photographs
from tests.reference import Reference, to_float32

Array = NDArray[Any]

CLASSES = [285, 967, 657]
"""Egyptian cat, espresso, missile: what the network sees in scikit-image's cat, coffee and rocket."""

RULES = {"riemann_middle": "midpoint", "gausslegendre": "gauss_legendre", "riemann_right": "riemann_right"}
"""Captum's names of the quadratures and ours; one picture each."""

STEPS = 8
"""A power of two: Captum rounds the points of its Riemann rules to float32, where a ReLU may switch (at 6 one does)."""


@pytest.fixture(scope="module")
def module(shared_efficientnet_lite0: nn.Module) -> nn.Module:
    """EfficientNet-Lite0 in float64."""
    return copy.deepcopy(shared_efficientnet_lite0).double().requires_grad_(False)


@pytest.fixture(scope="module")
def exported_in_float64(module: nn.Module) -> onnx.ModelProto:
    return exported(module, torch.zeros(2, 3, 224, 224).double())


@pytest.fixture(scope="module")
def in_float64(exported_in_float64: onnx.ModelProto) -> Iterator[Model]:
    """The same through our converter and engine, run by the reference evaluator.

    The converter as well, which tests what it made: ONNX Runtime has no float64 convolution, and onnx's takes minutes.
    """

    def fast(model: ir.Model) -> verify.Evaluator:
        return Reference(ir.to_proto(model))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "_reference", fast)
        artifact = onnxplain_convert.convert(exported_in_float64, rules=("gradient",))
    with Model(artifact, Engine(artifact, "cpu", open_session=open_reference)) as model:
        yield model


def test_integrated_gradients_in_float64(module: nn.Module, in_float64: Model) -> None:
    """Map and completeness gap are Captum's, however wide the gap is after eight steps."""
    pictures = photographs(3)
    for k, (theirs, ours) in enumerate(RULES.items()):
        explanation = in_float64.explain(
            pictures[k : k + 1].numpy(), "integrated_gradients", CLASSES[k], n_steps=STEPS, quadrature=ours
        )
        expected, gap = captum.attr.IntegratedGradients(module).attribute(
            pictures[k : k + 1], 0.0, CLASSES[k], n_steps=STEPS, method=theirs, return_convergence_delta=True
        )
        assert explanation.scores == pytest.approx(module(pictures[k : k + 1])[:, CLASSES[k]].numpy(), rel=1e-9)
        assert off(explanation.attributions["x"], expected.numpy()) < 1e-6  # maps come back in float32
        assert explanation.convergence_delta is not None
        assert explanation.convergence_delta == pytest.approx(gap.numpy(), abs=1e-6)


def test_grad_cam_in_float64(module: nn.Module, in_float64: Model) -> None:
    """The last feature map: its convolution with batch normalisation folded in is ``_bn1`` in PyTorch."""
    pictures = photographs(3)
    layer = [layer for layer in in_float64.manifest.layers if layer.op == "Conv"][-1]
    explanation = in_float64.explain(pictures.numpy(), "grad_cam", CLASSES, layer=layer.name, relu=False)
    cam: Any = captum.attr.LayerGradCam(module, module.get_submodule("_bn1")).attribute(pictures, CLASSES)
    expected = cam.detach()
    assert off(explanation.extras["layer_map"], expected[:, 0].numpy()) < 1e-6
    large = captum.attr.LayerAttribution.interpolate(expected, (224, 224), "bilinear").numpy()
    assert off(explanation.attributions["x"], large) < 1e-6


CAMS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "grad_cam_plus_plus": lambda a, g: (
        torch.where(g > 0, g**3 / (2 * g**2 + g**3 * a.sum((2, 3), keepdim=True)), 0).sum((2, 3), keepdim=True) * a
    ),
    "hires_cam": lambda a, g: g * a,
    "layer_cam": lambda a, g: g.relu() * a,
    "x_grad_cam": lambda a, g: (g * a).sum((2, 3), keepdim=True) / a.sum((2, 3), keepdim=True) * a,
}
"""The share of every feature map by its paper; Captum has none of these."""


def test_the_cam_family_in_float64(module: nn.Module, in_float64: Model) -> None:
    """The same layer with PyTorch's activations and gradients."""
    pictures = photographs(3)
    seen: list[torch.Tensor] = []

    def keep(_: nn.Module, __: Any, result: torch.Tensor) -> torch.Tensor:
        seen.append(result.detach().requires_grad_())
        return seen[0] * 1  # what follows works in place

    hook = module.get_submodule("_bn1").register_forward_hook(keep)
    scores = module(pictures)[range(3), CLASSES]
    hook.remove()
    (gradients,) = torch.autograd.grad(scores.sum(), seen)
    layer = [layer for layer in in_float64.manifest.layers if layer.op == "Conv"][-1]
    for method, shares in CAMS.items():
        explanation = in_float64.explain(pictures.numpy(), method, CLASSES, layer=layer.name, relu=False)
        assert off(explanation.extras["layer_map"], shares(seen[0], gradients).sum(1).detach().numpy()) < 1e-6, method


def test_integrated_gradients_in_onnxruntime(
    module: nn.Module, exported_in_float64: onnx.ModelProto, tmp_path: Path
) -> None:
    """In float32 rounding flips ReLUs, which moves single gradients by 5 %: the mean of eight by 1 % at the most."""
    picture = photographs(1)
    onnxplain_convert.convert(to_float32(exported_in_float64), tmp_path / "net.onnx", rules=("gradient",))
    expected, gap = captum.attr.IntegratedGradients(module).attribute(
        picture, 0.0, CLASSES[0], n_steps=STEPS, return_convergence_delta=True
    )
    with onnxplain.load(tmp_path / "net.onnx", provider="cpu") as loaded:
        explanation = loaded.explain(
            picture.float().numpy(), "integrated_gradients", CLASSES[0], n_steps=STEPS, quadrature="gauss_legendre"
        )
    assert off(explanation.attributions["x"], expected.numpy()) < 1e-2
    assert explanation.convergence_delta is not None
    assert explanation.convergence_delta == pytest.approx(gap.numpy(), abs=1e-2 * float(explanation.scores[0]))


def off(a: Array, b: Array) -> float:
    """Largest difference relative to the largest entry."""
    return float(np.max(np.abs(a - b)) / np.max(np.abs(b)))
