"""The whole audit on a small convolutional network."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pytest

from onnxplain.engine import Engine, Scheduler
from onnxplain.errors import BadModel, BadRequest, NotFound
from onnxplain.explain import Model
from onnxplain.sanity.audit import Audit, audit
from onnxplain.sanity.bench import Bench
from onnxplain.sanity.options import Options
from onnxplain.sanity.parameters import Parameters, parameters
from onnxplain.sanity.policy import Policy
from onnxplain.sanity.randomise import Randomiser
from onnxplain.sanity.record import record
from onnxplain.sanity.similarity import MEASURES, spearman
from onnxplain.sanity.specimens import Specimen, batches
from tests import models
from tests.sanity.nets import DIGITS, artifact, blobs

FEW = {"smoothgrad": {"n_samples": 4}, "integrated_gradients": {"n_steps": 8}}
METHODS = ("gradient", "integrated_gradients", "guided_backprop", "grad_cam")


@pytest.fixture(scope="module")
def done() -> Audit:
    return audit(artifact(DIGITS), blobs(4), Options(METHODS, FEW, draws=2, resamples=500), provider="cpu")


def test_randomising_nothing_gives_exactly_one() -> None:
    """Every measure of every method, noisy ones too: the same seed draws the same noise."""
    made, specimens = artifact(DIGITS), blobs(2)
    measures = tuple(name for name in MEASURES if not name.startswith("hog"))
    options = Options((*METHODS, "smoothgrad"), FEW, draws=1, measures=measures)
    with contextlib.closing(Scheduler()) as scheduler:
        bench = Bench(made, "cpu", scheduler, specimens, options, 1, None)
        trained, same = bench.trained(), bench.randomised(0, 0, {}, whole=False)
    assert trained is not None and same is not None
    np.testing.assert_array_equal(trained.entropy, same.entropy)
    for finding in bench.findings:
        for measure in measures:
            assert (finding.curves[measure] == 1.0).all(), (finding.method, measure)


def test_axes_levels_and_controls(done: Audit) -> None:
    assert [level.name.split("_")[0] for level in done.levels] == ["Gemm", "Conv", "Conv"]
    for finding in done.findings:
        assert {values.shape for values in finding.curves.values()} == {(3, 2, 4)}
        named = {"shuffled", "edges", "random_networks"}
        named |= {"input_times_noise"} if finding.method == "integrated_gradients" else set()
        assert set(finding.controls) == named
        assert len(finding.shown) == 2 and len(finding.shown[0]) == 4
        assert finding.shown[0][0].shape == (28, 28)
    assert done.entropy.shape == done.agreement.shape == (3, 2, 4)
    assert set(np.unique(done.agreement)) <= {0.0, 1.0}
    assert set(done.left_out) == {"hog_pearson"}


def test_a_network_randomised_everywhere_is_no_more_alike_than_two_random_ones(done: Audit) -> None:
    (gradient,) = [each for each in done.findings if each.method == "gradient"]
    last = done.bootstrap.interval(gradient.curves["spearman"][-1])
    two = done.bootstrap.interval(gradient.controls["random_networks"]["spearman"])
    assert last.low <= two.high and two.low <= last.high


def test_maps_times_a_sparse_input_are_alike_whatever_the_model(done: Audit) -> None:
    """The paper's 0.99 for integrated gradients: equal to the null, and gone off the baseline."""
    (found,) = [each for each in done.findings if each.method == "integrated_gradients"]
    similar = found.curves["spearman_abs"][-1].mean()
    null = found.controls["input_times_noise"]["spearman_abs"].mean()
    assert similar > 0.95 and similar == pytest.approx(null, abs=0.02)
    off = found.curves["spearman_abs_off_baseline"][-1].mean()
    assert off < 0.65 and off == pytest.approx(
        found.controls["input_times_noise"]["spearman_abs_off_baseline"].mean(), abs=0.12
    )


