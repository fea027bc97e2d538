"""Canonical form: what differentiation expects of a model, whatever file it came from.

Opset within the window and IR version 10, functions inlined, every node named, constants as initializers,
initializers no longer inputs, types and shapes known wherever ONNX infers them, unknown axes of inputs under a symbol.
What the model computes is not changed. Inputs, outputs and named nodes keep their names; weights are not copied.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import (
    InlinePass,
    LiftConstantsToInitializersPass,
    LiftSubgraphInitializersToMainGraphPass,
    NameFixPass,
    RemoveInitializersFromInputsPass,
    RemoveUnusedOpsetsPass,
    TopologicalSortPass,
)

from onnxplain.errors import BadModel, Unsupported
from onnxplain_convert.ceil_mode import settle_one
from onnxplain_convert.inference_mode import to_inference_mode
from onnxplain_convert.inferring import forget_inner_shapes, infer, without_weights
from onnxplain_convert.opset import claim, into_window
from onnxplain_convert.opset.expand import spell_out_defaults
from onnxplain_convert.sparse import densified

IR_VERSION = 10

CHANGES = "onnxplain.changes"
"""Key in ``ir.Model.meta``: sentences about what canonicalisation decided or changed."""

TRAINING = "onnxplain.training"
"""Key in ``ir.Model.meta``: was anything put from training into inference mode?"""

_log = logging.getLogger(__name__)


def canonicalise(model: onnx.ModelProto | ir.Model, *, inference: bool = False) -> ir.Model:
    """A canonical copy of a valid model of opset 7 to the newest that the installed onnx knows; weights are shared.

    With ``inference`` nodes in training mode (BatchNormalization, Dropout) are put into inference mode; what that
    changed stands in ``result.meta[CHANGES]``. Raises BadModel (not a model, newer than known, refused by the checker),
    Unsupported (an operator that the window cannot express).
    """
    result = parse(model) if isinstance(model, onnx.ModelProto) else model.clone()
    _known_opsets(result)
    _one_default_domain(result)
    RemoveInitializersFromInputsPass()(result)
    claim(result)
    check(result)
    changes: list[str] = []
    _infer(result, strict=False)
    _inline(result)
    _name_nodes(result)
    _spell_out_defaults(result)
    source_opset = result.opset_imports.get("", 0)
    changes += into_window(result)
    result.ir_version = IR_VERSION
    _drop_newer_than_ir(result)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(result)
    LiftSubgraphInitializersToMainGraphPass()(result)
    NameFixPass()(result)
    ended = to_inference_mode(result) if inference else []
    changes += ended
    result.meta[TRAINING] = bool(ended)
    _name_unknown_axes(result)
    _infer_converted(result, source_opset)
    while settle_one(result):
        forget_inner_shapes(result)
        _infer_converted(result, source_opset)
    TopologicalSortPass()(result)
    RemoveUnusedOpsetsPass()(result)
    check(result)
    for change in changes:
        _log.info("%s", change)
    result.meta[CHANGES] = tuple(changes)
    return result


def parse(proto: onnx.ModelProto) -> ir.Model:
    """An ir.Model over the proto's own bytes. Raises BadModel where the proto is not a usable model."""
    if not proto.HasField("graph") or proto.ir_version == 0:
        raise BadModel("not an ONNX model (no graph or no IR version): give a ModelProto or a .onnx file")
    if not proto.opset_import and proto.ir_version >= 3:
        raise BadModel("the model imports no operator set: it was written incompletely, export it again")
    try:
        model = ir.serde.deserialize_model(densified(proto))
    except BadModel:
        raise
    except Exception as error:
        raise BadModel(f"the model cannot be read: {error}") from error
    try:
        TopologicalSortPass()(model)
    except Exception as error:
        raise BadModel(f"the nodes of the model form a cycle: {error}") from error
    return model


def check(model: ir.Model) -> None:
    """ONNX's own checker on the graph (weights left out). Raises BadModel with what it found and where.

    Functions may import another opset than the model: their nodes are converted one by one.
    """
    try:
        onnx.checker.check_model(without_weights(model), skip_opset_compatibility_check=True)
    except onnx.checker.ValidationError as error:
        raise BadModel(f"not a valid ONNX model: {str(error).strip()}") from error


