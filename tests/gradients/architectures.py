"""More architectures, as networks.py has them: from transformers, and Keras's own as modules of the same layers."""

# pyright: reportCallIssue=false
# transformers' configurations take num_labels, but do not declare it.

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tests.gradients.networks import Logits, Network, enlivened, exported


class Flattened(Logits):
    """A segmentation model's logits (n, classes, h, w) in one row per picture."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).flatten(1)


class TextLSTM(nn.Module):
    """Token ids through an embedding and a bidirectional LSTM of two layers; the means over time are classified."""

    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(100, 12)
        self.lstm = nn.LSTM(12, 10, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(20, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(self.word_embeddings(x))
        y: torch.Tensor = self.head(states.mean(1))
        return y


class Branches(nn.Module):
    """Several ways from the same input, concatenated along the channels."""

    def __init__(self, *ways: nn.Module) -> None:
        super().__init__()
        self.ways = nn.ModuleList(ways)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([way(x) for way in self.ways], 1)


def conv(i: int, o: int, kernel: int | tuple[int, int], stride: int = 1, padding: Any = 0) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    return nn.Sequential(nn.Conv2d(i, o, kernel, stride, padding, bias=False), nn.BatchNorm2d(o, eps=1e-3), nn.ReLU())


def average() -> nn.Module:
    """Padding is not counted, as in Keras."""
    return nn.AvgPool2d(3, 1, 1, count_include_pad=False)


def inception_v3() -> nn.Module:
    """One block of each kind of Szegedy et al. 2015 in keras.applications' order, an eighth as wide."""
    a = Branches(
        conv(24, 8, 1),
        nn.Sequential(conv(24, 6, 1), conv(6, 8, 5, padding=2)),
        nn.Sequential(conv(24, 8, 1), conv(8, 12, 3, padding=1), conv(12, 12, 3, padding=1)),
        nn.Sequential(average(), conv(24, 4, 1)),
    )
    a_to_b = Branches(
        conv(32, 16, 3, 2),
        nn.Sequential(conv(32, 8, 1), conv(8, 12, 3, padding=1), conv(12, 12, 3, 2)),
        nn.MaxPool2d(3, 2),
    )
    b = Branches(
        conv(60, 16, 1),
        nn.Sequential(conv(60, 12, 1), conv(12, 12, (1, 7), padding=(0, 3)), conv(12, 16, (7, 1), padding=(3, 0))),
        nn.Sequential(average(), conv(60, 16, 1)),
    )
    b_to_c = Branches(
        nn.Sequential(conv(48, 16, 1), conv(16, 24, 3, 2)),
        nn.Sequential(conv(48, 16, 1), conv(16, 16, (1, 7), padding=(0, 3)), conv(16, 16, 3, 2)),
        nn.MaxPool2d(3, 2),
    )
    c = Branches(
        conv(88, 16, 1),
        nn.Sequential(
            conv(88, 24, 1),
            Branches(conv(24, 24, (1, 3), padding=(0, 1)), conv(24, 24, (3, 1), padding=(1, 0))),
        ),
        nn.Sequential(average(), conv(88, 12, 1)),
    )
    stem = [conv(3, 4, 3, 2), conv(4, 8, 3), conv(8, 8, 3, padding=1), nn.MaxPool2d(3, 2), conv(8, 24, 3)]
    return nn.Sequential(*stem, a, a_to_b, b, b_to_c, c, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(76, 10))


def vgg16() -> nn.Module:
    """Simonyan and Zisserman 2014, a sixteenth as wide."""
    layers: list[nn.Module] = []
    channels = 3
    for width, depth in ((4, 2), (8, 2), (16, 3), (32, 3), (32, 3)):
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    head = [nn.Linear(32, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)]
    return nn.Sequential(*layers, nn.Flatten(), *head)


