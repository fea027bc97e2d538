"""Programs as ONNX: valid, portable, with inputs of every kind, whatever the model calls its tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxplain.artifact import Artifact, TensorSpec
from onnxplain.engine import Engine
from onnxplain.engine.program import build
from onnxplain.errors import BadRequest, Unsupported
from onnxplain.rows import TOP, Job, Purpose, Round, Rows, Target
from tests.engine.artifacts import GRADIENT, Array, Tanh, artifact, job, line, row

NOT_ON_CUDA = """
    Acos Acosh AffineGrid Asin Asinh Atan Atanh BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Celu Col2Im
    Cosh CumProd Det GlobalLpPool Hardmax LpPool MaxUnpool Mean Multinomial Sinh Tan Unique RandomNormal
    RandomNormalLike RandomUniform RandomUniformLike Bernoulli
"""
"""Operators with a kernel on the CPU and none on CUDA in ONNX Runtime 1.31, and its generators, seeded per session."""

PURPOSES = [
    GRADIENT,
    Purpose("y"),
    Purpose("y", None, ("x",), taps=("h", "y", "x")),
    Purpose("y", "gradient", ("x",), ("h", "h"), ("h",)),
    Purpose("y", "gradient", (), ("h",), ("h", "y")),
    Purpose("y", "gradient", ("h",)),
]


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes(attribute.g)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("purpose", PURPOSES, ids=str)
def test_programs_are_valid_onnx_that_cuda_can_run(purpose: Purpose, dtype: str) -> None:
    program = build(Tanh.drawn(dtype).artifact(), purpose)
    proto = ir.to_proto(program.model)
    onnx.checker.check_model(proto, full_check=True)
    assert {i.domain: i.version for i in proto.opset_import} == {"": 18}
    assert {node.op_type for node in nodes(proto.graph)} & set(NOT_ON_CUDA.split()) == set()
    assert {node.domain for node in nodes(proto.graph)} == {""}


def test_building_leaves_the_artifact_alone() -> None:
    source = Tanh.drawn("float32").artifact()
    before = ir.to_proto(source.model).SerializeToString()
    one, two = build(source, GRADIENT), build(source, GRADIENT)
    assert ir.to_proto(source.model).SerializeToString() == before
    assert ir.to_proto(one.model).SerializeToString() == ir.to_proto(two.model).SerializeToString()


def test_a_program_holds_what_its_purpose_needs() -> None:
    source = Tanh.drawn("float32").artifact()
    forward = {node.op_type for node in build(source, Purpose("y")).model.graph}
    assert "Transpose" not in forward  # the backward pass
    cam = build(source, Purpose("y", "gradient", (), ("h",), ("h",)))
    products = [node for node in cam.model.graph if node.op_type == "MatMul"]
    assert len(products) == 3  # forward, and back to h but not below


def test_rows_of_the_model_have_one_symbol() -> None:
    program = build(Tanh.drawn("float32").artifact(batch="anything"), GRADIENT)
    symbols = {
        d.value
        for node in program.model.graph
        for value in node.outputs
        if value.shape is not None
        for d in value.shape
        if isinstance(d, ir.SymbolicDim)
    }
    assert "rows" in symbols
    assert "anything" not in symbols


def test_cut_at_a_layer() -> None:
    """``wrt`` an inner tensor: rows, baselines and sums are that tensor's."""
    net = Tanh.drawn("float32")
    h = np.random.default_rng(0).normal(size=64).astype(np.float32)
    asked = Job(
        Round(Purpose("y", "gradient", ("h",)), line(4)), {"h": h}, {"h": np.zeros((1, 64), np.float32)}, Target((2,))
    )
    with Engine(net.artifact(), "cpu") as engine:
        outcome = engine.submit(asked).result(60)
    np.testing.assert_allclose(outcome.moments["h"].mean, h * net.v[:, 2], rtol=0, atol=1e-6)
    np.testing.assert_allclose(outcome.scores, line(4).alpha * (h @ net.v[:, 2]), rtol=0, atol=1e-5)


SEQUENCE = """<ir_version: 10, opset_import: ["": 20]>
net (float[b,t,3] "input/x", float[b,t] z, int64[b,t] ids, bool[b,t] mask, float[t] positions, float[1] temperature,
     float[b,t,5] "seed/score", float[b] "seed/total")
    => (float[b,t,5] score, float[b] total, float[b,t,3] "gradient/input/x", float[b,t] "gradient/z")
<int64[1] last = {2}, float[1] zero = {0}, int64[1] both = {-1}, float[b,t,5] g>
{
    e = Gather(table, ids)
    xe = Mul("input/x", e)
    xw = MatMul(xe, weight)
    ones = Unsqueeze(z, last)
    p = Unsqueeze(positions, both)
    zp = Mul(ones, p)
    s = Add(xw, zp)
    st = Mul(s, temperature)
    m = Unsqueeze(mask, last)
    score = Where(m, st, zero)
    total = ReduceSum<keepdims = 0>(score, axes)
    shape = Shape(score)
    g0 = Unsqueeze("seed/total", axes)
    g1 = Expand(g0, shape)
    g = Add("seed/score", g1)
    gm = Where(m, g, zero)
    gt = Mul(gm, temperature)
    weightt = Transpose<perm = [1, 0]>(weight)
    gxe = MatMul(gt, weightt)
    "gradient/input/x" = Mul(gxe, e)
    gzp = ReduceSum<keepdims = 0>(gt, last)
    gp = Squeeze(p, both)
    "gradient/z" = Mul(gzp, gp)
}"""


