"""Guided backpropagation and deconvnet against Captum, and at gates that Captum does not know against their formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from onnx import ModelProto
from torch import nn

from onnxplain_convert import differentiate
from tests.gradients.networks import exported, inputs, network
from tests.reference import Reference

TOLERANCE = 1e-6
"""Relative to the largest entry; all is computed in float64, so that only a wrong formula comes near it."""

CAPTUM = {"guided": captum.attr.GuidedBackprop, "deconvnet": captum.attr.Deconvolution}


@pytest.fixture(scope="module")
def resnet() -> tuple[nn.Module, ModelProto]:
    net = network("resnet")
    return net.module, differentiate(net.model, rules=("gradient", "guided", "deconvnet"))


@pytest.mark.parametrize("rules", CAPTUM)
def test_resnet_as_captum(resnet: tuple[nn.Module, ModelProto], rules: str) -> None:
    module, differentiated = resnet
    x, targets = inputs("resnet", 4, seed=5), [3, 1, 7, 0]
    expected = CAPTUM[rules](module).attribute(x.clone().requires_grad_(), target=targets).detach().numpy()
    values = backward(differentiated, x, torch.eye(10, dtype=x.dtype)[targets])
    assert largest_error(values[f"{rules}/x"], expected) < TOLERANCE
    assert largest_error(values["gradient/x"], expected) > 0.1, "the rule set made no difference"


class Gated(torch.autograd.Function):
    """An activation with the gradient of a rule set: 1[x > 0] * 1[g > 0] * f'(x) * g, or 1[g > 0] * g."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, activation: nn.Module, rules: str) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.activation, ctx.rules = activation, rules
        y: torch.Tensor = activation(x)
        return y

    @staticmethod
    def backward(ctx: Any, *gs: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (g,), (x,) = gs, ctx.saved_tensors
        signal = torch.relu(g)
        if ctx.rules == "guided":
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                (slope,) = torch.autograd.grad(ctx.activation(leaf).sum(), leaf)
            signal = signal * slope * (x > 0)
        return signal, None, None


class As(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


class Classifier(nn.Module):
    """Two convolutions with one activation after each, the same module both times, and a linear layer."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation
        self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, stride=2)
        self.last = nn.Linear(6, 5)
        self.rules: str | None = None

    def gate(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor
        y = self.activation(x) if self.rules is None else Gated.apply(x, self.activation, self.rules)  # type: ignore[no-untyped-call]
        return y

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.last(self.gate(self.second(self.gate(4 * self.first(x)))).mean((2, 3)))
        return y


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu, functional": lambda: As(torch.relu),
    "relu6": nn.ReLU6,
    "leaky relu": lambda: nn.LeakyReLU(0.2),
    "prelu": lambda: nn.PReLU(6, 0.3),
    "elu": nn.ELU,
    "selu": nn.SELU,
    "celu": lambda: nn.CELU(0.7),
    "clamp from 0": lambda: As(lambda x: torch.clamp(x, min=0.0)),
    "maximum with 0": lambda: As(lambda x: torch.maximum(x, torch.zeros((), dtype=x.dtype))),
    "where": lambda: As(lambda x: torch.where(x > 0, x, 0.1 * x)),
    "where, the other way": lambda: As(lambda x: torch.where(x < 0, torch.zeros_like(x), x)),
}


class AllGates(nn.Module):
    """A classifier per activation of the same picture: one export for all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.classifiers = nn.ModuleList(Classifier(make()) for make in ACTIVATIONS.values())

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(classifier(x) for classifier in self.classifiers)


@pytest.fixture(scope="module")
def gates() -> tuple[dict[str, Classifier], ModelProto]:
    torch.manual_seed(0)
    module = AllGates().double().eval().requires_grad_(False)
    model = exported(module, torch.zeros(2, 3, 9, 9).double(), [f"y{i}" for i in range(len(ACTIVATIONS))])
    by_name = dict(zip(ACTIVATIONS, module.classifiers, strict=True))
    return by_name, differentiate(model, rules=("guided", "deconvnet"))  # type: ignore[return-value]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_any_gate_as_its_formula(gates: tuple[dict[str, Classifier], ModelProto], name: str) -> None:
    module, differentiated = gates[0][name], gates[1]
    generator = torch.Generator().manual_seed(1)
    x, seed = (torch.randn(*shape, generator=generator).double() for shape in ((3, 3, 9, 9), (3, 5)))
    seeds = {f"seed/y{i}": seed if other == name else torch.zeros(3, 5).double() for i, other in enumerate(ACTIVATIONS)}
    values = Reference(differentiated)({"x": x.numpy(), **{k: v.numpy() for k, v in seeds.items()}})
    for rules in CAPTUM:
        module.rules = rules
        leaf = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad(module(leaf), leaf, seed)
        assert largest_error(values[f"{rules}/x"], expected.numpy()) < TOLERANCE, rules


def backward(differentiated: ModelProto, x: torch.Tensor, seed: torch.Tensor) -> dict[str, Any]:
    return Reference(differentiated)({"x": x.numpy(), "seed/y": seed.numpy()})


def largest_error(a: Any, b: Any) -> float:
    return float(np.max(np.abs(a - b)) / np.max(np.abs(b)))
