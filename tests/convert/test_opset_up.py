"""Old models keep their outputs: what changed between opset 7 and 21, against ONNX Runtime's old kernels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxplain.errors import Unsupported
from onnxplain_convert.canonical import canonicalise
from onnxplain_convert.opset.upgrades import UPGRADES
from tests.convert.models import constant, model, normal, run

IMAGE = "(float[2, 4, 6, 6] x) => (float[n, c, h, w] y)"

CASES = {
    "softmax on an inner axis": (9, "(float[2, 3, 4] x) => (float[2, 3, 4] y) { y = Softmax <axis = 1> (x) }"),
    "softmax by default": (11, "(float[2, 3, 4] x) => (float[2, 3, 4] y) { y = Softmax (x) }"),
    "softmax of a free batch": (9, "(float[n, 3, 4] x) => (float[n, 3, 4] y) { y = Softmax <axis = 1> (x) }"),
    "softmax on axis 0": (9, "(float[n, 3] x) => (float[n, 3] y) { y = Softmax <axis = 0> (x) }"),
    "softmax before ones": (9, "(float[2, 3, 1, 1] x) => (float[2, 3, 1, 1] y) { y = Softmax <axis = 1> (x) }"),
    "softmax of unknown rank": (
        9,
        "(float[2, 3, 4] x, int64[2] s) => (float[a, b] y) { r = Reshape(x, s) y = Softmax <axis = 1> (r) }",
    ),
    "logsoftmax": (9, "(float[2, 3, 4] x) => (float[2, 3, 4] y) { y = LogSoftmax <axis = 1> (x) }"),
    "hardmax": (9, "(float[2, 3, 4] x) => (float[2, 3, 4] y) { y = Hardmax <axis = 1> (x) }"),
    "clip": (9, "(float[2, 3] x) => (float[2, 3] y) { y = Clip <min = -0.5, max = 0.25> (x) }"),
    "clip from below": (9, "(float[2, 3] x) => (float[2, 3] y) { y = Clip <min = 0.0> (x) }"),
    "pad": (9, f"{IMAGE} {{ y = Pad <pads = [0,0,1,2,0,0,3,4], value = 0.5> (x) }}"),
    "pad by reflection": (9, f"{IMAGE} {{ y = Pad <mode = \"reflect\", pads = [0,0,1,2,0,0,3,4]> (x) }}"),
    "slice": (9, f"{IMAGE} {{ y = Slice <axes = [1, 3], starts = [1, -4], ends = [3, 1000]> (x) }}"),
    "slice from the first axes": (9, f"{IMAGE} {{ y = Slice <starts = [0, 1], ends = [1, 3]> (x) }}"),
    "split": (9, "(float[2, 5] x) => (float[2, 2] y, float[2, 3] z) { y, z = Split <axis = 1, split = [2, 3]> (x) }"),
    "split in equal parts": (9, "(float[2, 6] x) => (float[2, 3] y, float[2, 3] z) { y, z = Split <axis = 1> (x) }"),
    "split of 13": (13, "(float[2, 6] x) => (float[2, 3] y, float[2, 3] z) { y, z = Split <axis = 1> (x) }"),
    "squeeze": (9, "(float[2, 1, 3, 1] x) => (float[2, 3, 1] y) { y = Squeeze <axes = [1]> (x) }"),
    "squeeze all": (9, "(float[2, 1, 3, 1] x) => (float[2, 3] y) { y = Squeeze (x) }"),
    "unsqueeze": (9, "(float[2, 3] x) => (float[2, 1, 3, 1] y) { y = Unsqueeze <axes = [1, 3]> (x) }"),
    "topk": (9, "(float[2, 5] x) => (float[2, 3] y, int64[2, 3] i) { y, i = TopK <k = 3> (x) }"),
    "topk of 10": (
        10,
        "(float[2, 5] x) => (float[2, 3] y, int64[2, 3] i) { k = Constant<value = int64[1] {3}>() y, i = TopK(x, k) }",
    ),
    "dropout": (7, "(float[2, 3] x) => (float[2, 3] y) { y = Dropout <ratio = 0.3> (x) }"),
    "dropout, mask unused": (10, "(float[2, 3] x) => (float[2, 3] y) { y, m = Dropout <ratio = 0.3> (x) }"),
    "upsample of 7": (7, f"{IMAGE} {{ y = Upsample <scales = [1.0, 1.0, 2.0, 3.0], mode = \"nearest\"> (x) }}"),
    "linear upsample of 7": (7, f"{IMAGE} {{ y = Upsample <scales = [1.0, 1.0, 2.0, 2.0], mode = \"linear\"> (x) }}"),
    "maxpool": (7, f"{IMAGE} {{ y = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (x) }}"),
    "averagepool": (7, f"{IMAGE} {{ y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x) }}"),
    "lppool": (11, f"{IMAGE} {{ y = LpPool <kernel_shape = [3, 3], p = 2> (x) }}"),
    "depth to space": (9, "(float[2, 4, 3, 3] x) => (float[2, 1, 6, 6] y) { y = DepthToSpace <blocksize = 2> (x) }"),
    "sum of several": (8, "(float[2, 3] x) => (float[2, 3] y) { y = Sum (x, x, x) }"),
    "flatten": (9, "(float[2, 3, 4] x) => (float[6, 4] y) { y = Flatten <axis = 2> (x) }"),
    "argmax": (11, "(float[2, 3] x) => (int64[2, 1] y) { y = ArgMax <axis = 1> (x) }"),
    "casts": (9, "(float[2, 3] x) => (float[2, 3] y) { i = Cast <to = 7> (x)  y = Cast <to = 1> (i) }"),
    **{
        f"Reduce{op}-{opset}": (
            opset,
            f"(float[2, 3, 4] x) => (float[a, b, c] y) {{ y = Reduce{op} <axes = [0, 2], keepdims = 1> (x) }}",
        )
        for op in ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare")
        for opset in (9, 12)
    },
    "reduce everything": (9, "(float[2, 3] x) => (float y) { y = ReduceMean <keepdims = 0> (x) }"),
    "log-sum-exp": (13, "(float[2, 3] x) => (float[2] y) { y = ReduceLogSumExp <axes = [1], keepdims = 0> (x) }"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_outputs_stay(case: str) -> None:
    opset, body = CASES[case]
    proto = model(opset, body, ir_version=4 if opset < 10 else 8)
    feeds = {
        v.name: np.array([2, 12])
        if v.name == "s"
        else normal(*[d.dim_value or 2 for d in v.type.tensor_type.shape.dim])
        for v in proto.graph.input
    }
    new = canonicalise(proto)
    onnx.checker.check_model(ir.to_proto(new), full_check=True)
    before, after = run(proto, feeds), run(new, feeds)
    assert before.keys() == after.keys()
    for name, expected in before.items():
        # The same float32 sums in the same kernels; only Softmax takes another path through memory.
        np.testing.assert_allclose(after[name], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("opset", [9, 10])
@pytest.mark.parametrize("scales", [(1, 1, 2, 2), (1, 1, 1.5, 2.5), (1, 1, 3, 1)])
def test_enlarging(mode: str, opset: int, scales: tuple[float, ...]) -> None:
    """onnx.version_converter gets the linear ones wrong: the default coordinates changed with Resize-11."""
    op = "Upsample" if opset == 9 else "Resize"
    body = f'(float[1, 2, 5, 5] x) => (float[a, b, c, d] y) {{ y = {op} <mode = "{mode}"> (x, s) }}'
    proto = constant(model(opset, body, ir_version=4), s=np.array(scales, np.float32))
    feeds = {"x": normal(1, 2, 5, 5)}
    np.testing.assert_allclose(run(canonicalise(proto), feeds)["y"], run(proto, feeds)["y"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scales", [(1, 1, 0.5, 0.5), (1, 1, 0.4, 0.6)])
def test_shrinking_to_the_nearest(scales: tuple[float, ...]) -> None:
    body = '(float[1, 2, 10, 10] x) => (float[a, b, c, d] y) { y = Resize <mode = "nearest"> (x, s) }'
    proto = constant(model(10, body, ir_version=4), s=np.array(scales, np.float32))
    feeds = {"x": normal(1, 2, 10, 10)}
    np.testing.assert_array_equal(run(canonicalise(proto), feeds)["y"], run(proto, feeds)["y"])


def test_scales_that_the_model_computes_are_noted() -> None:
    body = '(float[1, 2, 5, 5] x, float[4] s) => (float[a, b, c, d] y) { y = Resize <mode = "nearest"> (x, s) }'
    new = canonicalise(model(10, body, ir_version=4))
    assert any("Resize-11" in note and "scales" in note for note in new.meta["onnxplain.changes"])


def test_tensorflow_half_pixel() -> None:
    attributes = 'mode = "nearest", nearest_mode = "floor", coordinate_transformation_mode = "tf_half_pixel_for_nn"'
    body = f"(float[1, 1, 5, 5] x) => (float[a, b, c, d] y) {{ y = Resize <{attributes}> (x, roi, s) }}"
    for scales in ((1, 1, 2, 3), (1, 1, 0.6, 0.4)):
        proto = constant(model(11, body), roi=np.zeros(0, np.float32), s=np.array(scales, np.float32))
        feeds = {"x": normal(1, 1, 5, 5)}
        np.testing.assert_array_equal(run(canonicalise(proto), feeds)["y"], run(proto, feeds)["y"])


def test_roi_align_keeps_its_coordinates() -> None:
    body = """(float[1, 2, 8, 8] x) => (float[a, b, c, d] y) {
        y = RoiAlign <output_height = 3, output_width = 3> (x, r, i)
    }"""
    proto = constant(model(10, body, ir_version=4), r=np.array([[1, 1, 6, 5]], np.float32), i=np.array([0]))
    feeds = {"x": normal(1, 2, 8, 8)}
    np.testing.assert_allclose(run(canonicalise(proto), feeds)["y"], run(proto, feeds)["y"], rtol=1e-6)


@pytest.mark.parametrize("opset", [7, 9, 13])
def test_batch_normalization(opset: int) -> None:
    body = "(float[2, 3, 4, 4] x) => (float[2, 3, 4, 4] y) { y = BatchNormalization <epsilon = 0.1> (x, s, b, m, v) }"
    given = {name: np.abs(normal(3, seed=i)) + 0.1 for i, name in enumerate("sbmv")}
    proto = constant(model(opset, body, ir_version=4), **given)
    feeds = {"x": normal(2, 3, 4, 4)}
    np.testing.assert_allclose(run(canonicalise(proto), feeds)["y"], run(proto, feeds)["y"], rtol=1e-6, atol=1e-6)


def test_batch_normalization_in_training_stays_in_training() -> None:
    body = """(float[2, 3] x) => (float[2, 3] y, float[3] mean) {
        y, mean, var, sm, sv = BatchNormalization (x, s, b, m, v)
    }"""
    proto = constant(model(9, body, ir_version=4), **{name: np.ones(3, np.float32) for name in "sbmv"})
    (node,) = [n for n in canonicalise(proto).graph if n.op_type == "BatchNormalization"]
    assert node.attributes["training_mode"].as_int() == 1 and len(node.outputs) == 3
    (node,) = [n for n in canonicalise(proto, inference=True).graph if n.op_type == "BatchNormalization"]
    assert "training_mode" not in node.attributes and len(node.outputs) == 1


def test_the_mask_of_dropout_keeps_its_type() -> None:
    """float up to 9, bool since; what it holds in inference was never said (ONNX Runtime: zeros, later ones)."""
    body = "(float[2, 3] x) => (float[2, 3] y, float[2, 3] m) { y, m = Dropout (x) }"
    assert run(canonicalise(model(9, body, ir_version=4)), {"x": normal(2, 3)})["m"].dtype == np.float32


def test_scatter_and_gemm() -> None:
    body = "(float[3, 3] x) => (float[3, 3] y) { z = Scatter <axis = 1> (x, i, u)  y = Gemm (z, z, x) }"
    proto = constant(model(9, body, ir_version=4), i=np.array([[0, 2]]), u=np.array([[5, 6]], np.float32))
    feeds = {"x": normal(3, 3)}
    np.testing.assert_allclose(run(canonicalise(proto), feeds)["y"], run(proto, feeds)["y"], rtol=1e-6)


def test_dft_keeps_its_axis() -> None:
    """ONNX Runtime has both forms; the default axis changed from 1 to the last but one."""
    body = "(float[1, 6, 4, 1] x) => (float[1, 6, 4, 2] y) { y = DFT (x) }"
    proto = model(17, body)
    new = canonicalise(proto)
    assert new.opset_imports[""] == 18  # DFT changes at 20, outside of what 17 has to move
    feeds = {"x": normal(1, 6, 4, 1)}
    np.testing.assert_allclose(run(new, feeds)["y"], run(proto, feeds)["y"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("opset", "body", "told"),
    [
        (8, "(float[2, 3] x) => (float[2, 3] y) { y = BatchNormalization <spatial = 0> (x, x, x, x, x) }", "spatial=0"),
        (6, "(float[2, 3] x) => (float[2, 3] y) { y = Relu (x) }", "opset 6"),
    ],
)
def test_what_cannot_be_brought_up_is_named(opset: int, body: str, told: str) -> None:
    with pytest.raises(Unsupported, match=told):
        canonicalise(model(opset, body, ir_version=4))


def test_every_change_of_the_schemas_is_known() -> None:
    """A change that adds types, inputs or attributes with the old behaviour as default needs no adapter; others do.

    Reviewed by hand: the attributes listed here were added between 8 and 21 with a default that is the old behaviour.
    """
    harmless = {
        "allowzero", "antialias", "axes", "axis", "batch_dims", "block_size", "ceil_mode", "dilations", "end",
        "keep_aspect_ratio_policy", "largest", "layout", "mode", "output_dtype", "reduction", "saturate", "seed",
        "select_last_index", "sorted", "sparse_value", "start", "stash_type", "storage_order", "training_mode",
        "value_float", "value_floats", "value_int", "value_ints", "value_string", "value_strings",
    }  # fmt: skip
    by_name: dict[str, list[onnx.defs.OpSchema]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.since_version <= 21:
            by_name.setdefault(schema.name, []).append(schema)
    unknown = []
    for name, schemas in by_name.items():
        schemas.sort(key=lambda s: s.since_version)
        for old, new in pairwise(schemas):
            if new.since_version < 8 or (name, new.since_version) in UPGRADES:
                continue
            gone = set(old.attributes) - set(new.attributes)
            added = set(new.attributes) - set(old.attributes) - harmless
            other = [a for a in set(old.attributes) & set(new.attributes) if _default(old, a) != _default(new, a)]
            if gone or added or other or old.max_input > new.max_input or (new.deprecated and not old.deprecated):
                unknown.append((name, new.since_version, gone, added, other))
    assert unknown == []


def _default(schema: onnx.defs.OpSchema, attribute: str) -> bytes:
    value: bytes = schema.attributes[attribute].default_value.SerializeToString()
    return value