TABLE = np.random.default_rng(0).normal(size=(11, 3)).astype(np.float32)
WEIGHT = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)


def sequence() -> Artifact:
    """Two float inputs, ids, a mask, inputs without a row axis, symbolic lengths, two explained outputs, bad names."""
    x, z = TensorSpec("input/x", "float32", ("b", "t", 3)), TensorSpec("z", "float32", ("b", "t"))
    return artifact(
        SEQUENCE,
        {
            "table": TABLE,
            "weight": WEIGHT,
            "axes": np.array([1, 2]),
        },
        inputs=(
            x,
            z,
            TensorSpec("ids", "int64", ("b", "t")),
            TensorSpec("mask", "bool", ("b", "t")),
            TensorSpec("positions", "float32", ("t",)),
            TensorSpec("temperature", "float32", (1,)),
        ),
        outputs=(TensorSpec("score", "float32", ("b", "t", 5)), TensorSpec("total", "float32", ("b",))),
        explained=("score", "total"),
        default_output="score",
        differentiated=(x, z),
        stands_for={"input/x": "input/x", "z": "z"},
        gradients={"gradient": {"input/x": "gradient/input/x", "z": "gradient/z"}},
    )


def tokens(length: int, seed: int, temperature: float = 1.0, output: str = "score", target: Target = TOP) -> Job:
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=(length, 3)).astype(np.float32), rng.normal(size=length).astype(np.float32)
    return Job(
        Round(Purpose(output, "gradient", ("input/x", "z")), line(6)),
        {
            "input/x": x,
            "z": z,
            "ids": rng.integers(0, 11, length),
            "mask": rng.uniform(size=length) < 0.8,
            "positions": np.arange(length, dtype=np.float32),
            "temperature": np.array([temperature], np.float32),
        },
        {"input/x": np.zeros_like(x)[None], "z": np.zeros_like(z)[None]},
        target,
    )


def expected(asked: Job) -> dict[str, Array]:
    """Integrated gradients of a model that is linear in x and z are gradients times inputs."""
    given: dict[str, Any] = dict(asked.inputs)
    x, z, ids, mask, positions = (given[n] for n in ("input/x", "z", "ids", "mask", "positions"))
    score = (((x * TABLE[ids]) @ WEIGHT) + (z * positions)[:, None]) * given["temperature"] * mask[:, None]
    if asked.round.purpose.output == "total":
        g = np.ones_like(score)
    else:
        g = np.zeros_like(score)
        at = score.argmax() if asked.target.is_top else asked.target.index[0]
        g.reshape(-1)[at] = 1
    g = g * mask[:, None] * given["temperature"]
    return {"input/x": (g @ WEIGHT.T) * TABLE[ids] * x, "z": g.sum(1) * positions * z}


def test_inputs_and_outputs_of_every_kind() -> None:
    source = sequence()
    asked = [
        tokens(length, seed, temperature, output, target)
        for seed, (length, temperature, output, target) in enumerate(
            [
                (4, 1.0, "score", TOP),
                (4, 1.0, "score", Target((13,))),
                (7, 1.0, "score", TOP),
                (4, 2.0, "score", TOP),
                (4, 1.0, "total", Target((0,))),
                (4, 2.0, "score", TOP),
            ]
        )
    ]
    with Engine(source, "cpu") as engine:
        for one, future in [(one, engine.submit(one)) for one in asked]:
            for name, map_ in expected(one).items():
                np.testing.assert_allclose(future.result(60).moments[name].mean, map_, rtol=0, atol=1e-5)


def test_a_position_beyond_a_symbolic_output_is_an_error_of_its_job_alone() -> None:
    with Engine(sequence(), "cpu") as engine:
        futures = [engine.submit(tokens(4, 0, target=Target((k,)))) for k in (19, 20, 3)]
        with pytest.raises(BadRequest, match="position 20 is out of range: the output has positions 0 to 19"):
            futures[1].result(60)
        assert futures[0].result(60).n_rows == futures[2].result(60).n_rows == 6


def test_a_missing_input_is_named() -> None:
    asked = tokens(4, 0)
    del asked.inputs["mask"]  # type: ignore[attr-defined]
    with (
        Engine(sequence(), "cpu") as engine,
        pytest.raises(BadRequest, match=r"'mask'.* is missing; given: input/x, z"),
    ):
        engine.submit(asked).result(60)


def test_a_layer_without_the_row_axis_is_refused() -> None:
    purpose = Purpose("score", None, taps=("p",))
    asked = Job(Round(purpose, Rows.table([1.0])), tokens(4, 0).inputs, tokens(4, 0).baselines, TOP)
    with Engine(sequence(), "cpu") as engine, pytest.raises(Unsupported, match=r"layer 'p'.*row axis"):
        engine.submit(asked).result(60)


