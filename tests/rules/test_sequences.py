"""Sequences of tensors against PyTorch's autograd through Python lists."""

from __future__ import annotations

import numpy as np
import torch

from tests.rules.graphs import EXACT, ROUNDED, distance, gradients, model

SPLIT_AND_JOIN = """
g (float[4,3] x) => (float[k,3] y) {
  sizes = Constant <value = int64[3] {1, 2, 1}> ()
  s = SplitToSequence <axis = 0> (x, sizes)
  m = SequenceMap <body = b (float[a,3] e) => (float[a,3] f) { f = Mul(e, e) }> (s)
  y = ConcatFromSequence <axis = 0> (m)
}"""

PICKED = """
g (float[2,3] x, float[2,3] w) => (float[2,3] y) {
  last = Constant <value = int64 {-1}> ()
  first = Constant <value = int64 {0}> ()
  u = Mul(x, w)
  s = SequenceConstruct(x, u)
  t = SequenceInsert(s, w, first)
  e = SequenceErase(t, last)
  a = SequenceAt(t, last)
  b = SequenceAt(e, first)
  c = SequenceAt(e, last)
  d = Mul(a, b)
  y = Add(d, c)
}"""

STACKED = """
g (float[2,3] x) => (float[k,l,m] y) {
  s = SplitToSequence <axis = 1, keepdims = 0> (x)
  z = ConcatFromSequence <axis = 1, new_axis = 1> (s)
  t = Sin(z)
  v = SequenceConstruct(t, t)
  y = ConcatFromSequence <axis = 0, new_axis = 1> (v)
}"""

OPTIONAL = """
g (float[2,3] x) => (float[2,3] y) {
  o = Optional (x)
  e = OptionalGetElement (o)
  y = Mul (e, x)
}"""


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def test_split_map_and_join() -> None:
    x, seed = drawn(4, 3), drawn(4, 3) + 1
    found = gradients(model(SPLIT_AND_JOIN), {"x": x}, seed, ["x"])
    assert distance(found.exact["x"], 2 * x * seed) < EXACT
    assert distance(found.rounded["x"], 2 * x * seed) < ROUNDED


def test_taking_inserting_and_erasing_at_places_from_both_ends() -> None:
    x, w, seed = drawn(2, 3), drawn(2, 3) + 1, drawn(2, 3)
    found = gradients(model(PICKED), {"x": x, "w": w}, seed, ["x", "w"])
    tx, tw = torch.tensor(x, requires_grad=True), torch.tensor(w, requires_grad=True)
    t = [tw, tx, tx * tw]
    e = t[:-1]
    torch.autograd.backward(((t[-1] * e[0] + e[-1]) * torch.tensor(seed)).sum())
    for name, leaf in (("x", tx), ("w", tw)):
        assert leaf.grad is not None
        assert distance(found.exact[name], leaf.grad.numpy()) < EXACT, name
        assert distance(found.rounded[name], leaf.grad.numpy()) < ROUNDED, name


def test_new_axes_and_one_tensor_twice() -> None:
    x, seed = drawn(2, 3), drawn(2, 2, 3)
    found = gradients(model(STACKED), {"x": x}, seed, ["x"])
    assert distance(found.exact["x"], seed.sum(0) * np.cos(x)) < EXACT
    assert distance(found.rounded["x"], seed.sum(0) * np.cos(x)) < ROUNDED


def test_an_optional_tensor() -> None:
    x, seed = drawn(2, 3), drawn(2, 3) + 1
    found = gradients(model(OPTIONAL), {"x": x}, seed, ["x"], evaluate=False)  # onnx's reference makes it a list
    assert distance(found.rounded["x"], 2 * x * seed) < ROUNDED
