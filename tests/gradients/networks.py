"""Small networks of the architectures that people explain, alive: random weights whose logits and gradients vary.

Untouched random networks are nearly constant: batch normalisation is calibrated, layer scales and heads are drawn.
"""

# pyright: reportCallIssue=false
# transformers' configurations take num_labels, but do not declare it.

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto
from torch import nn


class Logits(nn.Module):
    """A transformers model that returns its logits alone; ``keyword`` names its one input."""

    def __init__(self, model: nn.Module, keyword: str = "pixel_values") -> None:
        super().__init__()
        self.model, self.keyword = model, keyword

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(**{self.keyword: x}).logits
        return logits


class DenseLayer(nn.Module):
    """Batch normalisation, ReLU, convolution; the result is appended to the channels (Huang et al. 2017)."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, growth, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.body(x)], 1)


def densenet() -> nn.Module:
    def transition(channels: int) -> list[nn.Module]:
        return [nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels // 2, 1), nn.AvgPool2d(2)]

    layers: list[nn.Module] = [nn.Conv2d(3, 16, 7, 2, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    layers += [nn.MaxPool2d(3, 2, 1)]
    layers += [DenseLayer(16 + 8 * i, 8) for i in range(3)] + transition(40)
    layers += [DenseLayer(20 + 8 * i, 8) for i in range(3)] + [nn.BatchNorm2d(44), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(44, 10))


def resnet() -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[16, 32], depths=[2, 2], layer_type="bottleneck", num_labels=10
    )
    return Logits(ResNetForImageClassification(config))


def mobilenet_v2() -> nn.Module:
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    return Logits(MobileNetV2ForImageClassification(MobileNetV2Config(depth_multiplier=0.25, num_labels=10)))


def convnext() -> nn.Module:
    from transformers import ConvNextConfig, ConvNextForImageClassification

    config = ConvNextConfig(
        hidden_sizes=[16, 32], depths=[2, 2], num_stages=2, num_labels=10, layer_scale_init_value=0.7
    )
    return Logits(ConvNextForImageClassification(config))


def vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        num_labels=10,
    )
    return Logits(ViTForImageClassification(config))


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
        num_labels=5,
    )
    return Logits(BertForSequenceClassification(config), "input_ids")


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet": resnet,
    "mobilenet_v2": mobilenet_v2,
    "densenet": densenet,
    "convnext": convnext,
    "vit": vit,
    "bert": bert,
}


@dataclass(frozen=True)
class Network:
    """A PyTorch module in float64 and evaluation mode, and the same exported: input ``x``, output ``y``.

    Exported in float64, since the exporter folds batch normalisation into weights, which float32 would round.
    """

    module: nn.Module
    model: ModelProto


def inputs(name: str, n: int, seed: int = 0) -> torch.Tensor:
    """n rows for a network of ``NETWORKS``: token ids (n, 12) or N(0, 1) pictures (n, 3, 32, 32), float64 holding
    float32 values."""
    generator = torch.Generator().manual_seed(seed)
    if name == "bert":
        return torch.randint(1, 100, (n, 12), generator=generator)
    return torch.randn(n, 3, 32, 32, generator=generator).double()


def network(name: str) -> Network:
    """A network of ``NETWORKS`` with lively weights, exported with a dynamic batch."""
    torch.manual_seed(0)
    module = enlivened(NETWORKS[name]().double(), inputs(name, 64, seed=1))
    return Network(module, exported(module, inputs(name, 2)))


def enlivened(module: nn.Module, x: torch.Tensor) -> nn.Module:
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = float(np.float32(part.eps))  # an ONNX file has no room for more digits
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.3)
            part.momentum = None  # running figures become averages over what is seen below
            part.reset_running_stats()
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=part.in_features**-0.5)
    with torch.no_grad():
        module.train()(x)
    return module.eval().requires_grad_(False)


def exported(
    module: nn.Module, x: torch.Tensor, outputs: Sequence[str] = ("y",), *, opset: int = 20, dynamo: bool = True
) -> ModelProto:
    """``module`` by PyTorch's exporter, or by its older one, at that opset; its first axis dynamic."""
    names: dict[str, Any] = {"input_names": ["x"], "output_names": list(outputs)}
    if not dynamo:
        return _exported_by_the_older_one(module, x, names, opset)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.export warns about its own use of pytrees
        program = torch.onnx.export(
            module,
            (x,),
            dynamo=True,
            opset_version=opset,
            **names,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _exported_by_the_older_one(module: nn.Module, x: torch.Tensor, names: dict[str, Any], opset: int) -> ModelProto:
    file: Any = io.BytesIO()  # PyTorch writes into it, whatever its annotation says
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it is old, and at every Python number that it makes constant
        torch.onnx.export(
            module, (x,), file, dynamo=False, opset_version=opset, **names, dynamic_axes={"x": {0: "n"}, "y": {0: "n"}}
        )
    return onnx.load_from_string(file.getvalue())


def trained(module: nn.Module) -> Network:
    """A trained classifier of (n, 3, 224, 224), in float64, exported."""
    double = module.double().eval().requires_grad_(False)
    return Network(double, exported(double, torch.zeros(2, 3, 224, 224, dtype=torch.float64)))


def photographs(n: int, size: int = 224) -> torch.Tensor:
    """(n, 3, size, size) float64 holding float32 values: crops of a cat, a coffee, a rocket, normalised for ImageNet.

    The first three are each photograph's middle square, as a classifier is used.
    """
    from skimage import data
    from skimage.transform import resize

    rng = np.random.default_rng(0)
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    crops = np.empty((n, 3, size, size), np.float32)
    for i, crop in enumerate(crops):
        picture = (data.chelsea, data.coffee, data.rocket)[i % 3]()
        height, width = picture.shape[:2]
        side = min(height, width) if i < 3 else int(rng.integers(size // 2, min(height, width) + 1))
        top, left = (height - side) // 2, (width - side) // 2
        if i >= 3:
            top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        window = resize(picture[top : top + side, left : left + side], (size, size), anti_aliasing=True)
        crop[...] = ((window - mean) / deviation).transpose(2, 0, 1)
    return torch.from_numpy(crops).double()
