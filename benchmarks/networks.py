"""The networks that the benchmarks run: architectures of transformers with random weights, and what fits one machine.

Random weights make a constant network unless something is done about it: batch normalisation is calibrated on
photographs and the classifier's weights are drawn wide, so that logits and gradients differ from picture to picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


class Logits(nn.Module):
    """A transformers classifier that returns its logits alone: (n, 3, 224, 224) -> (n, 1000)."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(pixel_values).logits
        return logits


@dataclass(frozen=True)
class Network:
    """A network to measure. Grad-CAM explains the output of ``layer``, in ONNX the last node of that ``operator``."""

    name: str
    module: nn.Module
    layer: nn.Module
    operator: str
    size: int = 224


def resnet50(small: bool = False) -> Network:
    """ResNet-50; ``small``: four blocks of the same kind on 64 x 64."""
    from transformers import ResNetConfig, ResNetForImageClassification

    shape: dict[str, Any] = {"num_labels": 1000}
    if small:
        shape |= {"depths": [1, 1, 1, 1], "hidden_sizes": [64, 128, 256, 512], "embedding_size": 32}
    network: Any = ResNetForImageClassification(ResNetConfig(**shape))
    layer = network.resnet.encoder.stages[-1].layers[-1].activation
    return Network("resnet-small" if small else "resnet-50", Logits(network), layer, "Relu", 64 if small else 224)


def vit(small: bool = False) -> Network:
    """ViT-B/16, its only convolution the patch embedding; ``small``: two layers of width 96 on 64 x 64."""
    from transformers import ViTConfig, ViTForImageClassification

    size = 64 if small else 224
    shape: dict[str, Any] = {"num_labels": 1000, "image_size": size}
    if small:
        shape |= {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 192}
    network: Any = ViTForImageClassification(ViTConfig(**shape))
    layer = network.vit.embeddings.patch_embeddings.projection
    return Network("vit-small" if small else "vit-b16", Logits(network), layer, "Conv", size)


NETWORKS: dict[str, Callable[[bool], Network]] = {"resnet50": resnet50, "vit": vit}


def photographs(n: int, size: int, seed: int = 0) -> NDArray[np.float32]:
    """(n, 3, size, size): random crops of scikit-image's photographs at random scales, normalised to about N(0, 1)."""
    from skimage import data
    from skimage.transform import resize

    rng = np.random.default_rng(seed)
    pictures = (data.chelsea(), data.coffee(), data.rocket(), data.cat())
    crops = np.empty((n, 3, size, size), np.float32)
    for crop in crops:
        picture = pictures[rng.integers(len(pictures))]
        side = rng.integers(min(size, *picture.shape[:2]) // 2, min(picture.shape[:2]) + 1)
        top, left = (rng.integers(0, extent - side + 1) for extent in picture.shape[:2])
        window = np.asarray(resize(picture[top : top + side, left : left + side], (size, size), anti_aliasing=True))
        crop[...] = (window.transpose(2, 0, 1) - 0.45) / 0.23
    return crops


def ready(name: str, *, small: bool = False, seed: int = 0) -> Network:
    """A network of ``NETWORKS`` with random but lively weights, in evaluation mode."""
    torch.manual_seed(seed)
    network = NETWORKS[name](small)
    for module in network.module.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # running figures become plain averages over the batches below
            module.reset_running_stats()
        if isinstance(module, nn.Linear) and module.out_features == 1000:
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
    with torch.no_grad():
        network.module.train()
        for batch in range(2):
            network.module(torch.from_numpy(photographs(16, network.size, seed + batch)))
    network.module.eval()
    for parameter in network.module.parameters():
        parameter.requires_grad_(False)
    return network
