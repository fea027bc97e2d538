"""Converted networks: lowered programs, noise and paths together, against PyTorch's float64 autograd row by row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import onnxplain_convert
from onnxplain.artifact import Artifact
from onnxplain.engine import Engine, lowering
from onnxplain.engine.program import build
from onnxplain.rows import Job, Purpose, Round, Rows, Target
from tests.engine.artifacts import Array, line
from tests.engine.truth import displacement

SHAPE = (3, 17, 17)


class Residual(nn.Module):
    """Convolutions of every kind that is lowered and some that are not, gates, both poolings, a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.inner = nn.Sequential(
            nn.Conv2d(16, 32, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1, groups=32),
            nn.ReLU(),
            nn.Conv2d(32, 16, (5, 3), padding=(2, 1)),
        )
        self.grouped = nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=4)
        self.head = nn.Linear(16, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.relu(self.inner(x) + x)
        return self.head(torch.relu(self.grouped(x)).mean((2, 3)))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    net = Residual()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return net.eval()


@pytest.fixture(scope="module")
def converted(network: nn.Module) -> Artifact:
    return onnxplain_convert.convert(network, example=torch.randn(1, *SHAPE), rules=("gradient",))


def asked(artifact: Artifact, rows: Rows, seed: int) -> Job:
    rng = np.random.default_rng(seed)
    name, output = artifact.manifest.differentiated[0].name, artifact.manifest.default_output
    x = rng.normal(size=SHAPE).astype(np.float32)
    base = rng.normal(size=(1, *SHAPE)).astype(np.float32)
    purpose = Purpose(output, "gradient", (name,))
    return Job(Round(purpose, rows), {name: x}, {name: base}, Target((2,)), seed, {name: 4.0})


def maps(network: nn.Module, job: Job) -> Array:
    """Per row the gradient times the displacement (where asked for), in float64."""
    (name,) = job.round.purpose.wrt
    moved = np.stack([displacement(job, r, name) for r in range(len(job.round.rows))])
    points = torch.tensor(job.baselines[name] + job.round.rows.alpha[:, None, None, None] * moved, requires_grad=True)
    network = network.double()
    (gradient,) = torch.autograd.grad(network(points)[:, 2].sum(), points)
    network.float()
    return gradient.numpy() * (moved if job.round.rows.multiply else 1.0)


ROWS: dict[str, Callable[[], Rows]] = {
    "gradient": lambda: Rows.table([1.0]),
    "integrated gradients": lambda: line(20),
    "smoothgrad": lambda: Rows.table([1.0]).repeated(12, 0.15),
    "vargrad of integrated gradients": lambda: line(5).repeated(6, 0.15),
}


def relative(got: Any, expected: Array) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("kind", ROWS)
def test_moments_are_those_of_pytorchs_gradients(network: nn.Module, converted: Artifact, kind: str) -> None:
    job = asked(converted, ROWS[kind](), seed=3)
    with Engine(converted, "cpu") as engine:
        outcome = engine.submit(job).result(120)
    rows, gradients = job.round.rows, maps(network, job)
    samples = np.stack(
        [np.tensordot(rows.weight[rows.sample == s], gradients[rows.sample == s], 1) for s in np.unique(rows.sample)]
    )
    moments = outcome.moments[job.round.purpose.wrt[0]]
    assert relative(moments.mean, samples.mean(0)) < 1e-5  # float32 through nine layers
    if len(samples) > 1:
        assert relative(moments.variance, samples.var(0)) < 1e-4


def test_the_lowered_program_gives_what_the_program_gives(converted: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [asked(converted, rows(), seed) for seed, rows in enumerate(ROWS.values())]
    (name,) = jobs[0].round.purpose.wrt
    with Engine(converted, "cpu") as engine:
        lowered = [engine.submit(job).result(120).moments[name] for job in jobs]
    with monkeypatch.context() as patched:
        patched.setattr(lowering, "lower", lambda model, provider: None)
        with Engine(converted, "cpu") as engine:
            plain = [engine.submit(job).result(120).moments[name] for job in jobs]
    for a, b in zip(lowered, plain, strict=True):
        assert relative(a.mean, b.mean) < 1e-5


def test_what_is_lowered(converted: Artifact) -> None:
    program = build(converted, asked(converted, line(2), 0).round.purpose)
    before = [node.op_type for node in program.model.graph]
    lowering.lower(program.model, "cpu")
    after = [node.op_type for node in program.model.graph]
    assert before.count("ConvTranspose") == 5
    assert "ConvTranspose" not in after
    # The gates, but for those whose gradient comes from the poolings.
    assert before.count("Greater") - after.count("Greater") == 3


def test_every_row_count_and_company(converted: Artifact) -> None:
    jobs = [asked(converted, rows(), seed) for seed, rows in enumerate(list(ROWS.values()) * 2)]
    (name,) = jobs[0].round.purpose.wrt
    with Engine(converted, "cpu", max_rows=1) as engine:
        alone = [engine.submit(job).result(120).moments[name].mean for job in jobs]
    with Engine(converted, "cpu", max_rows=5) as engine:
        together = [future.result(120).moments[name].mean for future in [engine.submit(job) for job in jobs]]
    for a, b in zip(together, alone, strict=True):
        assert relative(a, b) < 1e-6
    again = replace(jobs[2], seed=99)
    with Engine(converted, "cpu") as engine:
        assert relative(engine.submit(again).result(120).moments[name].mean, alone[2]) > 1e-3
