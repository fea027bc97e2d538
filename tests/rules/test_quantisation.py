"""The straight-through estimator against PyTorch's fake quantisation, which has the same gradient."""

from __future__ import annotations

import numpy as np
import onnx
import torch

from onnxplain_convert import differentiate
from onnxplain_convert.canonical import canonicalise
from onnxplain_convert.grad.walk import differentiate_graph
from onnxplain_convert.relevance import RULE_SETS
from tests.rules.graphs import ROUNDED, distance, gradients, model

QDQ = """
g (float[N,4] x) => (float[N,3] y)
<float s = {0.02}, int8 z = {3}, float[4,3] w = {1,2,3,4,5,6,7,8,9,10,11,12}> {
  q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  y = MatMul(d, w)
}"""

QLINEAR = """
g (float[N,1,6,6] x) => (float[N,2,2,2] y)
<float s = {0.05}, uint8 z = {128}, int8[2,1,3,3] w = {1,2,3,4,5,6,7,8,9,-1,-2,-3,-4,-5,-6,-7,-8,-9},
 float[2] ws = {0.1, 0.2}, int8[2] wz = {0, 0}, float ys = {0.2}, uint8 yz = {100}> {
  q = QuantizeLinear(x, s, z)
  c = QLinearConv(q, s, z, w, ws, wz, ys, yz)
  p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (c)
  y = DequantizeLinear(p, ys, yz)
}"""

DYNAMIC = """
g (float[N,4] x) => (float[N,3] y)
<int8[4,3] w = {1,2,3,4,5,6,7,8,9,10,11,12}, float ws = {0.1}, int64[2] shape = {-1, 4}> {
  q, s, z = DynamicQuantizeLinear(x)  r = Reshape(q, shape)  i = MatMulInteger(r, w, z)
  c = Cast <to = 1> (i)  t = Mul(s, ws)  y = Mul(c, t)
}"""

PRODUCT = """
g (float[N,4] x) => (float[N,3] y)
<float s = {0.05}, uint8 z = {128}, int8[4,3] w = {1,2,3,4,5,6,7,8,9,-10,-11,-12}, float ws = {0.1}, int8 wz = {1},
 float ys = {0.2}, uint8 yz = {100}> {
  q = QuantizeLinear(x, s, z)
  c = QLinearMatMul(q, s, z, w, ws, wz, ys, yz)
  y = DequantizeLinear(c, ys, yz)
}"""

DYNAMIC_CONVOLUTION = """
g (float[N,1,5,5] x) => (float[N,1,3,3] y) <uint8[1,1,3,3] w = {1,2,3,4,5,6,7,8,9}, float ws = {0.1}, uint8 wz = {4}> {
  q, s, z = DynamicQuantizeLinear(x)  i = ConvInteger(q, w, z, wz)
  c = Cast <to = 1> (i)  t = Mul(s, ws)  y = Mul(c, t)
}"""


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def test_a_pair_passes_the_gradient_inside_the_range_and_nothing_outside() -> None:
    x, seed = 2 * drawn(5, 4), drawn(5, 3)  # codes end at 2.48 and -2.62
    found = gradients(model(QDQ), {"x": x}, seed, ["x"])
    t = torch.tensor(x, requires_grad=True)
    w = torch.arange(1.0, 13.0, dtype=torch.float64).reshape(4, 3)
    y = torch.fake_quantize_per_tensor_affine(t.float(), 0.02, 3, -128, 127).double() @ w
    torch.autograd.backward((y * torch.tensor(seed)).sum())
    assert t.grad is not None
    assert bool((t.grad == 0).any())
    assert distance(found.exact["x"], t.grad.numpy()) < 1e-6  # PyTorch quantises in float32
    assert distance(found.rounded["x"], t.grad.numpy()) < ROUNDED


def test_integer_convolution_and_pooling_of_codes() -> None:
    x, seed = 3 * drawn(2, 1, 6, 6), drawn(2, 2, 2, 2)
    found = gradients(model(QLINEAR), {"x": x}, seed, ["x"])
    t = torch.tensor(x, dtype=torch.float32, requires_grad=True)
    first = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    w = torch.cat([first * 0.1, -first * 0.2])
    y = torch.nn.functional.conv2d(torch.fake_quantize_per_tensor_affine(t, 0.05, 128, 0, 255), w)
    y = torch.nn.functional.max_pool2d(torch.fake_quantize_per_tensor_affine(y, 0.2, 100, 0, 255), 2)
    torch.autograd.backward((y * torch.tensor(seed)).sum())
    assert t.grad is not None
    assert distance(found.rounded["x"], t.grad.numpy()) < ROUNDED


def test_dynamic_quantisation_is_close_to_the_float_model() -> None:
    x, seed = drawn(5, 4), drawn(5, 3)
    found = gradients(model(DYNAMIC), {"x": x}, seed, ["x"])
    w = 0.1 * np.arange(1.0, 13.0).reshape(4, 3)
    # The scale depends on the two extreme inputs: their gradient has what rounding leaves over, up to half a code each.
    assert distance(found.exact["x"], seed @ w.T) < 0.05
    inner = np.argsort(x.ravel())[1:-1]
    assert distance(found.exact["x"].ravel()[inner], (seed @ w.T).ravel()[inner]) < 1e-6


def test_integer_product() -> None:
    x, seed = 3 * drawn(5, 4), drawn(5, 3)
    found = gradients(model(PRODUCT), {"x": x}, seed, ["x"])
    t = torch.tensor(x, dtype=torch.float32, requires_grad=True)
    codes = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9], [-10, -11, -12]])
    y = torch.fake_quantize_per_tensor_affine(t, 0.05, 128, 0, 255) @ (0.1 * (codes - 1))
    torch.autograd.backward((torch.fake_quantize_per_tensor_affine(y, 0.2, 100, 0, 255) * torch.tensor(seed)).sum())
    assert t.grad is not None
    assert bool((t.grad == 0).any())
    assert distance(found.rounded["x"], t.grad.numpy()) < ROUNDED


def test_dynamic_convolution_is_close_to_the_float_model() -> None:
    x, seed = drawn(2, 1, 5, 5), drawn(2, 1, 3, 3)
    found = gradients(model(DYNAMIC_CONVOLUTION), {"x": x}, seed, ["x"])
    kernel = 0.1 * (torch.arange(1.0, 10.0, dtype=torch.float64).reshape(1, 1, 3, 3) - 4)
    want = torch.nn.functional.conv_transpose2d(torch.tensor(seed), kernel).numpy()
    inner = np.argsort(x.ravel())[1:-1]  # the two extreme inputs set the scale
    assert distance(found.rounded["x"].ravel()[inner], want.ravel()[inner]) < ROUNDED


def test_the_walk_names_what_it_passed_straight_through() -> None:
    canonical = canonicalise(model(QDQ))
    walked = differentiate_graph(canonical, ["x"], ["y"], [RULE_SETS["gradient"]])
    assert walked.straight_through == ("QuantizeLinear_0",)
    assert walked.zero_gradient == ()


def test_quantised_models_are_valid_and_differentiable_again() -> None:
    once = differentiate(model(QLINEAR), ["x"], ["y"])
    onnx.checker.check_model(differentiate(once, ["x"], ["gradient/x"]), full_check=True)
