"""Inputs of every kind, baselines and presets end to end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxplain import Model
from onnxplain.artifact import Preprocessing
from onnxplain.errors import BadRequest, NotFound
from tests import models
from tests.explain.conftest import Loaded
from tests.explain.reference import F32, X


def test_preset_of_a_paper(cnn: Model) -> None:
    e = cnn.explain(X, "integrated_gradients", preset="sundararajan2017", n_steps=40)
    assert (e.output, e.options["quadrature"], e.options["n_steps"]) == ("p", "riemann_right", 40)
    assert e.options["preset"] == "sundararajan2017"
    with pytest.raises(BadRequest, match="nothing for method 'vargrad'"):
        cnn.explain(X, "vargrad", preset="sundararajan2017")
    with pytest.raises(NotFound, match="adebayo2018"):
        cnn.explain(X, preset="adebayo2019")


def test_baselines_in_pixel_space(loaded: Loaded) -> None:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
    how = Preprocessing("NCHW", "RGB", (12, 10), mean, std)
    model = loaded(models.CNN, preprocessing=how)

    def at(colour: NDArray[Any]) -> NDArray[Any]:
        return model.predict(np.broadcast_to(colour, X.shape).astype(np.float32))["z"][:, 2]

    def baseline_scores(baseline: Any) -> NDArray[Any]:
        e = model.explain(X, "integrated_gradients", target=2, n_steps=2, baseline=baseline)
        assert e.baseline_scores is not None
        return e.baseline_scores

    black = -np.array(mean)[:, None, None] / np.array(std)[:, None, None]
    white = black + 1 / np.array(std)[:, None, None]
    for name, want in {
        "zero": np.zeros(1),
        "black": black,
        "white": white,
        "mean": X.mean(axis=(2, 3), keepdims=True),
    }.items():
        np.testing.assert_allclose(baseline_scores(name), at(want), atol=F32, err_msg=name)
    np.testing.assert_allclose(baseline_scores(0.25), at(np.full(1, 0.25)), atol=F32)
    np.testing.assert_allclose(baseline_scores(X[::-1]), model.predict(X[::-1])["z"][:, 2], atol=F32)
    flat = np.ones_like(X)
    blurred = model.explain(flat, "integrated_gradients", target=2, baseline="blur")
    np.testing.assert_allclose(blurred.attributions["x"], 0.0, atol=F32)  # one colour's blur is it, at the edges too
