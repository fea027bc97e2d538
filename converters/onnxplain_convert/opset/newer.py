"""Operators that came after opset 21 and that ONNX defines by no others, said in opset 21."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from onnxplain_convert.opset.site import Site

INT64 = ir.DataType.INT64


def cum_prod(site: Site) -> None:
    """Products of what a triangular mask lets through, one row of the mask per result: right for zeros too."""
    x, axis = site.x, site.insert("Reshape", [site.node.inputs[1], _ints(site, 1)])
    exclusive, reverse = site.attribute("exclusive", 0), site.attribute("reverse", 0)
    # (before the axis, on it, behind it): the axis may be known only when this runs
    shape = site.insert("Shape", [x])
    axis = site.insert("Cast", [axis], {"to": int(INT64)})
    rank = site.insert("Shape", [shape])
    axis = site.insert("Mod", [axis, rank])
    behind = site.insert("Add", [axis, _ints(site, 1)])
    outer = site.insert("ReduceProd", [site.insert("Slice", [shape, _ints(site, 0), axis])], {"keepdims": 1})
    size = site.insert("Slice", [shape, axis, behind])
    folded = site.insert("Concat", [outer, size, _ints(site, -1)], {"axis": 0})
    wide = site.insert("Unsqueeze", [site.insert("Reshape", [x, folded]), _ints(site, 1)])
    zero, one = (site.constant("int", np.int64(n), INT64) for n in (0, 1))
    steps = site.insert("Range", [zero, site.insert("Squeeze", [size]), one])
    results, factors = (site.insert("Reshape", [steps, _ints(site, *s)]) for s in ((-1, 1, 1), (1, -1, 1)))
    order = ("Greater" if reverse else "Less") + ("" if exclusive else "OrEqual")
    let = site.insert("Where", [site.insert(order, [factors, results]), wide, site.constant("one", 1, site.dtype())])
    products = site.insert("ReduceProd", [let, _ints(site, 2)], {"keepdims": 0})
    site.become(site.insert("Reshape", [products, shape]))


def tensor_scatter(site: Site) -> None:
    """A cache with an update written into it, from each batch element's own index on along ``axis``."""
    cache, update, starts = site.x, site.node.inputs[1], site.given(2)
    if cache.shape is None or update is None:
        raise site.refuse("the rank of its cache must be known")
    rank = len(cache.shape)
    axis = site.attribute("axis", -2) % rank
    zero, one = (site.constant("int", np.int64(n), INT64) for n in (0, 1))
    length = site.insert("Squeeze", [site.insert("Shape", [update], {"start": axis, "end": axis + 1})])
    steps = site.insert("Range", [zero, length, one])
    places = site.insert("Unsqueeze", [steps, _ints(site, *(k for k in range(rank) if k != axis))])
    if starts is not None:
        places = site.insert("Add", [places, site.insert("Unsqueeze", [starts, _ints(site, *range(1, rank))])])
    if site.attribute("mode", "linear") == "circular":
        size = site.insert("Squeeze", [site.insert("Shape", [cache], {"start": axis, "end": axis + 1})])
        places = site.insert("Mod", [places, size])
    indices = site.insert("Expand", [places, site.insert("Shape", [update])])
    site.become(site.insert("ScatterElements", [cache, indices, update], {"axis": axis}))


def _ints(site: Site, *values: int) -> ir.Value:
    return site.constant("ints", np.asarray(values, np.int64), INT64)


NEWER: Mapping[str, Callable[[Site], None]] = {"CumProd": cum_prod, "TensorScatter": tensor_scatter}
"""Operator -> how it is said."""