def test_by_magnitude_integrated_gradients_cannot_be_judged_here() -> None:
    options = Options(("integrated_gradients",), FEW, draws=2, judge="spearman_abs", measures=(), resamples=200)
    (finding,) = audit(artifact(DIGITS), blobs(3), options, provider="cpu").findings
    assert finding.verdict is not None and finding.verdict.verdict == "undecided"
    assert finding.verdict.null == "input_times_noise"


def test_verdicts_follow_the_curves(done: Audit) -> None:
    verdicts = {each.method: each.verdict for each in done.findings}
    gradient = verdicts["gradient"]
    assert gradient is not None and gradient.verdict == "sensitive" and gradient.retained.high < 0.5


def test_a_blind_method_is_insensitive() -> None:
    """Only the last layer is randomised: a CAM over the first layer's maps of one channel does not see it."""
    text = f"""{models.HEADER} blind (float[N, 1, 12, 12] x) => (float[N, 3] z)
    <float[1, 1, 3, 3] w1, float[144, 3] w2> {{
        c1 = Conv <pads = [1, 1, 1, 1]> (x, w1)  r1 = Relu(c1)  v = Flatten(r1)  z = MatMul(v, w2)
    }}"""
    rng = np.random.default_rng(0)
    images = [Specimen(str(k), {"x": rng.random((1, 1, 12, 12), np.float32)}) for k in range(3)]
    options = Options(
        ("grad_cam", "gradient"), {"grad_cam": {"relu": False}}, draws=4, order="independent", blocks=("w2",),
        measures=(), judge="spearman_abs", resamples=200,
    )  # fmt: skip
    done = audit(artifact(text), images, options, provider="cpu")
    assert [level.names for level in done.levels] == [("w1",), ("w2",)]
    top = {each.method: each.curves["spearman_abs"][1].mean() for each in done.findings}
    assert top["grad_cam"] == pytest.approx(1.0) and top["gradient"] < 0.5


@pytest.mark.parametrize("classes", ["fixed", "rerank"])
def test_the_class_policy_decides_what_is_explained(classes: str) -> None:
    """On a linear model the gradient is a class's column of the weights: which one was explained can be read off."""
    made = artifact(models.LINEAR)
    images = [
        Specimen(str(k), {"x": np.random.default_rng(k).normal(size=(1, 4)).astype(np.float32)}) for k in range(6)
    ]
    options = Options(
        ("gradient",), draws=1, classes=classes, measures=("cosine",), policy=Policy(std=1.0), resamples=100
    )
    done = audit(made, images, options, provider="cpu")
    (finding,) = done.findings
    (name,) = done.levels[0].names
    weights = Randomiser(made, parameters(made), options.policy, 0).weights([name], 0)
    old = made.model.graph.initializers[name].const_value
    assert old is not None
    before = old.numpy()
    with Model(made, Engine(made, "cpu", weights=weights)) as model:
        tops = [int(model.predict(each.arrays)["y"][0].argmax()) for each in images]
    explained = finding.targets if classes == "fixed" else tops
    assert tops != finding.targets  # else nothing is told apart
    for k, target in enumerate(explained):
        a, b = before[:, finding.targets[k]], weights[name][:, target]
        wanted = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert finding.curves["cosine"][0, 0, k] == pytest.approx(wanted, abs=1e-5)
    assert (done.agreement[0, 0] == [top == target for top, target in zip(tops, finding.targets, strict=True)]).all()


def test_the_record_is_plain_json_and_repeats_the_audit(done: Audit) -> None:
    kept = json.loads(json.dumps(record(done), allow_nan=False))
    again = audit(artifact(DIGITS), blobs(4), Options.of_record(kept["options"]), provider="cpu")
    assert json.loads(json.dumps(record(again))) == kept
    assert kept["model"]["digest"] == done.digest and len(kept["images"][0]["sha256"]) == 64
    assert {"onnxplain", "numpy", "scipy", "scikit-image"} <= set(kept["versions"])
    values = np.array(kept["methods"][0]["curves"]["spearman"]["values"], float)
    np.testing.assert_array_equal(values, done.findings[0].curves["spearman"])


