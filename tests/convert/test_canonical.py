"""Canonical form: what a differentiated graph may take for granted, and that nothing else changed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxplain.errors import BadModel
from onnxplain_convert.canonical import CHANGES, canonicalise
from onnxplain_convert.graph.shapes import static_dims
from tests.convert.models import constant, model, normal, run

DATA = Path(os.path.dirname(onnx.__file__)) / "backend" / "test" / "data"
LIGHT = sorted(DATA.glob("light/*.onnx"))
SIMPLE = sorted(
    path
    for path in DATA.glob("simple/*/model.onnx")
    # Not for inference (Gradient), or on strings in a locale that need not be installed.
    if "gradient" not in str(path) and "strnorm" not in str(path)
)
PYTORCH = [p for p in sorted(DATA.glob("pytorch-*/*/model.onnx")) if onnx.load(p).opset_import[0].version >= 7]


def stored(folder: Path, proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The inputs that ONNX ships with a model."""
    names = [v.name for v in proto.graph.input if v.name not in {x.name for x in proto.graph.initializer}]
    return {
        name: onnx.numpy_helper.to_array(onnx.load_tensor(folder / "test_data_set_0" / f"input_{i}.pb"))
        for i, name in enumerate(names)
    }


def test_the_package_still_has_its_models() -> None:
    assert len(LIGHT) == 9 and len(SIMPLE) >= 10


