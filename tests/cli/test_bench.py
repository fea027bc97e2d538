"""`bench`: a table of a user's own model; nothing is asserted about times."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxplain.artifact import TensorSpec
from onnxplain.cli.bench import random_feeds
from onnxplain.errors import BadRequest
from tests.cli.conftest import run


def test_a_line_for_the_forward_pass_and_every_method(net: Path) -> None:
    said = run(
        "bench", net, "--calls", "2", "--concurrent", "2", "-m", "gradient", "-m", "smoothgrad", "--n-samples", "4"
    )
    lines = {line.split()[0]: line.split() for line in said.stdout.splitlines() if line}
    assert lines["forward"][1:3] == ["2", "1"]
    assert lines["forward"][6] == "1.0"
    assert lines["gradient"][1:3] == ["2", "1"]
    assert lines["smoothgrad"][2] == "5", "four noisy copies, as asked, and one for the score"
    assert all(float(value) > 0 for value in lines["gradient"][2:])


def test_a_method_that_the_model_cannot_have_does_not_stop_the_others(net: Path) -> None:
    said = run("bench", net, "--calls", "2", "-m", "gradient", "-m", "grad_cam", "--layer", "nowhere")
    assert "warning: grad_cam not measured: no layer 'nowhere'" in said.stderr
    assert "gradient" in said.stdout
    run("bench", net, "--calls", "2", "-m", "grad_cam", "--layer", "nowhere", status=2)


def test_slow_methods_end_by_the_clock(net: Path) -> None:
    said = run("bench", net, "-m", "gradient", "--seconds", "0")
    assert said.stdout.split("gradient")[1].split()[0] == "2", "the least that gives a percentile"


def test_random_input_fits_the_model() -> None:
    inputs = (TensorSpec("ids", "int64", ("n", "length")), TensorSpec("x", "float32", (None, 3, 4)))
    feeds = random_feeds(inputs, {"length": 7})
    assert feeds["ids"].shape == (1, 7)
    assert feeds["ids"].dtype == "int64"
    assert feeds["x"].shape == (1, 3, 4)
    with pytest.raises(BadRequest, match="--size-of length=N"):
        random_feeds(inputs, {})
