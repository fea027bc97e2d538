"""ONNX Runtime's own operators: what stands in their place computes what ONNX Runtime's kernels compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from onnxplain.errors import Unsupported
from onnxplain_convert import differentiate

B, S, H, HEADS = 2, 5, 8, 2
"""Batch, sequence, hidden size, heads."""

CLOSE = 1e-5
"""Both sides are float32 sums of a few dozen terms."""


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def model(op: str, inputs: dict[str, Any], outputs: int = 1, domain: str = "com.microsoft", **attributes: Any) -> Any:
    """One node; inputs given as an array are graph inputs, those whose name is in capitals are constants."""
    names = ["" if value is None else name for name, value in inputs.items()]
    node = onnx.helper.make_node(op, names, [f"y{i}" for i in range(outputs)], name="node", domain=domain, **attributes)
    given = {k: v for k, v in inputs.items() if v is not None}
    free = {k: v for k, v in given.items() if not k.isupper()}
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [
            onnx.helper.make_tensor_value_info(k, onnx.helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for k, v in free.items()
        ],
        [onnx.helper.make_tensor_value_info(f"y{i}", 1, None) for i in range(outputs)],
        [onnx.numpy_helper.from_array(v, k) for k, v in given.items() if k.isupper()],
    )
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("com.microsoft", 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10), free


def run(proto: onnx.ModelProto, feeds: dict[str, Any], names: list[str]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for value in session.get_inputs():
        if value.name not in feeds:
            feeds = {**feeds, value.name: np.ones(1, np.float32)}
    return [np.asarray(value) for value in session.run(names, feeds)]


def shaped(proto: onnx.ModelProto, values: list[np.ndarray]) -> None:
    """Declare the outputs' shapes: a valid model has them."""
    for output, value in zip(proto.graph.output, values, strict=True):
        output.CopyFrom(onnx.helper.make_tensor_value_info(output.name, 1, value.shape))


def same(proto: onnx.ModelProto, feeds: dict[str, Any], outputs: int = 1) -> onnx.ModelProto:
    names = [f"y{i}" for i in range(outputs)]
    want = run(proto, feeds, names)
    shaped(proto, want)
    found = differentiate(proto, ["x"], ["y0"])
    assert {node.domain for node in found.graph.node} <= {""}
    got = run(found, {**feeds, "seed/y0": np.ones_like(want[0])}, names)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=CLOSE, atol=CLOSE)
    return found


X = drawn(B, S, H)
MASK = np.asarray([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], np.int32)
CACHE = np.stack([np.cos(np.outer(np.arange(9), [1.0, 0.3])), np.sin(np.outer(np.arange(9), [1.0, 0.3]))]).astype(
    np.float32
)

ANGLES = np.outer(np.arange(9), np.geomspace(1.0, 0.01, 8))
WIDE = np.stack([np.cos(ANGLES), np.sin(ANGLES)]).astype(np.float32)

