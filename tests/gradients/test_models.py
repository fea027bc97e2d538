"""Gradients of whole networks against PyTorch's automatic differentiation of the float64 module.

In float64 they are the same to 1e-7. In float32 rounding flips ReLUs, so the yardstick is PyTorch's own float32: ONNX
Runtime's largest error over 20 inputs is at most three times as large.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import nn

from onnxplain_convert import differentiate
from tests.gradients.conftest import Report
from tests.gradients.networks import NETWORKS, Network, inputs, network, photographs, trained
from tests.gradients.runtime import run_onnxruntime
from tests.reference import Reference, to_float32

Array = NDArray[Any]
ROWS = 20


@dataclass(frozen=True)
class Subject:
    """A network, its differentiated graph, and 20 rows with their gradients by PyTorch in float64."""

    network: Network
    differentiated: ModelProto
    x: torch.Tensor
    seed: torch.Tensor
    gradient: Array

    @property
    def output(self) -> str:
        """The gradient's name; for token ids it is that of the embedding behind them."""
        name: str
        (name,) = (o.name for o in self.differentiated.graph.output if o.name.startswith("gradient/"))
        return name


def subject_of(net: Network, x: torch.Tensor) -> Subject:
    classes = net.module(x[:1]).shape[1]
    seed = torch.randn(len(x), classes, generator=torch.Generator().manual_seed(2)).double()
    differentiated = differentiate(net.model)
    return Subject(net, differentiated, x, seed, autograd(net.module, x, seed))


def autograd(module: nn.Module, x: torch.Tensor, seed: torch.Tensor) -> Array:
    """The gradient of sum(seed * y) by PyTorch, with respect to x or to the embedding of token ids, row by row."""
    rows = []
    for row, cotangent in zip(torch.split(x, 1), torch.split(seed, 1), strict=True):
        leaf = row.detach().clone()
        handles = []
        if leaf.is_floating_point():
            leaf.requires_grad_()
        else:
            (embedding,) = (m for name, m in module.named_modules() if name.endswith("word_embeddings"))

            def differentiated(module: nn.Module, ids: Any, output: torch.Tensor) -> torch.Tensor:
                nonlocal leaf
                leaf = output.detach().requires_grad_()
                return leaf

            handles.append(embedding.register_forward_hook(differentiated))
        y = module(row if handles else leaf)
        rows.append(torch.autograd.grad(y, leaf, cotangent.to(y.dtype))[0].numpy())
        for handle in handles:
            handle.remove()
    return np.concatenate(rows)


@pytest.fixture(scope="module", params=NETWORKS)
def subject(request: pytest.FixtureRequest) -> Subject:
    return subject_of(network(request.param), inputs(request.param, ROWS))


def test_float64_is_pytorch_s(subject: Subject, request: pytest.FixtureRequest, report: Report) -> None:
    error = float64_error(subject, ROWS)
    report("gradients of networks against PyTorch, float64", f"{error:.1e}  {request.node.callspec.params['subject']}")
    assert error < 1e-7


def test_float32_is_as_good_as_pytorch_s(subject: Subject, request: pytest.FixtureRequest, report: Report) -> None:
    ours, theirs = float32_errors(subject)
    line = f"{ours:.1e} in ONNX Runtime, {theirs:.1e} in PyTorch  {request.node.callspec.params['subject']}"
    report(f"gradients of networks, largest float32 error over {ROWS} inputs", line)
    assert ours <= 3 * theirs


def test_trained_network(efficientnet_lite0: nn.Module, report: Report) -> None:
    subject = subject_of(trained(efficientnet_lite0), photographs(ROWS))
    error, (ours, theirs) = float64_error(subject, 3), float32_errors(subject)
    report("gradients of networks against PyTorch, float64", f"{error:.1e}  efficientnet-lite0, trained")
    line = f"{ours:.1e} in ONNX Runtime, {theirs:.1e} in PyTorch  efficientnet-lite0, trained"
    report(f"gradients of networks, largest float32 error over {ROWS} inputs", line)
    assert error < 1e-7
    assert ours <= 3 * theirs


def float64_error(subject: Subject, rows: int) -> float:
    """Largest error of the first rows, relative to each row's largest gradient, in the reference evaluator."""
    feeds = {"x": subject.x[:rows].numpy(), "seed/y": subject.seed[:rows].numpy()}
    gradient = Reference(subject.differentiated)(feeds, [subject.output])[subject.output]
    return float(np.max(relative(gradient, subject.gradient[:rows])))


def float32_errors(subject: Subject) -> tuple[float, float]:
    """Largest error over all rows of ONNX Runtime's gradient and of PyTorch's own, both in float32."""
    graph = to_float32(subject.differentiated)
    ours = np.concatenate(
        [
            run_onnxruntime(graph, {"x": x.numpy(), "seed/y": seed.numpy()}, [subject.output])[subject.output]
            for x, seed in zip(torch.split(subject.x, 5), torch.split(subject.seed, 5), strict=True)
        ]
    )
    single = copy.deepcopy(subject.network.module).float()
    x = subject.x.float() if subject.x.is_floating_point() else subject.x
    theirs = autograd(single, x, subject.seed.float())
    return float(np.max(relative(ours, subject.gradient))), float(np.max(relative(theirs, subject.gradient)))


def relative(a: Array, b: Array) -> Array:
    """Per row: the largest difference over the largest entry of b."""
    axes = tuple(range(1, b.ndim))
    error: Array = np.max(np.abs(a.astype(np.float64) - b), axes) / np.max(np.abs(b), axes)
    return error