@pytest.mark.parametrize("path", LIGHT, ids=lambda p: p.stem)
def test_light_networks(path: Path) -> None:
    """As shipped their weights are constant, so a row of 224 x 224 noise has to do."""
    proto = onnx.load(path)
    new = canonicalise(proto)
    assert 18 <= new.opset_imports[""] <= 21 and new.ir_version == 10
    assert [v.name for v in new.graph.outputs] == [v.name for v in proto.graph.output]
    assert all(v.shape is not None and v.dtype is not None for node in new.graph for v in node.outputs)
    (given,) = new.graph.inputs
    feeds = {given.name or "": normal(*static_dims(given) or ())}
    for name, expected in run(proto, feeds).items():
        np.testing.assert_allclose(run(new, feeds)[name], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("path", [*SIMPLE, *PYTORCH], ids=lambda p: p.parent.name)
def test_small_models_of_the_package(path: Path) -> None:
    proto = onnx.load(path)
    feeds = stored(path.parent, proto)
    new = canonicalise(proto)
    before, after = run(proto, feeds), run(new, feeds)
    for name, expected in before.items():
        if np.asarray(expected).dtype.kind in "fiub":
            np.testing.assert_allclose(after[name], expected, rtol=1e-5, atol=1e-6)
        else:
            assert str(after[name]) == str(expected)


def test_nodes_get_names_and_keep_them() -> None:
    body = "(float[n] x) => (float[n] y) { [mine] a = Abs (x)  b = Neg (a)  [mine] c = Abs (b)  y = Neg (c) }"
    names = [node.name for node in canonicalise(model(18, body)).graph]
    assert names == ["mine", "Neg_1", "mine_2", "Neg_3"]
    again = canonicalise(canonicalise(model(18, body)))
    assert [node.name for node in again.graph] == names


def test_constants_become_initializers_also_those_of_branches() -> None:
    branch = "yes () => (float[n] a) { q = Constant <value_float = 2.0> ()  a = Mul (x, q) }"
    other = "no () => (float[n] b) { b = Identity (x) }"
    body = f"""(float[n] x, bool c) => (float[n] y) {{
        k = Constant <value_floats = [3.0]> ()
        z = Add (x, k)
        w = If (c) <then_branch = {branch}, else_branch = {other}>
        y = Add (z, w)
    }}"""
    proto = model(18, body)
    new = canonicalise(proto)
    assert not [n for n in ir.traversal.RecursiveGraphIterator(new.graph) if n.op_type == "Constant"]
    assert len(new.graph.initializers) == 2
    for c in (True, False):
        feeds = {"x": normal(4), "c": np.array(c)}
        np.testing.assert_array_equal(run(new, feeds)["y"], run(proto, feeds)["y"])


def test_a_constant_output_stays_an_output() -> None:
    new = canonicalise(
        model(18, "(float[n] x) => (float[n] y, float k) { y = Abs (x)  k = Constant <value_float = 2.0> () }")
    )
    assert [v.name for v in new.graph.outputs] == ["y", "k"]
    assert run(new, {"x": normal(2)})["k"] == 2.0


def test_initializers_are_no_inputs() -> None:
    proto = constant(
        model(9, "(float[n, 2] x, float[2] b) => (float[n, 2] y) { y = Add (x, b) }", ir_version=3), b=normal(2)
    )
    new = canonicalise(proto)
    assert [v.name for v in new.graph.inputs] == ["x"]
    assert list(new.graph.initializers) == ["b"]


def test_weights_are_not_copied() -> None:
    proto = constant(model(18, "(float[n, 64] x) => (float[n, 64] y) { y = MatMul (x, w) }"), w=normal(64, 64))
    given = ir.from_proto(proto)
    assert isinstance(given, ir.Model)
    tensor = given.graph.initializers["w"].const_value
    assert canonicalise(given).graph.initializers["w"].const_value is tensor


def test_the_given_model_is_not_touched() -> None:
    proto = model(9, "(float[2, 3] x) => (float[2, 3] y) { y = Clip <min = 0.0> (x) }", ir_version=4)
    before = proto.SerializeToString(deterministic=True)
    given = ir.from_proto(proto)
    assert isinstance(given, ir.Model)
    canonicalise(proto)
    canonicalise(given)
    assert proto.SerializeToString(deterministic=True) == before
    assert given.opset_imports[""] == 9 and next(iter(given.graph)).name in ("", None)


FUNCTION = """
<ir_version: 8, opset_import: ["": 18, "mine": 1]>
graph (float[n, 3] x) => (float[n, 3] y, float[n, 3] z) {
    y = mine.Scaled <by = 3.0> (x)
    z = mine.Scaled (y)
}
<domain: "mine", opset_import: ["": OPSET]>
Scaled <by: float = 2.0> (a) => (b) {
    k = Constant <value_float: float = @by> ()
    u = UNSQUEEZE
    v = Squeeze (u)
    c = Mul (a, k)
    b = Identity (c)
}
"""


@pytest.mark.parametrize(("opset", "line"), [(18, "Neg (a)"), (12, "Unsqueeze <axes = [0]> (a)")])
def test_functions_are_inlined_also_those_of_another_opset(opset: int, line: str) -> None:
    proto = onnx.parser.parse_model(FUNCTION.replace("OPSET", str(opset)).replace("UNSQUEEZE", line))
    new = canonicalise(proto)
    assert not new.functions and all(node.domain == "" for node in new.graph)
    assert set(new.opset_imports) == {""}
    x = normal(2, 3)
    got = run(new, {"x": x})
    np.testing.assert_allclose(got["y"], 3 * x)
    np.testing.assert_allclose(got["z"], 6 * x)


def test_the_second_spelling_of_the_default_domain() -> None:
    proto = model(18, "(float[n] x) => (float[n] y) { y = Abs (x) }")
    proto.opset_import[0].domain = "ai.onnx"
    proto.graph.node[0].domain = "ai.onnx"
    new = canonicalise(proto)
    assert new.opset_imports == {"": 18} and next(iter(new.graph)).domain == ""


def test_of_two_imports_of_the_default_domain_the_last_counts() -> None:
    """As in ONNX Runtime and the checker; some exporters of scikit-learn pipelines write two."""
    proto = model(9, "(float[1, 3] x, int64[1] a) => (float[3] y) { y = Squeeze (x, a) }", ir_version=8)
    proto.opset_import.add().version = 13
    feeds = {"x": normal(1, 3), "a": np.array([0])}
    np.testing.assert_array_equal(run(canonicalise(proto), feeds)["y"], run(proto, feeds)["y"])


def test_unknown_axes_get_a_symbol_of_their_own() -> None:
    body = """(float[N, 3] a, float[?, 3] b, float[?, ?] c) => (float[?, ?] y, float[?, ?] z) {
        y = Add (a, b)  z = Abs (c)
    }"""
    new = canonicalise(model(18, body))
    shapes = [tuple(d if isinstance(d, int) else d.value for d in v.shape or ()) for v in new.graph.inputs]
    assert shapes[0] == ("N", 3)
    symbols = [d for shape in shapes for d in shape if isinstance(d, str)]
    assert len(set(symbols)) == len(symbols) == 4


def test_shapes_are_inferred_through_shape_arithmetic() -> None:
    body = """(float[N, 2, 6] x) => (float[?, ?] y) {
        s = Shape (x)  i = Constant <value_ints = [0]> ()  b = Gather (s, i)
        m = Constant <value_ints = [12]> ()  t = Concat <axis = 0> (b, m)  y = Reshape (x, t)
    }"""
    (y,) = canonicalise(model(18, body)).graph.outputs
    assert y.shape == ir.Shape(["N", 12])


def test_what_the_file_claims_about_inner_shapes_is_not_believed() -> None:
    proto = model(18, "(float[2, 3] x) => (float[2, 3] y) { a = Abs (x)  y = Neg (a) }")
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, [7, 7]))
    values = ir.convenience.create_value_mapping(canonicalise(proto).graph)
    assert values["a"].shape == ir.Shape([2, 3])