CASES: dict[str, Any] = {
    "Gelu": model("Gelu", {"x": X}),
    "FastGelu": model("FastGelu", {"x": X}),
    "FastGelu with bias": model("FastGelu", {"x": X, "BIAS": drawn(H)}),
    "BiasGelu": model("BiasGelu", {"x": X, "BIAS": drawn(H)}),
    "QuickGelu": model("QuickGelu", {"x": X}, alpha=1.5),
    "FusedMatMul": model("FusedMatMul", {"x": X, "W": drawn(6, H)}, alpha=0.5, transB=1),
    "FusedMatMul transposed": model("FusedMatMul", {"x": X, "W": drawn(B, S, 6)}, transA=1),
    "FusedGemm": model("FusedGemm", {"x": drawn(4, 3), "W": drawn(5, 3), "C": drawn(5)}, transB=1, activation="Relu"),
    "FusedConv": model("FusedConv", {"x": drawn(1, 3, 6, 6), "W": drawn(4, 3, 3, 3), "B": drawn(4)}, activation="Relu"),
    "FusedConv with sum": model(
        "FusedConv", {"x": drawn(1, 3, 6, 6), "W": drawn(4, 3, 3, 3), "B": drawn(4), "Z": drawn(1, 4, 4, 4)},
        activation="LeakyRelu", activation_params=[0.1],
    ),
    "FusedConv clipped": model(
        "FusedConv", {"x": drawn(1, 3, 6, 6), "W": drawn(4, 3, 3, 3), "B": drawn(4)},
        activation="Clip", activation_params=[0.0, 6.0], pads=[1, 1, 1, 1], strides=[2, 2],
    ),
    "SimplifiedLayerNormalization": model("SimplifiedLayerNormalization", {"x": X, "G": drawn(H)}, domain="", axis=-1),
    "Attention": model("Attention", {"x": X, "W": drawn(H, 3 * H), "B": drawn(3 * H)}, num_heads=HEADS),
    "Attention masked": model(
        "Attention", {"x": X, "W": drawn(H, 3 * H), "B": drawn(3 * H), "mask": MASK}, num_heads=HEADS
    ),
    "Attention by lengths": model(
        "Attention",
        {"x": X, "W": drawn(H, 3 * H), "B": drawn(3 * H), "mask": np.asarray([5, 3], np.int32)},
        num_heads=HEADS,
    ),
    "Attention causal": model(
        "Attention", {"x": X, "W": drawn(H, 3 * H), "B": drawn(3 * H)}, num_heads=HEADS, unidirectional=1
    ),
    "MultiHeadAttention": model(
        "MultiHeadAttention",
        {"x": X, "k": drawn(B, 7, H), "v": drawn(B, 7, H) + 1, "BIAS": drawn(3 * H)},
        num_heads=HEADS,
    ),
    "MultiHeadAttention masked and biased": model(
        "MultiHeadAttention",
        {"x": X, "k": drawn(B, S, H), "v": X + 1, "B": None, "mask": MASK, "bias": drawn(1, HEADS, S, S)},
        num_heads=HEADS, scale=0.7,
    ),
    "RotaryEmbedding": model(
        "RotaryEmbedding",
        {"x": X, "pos": np.asarray([[0, 1, 2, 3, 4], [2, 3, 4, 5, 6]]), "C": CACHE[0], "S": CACHE[1]},
    ),
    "RotaryEmbedding interleaved from an offset": model(
        "RotaryEmbedding", {"x": X, "pos": np.asarray([3]), "C": CACHE[0], "S": CACHE[1]}, interleaved=1
    ),
    "GroupQueryAttention": model(
        "GroupQueryAttention",
        {
            "x": drawn(B, S, 32), "k": drawn(B, S, 16), "v": drawn(B, S, 16) + 1, "PK": None, "PV": None,
            "LENS": np.asarray([4, 4], np.int32), "TOTAL": np.asarray(5, np.int32), "C": WIDE[0], "S": WIDE[1],
        },
        outputs=3, num_heads=HEADS, kv_num_heads=1, do_rotary=1, local_window_size=2,
    ),
}  # fmt: skip
OUTPUTS = {"GroupQueryAttention": 3}


@pytest.mark.parametrize("case", CASES)
def test_computes_what_onnx_runtime_computes(case: str) -> None:
    proto, feeds = CASES[case]
    same(proto, feeds, OUTPUTS.get(case, 1))


@pytest.mark.parametrize("bias", [None, drawn(H)])
def test_skip_layer_normalisation_and_its_sum(bias: np.ndarray | None) -> None:
    inputs = {"x": X, "skip": X[::-1].copy(), "G": drawn(H), "BETA": drawn(H) + 1, "BIAS": bias}
    node = ["x", "skip", "G", "BETA"] + (["BIAS"] if bias is not None else [])
    proto, feeds = model("SkipLayerNormalization", {k: inputs[k] for k in node}, epsilon=1e-5)
    proto.graph.node[0].output.extend(["", "", "y1"])
    proto.graph.output.append(onnx.helper.make_tensor_value_info("y1", 1, None))
    same(proto, feeds, 2)


def test_root_mean_square_with_a_skip() -> None:
    same(*model("SkipSimplifiedLayerNormalization", {"x": X, "skip": X[::-1].copy(), "G": drawn(H)}, epsilon=1e-5))


