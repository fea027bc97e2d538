"""Emits nodes into a program's graph: one call per node, constants shared, names that cannot clash."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike, DTypeLike, NDArray

PREFIX = "onnxplain/"
"""Everything in a program that is neither the model's nor its interface has a name that begins so."""

Attribute = int | float | str | Sequence[int] | ir.Graph


class Emit:
    """Adds nodes, constants, inputs and outputs to ``graph``; a ``branch`` writes into a subgraph of it."""

    def __init__(self, graph: ir.Graph, root: Emit | None = None, prefix: str = PREFIX) -> None:
        self.graph = graph
        self._prefix = prefix
        self._root = root or self
        self._count = 0
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def __call__(self, op: str, *inputs: ir.Value | None, **attributes: Attribute) -> ir.Value:
        """A node with one output."""
        return self.many(op, inputs, 1, **attributes)[0]

    def many(self, op: str, inputs: Sequence[ir.Value | None], n: int, **attributes: Attribute) -> Sequence[ir.Value]:
        """A node with ``n`` outputs."""
        root = self._root
        root._count += 1
        name = f"{root._prefix}{op}_{root._count}"
        outputs = [ir.Value(name=f"{name}/{i}" if n > 1 else name) for i in range(n)]
        node = ir.node(op, inputs, dict(attributes), name=name, outputs=outputs)
        self.graph.append(node)
        return node.outputs

    def constant(self, value: ArrayLike, dtype: DTypeLike) -> ir.Value:
        """An initializer of the whole program, made once per value."""
        root = self._root
        array: NDArray[np.generic] = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in root._constants:
            name = f"{root._prefix}constant_{len(root._constants)}"
            value_ = ir.Value(name=name, const_value=ir.tensor(array, name=name))
            value_.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
            value_.shape = ir.Shape(array.shape)
            root.graph.register_initializer(value_)
            root._constants[key] = value_
        return root._constants[key]

    def ints(self, *values: int) -> ir.Value:
        """A constant vector of int64, for axes and shapes."""
        return self.constant(values, np.int64)

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[int | str | None]) -> ir.Value:
        value = ir.val(name, dtype=dtype, shape=ir.Shape(shape))
        self.graph.inputs.append(value)
        return value

    def output(self, name: str, value: ir.Value, dtype: ir.DataType, shape: Sequence[int | str | None]) -> None:
        """Make ``value`` visible under ``name`` (through an Identity: it may already be visible, or be an input)."""
        out = self("Identity", value)
        out.name, out.dtype, out.shape = name, dtype, ir.Shape(shape)
        self.graph.outputs.append(out)

    def cast(self, value: ir.Value, source: ir.DataType, to: ir.DataType) -> ir.Value:
        return value if source == to else self("Cast", value, to=int(to))

    def branch(self, name: str, body: Callable[[Emit], ir.Value], dtype: ir.DataType) -> ir.Graph:
        """A subgraph for ``If``: no inputs, the outer values it names, and one output of type ``dtype``."""
        graph = ir.Graph([], [], nodes=[], opset_imports=self.graph.opset_imports, name=name)
        out = body(Emit(graph, self._root))
        out.dtype = dtype
        graph.outputs.append(out)
        return graph

    def flat(self, value: ir.Value, squeezed: bool) -> ir.Value:
        """One row per row, everything else in one axis; ``squeezed``: the tensor has no row axis and is one row."""
        return self("Reshape", value, self.ints(1 if squeezed else 0, -1))

    def unsqueezed(self, scalars: ir.Value, rank: int) -> ir.Value:
        """Scalars per row (R,) as (R, 1, ..., 1) of ``rank`` axes."""
        return scalars if rank <= 1 else self("Unsqueeze", scalars, self.ints(*range(1, rank)))
