"""PyTorch modules and exported programs become artifacts whose outputs and gradients are PyTorch's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from onnxplain.artifact import Artifact
from onnxplain.errors import BadRequest, Unsupported
from onnxplain_convert import convert
from onnxplain_convert.frontends import read, torch_
from onnxplain_convert.verify import evaluator
from tests.convert.models import Array, normal, run


class InvertedResidual(nn.Module):
    """The block of MobileNetV2 and EfficientNet: expand, depthwise, squeeze and excite, project, add."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 4 * channels
        self.expand = nn.Sequential(nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.SiLU())
        self.depthwise = nn.Sequential(
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()
        )
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, 2, 1), nn.SiLU(), nn.Conv2d(2, wide, 1))
        self.project = nn.Sequential(nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.depthwise(self.expand(x))
        found: torch.Tensor = x + self.project(y * torch.sigmoid(self.squeeze(y)))
        return found


class Classifier(nn.Module):
    def __init__(self, probabilities: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU6())
        self.blocks = nn.Sequential(InvertedResidual(8), InvertedResidual(8))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8, 5))
        self.probabilities = probabilities

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        y = self.head(self.blocks(self.stem(image)))
        found: torch.Tensor = torch.softmax(y, 1) if self.probabilities else y
        return found


def calibrated(module: nn.Module, *shape: int) -> nn.Module:
    """Statistics of BatchNorm from noise: a fresh network gives the same output for everything."""
    torch.manual_seed(0)
    module.train()
    for _ in range(3):
        module(torch.randn(8, *shape))
    return module.eval()


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return calibrated(Classifier(), 3, 32, 32)


@pytest.fixture(scope="module")
def artifact(network: nn.Module) -> Artifact:
    return convert(network, example=torch.zeros(1, 3, 32, 32))


def gradient(module: nn.Module, x: Array, seed: Array) -> Array:
    tensor = torch.from_numpy(x).requires_grad_()
    (found,) = torch.autograd.grad(module(tensor), tensor, torch.from_numpy(seed))
    return found.numpy()


def test_outputs_and_gradients_are_pytorchs(network: nn.Module, artifact: Artifact) -> None:
    x, seed = normal(3, 3, 32, 32), normal(3, 5, seed=1)
    got = run(artifact.model, {"image": x, "seed/output": seed})
    expected = network(torch.from_numpy(x)).detach().numpy()
    # float32 against float32, sums of up to a thousand terms in another order
    np.testing.assert_allclose(got["output"], expected, rtol=1e-4, atol=1e-5)
    truth = gradient(network, x, seed)
    assert np.linalg.norm(got["gradient/image"] - truth) < 1e-4 * np.linalg.norm(truth)


def test_what_the_manifest_says(artifact: Artifact) -> None:
    manifest = artifact.manifest
    assert manifest.inputs[0].name == "image" and manifest.inputs[0].shape == ("batch", 3, 32, 32)
    assert manifest.default_output == "output" and manifest.rows == "independent"
    assert manifest.source["framework"] == "torch" and manifest.source["file"] == "Classifier"
    assert 0 <= manifest.parity["output/relative"] < 1e-4
    assert "Clip" in manifest.kinks and len(manifest.gates) == 3


def test_the_module_is_left_as_it_was() -> None:
    module = Classifier()
    module.blocks.eval()
    before = [m.training for m in module.modules()]
    convert(module, example=torch.zeros(1, 3, 32, 32), rules=["gradient"])
    assert [m.training for m in module.modules()] == before


def test_probabilities_have_logits_under_them() -> None:
    manifest = convert(
        calibrated(Classifier(probabilities=True), 3, 32, 32), example=torch.zeros(2, 3, 32, 32)
    ).manifest
    assert manifest.probabilities["output"] == manifest.default_output != "output"