class Bottleneck(nn.Module):
    """DenseNet's layer with its 1 x 1 convolution, appended to the channels."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth),
            nn.ReLU(),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.body(x)], 1)


def densenet121() -> nn.Module:
    """Huang et al. 2017 in its full depth of 121 layers, growing by 4 channels instead of 32."""
    growth, channels = 4, 8
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
    for block, depth in enumerate((6, 12, 24, 16)):
        if block:
            layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels // 2, 1), nn.AvgPool2d(2)]
            channels //= 2
        layers += [Bottleneck(channels + growth * i, growth) for i in range(depth)]
        channels += growth * depth
    head = [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]
    return nn.Sequential(*layers, *head)


def efficientnet() -> nn.Module:
    from transformers import EfficientNetConfig, EfficientNetForImageClassification

    config = EfficientNetConfig(width_coefficient=0.25, depth_coefficient=0.4, hidden_dim=320, num_labels=10)
    return Logits(EfficientNetForImageClassification(config))


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def deit() -> nn.Module:
    from transformers import DeiTConfig, DeiTForImageClassification

    return Logits(DeiTForImageClassification(DeiTConfig(**SMALL, image_size=32, patch_size=8, num_labels=10)))


def swin() -> nn.Module:
    from transformers import SwinConfig, SwinForImageClassification

    config = SwinConfig(
        image_size=32, patch_size=4, embed_dim=16, depths=[2, 2], num_heads=[1, 2], window_size=4, num_labels=10
    )
    return Logits(SwinForImageClassification(config))


def segformer() -> nn.Module:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[16, 32, 32, 48],
        num_attention_heads=[1, 2, 2, 3],  # 16 wide: the exporter writes the fourth root of others in float32
        decoder_hidden_size=16,
        num_labels=5,
    )
    return Flattened(SegformerForSemanticSegmentation(config))


def roberta() -> nn.Module:
    from transformers import RobertaConfig, RobertaForSequenceClassification

    config = RobertaConfig(**SMALL, vocab_size=100, max_position_embeddings=18, num_labels=5)
    return Logits(RobertaForSequenceClassification(config), "input_ids")


def distilbert() -> nn.Module:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(
        vocab_size=100, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=16, num_labels=5
    )
    return Logits(DistilBertForSequenceClassification(config), "input_ids")


def regnet() -> nn.Module:
    from transformers import RegNetConfig, RegNetForImageClassification

    config = RegNetConfig(embedding_size=8, hidden_sizes=[16, 32], depths=[1, 2], groups_width=8, num_labels=10)
    return Logits(RegNetForImageClassification(config))


@dataclass(frozen=True)
class Architecture:
    """How to build a network; ``size`` of its square pictures, 0: 12 token ids; PyTorch's older exporter, or not."""

    build: Callable[[], nn.Module]
    size: int = 32
    dynamo: bool = True

    def inputs(self, n: int, seed: int = 0) -> torch.Tensor:
        """n rows: token ids (n, 12) or N(0, 1) pictures (n, 3, size, size), float64 holding float32 values."""
        generator = torch.Generator().manual_seed(seed)
        if not self.size:
            return torch.randint(2, 100, (n, 12), generator=generator)
        return torch.randn(n, 3, self.size, self.size, generator=generator).double()

    def network(self, opset: int = 20) -> Network:
        """With lively weights, exported with a dynamic batch."""
        torch.manual_seed(0)
        module = enlivened(self.build().double(), self.inputs(16, seed=1))
        written = copy.deepcopy(module)
        if not self.dynamo and isinstance(written, Logits):
            # the older exporter has no masked fused attention in float64; spelled out, PyTorch's softmax is in float32
            written.model.set_attn_implementation("eager")  # type: ignore[operator]
        return Network(module, exported(written, self.inputs(2), opset=opset, dynamo=self.dynamo))


ARCHITECTURES: dict[str, Architecture] = {
    "efficientnet": Architecture(efficientnet),
    "densenet121": Architecture(densenet121, dynamo=False),
    "inception_v3": Architecture(inception_v3, size=75, dynamo=False),
    "vgg16": Architecture(vgg16),
    "deit": Architecture(deit),
    "swin": Architecture(swin, dynamo=False),
    "segformer": Architecture(segformer, size=64),
    "regnet": Architecture(regnet),
    "roberta": Architecture(roberta, size=0),
    "distilbert": Architecture(distilbert, size=0),
    "text_lstm": Architecture(TextLSTM, size=0, dynamo=False),
}