def test_embeddings_are_differentiated_at_the_table_that_words_come_from() -> None:
    ids = np.asarray([[1, 2, 3, 4, 0], [3, 3, 2, 1, 0]], np.int32)
    inputs = {
        "ids": ids, "segments": (ids > 1).astype(np.int32), "WORDS": drawn(6, H), "PLACES": drawn(9, H),
        "TABLE": drawn(2, H), "G": drawn(H), "B": drawn(H) + 1,
    }  # fmt: skip
    proto, feeds = model("EmbedLayerNormalization", inputs, epsilon=1e-5)
    proto.graph.node[0].output.append("mask_index")  # the kernel wants two outputs
    want = run(proto, feeds, ["y0"])[0]
    shaped(proto, [want])
    found = differentiate(proto, outputs=["y0"])
    got = run(found, {**feeds, "seed/y0": np.ones_like(want)}, ["y0"])[0]
    np.testing.assert_allclose(got, want, rtol=CLOSE, atol=CLOSE)
    assert [v.name for v in found.graph.output if v.name.startswith("gradient/")]


def test_a_convolution_with_channels_last_is_the_one_with_channels_first() -> None:
    """ONNX Runtime has its kernel in float16 only: against FusedConv, which is checked above."""
    x, w, b, z = drawn(1, 3, 6, 6), drawn(4, 3, 3, 3), drawn(4), drawn(1, 4, 4, 4)
    first, feeds = model("FusedConv", {"x": x, "W": w, "B": b, "Z": z}, activation="Relu")
    last, _ = model(
        "NhwcFusedConv",
        {"x": x.transpose(0, 2, 3, 1), "W": w, "B": b, "Z": z.transpose(0, 2, 3, 1)},
        activation="Relu",
    )
    want = run(first, feeds, ["y0"])[0]
    shaped(last, [want.transpose(0, 2, 3, 1)])
    seed = np.ones_like(want).transpose(0, 2, 3, 1)
    got = run(differentiate(last), {"x": x.transpose(0, 2, 3, 1), "seed/y0": seed}, ["y0", "gradient/x"])
    np.testing.assert_allclose(got[0].transpose(0, 3, 1, 2), want, rtol=CLOSE, atol=CLOSE)
    shaped(first, [want])
    gradient = run(differentiate(first), {**feeds, "seed/y0": np.ones_like(want)}, ["gradient/x"])[0]
    np.testing.assert_allclose(got[1].transpose(0, 3, 1, 2), gradient, rtol=CLOSE, atol=CLOSE)


def test_what_a_cache_needs_is_refused_by_name() -> None:
    past = {"x": X, "W": drawn(H, 3 * H), "B": drawn(3 * H), "m": None, "past": drawn(2, B, HEADS, 3, H // HEADS)}
    proto, _ = model("Attention", past, outputs=2, num_heads=HEADS)
    shaped(proto, [X, drawn(2, B, HEADS, 3, H // HEADS)])
    with pytest.raises(Unsupported, match=r"com.microsoft::Attention.*'node'.*past"):
        differentiate(proto, ["x"], ["y0"])


def test_a_network_that_onnx_runtime_optimised(tmp_path: Path) -> None:
    """Its optimiser fuses convolutions with their gates, matrix products with transposes, and biases with Gelu."""
    text = """<ir_version: 10, opset_import: ["": 20]>
    g (float[N,3,8,8] x) => (float[N,4] y0)
    {
      c = Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (x, w1, b1)
      r = Relu(c)
      d = Conv <kernel_shape = [3,3], strides = [2,2]> (r, w2, b2)
      l = LeakyRelu <alpha = 0.1> (d)
      p = GlobalAveragePool(l)
      f = Flatten(p)
      m = MatMul(f, w3)
      a = Add(m, b3)
      e = Gelu(a)
      t = Transpose <perm = [1,0]> (w4)
      y0 = MatMul(e, t)
    }"""
    proto = onnx.parser.parse_model(text)
    weights = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (5, 4, 3, 3), "b2": (5,), "w3": (5, 6), "b3": (6,), "w4": (4, 6)}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(drawn(*s), n) for n, s in weights.items())
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(tmp_path / "optimised.onnx")
    assert "com.microsoft" in {node.domain for node in optimised.graph.node}
    x, seed = drawn(2, 3, 8, 8), drawn(2, 4)
    names = ["y0", "gradient/x"]
    want = run(differentiate(proto), {"x": x, "seed/y0": seed}, names)
    got = run(differentiate(optimised), {"x": x, "seed/y0": seed}, names)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=CLOSE, atol=CLOSE)
