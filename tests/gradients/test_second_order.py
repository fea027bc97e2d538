"""Hessian-vector products of whole networks: the gradient differentiated again, against PyTorch's double backward."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from onnxplain_convert import differentiate
from tests.gradients.conftest import Report
from tests.gradients.networks import exported
from tests.reference import Reference

TOLERANCE = 1e-7
"""Relative to the largest entry, in float64. A float32 epsilon or scale in the file would show at 1e-8."""


class Attention(nn.Module):
    """A transformer block before normalisation, with its products and softmax written out, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(16, eps=2.0**-17), nn.LayerNorm(16, eps=2.0**-17)
        self.qkv, self.out, self.head = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, 5)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(approximate="tanh"), nn.Linear(32, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (part.unflatten(-1, (2, 8)).transpose(1, 2) for part in self.qkv(self.first(x)).chunk(3, -1))
        weights = torch.softmax(q @ k.transpose(2, 3) * 0.25, -1)
        x = x + self.out((weights @ v).transpose(1, 2).flatten(2))
        y: torch.Tensor = self.head((x + self.mlp(self.second(x))).mean(1))
        return y


class Recurrent(nn.Module):
    """A bidirectional LSTM over a sequence of vectors, and a head on its mean."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, 8, bidirectional=True, batch_first=True), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.lstm(x)[0].mean(1))
        return y


def cnn() -> nn.Module:
    """Smooth and kinked activations, strides, grouped convolution, both poolings, normalisation."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8, eps=2.0**-17), nn.SiLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.GroupNorm(2, 8, eps=2.0**-17), nn.Softplus(), nn.AvgPool2d(2),
        nn.Conv2d(8, 12, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5), nn.Tanh(),
    )  # fmt: skip


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "cnn": (cnn, (3, 20, 20)),
    "attention": (Attention, (7, 16)),
    "lstm": (Recurrent, (5, 6)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_hessian_vector_product(name: str, report: Report) -> None:
    """d <v, gradient> / dx, and d <v, gradient> / d seed, which is the Jacobian times v."""
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    module = build().double().eval().requires_grad_(False)
    x, v = (torch.randn(2, *shape, dtype=torch.float64) for _ in range(2))
    x.requires_grad_()
    seed = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(module(x), x, seed, create_graph=True)
    wants = torch.autograd.grad(gradient, [x, seed], v)

    once = differentiate(exported(module, x.detach(), dynamo=name != "lstm"))
    twice = differentiate(once, wrt=["x", "seed/y"], outputs=["gradient/x"])
    feeds = {"x": x.detach().numpy(), "seed/y": seed.detach().numpy(), "seed/gradient/x": v.numpy()}
    outputs = [o.name for o in twice.graph.output][-2:]
    found = Reference(twice)(feeds, outputs)
    for output, want, what in zip(outputs, wants, ("Hessian times v", "Jacobian times v"), strict=True):
        largest = float(want.abs().max())
        error = float(np.abs(found[output] - want.numpy()).max()) / largest
        report("second derivatives of networks against PyTorch, float64", f"{error:.1e}  {name}, {what}")
        assert largest > 1e-3
        assert error < TOLERANCE