def _known_opsets(model: ir.Model) -> None:
    known = {"": onnx.defs.onnx_opset_version(), "ai.onnx": onnx.defs.onnx_opset_version()}
    functions = [f.opset_imports for f in model.functions.values()]
    for imports in (model.opset_imports, *functions):
        for domain, version in imports.items():
            if version > known.get(domain, version):
                raise BadModel(
                    f"opset {version} is newer than the installed onnx {onnx.__version__} knows ({known[domain]}): "
                    f"upgrade onnx, or export the model with opset {known[domain]} or lower"
                )
    if model.ir_version > onnx.IR_VERSION:
        raise BadModel(
            f"IR version {model.ir_version} is newer than the installed onnx {onnx.__version__} knows "
            f"({onnx.IR_VERSION}): upgrade onnx"
        )


def _one_default_domain(model: ir.Model) -> None:
    """The default domain has two spellings, "" and "ai.onnx"."""
    functions = list(model.functions.values())
    for imports in (model.opset_imports, *(f.opset_imports for f in functions)):
        if "ai.onnx" in imports:
            imports[""] = max(imports.pop("ai.onnx"), imports.get("", 0))
    graphs: Iterable[ir.Graph | ir.Function] = (model.graph, *functions)
    for graph in graphs:
        for node in graph.all_nodes():
            if node.domain == "ai.onnx":
                node.domain = ""


def _infer(model: ir.Model, *, strict: bool) -> None:
    """Infer; where the file's own claims about inner shapes contradict the graph, without them."""
    try:
        infer(model, strict=strict)
    except BadModel:
        forget_inner_shapes(model)
        infer(model, strict=strict)


def _infer_converted(model: ir.Model, source_opset: int) -> None:
    """Strictly. Operators of later opsets take types that the window's do not: then the model is not to blame."""
    try:
        _infer(model, strict=True)
    except BadModel as error:
        opset = model.opset_imports[""]
        if source_opset <= opset:
            raise
        raise Unsupported(
            f"the model uses what opset {source_opset} allows and opset {opset} does not: {error}. Export it with "
            f"opset {opset} or lower, in float32 where the type is what is refused"
        ) from error


def _inline(model: ir.Model) -> None:
    """Inline model-local functions; nodes of a body with another opset keep that version until they are converted."""
    for function in model.functions.values():
        opset = function.opset_imports.get("")
        if opset is not None and opset != model.opset_imports.get("", opset):
            for node in function.all_nodes():
                node.version = opset if node.domain == "" else None
            function.opset_imports[""] = model.opset_imports[""]
    try:
        InlinePass()(model)
    except (ValueError, ir.passes.PassError) as error:
        raise BadModel(f"a model-local function cannot be inlined: {error}") from error


def _name_nodes(model: ir.Model) -> None:
    """Unnamed nodes are called operator_index, as Conv_12; of several with one name the later get a number too."""
    taken: set[str] = set()
    nodes = list(ir.traversal.RecursiveGraphIterator(model.graph))
    given = {node.name for node in nodes if node.name}
    for index, node in enumerate(nodes):
        name = node.name or f"{node.op_type}_{index}"
        while name in taken or (not node.name and name in given):
            name = f"{name}_{index}"
        node.name = name
        taken.add(name)


def _spell_out_defaults(model: ir.Model) -> None:
    """ONNX infers an operator with a function body through that body, and then forgets the attributes' defaults."""
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        opset = node.version or model.opset_imports.get(node.domain, 0)
        if node.domain == "" and onnx.defs.has(node.op_type, opset, ""):
            schema: Any = onnx.defs.get_schema(node.op_type, opset, "")  # onnx's stubs lack the function bodies
            if schema.has_function:
                spell_out_defaults(node, schema)


def _drop_newer_than_ir(model: ir.Model) -> None:
    """Device placement came with IR 11; it says where to run, not what to compute."""
    for node in model.graph.all_nodes():
        node.device_configurations = ()


def _name_unknown_axes(model: ir.Model) -> None:
    """Every unknown axis of an input gets a symbol; no two share one, since nobody said that they are equal."""
    taken = {str(d.value) for v in model.graph.inputs if v.shape for d in v.shape if isinstance(d, ir.SymbolicDim)}
    for value in model.graph.inputs:
        if value.shape is None:
            continue
        shape = value.shape.copy()
        for axis, dim in enumerate(shape):
            if isinstance(dim, int) and dim >= 0:
                continue
            if isinstance(dim, ir.SymbolicDim) and dim.value:
                continue
            symbol = "batch" if axis == 0 and "batch" not in taken else f"{value.name}_axis_{axis}"
            taken.add(symbol)
            shape[axis] = symbol
        value.shape = shape
