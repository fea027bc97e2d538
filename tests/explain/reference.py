"""A small network in PyTorch, to compare with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tests import models

F32 = 2e-6
"""Largest difference in float32 on networks of a few layers with values near 1."""
DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(3, 3, 12, 10)).astype(np.float32)


def weights(text: str) -> dict[str, torch.Tensor]:
    """The weights of a model of ``tests.models``."""
    return {name: torch.from_numpy(value.copy()) for name, value in models.weights(models.model(text)).items()}


def cnn(x: torch.Tensor) -> torch.Tensor:
    """The logits of ``models.CNN``."""
    w = weights(models.CNN)
    f = torch.nn.functional
    x = f.max_pool2d(f.relu(f.conv2d(x, w["w1"], w["b1"], padding=1)), 2)
    return f.relu(f.conv2d(x, w["w2"], w["b2"], padding=1)).mean(dim=(2, 3)) @ w["w3"].T + w["b3"]


def gradient(x: NDArray[Any], score: Callable[[torch.Tensor], torch.Tensor]) -> NDArray[Any]:
    leaf = torch.from_numpy(x).requires_grad_()
    (got,) = torch.autograd.grad(score(cnn(leaf)).sum(), leaf)
    return got.numpy()