def test_a_model_without_a_row_axis() -> None:
    """One vector in, one number out: the rows of a path are run one at a time."""
    text = """<ir_version: 10, opset_import: ["": 18]>
    net (float[4] x, float[1] "seed/y") => (float[1] y, float[4] "gradient/x") <int64[1] axis = {0}>
    {
        xx = Mul(x, x)
        y = ReduceSum(xx, axis)
        two = Add(x, x)
        "gradient/x" = Mul(two, "seed/y")
    }"""
    spec = TensorSpec("x", "float32", (4,))
    source = artifact(
        text,
        {},
        inputs=(spec,),
        outputs=(TensorSpec("y", "float32", (1,)),),
        differentiated=(spec,),
        stands_for={"x": "x"},
        gradients={"gradient": {"x": "gradient/x"}},
        rows="coupled",
    )
    x = np.array([1, 2, 3, 4], np.float32)
    asked = Job(
        Round(Purpose("y", "gradient", ("x",), ("xx",)), line(8)), {"x": x}, {"x": np.zeros((1, 4), np.float32)}, TOP
    )
    with Engine(source, "cpu") as engine:
        outcome = engine.submit(asked).result(60)
    np.testing.assert_allclose(outcome.moments["x"].mean, x**2, rtol=0, atol=1e-5)
    np.testing.assert_allclose(outcome.taps["xx"], np.outer(line(8).alpha ** 2, x**2), rtol=0, atol=1e-5)


def test_masked_logits_do_not_spoil_the_score() -> None:
    net = Tanh.drawn("float32")
    bias = np.array([0, -np.inf, 0, 0], np.float32)
    source = net.artifact()
    graph = source.model.graph
    y = next(value for value in graph.outputs if value.name == "y")
    product = y.producer()
    assert product is not None
    logits = ir.Value(name="logits", type=y.type, shape=y.shape)
    product.outputs[0].name = "unmasked"
    masked = ir.node("Add", [product.outputs[0], ir.Value(name="bias", const_value=ir.tensor(bias))], outputs=[logits])
    graph.register_initializer(masked.inputs[1])  # type: ignore[arg-type]
    graph.insert_after(product, masked)
    graph.outputs[0] = logits
    logits.name = "y"
    asked = job(row(np.random.default_rng(0)), line(3), target=Target((2, 0), (1.0, -1.0)))
    with Engine(source, "cpu") as engine:
        outcome = engine.submit(asked).result(60)
    assert np.all(np.isfinite(outcome.scores))
    assert outcome.nonfinite == 0


def test_inputs_can_be_tapped() -> None:
    given_ = tokens(4, 0)
    purpose = Purpose("score", None, taps=("ids", "input/x", "mask", "score"))
    asked = Job(Round(purpose, Rows.table([1.0, 0.5])), given_.inputs, given_.baselines, TOP)
    with Engine(sequence(), "cpu") as engine:
        taps = engine.submit(asked).result(60).taps
    for name in ("ids", "mask"):
        np.testing.assert_array_equal(taps[name], np.stack([given_.inputs[name]] * 2))
    np.testing.assert_allclose(taps["input/x"][1], taps["input/x"][0] / 2, rtol=1e-6)
    assert taps["score"].shape == (2, 4, 5)


def test_the_backward_pass_of_other_outputs_is_left_out() -> None:
    program = build(sequence(), Purpose("score", "gradient", ("input/x", "z")))
    kinds = [node.op_type for node in program.model.graph if not (node.name or "").startswith("onnxplain/")]
    assert "Expand" not in kinds  # of seed/total
    assert "ReduceSum" in kinds  # of the gradient of z
    assert not any("total" in (node.outputs[0].name or "") for node in program.model.graph)


@pytest.mark.parametrize("rows", ["coupled", "fixed(1)"])
def test_a_number_in_and_a_number_out(rows: str) -> None:
    text = """<ir_version: 10, opset_import: ["": 18]>
    net (float x, float "seed/y") => (float y, float "gradient/x")
    {
        y = Mul(x, x)
        two = Add(x, x)
        "gradient/x" = Mul(two, "seed/y")
    }"""
    spec, y = TensorSpec("x", "float32", ()), TensorSpec("y", "float32", ())
    fields = {"inputs": (spec,), "outputs": (y,), "differentiated": (spec,), "stands_for": {"x": "x"}}
    source = artifact(text, {}, gradients={"gradient": {"x": "gradient/x"}}, rows=rows, **fields)
    zero = np.zeros(1, np.float32)
    asked = Job(Round(GRADIENT, line(4)), {"x": np.array(3, np.float32)}, {"x": zero}, TOP)
    with Engine(source, "cpu") as engine:
        outcome = engine.submit(asked).result(60)
    np.testing.assert_allclose(outcome.moments["x"].mean, 9, rtol=1e-6)
    np.testing.assert_allclose(outcome.scores, 9 * line(4).alpha ** 2, rtol=1e-6)
