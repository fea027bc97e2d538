"""Integrated gradients and Grad-CAM of a trained network on photographs, against Captum on the same weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
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
    expected = captum.attr.LayerGradCam(module, module._bn1).attribute(pictures, CLASSES).detach()
    assert off(explanation.extras["layer_map"], expected[:, 0].numpy()) < 1e-6
    large = captum.attr.LayerAttribution.interpolate(expected, (224, 224), "bilinear").numpy()
    assert off(explanation.attributions["x"], large) < 1e-6


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