def test_training_nodes_are_kept_unless_inference_is_asked_for() -> None:
    body = """(float[n, 3] x) => (float[n, 3] y, float[3] seen) {
        r = Constant <value_float = 0.5> ()  t = Constant <value = bool {1}> ()
        d = Dropout (x, r, t)
        y, seen, var = BatchNormalization <training_mode = 1> (d, s, b, m, v)
    }"""
    proto = constant(model(15, body), **{name: np.abs(normal(3, seed=i)) for i, name in enumerate("sbmv")})
    kept = canonicalise(proto)
    assert kept.meta[CHANGES] == ()
    assert "training_mode" in next(n for n in kept.graph if n.op_type == "BatchNormalization").attributes
    new = canonicalise(proto, inference=True)
    assert len(new.meta[CHANGES]) == 2 and all("training mode" in change for change in new.meta[CHANGES])
    x = normal(5, 3)
    weights = {name: np.abs(normal(3, seed=i)) for i, name in enumerate("sbmv")}
    got = run(new, {"x": x})
    expected = (x - weights["m"]) / np.sqrt(weights["v"] + 1e-5) * weights["s"] + weights["b"]
    np.testing.assert_allclose(got["y"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got["seen"], weights["m"])


def broken_models() -> dict[str, tuple[onnx.ModelProto, str]]:
    fine = "(float[n] x) => (float[n] y) { y = Abs (x) }"
    newer, unknown, cyclic, empty, opsetless, contradicting = (model(18, fine) for _ in range(6))
    newer.opset_import[0].version = 9999
    unknown.graph.node[0].op_type = "Abss"
    cyclic.graph.node[0].input[0] = "y"
    empty.ClearField("graph")
    del opsetless.opset_import[:]
    contradicting = model(18, "(float[2, 3] x, float[4, 5] w) => (float[2, 5] y) { y = MatMul (x, w) }")
    return {
        "newer opset": (newer, "9999 is newer than the installed onnx"),
        "unknown operator": (unknown, "Abss"),
        "cycle": (cyclic, "form a cycle"),
        "no graph": (empty, "not an ONNX model"),
        "no opset": (opsetless, "imports no operator set"),
        "shapes": (contradicting, "MatMul"),
    }


@pytest.mark.parametrize("case", broken_models())
def test_broken_models_are_refused_with_the_reason(case: str) -> None:
    proto, told = broken_models()[case]
    with pytest.raises(BadModel, match=told):
        canonicalise(proto)
