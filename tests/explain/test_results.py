"""What a request gives back, against PyTorch on the same weights."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from onnxplain import METHODS, Explanation, Model
from onnxplain.errors import BadRequest
from tests import models
from tests.explain import reference
from tests.explain.conftest import Loaded
from tests.explain.reference import DRAW, F32, X


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_one_map_per_row_and_says_all_about_itself(cnn: Model, method: str) -> None:
    e = cnn.explain(X, method)
    assert list(e.attributions) == ["x"]
    assert e.attributions["x"].shape == (3, 1 if "cam" in method and method != "guided_grad_cam" else 3, 12, 10)
    assert e.attributions["x"].dtype == np.float32
    assert e.scores.shape == e.converged.shape == (3,)
    assert e.converged.all()
    assert e.targets == cnn.predict(X)["z"].argmax(axis=1).tolist()
    assert set(e.options) >= {option.name for option in METHODS[method].options}
    assert (e.method, e.output, e.provider, e.warnings) == (method, "z", "cpu", [])
    assert e.model_digest == cnn.manifest.digest
    assert e.versions["numpy"] == np.__version__
    assert e.n_rows >= 3
    again = cnn.explain(X, method, seed=e.seed)
    np.testing.assert_array_equal(again.attributions["x"], e.attributions["x"])


@pytest.mark.parametrize(
    ("target", "score"),
    [
        (2, lambda y: y[:, 2]),
        ([1, 4, 0], lambda y: y[[0, 1, 2], [1, 4, 0]]),
        (np.array([1, 4, 0]), lambda y: y[[0, 1, 2], [1, 4, 0]]),
        ((3, 1), lambda y: y[:, 3] - y[:, 1]),
        ("top", lambda y: y.max(dim=1).values),
        (np.array([0.5, 0, -2, 0, 0.1]), lambda y: y @ torch.tensor([0.5, 0, -2, 0, 0.1])),
        ([(0, 1), "top", 2], lambda y: torch.stack([y[0, 0] - y[0, 1], y[1].max(), y[2, 2]])),
    ],
)
def test_targets(cnn: Model, target: Any, score: Callable[[torch.Tensor], torch.Tensor]) -> None:
    e = cnn.explain(X, target=target)
    np.testing.assert_allclose(e.attributions["x"], reference.gradient(X, score), atol=F32)
    np.testing.assert_allclose(e.scores, score(reference.cnn(torch.from_numpy(X))).numpy(), atol=F32)


def test_a_margin_over_the_top_class_is_fixed_on_the_clean_input(cnn: Model) -> None:
    y = cnn.predict(X)["z"]
    weakest = y.argmin(axis=1).tolist()
    e = cnn.explain(X, "smoothgrad", target=[("top", k) for k in weakest], n_samples=5)
    assert e.targets == list(zip(y.argmax(axis=1).tolist(), weakest, strict=True))
    np.testing.assert_allclose(e.scores, y.max(axis=1) - y.min(axis=1), atol=F32)


def test_another_output(cnn: Model) -> None:
    e = cnn.explain(X, target=1, output="p")
    np.testing.assert_allclose(e.attributions["x"], reference.gradient(X, lambda y: y.softmax(dim=1)[:, 1]), atol=F32)
    assert e.output == "p"


def test_predict(cnn: Model) -> None:
    y = reference.cnn(torch.from_numpy(X))
    got = cnn.predict(X)
    np.testing.assert_allclose(got["z"], y.numpy(), atol=F32)
    np.testing.assert_allclose(got["p"], y.softmax(dim=1).numpy(), atol=F32)
    assert list(cnn.predict(X, outputs=("p",))) == ["p"]


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "guided_grad_cam"])
def test_a_row_alone_is_the_row_among_others(cnn: Model, method: str) -> None:
    together = cnn.explain(X, method, target=[4, 0, 2])
    for k, target in enumerate([4, 0, 2]):
        alone = cnn.explain(X[k : k + 1], method, target=target)
        np.testing.assert_allclose(alone.attributions["x"][0], together.attributions["x"][k], atol=F32)
        assert alone.scores[0] == pytest.approx(together.scores[k], abs=F32)


def test_rows_have_noise_of_their_own_and_seeds_differ(cnn: Model) -> None:
    same = np.repeat(X[:1], 2, axis=0)
    e = cnn.explain(same, "smoothgrad", seed=3)
    assert np.abs(e.attributions["x"][0] - e.attributions["x"][1]).max() > 1e-4
    other = cnn.explain(same, "smoothgrad", seed=4)
    assert np.abs(e.attributions["x"] - other.attributions["x"]).max() > 1e-4
    first, second = cnn.explain(same, "smoothgrad"), cnn.explain(same, "smoothgrad")
    assert first.seed != second.seed


def test_tolerance(cnn: Model) -> None:
    e = cnn.explain(X, "integrated_gradients", n_steps=5, tolerance=0.02)
    assert e.error is not None
    assert e.converged.all() and (e.error["x"] <= 0.02).all()
    stopped = cnn.explain(X, "smoothgrad", n_samples=10, tolerance=1e-4, max_rows=40)
    assert not stopped.converged.any()
    assert "stopped by max_rows=40 before the tolerance was reached, row 0, 1, 2" in stopped.warnings


def test_two_inputs_share_the_score(loaded: Loaded) -> None:
    a, b = DRAW.normal(size=(2, 4)).astype(np.float32), DRAW.normal(size=(2, 3)).astype(np.float32)
    e = loaded(models.TWO_INPUTS).explain({"a": a, "b": b}, "integrated_gradients", target=1)
    assert {name: map_.shape for name, map_ in e.attributions.items()} == {"a": (2, 4), "b": (2, 3)}
    assert e.convergence_delta is not None
    np.testing.assert_allclose(e.convergence_delta, 0.0, atol=1e-5)  # smooth: Gauss-Legendre is exact to float32


def test_an_embedding_stands_for_its_integer_input(loaded: Loaded) -> None:
    model = loaded(models.TEXT)
    ids, mask = np.array([[3, 7, 7, 1], [0, 2, 19, 5]]), np.array([[1, 1, 1, 0], [1, 1, 1, 1]])
    w = reference.weights(models.TEXT)

    def score(embedded: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(embedded @ w["w1"]) * torch.from_numpy(mask)[..., None].float()
        return (hidden.sum(dim=1) @ w["w2"])[:, 1]

    embedded = w["table"][torch.from_numpy(ids)].requires_grad_()
    (gradient,) = torch.autograd.grad(score(embedded).sum(), embedded)
    e = model.explain({"ids": ids, "mask": mask}, target=1)
    np.testing.assert_allclose(e.attributions["ids"], gradient.numpy(), atol=F32)
    pad = np.full_like(ids, 9)
    ig = model.explain({"ids": ids, "mask": mask}, "integrated_gradients", target=1, baseline={"ids": pad})
    assert ig.baseline_scores is not None and ig.convergence_delta is not None
    with torch.no_grad():
        np.testing.assert_allclose(ig.baseline_scores, score(w["table"][torch.from_numpy(pad)]).numpy(), atol=F32)
    np.testing.assert_allclose(ig.convergence_delta, 0.0, atol=1e-5)
    assert not ig.attributions["ids"][0, 3].any(), "a masked token changes nothing"


def test_positions_and_open_axes(loaded: Loaded) -> None:
    model = loaded(models.SEGMENTER)
    x = X[:2, :, :5, :7]
    e = model.explain(x, target=(2, 4, 6))
    y = model.predict(x)["y"]
    np.testing.assert_allclose(e.scores, y[:, 2, 4, 6], atol=F32)
    assert e.targets == [(2, 4, 6)] * 2
    assert not e.attributions["x"][:, :, :3].any() and e.attributions["x"][:, :, 3:, 5:].all(), "3 x 3 around (4, 6)"
    assert model.explain(x).targets == [np.unravel_index(row.argmax(), row.shape) for row in y]
    weights = np.zeros((4, 5, 7))
    weights[1] = 1.0
    np.testing.assert_allclose(model.explain(x, target=weights).scores, y[:, 1].sum(axis=(1, 2)), atol=1e-5)
    with pytest.raises(BadRequest, match=r"\(4, 0, 0\) is out of range: output 'y' has shape \[4, 5, 7\]"):
        model.explain(x, target=(4, 0, 0))


def test_channels_last(loaded: Loaded) -> None:
    x = DRAW.normal(size=(2, 8, 10, 3)).astype(np.float32)
    model = loaded(models.CHANNELS_LAST)
    assert model.explain(x, "grad_cam").attributions["x"].shape == (2, 8, 10, 1)
    assert model.explain(x, "guided_grad_cam").attributions["x"].shape == (2, 8, 10, 3)


def test_coupled_rows_are_explained_one_by_one(loaded: Loaded) -> None:
    model, x = loaded(models.COUPLED), DRAW.normal(size=(3, 3)).astype(np.float32)
    e = model.explain(x, "integrated_gradients", target=1)
    alone = [model.explain(x[k : k + 1], "integrated_gradients", target=1) for k in range(3)]
    np.testing.assert_allclose(e.attributions["x"], [each.attributions["x"][0] for each in alone], atol=F32)
    assert "influence each other" in e.warnings[0] and not alone[0].warnings


def test_calls_from_many_threads_are_each_what_they_are_alone(cnn: Model) -> None:
    asked = [
        (method, k)
        for method in ("gradient", "integrated_gradients", "smoothgrad", "guided_grad_cam")
        for k in range(3)
    ]

    def call(method: str, k: int) -> Explanation:
        return cnn.explain(X[k : k + 1], method, target=k, seed=k)

    alone = [call(*each) for each in asked]
    with ThreadPoolExecutor(len(asked)) as pool:
        together = list(pool.map(lambda each: call(*each), asked))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one.attributions["x"], other.attributions["x"], atol=F32)
        assert (one.targets, one.seed, one.n_rows) == (other.targets, other.seed, other.n_rows)