def test_a_draw_does_not_depend_on_how_many_there_are(done: Audit) -> None:
    one = audit(artifact(DIGITS), blobs(4), Options(METHODS, FEW, draws=1, resamples=100), provider="cpu")
    for first, second in zip(one.findings, done.findings, strict=True):
        np.testing.assert_array_equal(first.curves["spearman"][:, 0], second.curves["spearman"][:, 0])


def test_guided_backpropagation_of_a_random_network_shows_the_input_and_the_gradient_does_not() -> None:
    """Nie et al. 2018 (arXiv:1805.07039): both on a network of one wide random layer."""
    text = f"""{models.HEADER} wide (float[N, 1, 10, 10] x) => (float[N, 3] z)
    <float[3000, 1, 10, 10] w1, float[3000, 3] w2> {{
        c1 = Conv (x, w1)  r1 = Relu(c1)  v = Flatten(r1)  z = MatMul(v, w2)
    }}"""
    made, x = artifact(text), np.random.default_rng(5).random((1, 1, 10, 10)).astype(np.float32)
    with Model(made, Engine(made, "cpu")) as model:
        alike = {m: spearman(model.explain(x, m).attributions["x"], x) for m in ("guided_backprop", "gradient")}
    assert alike["guided_backprop"] > 0.5 > 0.3 > abs(alike["gradient"])


def test_progress_counts_every_map(done: Audit) -> None:
    told: list[tuple[int, int]] = []
    options = Options(("gradient", "grad_cam"), draws=2, measures=(), resamples=100)
    audit(artifact(DIGITS), blobs(1), options, provider="cpu", progress=lambda *each: told.append(each))
    assert told[-1] == (14, 14) and [done for done, _ in told] == list(range(1, 15))


def test_methods_that_the_model_does_not_have_are_named_and_images_of_several_sizes_go_apart() -> None:
    found = audit(
        artifact(models.SEGMENTER), [_any(6, 7), _any(9, 8), _any(6, 7)],
        Options(("gradient", "cam"), target=(1, 2, 3), draws=1, measures=("ssim",), resamples=100), provider="cpu",
    )  # fmt: skip
    assert set(found.left_out) == {"cam"} and [each.method for each in found.findings] == ["gradient"]
    assert found.trained is None and np.isnan(found.entropy).all()  # a segmentation has no single class
    manifest = artifact(models.SEGMENTER).manifest
    assert [places for places, _ in batches(manifest, [_any(6, 7), _any(9, 8), _any(6, 7)])] == [[0, 2], [1]]


def _any(height: int, width: int) -> Specimen:
    return Specimen("any", {"x": np.random.default_rng(height).random((1, 3, height, width), np.float32)})


def test_bad_input() -> None:
    made = artifact(DIGITS)
    with pytest.raises(BadRequest, match="no image"):
        audit(made, [])
    with pytest.raises(BadModel, match="nothing to randomise"):
        audit(artifact(models.TWIN_F), [Specimen("x", {"x": np.ones((1, 2), np.float32)})])
    with pytest.raises(BadRequest, match="nothing would change"):
        linear = artifact(models.LINEAR)
        Randomiser(linear, Parameters((), ()), Policy(), 0)
    with pytest.raises(BadRequest, match="is out of range"):
        audit(made, blobs(1), Options(("gradient",), target=7), provider="cpu")
    wrongs: list[dict[str, Any]] = [
        {"order": "down"}, {"classes": "top"}, {"draws": 0}, {"methods": ()}, {"limit": 1.0}, {"seed": -1},
    ]  # fmt: skip
    for wrong in wrongs:
        with pytest.raises(BadRequest):
            Options(**wrong)
    with pytest.raises(NotFound, match="gradient"):
        Options(("gradeint",))
    with pytest.raises(BadRequest, match="cannot be read"):
        Options.of_record({"methods": []})
