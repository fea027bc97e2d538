"""SiLU, squeeze-and-excitation and spatial means: lowered against as they were, in ONNX Runtime itself."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxplain.engine.lowering import lower
from tests.engine.graphs import operators, parsed, run

SILU = """
    s = Sigmoid(a) y = Mul(a, s)
    direct = Mul({g}, s) weighted = Mul({x}) rest = Sub(one, s) slope = Mul(s, rest) through = Mul(weighted, slope)
    back = Add({sum})
    out = Add(back, y)"""
SQUEEZE = "m = {mean} <keepdims = 1> (a, {axes}) c = Sigmoid(m) made = {op}({operands}) out = Identity(made)"


def images(nodes: str) -> ir.Model:
    """out from the images a and b."""
    return parsed(f"""<ir_version: 10, opset_import: ["": 18]>
    images (float[rows, 40, 9, 7] p, float[rows, 40, 9, 7] q) => (float[rows, channels, height, width] out)
    <float one = {{1}}, float two = {{2}}, int64[2] spatial = {{2, 3}}, int64[2] negative = {{-1, -2}},
     int64[2] others = {{1, 2}}>
    {{
        a = Add(p, q)
        b = Mul(p, q)
        {nodes}
    }}""")


def lowered(model: ir.Model) -> list[str]:
    """Operators of the lowered model, which computes the same."""
    rng = np.random.default_rng(0)
    feeds = {name: rng.normal(size=(3, 40, 9, 7)).astype(np.float32) * 3 for name in "pq"}
    before = run(model, feeds)
    lower(model, "cpu")
    np.testing.assert_allclose(run(model, feeds), before, rtol=0, atol=1e-6 * np.abs(before).max())  # float32
    return operators(model)


@pytest.mark.parametrize("order", ["direct, through", "through, direct"])
@pytest.mark.parametrize("weighted", ["b, a", "a, b"])
def test_gradients_of_silu(order: str, weighted: str) -> None:
    made = lowered(images(SILU.format(g="b", x=weighted, sum=order)))
    assert "Sub" not in made
    assert made.count("Mul") == 4  # b, y, y * (1 - s), and b times the slope


def test_gradients_that_look_like_silu() -> None:
    made = lowered(images(SILU.format(g="b", x="a, a", sum="direct, through")))
    assert made.count("Mul") == 6


@pytest.mark.parametrize("axes", ["spatial", "negative"])
@pytest.mark.parametrize("mean", ["ReduceMean", "ReduceSum"])
@pytest.mark.parametrize(("op", "operands"), [("Mul", "a, c"), ("Mul", "c, a"), ("Add", "a, c"), ("Add", "c, b")])
def test_one_number_per_channel(axes: str, mean: str, op: str, operands: str) -> None:
    made = lowered(images(SQUEEZE.format(axes=axes, mean=mean, op=op, operands=operands)))
    assert {"Resize", "GlobalAveragePool"} <= set(made)
    assert mean not in made


@pytest.mark.parametrize(
    "nodes",
    [
        "s = Sigmoid(a) out = Sub(two, s)",
        "s = Sigmoid(a) out = Sub(s, one)",
        "out = Sub(one, a)",
        "out = ReduceMean <keepdims = 1> (a, others)",
        "out = ReduceMean <keepdims = 1> (p, spatial)",
        "m = ReduceMean <keepdims = 0> (a, spatial) n = Unsqueeze(m, spatial) out = Mul(n, n)",
    ],
)
def test_others_stay(nodes: str) -> None:
    made = lowered(images(nodes))
    assert {"Sub", "ReduceMean"} & set(made)
    assert not {"Conv", "GlobalAveragePool"} & set(made)


@pytest.mark.parametrize("operands", ["a, two", "a, b", "p, c"])
def test_products_of_other_shapes_stay(operands: str) -> None:
    nodes = f"c = GlobalAveragePool(a) out = Mul({operands})"
    assert "Resize" not in lowered(images(nodes))
