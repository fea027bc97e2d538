"""Wrong calls, warnings, and callers that go away."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxplain import Explanation, Model
from onnxplain.errors import BadRequest, Cancelled, DeadlineExceeded, LimitExceeded, NotFound, Unsupported
from tests import models
from tests.explain.conftest import Loaded
from tests.explain.reference import X


@pytest.mark.parametrize(
    ("error", "match", "asked"),
    [
        (NotFound, "no method 'integrated_gradient'; nearest: integrated_gradients", {"method": "integrated_gradient"}),
        (BadRequest, "has no option 'nsteps'; nearest: n_steps", {"method": "integrated_gradients", "nsteps": 3}),
        (BadRequest, "the least is 1", {"method": "integrated_gradients", "n_steps": 0}),
        (BadRequest, "the least is 1", {"method": "integrated_gradients", "n_steps": -5}),
        (BadRequest, "the most is 10000", {"method": "integrated_gradients", "n_steps": 10**9}),
        (BadRequest, "give a whole number", {"method": "integrated_gradients", "n_steps": 2.5}),
        (BadRequest, "give a whole number", {"method": "integrated_gradients", "n_steps": True}),
        (BadRequest, "nearest: riemann_right", {"method": "integrated_gradients", "quadrature": "rieman_right"}),
        (BadRequest, "'black' is a colour", {"method": "integrated_gradients", "baseline": "black"}),
        (BadRequest, "one of zero, black", {"method": "integrated_gradients", "baseline": "gray"}),
        (BadRequest, r"shape \[2, 2\]: give one row", {"method": "integrated_gradients", "baseline": np.ones((2, 2))}),
        (BadRequest, "none of the inputs", {"method": "integrated_gradients", "baseline": {"y": 0.0}}),
        (BadRequest, "finite", {"method": "smoothgrad", "noise_scale": float("nan")}),
        (BadRequest, "the least is 2", {"method": "smoothgrad", "n_samples": 1}),
        (BadRequest, "available: cam, deconvnet", {"method": "smoothgrad", "base": "smoothgrad"}),
        (LimitExceeded, "500000000 rows", {"method": "smoothgrad", "base": "integrated_gradients",
                                           "n_steps": 5000, "n_samples": 100_000}),
        (NotFound, "no layer 'Relu_9'; nearest: .*Relu_1", {"method": "grad_cam", "layer": "Relu_9"}),
        (NotFound, "no explained output 'q'", {"output": "q"}),
        (BadRequest, "seed=-1", {"seed": -1}),
        (BadRequest, "timeout=0", {"timeout": 0}),
        (BadRequest, "progress", {"progress": "yes"}),
        (BadRequest, r"target 5 is out of range: output 'z' has shape \[5\]", {"target": 5}),
        (BadRequest, "out of range", {"target": -2}),
        (BadRequest, "2 targets for 3 rows", {"target": [1, 2]}),
        (BadRequest, "over itself", {"target": (2, 2)}),
        (BadRequest, "none of: a class index", {"target": 1.5}),
        (NotFound, "no class 'cat'.*carries no class names", {"target": "cat"}),
        (BadRequest, "zero everywhere", {"target": np.zeros(5)}),
        (BadRequest, "weighting", {"target": np.ones(4)}),
    ],
)  # fmt: skip
def test_a_wrong_call_is_one_clear_error(cnn: Model, error: type[Exception], match: str, asked: dict[str, Any]) -> None:
    with pytest.raises(error, match=match):
        cnn.explain(X, **asked)


def test_a_margin_of_the_top_class_over_itself_is_seen_when_the_top_is_known(cnn: Model) -> None:
    top = int(cnn.predict(X[:1])["z"].argmax())
    for method in ("gradient", "smoothgrad"):
        with pytest.raises(BadRequest, match="over itself is zero"):
            cnn.explain(X[:1], method, target=("top", top))


def test_a_rule_set_that_the_artifact_lacks(loaded: Loaded) -> None:
    model = loaded(models.TWIN_F, rules=("gradient",))
    with pytest.raises(Unsupported, match=r"needs rule set 'guided'.*rules=\('gradient', 'guided'"):
        model.explain(np.ones((1, 2), np.float32), "guided_backprop")
    with pytest.raises(Unsupported, match="'guided_backprop' needs"):
        model.explain(np.ones((1, 2), np.float32), "smoothgrad", base="guided_backprop")


def test_a_layer_aside_of_the_path(loaded: Loaded) -> None:
    model = loaded(models.TEXT)
    aside = next(layer.name for layer in model.manifest.layers if layer.tensor == "m")
    ids = np.ones((1, 3), np.int64)
    with pytest.raises(BadRequest, match="not between the inputs and an explained output"):
        model.explain({"ids": ids, "mask": ids}, "grad_cam", layer=aside)
    with pytest.raises(BadRequest, match="no feature map with spatial axes"):
        model.explain({"ids": ids, "mask": ids}, "grad_cam")


def test_classes_by_name(loaded: Loaded) -> None:
    model = loaded(models.CNN, labels=("Cat", "dog", "cow", "hen", "pig"))
    assert model.explain(X, target="cat").targets == [0, 0, 0]
    with pytest.raises(NotFound, match="nearest: cow"):
        model.explain(X, target="crow")


def said(e: Explanation) -> str:
    return "; ".join(e.warnings)


def test_warnings(loaded: Loaded) -> None:
    linear = loaded(models.LINEAR)
    assert "this is the plain gradient" in said(linear.explain(np.ones((1, 4), np.float32), "guided_backprop"))
    constant = said(linear.explain(np.ones((1, 4), np.float32), "smoothgrad"))
    assert "constant in a row, so that noise as a fraction of max - min is none there: x" in constant
    twin = loaded(models.TWIN_F).explain(np.array([[3.0, 1.0], [0.0, 0.0]], np.float32))
    assert twin.warnings == ["the map is zero everywhere, of row 1"]
    endless = loaded(models.UNFIT).explain(np.array([[np.inf, 1.0]], np.float32), target=0, check_finite=False)
    assert "the model's output is not finite, of row 0" in endless.warnings
    unfit = loaded(models.UNFIT).explain(np.array([[4.0, 0.0]], np.float32), target=1)
    assert "1 of 1 rows had gradients that are not finite: taken as zero" in unfit.warnings


def test_cancelled_and_late(cnn: Model) -> None:
    with pytest.raises(Cancelled):
        cnn.explain(X, cancelled=lambda: True)
    with pytest.raises(DeadlineExceeded):
        cnn.explain(X, "integrated_gradients", n_steps=10_000, timeout=1e-3)
    assert cnn.explain(X, timeout=600.0).converged.all()


def test_progress_counts_every_row(cnn: Model) -> None:
    told: list[tuple[int, int]] = []
    e = cnn.explain(X, "integrated_gradients", n_steps=10, progress=lambda done, asked: told.append((done, asked)))
    assert told[-1] == (e.n_rows, e.n_rows)
    assert told == sorted(told)
    assert e.n_rows == 3 * (10 + 2)  # and the scores at both ends