def test_an_exported_program(network: nn.Module) -> None:
    dynamic = ({0: torch.export.Dim("rows")},)
    program = torch.export.export(network, (torch.zeros(2, 3, 32, 32),), dynamic_shapes=dynamic)
    made = convert(program)
    x = normal(3, 3, 32, 32)
    got = run(made.model, {"image": x, "seed/output": np.zeros((3, 5), np.float32)})
    np.testing.assert_allclose(got["output"], network(torch.from_numpy(x)).detach().numpy(), rtol=1e-4, atol=1e-5)
    assert made.manifest.source["file"] == "ExportedProgram"


def test_an_exported_program_of_one_row_is_freed(network: nn.Module) -> None:
    made = convert(torch.export.export(network, (torch.zeros(1, 3, 32, 32),)))
    assert made.manifest.rows == "independent"
    assert made.manifest.inputs[0].shape == ("batch", 3, 32, 32)


def test_double_precision() -> None:
    module = calibrated(Classifier(), 3, 16, 16).double()
    made = convert(module, example=np.zeros((1, 3, 16, 16), np.float32))
    x, seed = normal(2, 3, 16, 16, dtype=np.float64), normal(2, 5, seed=1, dtype=np.float64)
    # ONNX Runtime has no convolution of doubles; ONNX's reference evaluator has.
    got = evaluator(made.model)({"image": x, "seed/output": seed}, ["gradient/image"])["gradient/image"]
    truth = gradient(module, x, seed)
    # ReLU6's bounds are exact in float64, so nothing but rounding is left.
    assert np.linalg.norm(got - truth) < 1e-12 * np.linalg.norm(truth)


class Tokens(nn.Module):
    """Two inputs, by name, and a dictionary of outputs: as transformers' models."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(17, 8), nn.Linear(8, 3)

    def forward(
        self, ids: torch.Tensor, mask: torch.Tensor | None = None, scale: float = 1.0
    ) -> dict[str, torch.Tensor]:
        states = self.table(ids) * scale
        if mask is not None:
            states = states * mask[..., None]
        return {"logits": self.head(torch.tanh(states).mean(1)), "states": states}


def test_inputs_and_outputs_keep_the_modules_names() -> None:
    example = {"ids": torch.randint(0, 17, (2, 6)), "mask": torch.ones(2, 6, dtype=torch.int64)}
    manifest = convert(Tokens().eval(), example=example).manifest
    assert [x.name for x in manifest.inputs] == ["ids", "mask"]
    assert [x.name for x in manifest.outputs] == ["logits", "states"]
    assert list(manifest.stands_for.values()) == ["ids"]
    assert manifest.rows == "independent" and "logits/relative" in manifest.parity


def test_arguments_that_are_no_tensors() -> None:
    example = (torch.randint(0, 17, (1, 6)), None, 0.5)
    assert convert(Tokens().eval(), example=example).manifest.parity["logits/relative"] < 1e-5


def test_an_example_is_needed_and_the_error_shows_one() -> None:
    with pytest.raises(BadRequest, match=r"example=, for instance torch.zeros"):
        convert(Classifier())


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if float(x.sum()) > 0 else torch.tensor(x.tolist()).flip(0)


def test_what_pytorch_cannot_export_is_said_in_its_words() -> None:
    with pytest.raises(Unsupported, match="PyTorch cannot export Branching"):
        convert(Branching(), example=torch.ones(2, 3))


@pytest.mark.parametrize("obj", [nn.Identity(), "net.onnx", 3, None])
def test_handles(obj: Any) -> None:
    assert torch_.handles(obj) == isinstance(obj, nn.Module)


def test_weights_are_shared_with_the_module(network: nn.Module) -> None:
    source = read(network, torch.zeros(1, 3, 32, 32))
    weight = source.model.graph.initializers["head.3.weight"].const_value
    assert weight is not None
    assert np.shares_memory(weight.numpy(), network.get_parameter("head.3.weight").detach().numpy())
