"""The row axis: freed where the model allows it, tested by running, coupled rows recognised."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxplain.errors import BadRequest
from onnxplain_convert import convert
from onnxplain_convert.canonical import canonicalise
from onnxplain_convert.explainable.batch import freed, settle
from onnxplain_convert.sampling import random_feeds
from tests.convert.models import constant, model, normal, run


def rows(proto: onnx.ModelProto, *outputs: str) -> tuple[str, tuple[int | str | None, ...]]:
    new = canonicalise(proto)
    batch = settle(new, list(outputs) or [new.graph.outputs[0].name or ""], None, np.random.default_rng(0))
    shape = batch.model.graph.inputs[0].shape
    return batch.rows, tuple(d if isinstance(d, int) else d.value for d in shape or ())


INDEPENDENT = {
    "free": ("(float[n, 3] x) => (float[n, 3] y) { y = Softmax (x) }", ("n", 3)),
    "one row": ("(float[1, 3] x) => (float[1, 3] y) { y = Softmax (x) }", ("batch", 3)),
    "four rows": ("(float[4, 3] x) => (float[4, 3] y) { y = Softmax (x) }", ("batch", 3)),
    "a constant shape": (
        "(float[1, 4, 3] x) => (float[1, 12] y) { s = Constant <value_ints = [1, 12]> ()  y = Reshape (x, s) }",
        ("batch", 4, 3),
    ),
    "a constant shape as PyTorch writes it": (
        """(float[1, 4, 3] x) => (float[1, 12] y) {
            s = Constant <value_ints = [1, 12]> ()  y = Reshape <allowzero = 1> (x, s)
        }""",
        ("batch", 4, 3),
    ),
    "a constant shape with an open end": (
        "(float[1, 4, 3] x) => (float[1, 12] y) { s = Constant <value_ints = [1, -1]> ()  y = Reshape (x, s) }",
        ("batch", 4, 3),
    ),
    "rows folded into positions and back": (
        """(float[1, 6, 4] x) => (float[1, 6, 4] y) {
            s = Constant <value_ints = [6, 4]> ()  a = Reshape (x, s)  b = Relu (a)
            t = Constant <value_ints = [1, 6, 4]> ()  y = Reshape (b, t)
        }""",
        ("batch", 6, 4),
    ),
    "an unknown length": (
        "(float[n, m, 5] x) => (float[n, 5] y) { y = ReduceMean <keepdims = 0> (x, one) }",
        ("n", "m", 5),
    ),
}


@pytest.mark.parametrize("case", INDEPENDENT)
def test_independent_rows(case: str) -> None:
    body, shape = INDEPENDENT[case]
    assert rows(constant(model(18, body), one=np.array([1]))) == ("independent", shape)


def test_rows_that_no_shape_can_free_stay_fixed() -> None:
    body = "(float[1, 3] x) => (float[1, 6] y) { y = Concat <axis = 1> (x, token) }"
    assert rows(constant(model(18, body), token=normal(1, 3))) == ("fixed(1)", (1, 3))


COUPLED = {
    "a softmax over rows": "(float[n, 3] x) => (float[n, 3] y) { y = Softmax <axis = 0> (x) }",
    "the mean of the batch": "(float[n, 3] x) => (float[n, 3] y) { m = ReduceMean (x, zero)  y = Sub (x, m) }",
    "one number for all": "(float[n, 3] x) => (float y) { y = ReduceSum <keepdims = 0> (x) }",
    "rows against rows": "(float[n, 3] x) => (float[n, n] y) { t = Transpose <perm = [1, 0]> (x)  y = MatMul (x, t) }",
    "statistics of the batch": """(float[n, 3] x) => (float[n, 3] y) {
        y, a, b = BatchNormalization <training_mode = 1> (x, k, k, k, k)
    }""",
}  # fmt: skip


@pytest.mark.parametrize("case", COUPLED)
def test_coupled_rows(case: str) -> None:
    proto = constant(model(18, COUPLED[case]), zero=np.array([0]), k=np.ones(3, np.float32))
    assert rows(proto)[0] == "coupled"


def test_coupled_rows_of_a_fixed_number_stay_fixed() -> None:
    assert rows(model(18, "(float[4, 3] x) => (float[4, 3] y) { y = Softmax <axis = 0> (x) }")) == ("fixed(4)", (4, 3))


def test_only_the_explained_outputs_count() -> None:
    body = "(float[n, 3] x) => (float[n, 3] y, float z) { y = Tanh (x)  z = ReduceSum <keepdims = 0> (x) }"
    assert rows(model(18, body), "y")[0] == "independent"
    assert rows(model(18, body), "y", "z")[0] == "coupled"


def test_a_free_axis_that_runs_one_row_only_is_fixed() -> None:
    body = "(float[n, 3] x) => (float[?, ?] y) { s = Constant <value_ints = [1, 3]> ()  y = Reshape (x, s) }"
    proto = model(18, body)
    new = canonicalise(proto)
    new.graph.inputs[0].shape = ir.Shape(["n", 3])
    batch = settle(new, ["y"], None, np.random.default_rng(0))
    assert (batch.rows, batch.model.graph.inputs[0].shape) == ("fixed(1)", ir.Shape([1, 3]))
    assert "one row only" in batch.note


def test_two_inputs_get_one_row_axis_where_that_is_right() -> None:
    body = "(float[?, 3] a, float[?, 3] b) => (float[?, 3] y) { y = Mul (a, b) }"
    made = convert(model(18, body))
    assert made.manifest.rows == "independent"
    assert [x.shape for x in made.manifest.inputs] == [("batch", 3), ("batch", 3)]
    assert made.manifest.outputs[0].shape == ("batch", 3)


def test_an_input_without_rows_belongs_to_all() -> None:
    body = "(float[n, 3] x, float[3] scale, float t) => (float[n, 3] y) { s = Mul (x, scale)  y = Div (s, t) }"
    manifest = convert(model(18, body)).manifest
    assert manifest.rows == "independent"
    assert [x.shape for x in manifest.inputs] == [("n", 3), (3,), ()]


def test_two_inputs_keep_their_axes_where_it_is_wrong() -> None:
    body = """(float[q, 3] query, float[g, 3] gallery) => (float[q, g] y) {
        t = Transpose <perm = [1, 0]> (gallery)  y = MatMul (query, t)
    }"""
    manifest = convert(model(18, body)).manifest
    assert manifest.rows == "coupled"
    assert [x.shape[0] for x in manifest.inputs] == ["q", "g"]


def test_freed_weights_are_not_touched() -> None:
    """A Reshape of a weight to [1, 3] begins with one as well, and has nothing to do with rows."""
    body = """(float[1, 3] x) => (float[1, 3] y) {
        s = Constant <value_ints = [1, 3]> ()  v = Reshape (w, s)  y = Mul (x, v)
    }"""
    new = freed(canonicalise(constant(model(18, body), w=normal(3))), {"x": 1})
    assert new is not None
    x = normal(5, 3)
    np.testing.assert_allclose(run(new, {"x": x})["y"], x * normal(3))


def test_a_light_network_of_one_row_is_freed() -> None:
    from tests.convert.test_canonical import LIGHT

    (path,) = [p for p in LIGHT if "shufflenet" in p.name]  # has five constant Reshapes per stage
    batch = settle(canonicalise(onnx.load(path)), ["gpu_0/softmax_1"], None, np.random.default_rng(0))
    assert batch.rows == "independent"
    assert batch.model.graph.outputs[0].shape == ir.Shape(["batch", 1000])


def test_made_up_rows_differ_and_indices_fit_their_table() -> None:
    body = """(float[n, 4] x, int64[n, 3] ids, int64[n] mask, uint8[n, 2] pixels) => (float[n, 3, 2] e) {
        c = Cast <to = 6> (ids)  e = Gather (table, c)
    }"""
    new = canonicalise(constant(model(18, body), table=normal(5, 2)))
    feeds = random_feeds(new, 40, 16, np.random.default_rng(0))
    assert feeds is not None
    assert len(np.unique(feeds["x"], axis=0)) == 40
    assert feeds["ids"].max() == 4 and feeds["ids"].min() == 0
    assert (feeds["mask"] == 1).all() and feeds["pixels"].dtype == np.uint8


def test_an_example_that_does_not_fit_is_said() -> None:
    proto = model(18, "(float[n, 4] x) => (float[n, 4] y) { y = Abs (x) }")
    with pytest.raises(BadRequest, match="does not run on the example"):
        convert(proto, example=normal(1, 5))
    assert convert(proto, example=normal(2, 4, dtype=np.float64)).manifest.rows == "independent"


def test_an_example_comes_first_and_is_varied() -> None:
    new = canonicalise(model(18, "(float[n, 4] x) => (float[n, 4] y) { y = Abs (x) }"))
    example = {"x": 100 + normal(1, 4)}
    feeds = random_feeds(new, 3, 16, np.random.default_rng(0), example)
    assert feeds is not None
    np.testing.assert_array_equal(feeds["x"][:1], example["x"])
    assert len(np.unique(feeds["x"], axis=0)) == 3 and (feeds["x"] > 50).all()
