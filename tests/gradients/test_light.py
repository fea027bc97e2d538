"""The networks inside the onnx package, opset 9 as they are, against central differences in float64."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxplain_convert import differentiate
from tests.gradients.conftest import Report
from tests.gradients.light import NAMES, picture, redrawn
from tests.reference import Reference
from tests.reference.differences import central, projection

STEPS = (1e-8, 1e-7)
"""On a longer way some of a million ReLUs switch, on a shorter one rounding shows: the first that agrees will do."""

TOLERANCE = 1e-4
"""What is left of both where the gradient is weakest (inception_v2: 5e-5 of the probabilities); a wrong rule by 1."""


def test_there_are_nine() -> None:
    assert len(NAMES) == 9


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_the_central_difference(name: str, report: Report) -> None:
    model = redrawn(name)
    feeds = picture(model)
    (x,), y = feeds, model.graph.output[0].name
    differentiated = differentiate(model)
    onnx.checker.check_model(differentiated)
    forward = Reference(model)
    output = forward(feeds)[y]
    seed = np.random.default_rng(2).standard_normal(output.shape)
    values = Reference(differentiated)({**feeds, f"seed/{y}": seed})
    np.testing.assert_allclose(values[y], output, rtol=1e-10, err_msg="the network computes something else")

    gradient = values[f"gradient/{x}"]
    direction = np.random.default_rng(3).standard_normal(gradient.shape)
    along, told = projection(forward, feeds, x, direction, {y: seed}), np.sum(gradient * direction)
    error = min(abs(central(along, step) - told) for step in STEPS) / np.linalg.norm(gradient)
    report("gradients of the light networks against differences, float64", f"{error:.1e}  {name}")
    assert np.linalg.norm(gradient) > 0
    assert error < TOLERANCE
