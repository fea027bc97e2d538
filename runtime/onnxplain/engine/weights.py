"""Splits a program into bytes without weights and the weights, which the session gets as arrays.

So the audit swaps weights without writing a file, and a program of a gigabyte is never serialised.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain.engine.program import Program
from onnxplain.engine.session import Array
from onnxplain.errors import BadRequest, LimitExceeded, NotFound, nearest

SMALLEST = 1024
"""Bytes: smaller initializers stay in the graph, where shape inference and folding read them."""
_LARGEST_GRAPH = 2**31 - 1
_NUMPY_KINDS = "fiub"


def split(program: Program, overrides: Mapping[str, Array] | None = None) -> tuple[bytes, dict[str, Array]]:
    """The program as ONNX bytes with external placeholders, and the arrays that belong into them by name.

    ``overrides``: artifact initializer name -> array to use in its place, as :func:`check_weights` takes them. Raises
    LimitExceeded where the graph alone is too large.
    """
    graph = program.model.graph
    kept: dict[str, Array] = {}
    originals: dict[str, Any] = {}
    try:
        for name, value in graph.initializers.items():
            tensor = value.const_value
            override = (overrides or {}).get(program.weights.get(name, ""))
            if tensor is None or (override is None and not _is_large(tensor)):
                continue
            array = tensor.numpy() if override is None else override
            originals[name] = tensor
            if _is_large(tensor):
                kept[name] = np.ascontiguousarray(array)
                value.const_value = ir.ExternalTensor(
                    "weights", 0, array.nbytes, tensor.dtype, shape=ir.Shape(array.shape), name=name
                )
            else:
                value.const_value = ir.tensor(array, name=name)
        proto = ir.to_proto(program.model)
    finally:
        for name, tensor in originals.items():
            graph.initializers[name].const_value = tensor
    if proto.ByteSize() > _LARGEST_GRAPH:
        raise LimitExceeded(f"{program.name}: the graph without weights is larger than 2 GiB, which ONNX cannot hold")
    return proto.SerializeToString(), kept


def check_weights(overrides: Mapping[str, Array], initializers: Mapping[str, ir.Value]) -> None:
    """Raises NotFound for a weight that the artifact does not have, BadRequest where shape or type differ."""
    for name, array in overrides.items():
        tensor = initializers[name].const_value if name in initializers else None
        if tensor is None:
            raise NotFound(f"no weight {name!r} in the model; {nearest(name, initializers)}")
        dtype, shape = tensor.dtype.numpy(), tuple(tensor.shape.numpy())
        if array.dtype != dtype or array.shape != shape:
            raise BadRequest(
                f"weight {name!r} is {dtype} {shape}, the one to use in its place {array.dtype} {array.shape}: "
                "they must be the same"
            )


def _is_large(tensor: ir.TensorProtocol) -> bool:
    dtype = tensor.dtype
    return tensor.nbytes >= SMALLEST and dtype != ir.DataType.STRING and dtype.numpy().kind in _NUMPY_KINDS
