"""Matrix products against PyTorch in float64: vectors, batches that broadcast, transposed factors, subscripts."""

from __future__ import annotations

from typing import Any

import hypothesis.extra.numpy as hnp
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rules.single_node import Node, Shapes, check, normal

SHAPES: st.SearchStrategy[Shapes] = st.sampled_from(["static", "batch", "symbolic"])
MATRICES = hnp.mutually_broadcastable_shapes(signature="(n?,k),(k,m?)->(n?,m?)", max_dims=3, max_side=3)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(pair=MATRICES, shapes=SHAPES, constant=st.booleans(), turned=st.booleans())
def test_matmul(pair: Any, shapes: Shapes, constant: bool, turned: bool) -> None:
    """Vectors on either side, batch axes that broadcast, the weight on either side."""
    a, b = normal(*pair.input_shapes[0]), normal(*pair.input_shapes[1], seed=1)
    inputs = {"w": a, "x": b} if turned else {"x": a, "w": b}
    node = Node("MatMul", inputs, {}, shapes=shapes, constants=("w",) if constant else ())
    check(node, torch.matmul, ["x"] if constant else ["x", "w"])


SIZE = st.integers(1, 4)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    size=st.tuples(SIZE, SIZE, SIZE),
    trans=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    scales=st.sampled_from([(1.0, 1.0), (0.5, 1.0), (1.0, 2.0), (0.25, 0.0)]),
    bias=st.sampled_from(["none", "scalar", "row", "column", "one by one", "full"]),
    shapes=SHAPES,
)
def test_gemm(
    size: tuple[int, int, int], trans: tuple[int, int], scales: tuple[float, float], bias: str, shapes: Shapes
) -> None:
    (n, k, m), (ta, tb), (alpha, beta) = size, trans, scales
    kinds = {"scalar": (), "row": (m,), "column": (n, 1), "one by one": (1, 1), "full": (n, m)}
    inputs = {"x": normal(k, n) if ta else normal(n, k), "w": normal(m, k, seed=1) if tb else normal(k, m, seed=1)}
    if bias != "none":
        inputs["c"] = normal(2, *kinds[bias], seed=2)[0:1].reshape(kinds[bias])

    def truth(x: torch.Tensor, w: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        y = alpha * ((x.T if ta else x) @ (w.T if tb else w))
        return y if c is None else y + beta * c

    attributes = {"alpha": alpha, "beta": beta, "transA": ta, "transB": tb}
    check(Node("Gemm", inputs, attributes, shapes=shapes), truth, list(inputs))


EQUATIONS = [
    "ij,jk->ik", "ij,jk", "bij,bjk->bik", "...ij,...jk->...ik", "ij->ji", "ij->", "ij->i", "ii->i", "ii->", "i,j->ij",
    "bhid,bhjd->bhij", "ij,ij->", "ij,kj->ikj", "bi,ijk,bk->bj", "...i,i->...", "b...,b->...b", "ij,ij,ij->ij",
    "iij->j",
]  # fmt: skip


@pytest.mark.parametrize("equation", EQUATIONS)
@pytest.mark.parametrize("shapes", ["static", "batch"])
def test_einsum(equation: str, shapes: Shapes) -> None:
    """Products, traces, diagonals, outer products, ellipses, three operands; ONNX's implicit output too."""
    sizes = dict(zip("bhijkd", (2, 3, 3, 4, 2, 3), strict=True))
    terms = equation.split("->")[0].split(",")
    inputs = {
        name: normal(*(sizes[letter] for letter in term.replace("...", "bh")), seed=k)
        for k, (name, term) in enumerate(zip("xwv", terms, strict=False))
    }
    node = Node("Einsum", inputs, {"equation": equation}, shapes=shapes)
    check(node, lambda *operands: torch.einsum(equation, *operands), list(inputs))
