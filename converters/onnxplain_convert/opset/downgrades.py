"""How nodes of opset 22 and later are said in opset 21: attributes that mean nothing there are dropped.

Most changes since 21 only added types. Operators that 21 does not have are expanded through ONNX's own function bodies
(``expand``); what has neither is listed in the error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir

from onnxplain_convert.opset.site import Site

Adapter = Callable[[Site], None]


def dequantize_linear_23(site: Site) -> None:
    """output_dtype: multiplying by a scale of that type gives it."""
    dtype = site.take("output_dtype", 0)
    scale = site.node.inputs[1]
    if dtype and scale is not None and scale.dtype != ir.DataType(dtype):
        site.put(1, site.insert("Cast", [scale], {"to": dtype}))


def quantize_linear_23(site: Site) -> None:
    """precision says in what type to divide; before that it was the type of the scale."""
    precision = site.take("precision", 0)
    if precision and precision != int(site.dtype(1)):
        raise site.refuse(f"precision={precision} differs from the type of its scale")


def cast_24(site: Site) -> None:
    """round_mode only concerns float8e8m0, which opset 21 does not have."""
    site.node.attributes.pop("round_mode", None)


def range_27(site: Site) -> None:
    """stash_type only concerns 16-bit types, in which earlier versions have no Range."""
    site.node.attributes.pop("stash_type", None)


DOWNGRADES: Mapping[tuple[str, int], Adapter] = {
    ("Cast", 24): cast_24,
    ("CastLike", 24): cast_24,
    ("DequantizeLinear", 23): dequantize_linear_23,
    ("QuantizeLinear", 23): quantize_linear_23,
    ("Range", 27): range_27,
}
"""(operator, version it changed in) -> how a node of that version says it in the version before."""
