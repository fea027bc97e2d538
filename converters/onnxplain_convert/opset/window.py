"""Brings every node of a model into the opset window, one node at a time, up or down; says which cannot be brought."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from onnxplain.errors import Unsupported, nearest
from onnxplain_convert.opset.downgrades import DOWNGRADES
from onnxplain_convert.opset.expand import expand, function_body
from onnxplain_convert.opset.microsoft import into_standard, is_known
from onnxplain_convert.opset.newer import NEWER
from onnxplain_convert.opset.site import Site
from onnxplain_convert.opset.upgrades import UPGRADES

LOWEST, HIGHEST = 18, 21
"""ONNX Runtime has CUDA kernels for MaxPool, InstanceNormalization and others only up to opset 21."""

GELU = 20
"""The opset that Gelu came with, which ONNX Runtime's operators are said in."""

OLDEST = 7
"""Before opset 7 the arithmetic operators broadcast by an attribute."""


def into_window(model: ir.Model, low: int = LOWEST, high: int = HIGHEST) -> list[str]:
    """Convert the default domain to the nearest opset within ``low``..``high``, in place. Returns notes for the user.

    Needs named nodes, inlined functions, and types where there are any. Nodes that carry a ``version`` of their own
    (from a function with other imports) are of that opset. Raises Unsupported naming node, operator and version.
    """
    source = model.opset_imports.get("", low)
    if source < OLDEST:
        raise Unsupported(
            f"opset {source} is older than {OLDEST}, where arithmetic broadcast by an attribute: "
            f"bring the model up with onnx.version_converter.convert_version(model, {low}) first, and check its outputs"
        )
    target = min(max(source, low), high)
    notes: list[str] = []
    taken = {v.name for graph in model.graphs() for v in _values(graph) if v.name}
    nodes = list(ir.traversal.RecursiveGraphIterator(model.graph))
    taken.update(node.name for node in nodes if node.name)
    if any(is_known(node) for node in nodes):
        target = max(target, GELU)
        into_standard(model, taken, target)
    work = [node for node in ir.traversal.RecursiveGraphIterator(model.graph) if node.domain == ""]
    while work:
        node = work.pop()
        site = Site(node, node.version or source, target, notes, taken)
        work += _step(site)
        node.version = None
    model.opset_imports[""] = target
    for graph in model.graphs():
        graph.opset_imports[""] = target
    return notes


def _values(graph: ir.Graph) -> list[ir.Value]:
    inner = [v for node in graph for v in node.outputs]
    return [*graph.inputs, *graph.initializers.values(), *inner]


def _step(site: Site) -> list[ir.Node]:
    """Convert one node; returns nodes that it was replaced by and that are to be converted in their turn."""
    if site.version < site.target:
        _up(site)
        return []
    if site.version > site.target:
        return _down(site)
    return []


def _since(op: str, version: int) -> int | None:
    """The version that the operator's form in opset ``version`` dates from; None where there is no such operator."""
    try:
        return int(onnx.defs.get_schema(op, version, "").since_version)
    except onnx.defs.SchemaError:
        return None


def _up(site: Site) -> None:
    while site.version < site.target:
        site.version += 1
        op = site.node.op_type
        if (op, site.version) in UPGRADES:
            UPGRADES[op, site.version](site)


def _down(site: Site) -> list[ir.Node]:
    node = site.node
    if _since(node.op_type, site.target) is None:
        return _expanded(site)
    schema = onnx.defs.get_schema(node.op_type, site.version, "")
    older = onnx.defs.get_schema(node.op_type, site.target, "")
    start = site.version
    while site.version > site.target:
        if (node.op_type, site.version) in DOWNGRADES and int(schema.since_version) >= site.version:
            DOWNGRADES[node.op_type, site.version](site)
        site.version -= 1
    unknown = [name for name in node.attributes if name not in older.attributes]
    for name in unknown:
        default = schema.attributes[name].default_value
        if default.name and ir.serde.deserialize_attribute(default).value == node.attributes[name].value:
            node.attributes.pop(name)
    left = [name for name in unknown if name in node.attributes]
    extra = [v for v in node.inputs[older.max_input :] if v is not None]
    if left or extra or not _takes(older, node):
        site.version = start
        return _expanded(site)
    return []


def _takes(schema: onnx.defs.OpSchema, node: ir.Node) -> bool:
    """Does this form of the operator take inputs of these types?"""
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    formal = list(schema.inputs)
    for i, value in enumerate(node.inputs):
        if value is None or not isinstance(value.type, ir.TensorType):
            continue
        parameter = formal[min(i, len(formal) - 1)].type_str
        if f"tensor({value.type.dtype.name.lower()})" not in allowed.get(parameter, [parameter]):
            return False
    return True


def _expanded(site: Site) -> list[ir.Node]:
    if site.node.op_type in NEWER:
        NEWER[site.node.op_type](site)
        return []
    function = function_body(site.node, site.version, site.target)
    if function is None and _since(site.node.op_type, site.target) is not None:
        types = ", ".join(str(v.dtype).lower() for v in site.node.inputs if v is not None)
        raise site.refuse(f"opset {site.target} has the operator, but not with these attributes or types ({types})")
    if function is None:
        names = {
            s.name
            for s in onnx.defs.get_all_schemas_with_history()
            if s.domain == "" and s.since_version <= site.target
        }
        raise site.refuse(
            f"opset {site.target} has no such operator and ONNX defines it by no other "
            f"({nearest(site.node.op_type, names)}). Export the model with opset {site.target} or lower"
        )
    made = expand(site, function, site.version)
    nested = [
        n
        for node in made
        for a in node.attributes.values()
        if a.type == ir.AttributeType.GRAPH
        for n in a.as_graph().all_nodes()
    ]
    return [node for node in (*made, *nested) if node.domain == ""]
