"""The *body* of a program: the forward pass and one rule set's backward pass, cut out of the artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnxplain.artifact import Artifact, Manifest, gradient_name, seed_name
from onnxplain.engine.emit import PREFIX
from onnxplain.engine.rowaxis import ROW, RowAxis
from onnxplain.engine.silence import silence, zeros
from onnxplain.errors import NotFound, nearest
from onnxplain.rows import Purpose


@dataclass(frozen=True)
class Body:
    """The cut graph and its values by role. Its inputs are still the model's; the program replaces them."""

    graph: ir.Graph
    inputs: Mapping[str, ir.Value]
    """Every model input and path tensor that was offered, used or not."""
    output: ir.Value
    seed: ir.Value | None
    gradients: tuple[ir.Value, ...]
    taps: tuple[ir.Value, ...]
    tap_gradients: tuple[ir.Value, ...]


def cut(artifact: Artifact, purpose: Purpose, path: Sequence[str]) -> Body:
    """Cut what ``purpose`` needs out of the artifact; the graph is a copy, cut open at the ``path`` tensors.

    Raises NotFound for an output, rule set or tensor that the artifact does not have.
    """
    manifest = artifact.manifest
    gradients = [_gradient(manifest, purpose.rules, t) for t in purpose.wrt] if purpose.rules else []
    tap_gradients = [_gradient(manifest, purpose.rules, t) for t in purpose.tap_gradients]
    if purpose.output not in manifest.explained:
        raise NotFound(f"no explained output {purpose.output!r}; {nearest(purpose.output, manifest.explained)}")
    model_inputs = [spec.name for spec in manifest.inputs]
    seeds = [seed_name(y) for y in manifest.explained] if purpose.rules else []
    offered = list(dict.fromkeys([*path, *model_inputs, *seeds]))
    wanted = [purpose.output, *gradients, *purpose.taps, *tap_gradients]
    inner = ir.convenience.create_value_mapping(artifact.model.graph, include_subgraphs=False)
    for name in [*path, *wanted]:
        if name not in inner:
            raise NotFound(f"no tensor {name!r} in the model; {nearest(name, inner)}")

    others = [y for y in manifest.explained if y != purpose.output] if purpose.rules else []
    graph, values, outputs = _open(artifact, offered, wanted, others)
    left = [y for y in others if values[seed_name(y)].uses()]
    if left:
        graph, values, outputs = _open(artifact, offered, [*wanted, *left], others)
        zeros(graph, {values[seed_name(y)]: v for y, v in zip(left, outputs[len(wanted) :], strict=True)})
        del outputs[len(wanted) :]
    _name_rows(graph, outputs, RowAxis.of(manifest))
    _free_names(graph, values)
    n, k = len(gradients), len(purpose.taps)
    return Body(
        graph=graph,
        inputs={name: values[name] for name in offered if name not in seeds},
        output=outputs[0],
        seed=values[seed_name(purpose.output)] if purpose.rules else None,
        gradients=tuple(outputs[1 : 1 + n]),
        taps=tuple(outputs[1 + n : 1 + n + k]),
        tap_gradients=tuple(outputs[1 + n + k :]),
    )


def _open(
    artifact: Artifact, offered: Sequence[str], wanted: Sequence[str], unexplained: Sequence[str]
) -> tuple[ir.Graph, dict[str, ir.Value], list[ir.Value]]:
    """The cut graph, its inputs by name and its outputs; the graph itself forgets both, for the program to set.

    The backward pass of ``unexplained`` outputs is left out as far as it is known to be zero.
    """
    graph = artifact.cut(offered, wanted)
    values = dict(zip(offered, graph.inputs, strict=True))
    replaced = silence(graph, [values[seed_name(y)] for y in unexplained])
    outputs = [_last(v, replaced) for v in graph.outputs]
    graph.outputs.clear()
    graph.outputs.extend(outputs)
    RemoveUnusedNodesPass()(ir.Model(graph, ir_version=artifact.model.ir_version))
    graph.inputs.clear()
    graph.outputs.clear()
    return graph, values, outputs


def _last(value: ir.Value, replaced: Mapping[ir.Value, ir.Value]) -> ir.Value:
    while value in replaced:
        value = replaced[value]
    return value


def _gradient(manifest: Manifest, rules: str | None, tensor: str) -> str:
    """The name of the tensor that holds the gradient with respect to ``tensor``."""
    if rules is None or rules not in manifest.rules:
        raise NotFound(
            f"the artifact has no rule set {rules!r}; {nearest(str(rules), manifest.rules)}: convert the model with it"
        )
    known = manifest.gradients.get(rules, {})
    if tensor in known:
        return known[tensor]
    if any(tensor == spec.name for spec in manifest.differentiated):
        return gradient_name(rules, tensor)
    raise NotFound(f"no gradient of {tensor!r} under {rules!r}; {nearest(tensor, known)}")


def _name_rows(graph: ir.Graph, outputs: Sequence[ir.Value], axis: RowAxis) -> None:
    """Give the row axis one symbol everywhere, or ONNX Runtime cannot see that two tensors have equal shapes."""
    for value in [*outputs, *(v for node in graph for v in node.outputs)]:
        if value.shape is not None and axis.symbols:
            dims = [d if isinstance(d, int) else d.value for d in value.shape]
            value.shape = ir.Shape([ROW if d in axis.symbols else d for d in dims])


def _free_names(graph: ir.Graph, inputs: Mapping[str, ir.Value]) -> None:
    """Names of the model's tensors must not be those of the program's own inputs and outputs."""
    own = ("input", "baseline", "target", "row", "run", "plan", "state", "next", "done", "jump", "tap", "model")
    single = {"score", "top", "size", "finite"}
    for value in [*graph.initializers.values(), *inputs.values(), *(v for node in graph for v in node.outputs)]:
        name = value.name or ""
        head, slash, _ = name.partition("/")
        if (slash and f"{head}/" == PREFIX) or (slash and head in own) or name in single or value in inputs.values():
            value.name = f"model/{name}"
