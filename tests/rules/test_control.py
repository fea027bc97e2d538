"""If, Scan and Loop, with captured values, against PyTorch's autograd through the same steps in Python."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from onnxplain.errors import Unsupported
from onnxplain_convert import differentiate
from tests.rules.graphs import EXACT, ROUNDED, Found, distance, gradients, model

BRANCHES = """
g (float[2,3] x, float[3] w, bool c) => (float[2,3] y) {
  h = Mul(x, w)
  y = If(c) <
    then_branch = t () => (float[2,3] a) { s = Sigmoid(h)  a = Mul(s, x) },
    else_branch = e () => (float[2,3] b) { b = Sub(h, w) }
  >
}"""

NESTED = """
g (float[2,3] x, bool c, bool d) => (float[2,3] y) {
  y = If(c) <
    then_branch = t () => (float[2,3] a) {
      k = Exp(x)
      a = If(d) < then_branch = tt () => (float[2,3] p) { p = Mul(k, x) },
                  else_branch = te () => (float[2,3] q) { q = Mul(k, k) } >
    },
    else_branch = e () => (float[2,3] b) { b = Identity(x) }
  >
}"""

SCAN = """
g (float[2] h0, float[4,2] x, float[2,2] w) => (float[2] hn, float[4,2] y) {
  hn, y = Scan <num_scan_inputs = 1, scan_input_directions = [DIRECTION], scan_output_directions = [DIRECTION],
    body = step (float[2] h, float[2] v) => (float[2] hh, float[2] o) {
      m = MatMul(h, w)  a = Add(m, v)  hh = Tanh(a)  o = Mul(hh, v)
    }> (h0, x)
}"""

LOOP = """
g (float[2] x, float[2] w, int64 n) => (float[2] y, float[s,2] every) {
  yes = Constant <value = bool {1}> ()
  y, every = Loop <
    body = step (int64 i, bool c, float[2] v) => (bool cc, float[2] vv, float[2] o) {
      f = Cast <to = 1> (i)  u = Mul(v, w)  t = Sin(u)  vv = Add(t, f)  o = Mul(vv, x)  cc = Identity(c)
    }> (n, yes, x)
}"""


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape) + sum(shape)).standard_normal(shape)


def agrees(found: Found, want: dict[str, torch.Tensor]) -> None:
    for name, tensor in want.items():
        assert tensor.grad is not None
        if found.exact:
            assert distance(found.exact[name], tensor.grad.numpy()) < EXACT, name
        assert distance(found.rounded[name], tensor.grad.numpy()) < ROUNDED, name


def leaves(**arrays: np.ndarray) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(a, requires_grad=True) for name, a in arrays.items()}


@pytest.mark.parametrize("condition", [True, False])
def test_if_sends_the_gradient_through_the_branch_taken(condition: bool) -> None:
    x, w, seed = drawn(2, 3), drawn(3), drawn(2, 3)
    found = gradients(model(BRANCHES), {"x": x, "w": w, "c": np.asarray(condition)}, seed, ["x", "w"])
    t = leaves(x=x, w=w)
    h = t["x"] * t["w"]
    y = torch.sigmoid(h) * t["x"] if condition else h - t["w"]
    torch.autograd.backward((y * torch.tensor(seed)).sum())
    agrees(found, t)


@pytest.mark.parametrize(("outer", "inner"), [(True, True), (True, False), (False, True)])
def test_nested_branches(outer: bool, inner: bool) -> None:
    x, seed = drawn(2, 3), drawn(2, 3)
    feeds = {"x": x, "c": np.asarray(outer), "d": np.asarray(inner)}
    found = gradients(model(NESTED), feeds, seed, ["x"])
    t = leaves(x=x)
    k = torch.exp(t["x"])
    y = (k * t["x"] if inner else k * k) if outer else t["x"]
    torch.autograd.backward((y * torch.tensor(seed)).sum())
    agrees(found, t)


@pytest.mark.parametrize("direction", [0, 1])
@pytest.mark.parametrize("explained", ["y", "hn"])
def test_scan_goes_back_through_every_step(direction: int, explained: str) -> None:
    h0, x, w = 0.3 * drawn(2), 0.3 * drawn(4, 2), drawn(2, 2)  # small: a saturated tanh has no digits to compare
    seed = drawn(4, 2) if explained == "y" else drawn(2)
    proto = model(SCAN.replace("DIRECTION", str(direction)))
    feeds = {"h0": h0, "x": x, "w": w}
    # onnx's evaluator runs no scan backwards
    found = gradients(proto, feeds, seed, ["h0", "x", "w"], explained, evaluate=not direction)
    t = leaves(h0=h0, x=x, w=w)
    h, outs = t["h0"], []
    for v in t["x"].flip(0) if direction else t["x"]:
        h = torch.tanh(h @ t["w"] + v)
        outs.append(h * v)
    y = torch.stack(outs[::-1] if direction else outs) if explained == "y" else h
    torch.autograd.backward((y * torch.tensor(seed)).sum())
    agrees(found, t)


@pytest.mark.parametrize("explained", ["y", "every"])
@pytest.mark.parametrize("steps", [1, 4])
def test_loop_goes_back_through_every_step(explained: str, steps: int) -> None:
    x, w = drawn(2), drawn(2)
    seed = drawn(steps, 2) if explained == "every" else drawn(2)
    feeds = {"x": x, "w": w, "n": np.asarray(steps)}
    found = gradients(model(LOOP), feeds, seed, ["x", "w"], explained)
    t = leaves(x=x, w=w)
    v, outs = t["x"], []
    for i in range(steps):
        v = torch.sin(v * t["w"]) + i
        outs.append(v * t["x"])
    y = torch.stack(outs) if explained == "every" else v
    torch.autograd.backward((y * torch.tensor(seed)).sum())
    agrees(found, t)


def test_a_loop_that_carries_a_sequence_is_refused_by_name() -> None:
    text = """g (float[2] x, int64 n) => (float[k] y) {
      yes = Constant <value = bool {1}> ()
      none = SequenceEmpty ()
      s = Loop < body = step (int64 i, bool c, seq(float[2]) v) => (bool cc, seq(float[2]) vv) {
        vv = SequenceInsert(v, x)  cc = Identity(c) }> (n, yes, none)
      y = ConcatFromSequence <axis = 0> (s)
    }"""
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 21]> {text}')
    with pytest.raises(Unsupported, match=r"opset 21"):
        differentiate(proto, ["x"], ["y"])
