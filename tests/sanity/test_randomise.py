"""Parameters drawn anew: which, how, and that the backward pass follows the forward pass."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

import onnxplain
from onnxplain.artifact import Artifact
from onnxplain.engine import Engine
from onnxplain.errors import BadModel, BadRequest, NotFound
from onnxplain.explain import Model
from onnxplain.sanity.levels import grouped, levels
from onnxplain.sanity.parameters import parameters
from onnxplain.sanity.policy import PRESETS, TRUNCATED_STD, Policy, preset
from onnxplain.sanity.randomise import Randomiser, randomised, save
from onnxplain.sanity.values import dequantised, truncated_normal
from onnxplain_convert import convert
from tests import models
from tests.sanity.nets import CONSTANTS, NORMALISED, QDQ, artifact

KEEP = Policy(biases="keep", normalisation="keep")


def drawn(made: Artifact, policy: Policy | None = None, draw: int = 0, seed: int = 0) -> dict[str, Any]:
    found = parameters(made)
    return Randomiser(made, found, policy or Policy(), seed).weights([p.name for p in found], draw)


def stored(made: Artifact, name: str) -> Any:
    tensor = made.model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


def test_layers_in_execution_order_with_roles() -> None:
    found = parameters(artifact(NORMALISED))
    assert [block.names for block in found.blocks] == [
        ("w1", "b1"), ("gamma", "beta", "mean", "variance"), ("shared",), ("shared",), ("w2",),
    ]  # fmt: skip
    roles = {p.name: p.role for p in found}
    assert roles == {
        "w1": "weight", "b1": "bias", "gamma": "scale", "beta": "shift", "mean": "mean", "variance": "variance",
        "shared": "weight", "w2": "weight",
    }  # fmt: skip
    assert {p.name: (p.fan_in, p.fan_out) for p in found if p.role == "weight"} == {
        "w1": (18, 54), "shared": (54, 54), "w2": (6, 4),
    }  # fmt: skip
    assert found.unowned == ()


def test_a_bias_that_is_added_after_a_product_belongs_to_it() -> None:
    """A bias moves no gradient: as a level of its own it would count as a map that did not change."""
    text = f"""{models.HEADER} dense (float[N, 3] x) => (float[N, 2] y)
    <float[3, 4] w1, float[4] b1, float[4] c, float[4, 2] w2> {{
        m = MatMul(x, w1)  a = Add(m, b1)  t = Tanh(a)  s = Add(t, c)  y = MatMul(s, w2)
    }}"""
    blocks = parameters(artifact(text)).blocks
    assert [block.names for block in blocks] == [("w1", "b1"), ("c",), ("w2",)]
    assert len(blocks[0].layers) == 2 and blocks[0].name == blocks[0].layers[0]


@pytest.mark.parametrize("draw", [0, 1])
def test_forward_and_backward_change_together(draw: int) -> None:
    """The gradient of a randomised model against central differences of the same randomised model."""
    made = artifact(NORMALISED)
    x = np.random.default_rng(draw).normal(size=(1, 2, 8, 8)).astype(np.float32)
    with Model(made, Engine(made, "cpu")) as trained:
        before = trained.explain(x, target=1).attributions["x"]
    with Model(made, Engine(made, "cpu", weights=drawn(made, draw=draw))) as model:
        gradient = model.explain(x, target=1).attributions["x"]
        way = gradient / np.linalg.norm(gradient)
        step = np.float32(2**-4)
        ends = [float(model.predict(x + sign * step * way)["y"][0, 1]) for sign in (1, -1)]
    slope = float(np.linalg.norm(gradient))
    # Scores are rounded to 1e-7; along the gradient the third derivative adds well below one part in a hundred.
    assert slope == pytest.approx((ends[0] - ends[1]) / (2 * float(step)), rel=1e-2)
    assert slope != pytest.approx(float((before * way).sum()), rel=0.5)


def test_randomising_is_repeatable_alone_and_streams_differ() -> None:
    made = artifact(NORMALISED)
    everything = drawn(made, draw=3, seed=7)
    found = parameters(made)
    for name, values in everything.items():
        alone = Randomiser(made, found, Policy(), 7).weights([name], 3)[name]
        np.testing.assert_array_equal(alone, values)
    for other in (drawn(made, draw=4, seed=7), drawn(made, draw=3, seed=8)):
        assert all((other[name] != everything[name]).any() for name in everything)
    # The gamma and beta of a layer have one shape and must not have one stream.
    assert abs(np.corrcoef(everything["gamma"], everything["beta"])[0, 1]) < 0.9


def test_no_override_gives_the_same_maps_to_the_bit() -> None:
    made = artifact(NORMALISED)
    x = np.random.default_rng(0).normal(size=(2, 2, 8, 8)).astype(np.float32)
    own = {name: stored(made, name) for name in ("w1", "shared")}
    with Model(made, Engine(made, "cpu")) as one, Model(made, Engine(made, "cpu", weights=own)) as two:
        np.testing.assert_array_equal(one.explain(x).attributions["x"], two.explain(x).attributions["x"])


def test_values_at_the_originals_scale_at_a_fixed_std_and_by_fan_in() -> None:
    # 100000 values: the standard error of a standard deviation is 0.2 %.
    unit = truncated_normal(np.random.default_rng(0), (100_000,))
    assert np.abs(unit).max() <= 2
    assert unit.std() == pytest.approx(TRUNCATED_STD, rel=0.01)
    wide = f"""{models.HEADER} wide (float[N, 300] x) => (float[N, 200] y)
    <float[300, 200] w, float[200] b> {{ m = MatMul(x, w)  y = Add(m, b) }}"""
    made = artifact(wide)
    rms = float(np.sqrt(np.mean(stored(made, "w") ** 2)))
    wanted = {
        Policy(): rms,
        Policy(std=0.01): 0.01 * TRUNCATED_STD,
        Policy(values="he"): np.sqrt(2 / 300),
        Policy(values="he", gain=1.0): np.sqrt(1 / 300),
        Policy(values="glorot"): np.sqrt(2 / 500),
    }
    for policy, std in wanted.items():
        new = drawn(made, policy)["w"]
        assert new.dtype == np.float32
        assert new.std() == pytest.approx(std, rel=0.02)
        assert abs(new.mean()) < 5 * std / np.sqrt(new.size)
    np.testing.assert_array_equal(
        np.sort(drawn(made, Policy(values="permute"))["w"], None), np.sort(stored(made, "w"), None)
    )
    assert "b" in Randomiser(made, parameters(made), Policy(values="he"), 0).notes[-1]


def test_each_option_moves_what_it_names() -> None:
    made = artifact(NORMALISED)
    assert set(drawn(made, KEEP)) == {"w1", "shared", "w2"}
    assert set(drawn(made, dataclasses.replace(KEEP, biases="random"))) == {"w1", "b1", "shared", "w2"}
    reset = drawn(made, dataclasses.replace(KEEP, normalisation="reset", statistics="reset"))
    assert (reset["gamma"] == 1).all() and (reset["beta"] == 0).all()
    assert (reset["mean"] == 0).all() and (reset["variance"] == 1).all()
    assert (drawn(made, dataclasses.replace(KEEP, biases="constant", bias_value=0.1))["b1"] == np.float32(0.1)).all()


def test_presets_are_the_papers_two_conventions() -> None:
    made = artifact(NORMALISED)
    paper, code = drawn(made, preset("adebayo-paper")), drawn(made, preset("adebayo-code"))
    assert np.abs(paper["shared"]).max() <= 0.02 and paper["shared"].std() == pytest.approx(0.0088, rel=0.1)
    assert np.abs(code["shared"]).max() <= 0.2 and code["shared"].std() == pytest.approx(0.088, rel=0.1)
    assert (code["b1"] == np.float32(0.1)).all() and (code["gamma"] == 1).all()
    assert "variance" not in paper and "variance" not in code
    with pytest.raises(NotFound, match="adebayo-code"):
        preset("adebayo")
    assert set(PRESETS) == {"adebayo-paper", "adebayo-code", "adebayo-code-mlp"}


def test_codes_behind_a_dequantiser_are_randomised_as_codes() -> None:
    made = artifact(QDQ)
    found = {p.name: p for p in parameters(made)}
    assert {name: p.role for name, p in found.items()} == {"codes": "weight", "bias": "bias"}
    new = drawn(made)
    assert new["codes"].dtype == np.int8 and new["bias"].dtype == np.int32
    assert (new["codes"] != stored(made, "codes")).any()
    old_real, new_real = (dequantised(found["codes"], v) for v in (stored(made, "codes"), new["codes"]))
    # Twelve values cut off at two standard deviations: none beyond 2 / 0.88 times the original root mean square.
    assert np.abs(new_real).max() <= 2.28 * np.sqrt((old_real**2).mean())
    x = np.random.default_rng(0).normal(size=(1, 4)).astype(np.float32)
    with Model(made, Engine(made, "cpu")) as one, Model(made, Engine(made, "cpu", weights=new)) as two:
        maps = [m.explain(x, target=0).attributions["x"][0] for m in (one, two)]
    np.testing.assert_allclose(maps[1], new_real[:, 0], rtol=1e-5)  # linear in x: the gradient is the weight
    assert np.abs(maps[0] - maps[1]).max() > 0.1
    notes = Randomiser(made, parameters(made), Policy(std=5.0), 0).notes
    assert any("clipped: codes" in note for note in notes)


def test_weights_in_constant_nodes_are_parameters() -> None:
    made = artifact(CONSTANTS)
    (block,) = parameters(made).blocks
    (values,) = drawn(made).values()
    assert len(block.names) == 1 and values.shape == (2, 2)


def test_options_that_do_not_apply_are_named() -> None:
    made = artifact(CONSTANTS)
    notes = " ".join(Randomiser(made, parameters(made), Policy(), 0).notes)
    assert "running statistics" in notes and "biases: the model has none" in notes and "normalisation:" in notes


def test_orders() -> None:
    blocks = parameters(artifact(NORMALISED)).blocks
    down = levels(blocks, "top_down")
    assert [level.names for level in down[:3]] == [("w2",), ("w2", "shared"), ("w2", "shared")]
    assert set(down[-1].names) == {p.name for p in parameters(artifact(NORMALISED))}
    assert levels(blocks, "bottom_up")[0].names == ("w1", "b1")
    assert [level.names for level in levels(blocks, "independent")] == [block.names for block in blocks]
    (everything,) = levels(blocks, "all")
    assert set(everything.names) == set(down[-1].names)
    with pytest.raises(BadRequest, match="top_down"):
        levels(blocks, "cascade")


def test_blocks_are_grouped_by_prefix_at_a_boundary() -> None:
    proto = models.model(models.CNN)
    names = {"w1": "layer1.0.weight", "b1": "layer1.0.bias", "w2": "layer10.weight", "b2": "layer1.1.bias"}
    for tensor in proto.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in proto.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    found = parameters(convert(proto))
    one = grouped(found, ["layer1"])
    assert len(one.blocks) == 2 and one.blocks[0].name == "layer1"
    assert set(one.blocks[0].names) == set(names.values())  # layer10 came in through the bias that its layer has
    with pytest.raises(NotFound, match="layer1"):
        grouped(found, ["layer2"])


def test_a_randomised_model_is_an_artifact_of_its_own(tmp_path: Path) -> None:
    made = artifact(NORMALISED)
    digest, w1 = made.manifest.digest, stored(made, "w1").copy()
    other = randomised(made, drawn(made), {"seed": 0, "draw": 0})
    path = save(other, tmp_path / "random.onnx")
    x = np.random.default_rng(0).normal(size=(1, 2, 8, 8)).astype(np.float32)
    with onnxplain.load(path) as model, Model(made, Engine(made, "cpu", weights=drawn(made))) as swapped:
        assert model.manifest.digest == other.manifest.digest != digest
        assert model.manifest.source["randomised"] == {"of": digest, "seed": 0, "draw": 0}
        np.testing.assert_array_equal(model.explain(x).attributions["x"], swapped.explain(x).attributions["x"])
        plain = ort.InferenceSession(str(path)).run(["y"], {"x": x, "seed/y": np.ones((1, 4), np.float32)})
        np.testing.assert_allclose(model.predict(x)["y"], np.asarray(plain[0]), rtol=1e-5)
    np.testing.assert_array_equal(stored(made, "w1"), w1)
    with pytest.raises(BadRequest, match="there already"):
        save(other, path)


def test_bad_input() -> None:
    with pytest.raises(BadModel, match="nothing to randomise"):
        parameters(artifact(models.TWIN_F))
    made = artifact(NORMALISED)
    with pytest.raises(NotFound, match="w1"):
        Randomiser(made, parameters(made), Policy(), 0).weights(["w11"], 0)
    wrongs: list[dict[str, Any]] = [
        {"values": "uniform"}, {"std": 0.1, "values": "he"}, {"std": -1.0}, {"biases": "zero"}, {"gain": 2.0},
    ]  # fmt: skip
    for wrong in wrongs:
        with pytest.raises(BadRequest):
            Policy(**wrong)
