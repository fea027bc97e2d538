"""Appends nodes to a graph: ``op.Mul(x, y)`` is a node and returns its output, typed and shaped.

An equal node is never emitted twice (nodes already in the graph count), so whatever the backward pass needs that the
forward pass, another rule or another rule set computed is shared rather than computed again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxplain_convert.graph.inference import Types
from onnxplain_convert.graph.shapes import Dims, dims, is_sequence, same, static_dims

Operand = ir.Value | NDArray[Any] | float | int | bool | Sequence[int] | None

_NOT_SHARED = {
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli",
    "If", "Loop", "Scan", "Dropout",
}  # fmt: skip
_SMALL = 1024


def _attribute_key(attribute: ir.Attr) -> str:
    if attribute.type == ir.AttributeType.TENSOR:
        array = attribute.as_tensor().numpy()
        return f"{array.dtype}{array.shape}{array.tobytes()!r}"
    return repr(attribute.value)


def _names(graph: ir.Graph) -> set[str | None]:
    names: set[str | None] = {v.name for v in (*graph.inputs, *graph.initializers.values())}
    for node in graph.all_nodes():
        names.update((node.name, *(v.name for v in node.outputs)))
    return names


class Emitter:
    """Emits nodes of the default domain at one opset into one graph.

    Operands may be values, numpy arrays, or Python numbers: a float takes the dtype of the first floating-point value
    among the operands, an int or a sequence of ints becomes int64. Attributes are keywords, None leaves one out.
    ``op.emit("Split", x, outputs=2)`` is for nodes of several results.
    """

    def __init__(self, graph: ir.Graph, opset: int, outer: Emitter | None = None, closed: bool = False) -> None:
        """``outer`` is the emitter of the enclosing graph where ``graph`` is a subgraph: it holds the constants.

        ``closed``: the subgraph may capture nothing (bodies of operators that are functions), and has its own.
        """
        self.closed = closed
        self.graph = graph
        self.opset = opset
        self.outer = outer
        self._scope: str = outer._scope if outer else "emitted"
        self._props: dict[str, str] = outer._props if outer else {}
        self._counts: dict[str, int] = outer._counts if outer else {}
        self._types = Types()
        self._constants: dict[tuple[Any, ...], ir.Value] = {}
        self._seen: dict[tuple[Any, ...], ir.Node] = {}
        for value in graph.initializers.values():
            self._remember_constant(value)
        self.emitted: set[ir.Value] = set()
        self.taken: set[str | None] = outer.taken if outer else _names(graph)
        """Names that were in the model before: one that is differentiated again has such as ours."""
        self._alike: dict[ir.Value, ir.Value] = {}
        for node in graph:
            if not node.domain and node.op_type not in _NOT_SHARED:
                self._seen.setdefault(self._key(node.op_type, node.inputs, node.attributes, len(node.outputs)), node)

    def __getattr__(self, op_type: str) -> Callable[..., ir.Value]:
        if op_type.startswith("_"):
            raise AttributeError(op_type)
        return functools.partial(self.emit, op_type)

    @contextmanager
    def scope(self, name: str, props: dict[str, str] | None = None) -> Iterator[None]:
        """Nodes emitted inside are named ``name/<operator>_<n>`` and carry ``props`` as metadata."""
        before = self._scope, self._props
        self._scope, self._props = name, props or {}
        try:
            yield
        finally:
            self._scope, self._props = before

    def emit(self, op_type: str, *operands: Operand, outputs: int = 1, **attributes: Any) -> Any:
        """The node's result; with ``outputs`` above one a tuple of results."""
        like = next((x for x in operands if isinstance(x, ir.Value) and x.dtype and x.dtype.is_floating_point()), None)
        inputs = [self._operand(x, like) for x in operands]
        while inputs and inputs[-1] is None:
            inputs.pop()
        attrs = {k: int(v) if isinstance(v, ir.DataType) else v for k, v in attributes.items() if v is not None}
        draft = ir.node(op_type, inputs, attrs, num_outputs=outputs)
        key = self._key(op_type, inputs, draft.attributes, outputs)
        node = self._seen.get(key) if op_type not in _NOT_SHARED else None
        if node is None:
            node = self._place(draft)
            self._seen[key] = node
        else:
            for index in range(len(draft.inputs)):
                draft.replace_input_with(index, None)
        return node.outputs[0] if outputs == 1 else tuple(node.outputs)

    def anew(self, value: ir.Value) -> ir.Value:
        """The same tensor as a value of its own, never shared: for a graph output that needs its own name."""
        return self._place(ir.node("Identity", [value])).outputs[0]

    def place(
        self, op_type: str, inputs: Sequence[ir.Value | None], like: Sequence[ir.Value], **attributes: Any
    ) -> tuple[ir.Value, ...]:
        """A node with subgraphs, whose results have the types and shapes of ``like`` (None among the axes: unknown)."""
        outputs = [ir.val(None, type=v.type, shape=None if v.shape is None else v.shape.copy()) for v in like]
        return tuple(self._place(ir.node(op_type, inputs, attributes, outputs=outputs), infer=False).outputs)

    def unique(self, stem: str) -> str:
        """A name that nothing else in the model has."""
        while True:
            n = self._counts[self._scope] = self._counts.get(self._scope, -1) + 1
            name = f"{self._scope}/{stem}_{n}"
            if name not in self.taken:
                return name

    def _place(self, node: ir.Node, infer: bool = True) -> ir.Node:
        node.name = self.unique(node.op_type)
        node.metadata_props.update(self._props)
        for i, value in enumerate(node.outputs):
            value.name = f"{node.name}/{i}" if i else node.name
        if infer:
            self._types.infer(node, self.opset)
        self.graph.append(node)
        self.emitted.update(node.outputs)
        return node

    def _key(self, op_type: str, inputs: Sequence[ir.Value | None], attributes: Any, outputs: int) -> tuple[Any, ...]:
        return (op_type, tuple(inputs), tuple(sorted((k, _attribute_key(a)) for k, a in attributes.items())), outputs)

    # ----- constants

    def const(self, array: Any, dtype: ir.DataType | None = None) -> ir.Value:
        """A constant as an initializer; equal constants are one."""
        if self.outer is not None and not self.closed:
            return self.outer.const(array, dtype)
        a = np.asarray(array)
        if dtype is not None:
            a = a.astype(dtype.numpy())
        key = (a.dtype.str, a.shape, a.tobytes())
        if key not in self._constants:
            stem = "x".join(map(str, a.shape)) or "scalar"
            name = f"const/{a.dtype.name}/{stem}/{len(self._constants)}"
            if self.closed:
                name = self.unique(name)
            while name in self.graph.initializers:
                name += "_"
            value = ir.val(name, const_value=ir.tensor(a, name=name))
            self.graph.register_initializer(value)
            self._constants[key] = value
        return self._constants[key]

    def ints(self, *values: int) -> ir.Value:
        return self.const(np.asarray(values, np.int64))

    def _remember_constant(self, value: ir.Value) -> None:
        tensor = value.const_value
        if tensor is not None and tensor.size <= _SMALL and value.dtype != ir.DataType.STRING:
            a = tensor.numpy()
            self._constants.setdefault((a.dtype.str, a.shape, a.tobytes()), value)

    def _operand(self, x: Operand, like: ir.Value | None) -> ir.Value | None:
        if x is None or isinstance(x, ir.Value):
            return x
        if isinstance(x, bool):
            return self.const(np.asarray(x))
        if isinstance(x, float | np.floating):
            if like is None or like.dtype is None:
                raise TypeError(f"the float {x} has no operand to take its dtype from. This is a bug in the rule.")
            return self.const(x, like.dtype)
        if isinstance(x, np.ndarray):
            return self.const(x)
        return self.const(np.asarray(x, np.int64))

    # ----- types and shapes

    def typed(self, value: ir.Value, like: ir.Value) -> ir.Value:
        """Give a freshly emitted value the shape of ``like``, which the caller knows it has."""
        self._alike[value] = like
        if like.shape is not None and static_dims(value) is None:
            value.shape = like.shape.copy()
            self._types.forget(value)
        return value

    def shape(self, value: ir.Value) -> ir.Value:
        """The shape as an int64 vector: a constant where it is static."""
        static = static_dims(value)
        return self.ints(*static) if static is not None else self.emit("Shape", value)

    def dim(self, value: ir.Value, axis: int) -> ir.Value:
        """One axis of the shape as an int64 vector of length one: a constant where it is static."""
        shape = dims(value)
        if shape is not None:
            size = shape[axis]
            if isinstance(size, int):
                return self.ints(size)
            axis %= len(shape)
        end = axis + 1 if axis != -1 else None
        return self.Shape(value, start=axis, end=end)

    def reshape_like(self, x: ir.Value, like: ir.Value) -> ir.Value:
        """``x`` in the shape of ``like``, without shape arithmetic where at most one axis is unknown."""
        shape = dims(like)
        if shape is not None and dims(x) == shape and None not in shape:
            return x
        if shape is not None and sum(not isinstance(d, int) for d in shape) <= 1 and 0 not in shape:
            target = self.ints(*(d if isinstance(d, int) else -1 for d in shape))
        else:
            target = self.emit("Shape", like)
        # allowzero: an empty tensor has an axis of length 0, which must not mean "copy from the input"
        return self.typed(self.emit("Reshape", x, target, allowzero=1), like)

    def expand_like(self, x: ir.Value, like: ir.Value) -> ir.Value:
        """``x``, which broadcasts to the shape of ``like``, expanded to it."""
        want, have = dims(like), dims(x)
        if self._alike.get(x) is like:
            return x
        if want is not None and have is not None and len(have) <= len(want):
            padded: Dims = (1,) * (len(want) - len(have)) + have
            if all(same(h, w) for h, w in zip(padded, want, strict=True)) and len(have) == len(want):
                return x
            if all(same(h, w) or isinstance(w, int) for h, w in zip(padded, want, strict=True)):
                target = [1 if same(h, w) and not isinstance(w, int) else w for h, w in zip(padded, want, strict=True)]
                return self.typed(self.emit("Expand", x, np.asarray(target, np.int64)), like)
        return self.typed(self.emit("Expand", x, self.shape(like)), like)

    def spread(self, x: ir.Value, like: ir.Value) -> ir.Value:
        """``x`` as it is where it is known to broadcast to the shape of ``like``, else expanded to it now."""
        have, want = dims(x), dims(like)
        if have is None or want is None or len(have) != len(want):
            return self.expand_like(x, like)
        fits = all(h == 1 or same(h, w) for h, w in zip(have, want, strict=True))
        return x if fits else self.expand_like(x, like)

    def each(self, build: Callable[[Emitter, Sequence[ir.Value]], ir.Value], *sequences: ir.Value) -> ir.Value:
        """A sequence of what ``build`` makes of the tensors at the same place in each of ``sequences``."""
        elements = [ir.val(self.unique("element"), v.dtype, v.shape) for v in sequences]
        body = ir.Graph(elements, [], nodes=[], name=self.unique("body"))
        inner = Emitter(body, self.opset, outer=self, closed=True)
        made = inner.anew(build(inner, elements))
        body.outputs.append(made)
        assert made.dtype is not None
        output = ir.val(None, type=ir.SequenceType(ir.TensorType(made.dtype)), shape=made.shape)
        return self._place(ir.node("SequenceMap", sequences, {"body": body}, outputs=[output]), infer=False).outputs[0]

    def plus(self, x: ir.Value, y: ir.Value) -> ir.Value:
        """The sum of two tensors, or of two sequences tensor by tensor."""
        if is_sequence(x):
            return self.each(lambda op, pair: op.Add(*pair), x, y)
        return self.emit("Add", x, y)  # type: ignore[no-any-return]

    def zeros_like(self, like: ir.Value) -> ir.Value:
        if is_sequence(like):
            return self.each(lambda op, element: op.zeros_like(element[0]), like)
        return self.typed(self.zeros(self.shape(like), like), like)

    def reversed(self, x: ir.Value) -> ir.Value:
        """Back to front along the first axis (onnx's evaluator has no Scan that runs backwards)."""
        return self.Slice(x, [-1], [np.iinfo(np.int64).min], [0], [-1])

    def zeros(self, shape: ir.Value, like: ir.Value) -> ir.Value:
        """Zeros of a computed shape, in the dtype of ``like``."""
        assert like.dtype is not None, f"{like.name} has no type. This is a bug."
        return self.ConstantOfShape(shape, value=ir.tensor(np.zeros(1, like.dtype.numpy()), name="value"))

    def sum_to(self, g: ir.Value, like: ir.Value) -> ir.Value:
        """Undo broadcasting: ``g`` summed to the shape of ``like``, which broadcast to the shape of ``g``.

        Where ``g`` is itself smaller it stays so: it broadcasts to the shape of ``like``.
        """
        have, want = dims(g), dims(like)
        if self._alike.get(g) is like:
            return g
        if have is None or want is None:
            return self._sum_to_dynamic(g, like)
        if have == want and None not in want:
            return g
        lead = len(have) - len(want)
        if lead < 0:  # a gradient that was left smaller than its tensor: broadcast it up
            return self.expand_like(g, like)
        axes, unsure = [], False
        for k, (h, w) in enumerate(zip(have[lead:], want, strict=True)):
            if w == 1 and h != 1:
                axes.append(k)
            elif not same(h, w) and not isinstance(w, int):
                unsure = unsure or h != 1
        if unsure:
            return self._sum_to_dynamic(g, like)
        if lead:
            g = self.emit("ReduceSum", g, self.ints(*range(lead)), keepdims=0)
        if axes:
            g = self.emit("ReduceSum", g, self.ints(*axes), keepdims=1)
        if any(h == 1 and w != 1 for h, w in zip(have[lead:], want, strict=True)):
            return g
        return self.typed(g, like)

    def _sum_to_dynamic(self, g: ir.Value, like: ir.Value) -> ir.Value:
        """The same where axes are known only at run time: sum over those where ``like`` has length 1."""
        shape, rank = self.emit("Shape", like), self.emit("Size", self.emit("Shape", g))
        lead = self.emit("Sub", rank, self.emit("Size", shape))
        ones = self.emit("Expand", self.ints(1), self.emit("Unsqueeze", lead, self.ints(0)))
        padded = self.emit("Concat", ones, shape, axis=0)
        axes = self.emit("Reshape", self.emit("NonZero", self.emit("Equal", padded, self.ints(1))), self.ints(-1))
        summed = self.emit("ReduceSum", g, axes, keepdims=1, noop_with_empty_axes=1)
        return self.typed(self.emit("Reshape", summed, shape, allowzero=1), like)
