"""Sparse tensors as dense ones: what is differentiated and run afterwards knows only those."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, SparseTensorProto, TensorProto, numpy_helper

from onnxplain.errors import BadModel


def densified(model: ModelProto) -> ModelProto:
    """The model with sparse initializers and sparse constants written out; the model itself where it has none.

    Raises BadModel naming the tensor whose indices do not fit its shape.
    """
    if not any(_is_sparse(graph) for graph in _graphs(model.graph)):
        return model
    dense = ModelProto()
    dense.CopyFrom(model)
    for graph in _graphs(dense.graph):
        graph.initializer.extend(_dense(tensor) for tensor in graph.sparse_initializer)
        del graph.sparse_initializer[:]
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.SPARSE_TENSOR:
                    tensor = _dense(attribute.sparse_tensor)
                    attribute.CopyFrom(AttributeProto(name="value", type=AttributeProto.TENSOR, t=tensor))
    return dense


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _graphs(attribute.g)


def _is_sparse(graph: GraphProto) -> bool:
    attributes = (attribute for node in graph.node for attribute in node.attribute)
    return bool(graph.sparse_initializer) or any(a.type == AttributeProto.SPARSE_TENSOR for a in attributes)


def _dense(tensor: SparseTensorProto) -> TensorProto:
    """Indices are linear (one per value) or one coordinate per axis."""
    values, indices = numpy_helper.to_array(tensor.values), numpy_helper.to_array(tensor.indices)
    shape = tuple(tensor.dims)
    array = np.zeros(shape, values.dtype)
    try:
        if indices.ndim == 1:
            array.reshape(-1)[indices] = values
        else:
            array[tuple(indices.T)] = values
    except (IndexError, ValueError) as error:
        raise BadModel(f"sparse tensor {tensor.values.name!r}: its indices do not fit its shape {shape}") from error
    return numpy_helper.from_array(array, tensor.values.name)
