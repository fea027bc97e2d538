"""Gradients of more architectures against PyTorch in float64 and float32, as in test_models.py; and other opsets."""

from __future__ import annotations

import dataclasses

import onnx
import pytest

from tests.gradients.architectures import ARCHITECTURES
from tests.gradients.conftest import Report
from tests.gradients.networks import Network
from tests.gradients.test_models import ROWS, Subject, float32_errors, float64_error, subject_of


@pytest.fixture(scope="module", params=ARCHITECTURES)
def subject(request: pytest.FixtureRequest) -> Subject:
    architecture = ARCHITECTURES[request.param]
    return subject_of(architecture.network(), architecture.inputs(ROWS))


def test_float64_is_pytorch_s(subject: Subject, request: pytest.FixtureRequest, report: Report) -> None:
    error = float64_error(subject, ROWS)
    report("gradients of networks against PyTorch, float64", f"{error:.1e}  {request.node.callspec.params['subject']}")
    assert error < 1e-7


def test_float32_is_as_good_as_pytorch_s(subject: Subject, request: pytest.FixtureRequest, report: Report) -> None:
    ours, theirs = float32_errors(subject)
    line = f"{ours:.1e} in ONNX Runtime, {theirs:.1e} in PyTorch  {request.node.callspec.params['subject']}"
    report(f"gradients of networks, largest float32 error over {ROWS} inputs", line)
    assert ours <= 3 * theirs


EXPORTS = [
    ("text_lstm", 9, False),
    ("inception_v3", 11, False),
    ("deit", 14, False),
    ("vgg16", 22, True),
    ("deit", 24, True),
]


@pytest.mark.parametrize(("name", "opset", "dynamo"), EXPORTS)
def test_exported_at_another_opset(name: str, opset: int, dynamo: bool, report: Report) -> None:
    architecture = dataclasses.replace(ARCHITECTURES[name], dynamo=dynamo)
    net = architecture.network(opset)
    assert net.model.opset_import[0].version == opset
    error = float64_error(subject_of(net, architecture.inputs(4)), 4)
    report("gradients of networks against PyTorch, float64", f"{error:.1e}  {name}, exported at opset {opset}")
    assert error < 1e-7


@pytest.fixture(scope="module")
def vgg16() -> Network:
    return ARCHITECTURES["vgg16"].network()


@pytest.mark.parametrize("opset", range(9, 25))
def test_every_opset(vgg16: Network, opset: int) -> None:
    """By the version converter, which has no way of its own below 14: there by the exporter."""
    architecture = ARCHITECTURES["vgg16"]
    if opset < 14:
        net = dataclasses.replace(architecture, dynamo=False).network(opset)
    else:
        net = Network(vgg16.module, onnx.version_converter.convert_version(vgg16.model, opset))
    assert net.model.opset_import[0].version == opset
    assert float64_error(subject_of(net, architecture.inputs(2)), 2) < 1e-7
