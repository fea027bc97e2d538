"""What ONNX Runtime's optimiser and its exporters write, said in standard operators.

Every function here replaces one ``com.microsoft`` node by standard nodes that compute the same; what a node asks for
beyond that is refused by name. Transformer operators are in ``attention``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

import onnx_ir as ir

from onnxplain_convert.graph.inference import Types
from onnxplain_convert.opset import attention
from onnxplain_convert.opset.site import Site

DOMAIN = "com.microsoft"


def gelu(site: Site) -> None:
    """x P(x), P the normal distribution."""
    site.become(site.insert("Gelu", [site.x]))


def fast_gelu(site: Site) -> None:
    """The tanh approximation, of x + bias where there is one."""
    x = site.insert("Add", [site.x, site.given(1)]) if site.given(1) else site.x
    site.become(site.insert("Gelu", [x], {"approximate": "tanh"}))


def bias_gelu(site: Site) -> None:
    """gelu(x + bias)."""
    site.become(site.insert("Gelu", [site.insert("Add", site.node.inputs)]))


def quick_gelu(site: Site) -> None:
    """x sigmoid(alpha x)."""
    alpha = site.constant("alpha", site.attribute("alpha", 1.702), site.dtype())
    gate = site.insert("Sigmoid", [site.insert("Mul", [site.x, alpha])])
    site.become(site.insert("Mul", [site.x, gate]))


def fused_matmul(site: Site) -> None:
    """alpha A' B'; ``transBatch`` moves the first axis in front of the last one."""
    operands = []
    for index, side in enumerate("AB"):
        value = site.node.inputs[index]
        assert value is not None
        rank = None if value.shape is None else len(value.shape)
        if site.attribute(f"transBatch{side}", 0):
            if rank is None:
                raise site.refuse(f"transBatch{side} needs the rank of {value.name!r}, which is not known")
            value = site.insert("Transpose", [value], {"perm": [*range(1, rank - 1), 0, rank - 1]})
        if site.attribute(f"trans{side}", 0) and rank != 1:
            value = site.insert("Einsum", [value], {"equation": "...ij->...ji"})
        operands.append(value)
    y = site.insert("MatMul", operands)
    alpha = site.attribute("alpha", 1.0)
    site.become(y if alpha == 1.0 else site.insert("Mul", [y, site.constant("alpha", alpha, site.dtype())]))


def fused_gemm(site: Site) -> None:
    """Gemm and an activation."""
    names = ("alpha", "beta", "transA", "transB")
    plain = {name: site.attribute(name) for name in names if name in site.node.attributes}
    y = site.insert("Gemm", site.node.inputs, plain)
    params = [site.attribute(f"activation_{name}", 0.0) for name in ("alpha", "beta", "gamma")]
    site.become(_activated(site, y, params))


def fused_conv(site: Site) -> None:
    """Conv, plus a residual, and an activation."""
    y = _convolved(site, site.x)
    site.become(_activated(site, y, list(site.attribute("activation_params", []))))


def nhwc_fused_conv(site: Site) -> None:
    """The same with the channels last in the picture and the residual (the filters are as in Conv)."""
    shape = site.node.inputs[1].shape if site.node.inputs[1] is not None else None
    if shape is None:
        raise site.refuse("the rank of its weight is not known")
    axes = range(2, len(shape))
    x = site.insert("Transpose", [site.x], {"perm": [0, len(shape) - 1, *range(1, len(shape) - 1)]})
    y = _convolved(site, x, perm=[0, len(shape) - 1, *range(1, len(shape) - 1)])
    y = _activated(site, y, list(site.attribute("activation_params", [])))
    site.become(site.insert("Transpose", [y], {"perm": [0, *axes, 1]}))


def _convolved(site: Site, x: ir.Value, perm: list[int] | None = None) -> ir.Value:
    names = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    plain = {name: site.attribute(name) for name in names if name in site.node.attributes}
    y = site.insert("Conv", [x, site.node.inputs[1], site.given(2)], plain)
    residual = site.given(3)
    if residual is None:
        return y
    return site.insert("Add", [y, site.insert("Transpose", [residual], {"perm": perm}) if perm else residual])


def _activated(site: Site, y: ir.Value, params: list[float]) -> ir.Value:
    """The fused activation, whose parameters come in the order of the operator's own attributes."""
    name = site.attribute("activation", "")
    if not name:
        return y
    if name in ("Relu", "Tanh", "Sigmoid", "HardSwish"):
        return site.insert(name, [y])
    if name == "LeakyRelu":
        return site.insert(name, [y], {"alpha": params[0]})
    if name == "HardSigmoid":
        return site.insert(name, [y], {"alpha": params[0], "beta": params[1]})
    if name == "Clip":
        bounds = [site.constant(f"bound_{i}", params[i], site.dtype()) for i in (0, 1)]
        return site.insert(name, [y, *bounds])
    raise site.refuse(f"its activation {name!r} is not known here")


def into_standard(model: ir.Model, taken: set[str], target: int) -> None:
    """Replace every ``com.microsoft`` node that has an adapter, in place, from the inputs on.

    ONNX infers nothing behind a node that it does not know, so types are inferred node by node on the way.
    """
    types = Types()
    for graph in model.graphs():
        for node in list(graph):
            if is_known(node):
                before = set(graph)
                ADAPTERS[node.op_type](Site(node, target, target, [], taken))
                made = [n for n in graph if n not in before]
            else:
                made = [node]
            for each in made:
                if each.domain == "" and any(v.dtype is None or v.shape is None for v in each.outputs):
                    with contextlib.suppress(TypeError):  # what is not known stays so; whoever needs it says so
                        types.infer(each, each.version or model.opset_imports.get("", target))


def claim(model: ir.Model) -> None:
    """Put SimplifiedLayerNormalization, which exporters leave in the default domain, where its definition is."""
    for graph in model.graphs():
        for node in graph:
            if node.domain == "" and node.op_type == "SimplifiedLayerNormalization":
                node.domain = DOMAIN
                model.opset_imports.setdefault(DOMAIN, 1)


def is_known(node: ir.Node) -> bool:
    """Is this one of ONNX Runtime's own operators that are replaced here?"""
    return node.domain == DOMAIN and node.op_type in ADAPTERS


ADAPTERS: Mapping[str, Callable[[Site], None]] = {
    "Gelu": gelu,
    "FastGelu": fast_gelu,
    "BiasGelu": bias_gelu,
    "QuickGelu": quick_gelu,
    "FusedMatMul": fused_matmul,
    "FusedGemm": fused_gemm,
    "FusedConv": fused_conv,
    "NhwcFusedConv": nhwc_fused_conv,
    "SkipLayerNormalization": attention.skip_layer_normalization,
    "SkipSimplifiedLayerNormalization": attention.skip_simplified_layer_normalization,
    "SimplifiedLayerNormalization": attention.simplified_layer_normalization,
    "EmbedLayerNormalization": attention.embed_layer_normalization,
    "RotaryEmbedding": attention.rotary_embedding,
    "Attention": attention.attention,
    "MultiHeadAttention": attention.multi_head_attention,
    "GroupQueryAttention": attention.group_query_attention,
}
"""Operator of ``com.microsoft`` -> its adapter."""
