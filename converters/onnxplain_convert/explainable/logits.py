"""Recognises outputs that are probabilities, and makes the logits under them visible."""

from __future__ import annotations

import onnx_ir as ir

from onnxplain_convert.graph.shapes import is_float

_PASSING = frozenset({"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"})
"""Operators that exporters put behind the last Softmax, which rename, reshape or cast and nothing else."""


def expose_logits(model: ir.Model) -> dict[str, str]:
    """Add the logits under every trailing Softmax or Sigmoid to the outputs: {probability output: logits output}."""
    found: dict[str, str] = {}
    for output in list(model.graph.outputs):
        logits = logits_of(output)
        if logits is None or output.name is None:
            continue
        if logits.is_graph_input():
            copy = ir.node("Identity", [logits], name=f"{logits.name}/logits")
            copy.outputs[0].name = f"{logits.name}/logits"
            copy.outputs[0].type, copy.outputs[0].shape = logits.type, logits.shape
            model.graph.append(copy)
            logits = copy.outputs[0]
        if logits not in model.graph.outputs:
            model.graph.outputs.append(logits)
        assert logits.name is not None
        found[output.name] = logits.name
    return found


def logits_of(output: ir.Value) -> ir.Value | None:
    """What the Softmax or Sigmoid that ``output`` comes straight from was applied to, None where it does not."""
    value = output
    while (node := value.producer()) is not None and node.domain == "":
        if node.op_type in ("Softmax", "Sigmoid"):
            logits = node.inputs[0]
            return logits if logits is not None and is_float(logits) else None
        if node.op_type not in _PASSING or node.inputs[0] is None or not is_float(node.inputs[0]):
            return None
        value = node.inputs[0]
    return None
