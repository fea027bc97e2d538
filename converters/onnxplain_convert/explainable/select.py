"""What is differentiated, and what is explained, where the caller does not say."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxplain.errors import NotFound, Unsupported, nearest
from onnxplain_convert.graph.shapes import is_float
from onnxplain_convert.sampling import INDEX_PRESERVING

_PIXELS = (ir.DataType.UINT8, ir.DataType.INT8)


def differentiated(model: ir.Model, wrt: Sequence[str] | None) -> dict[str, str]:
    """{tensor to differentiate: input that it stands for}; by default every float input, and for an integer one the
    first float tensor behind it: the row of a table that an index looks up, or the float made of a pixel.

    Raises NotFound (nearest names) for unknown names, Unsupported where nothing can be differentiated.
    """
    values = ir.convenience.create_value_mapping(model.graph)
    behind: dict[str, str] = {}
    for value in model.graph.inputs:
        assert value.name is not None
        found = value if is_float(value) else first_float(value)
        if found is not None and found.name is not None:
            behind.setdefault(found.name, value.name)
    if wrt is None:
        if not behind:
            raise Unsupported(
                "the model has no floating-point input and no embedding behind an integer one: "
                "name a tensor to differentiate with wrt="
            )
        return behind
    for name in wrt:
        if name not in values:
            raise NotFound(f"no tensor {name!r} to differentiate; {nearest(name, values)}")
    inputs = {v.name for v in model.graph.inputs}
    integer = {stands: tensor for tensor, stands in behind.items()}
    chosen = [integer.get(name, name) if name in inputs else name for name in wrt]
    return {name: behind.get(name, name) for name in chosen}


def first_float(value: ir.Value) -> ir.Value | None:
    """The first float tensor behind an integer input, through operators under which an index stays an index."""
    todo, seen = [value], {value}
    while todo:
        here = todo.pop(0)
        for use in here.uses():
            node, result = use.node, use.node.outputs[0]
            looked_up = node.op_type == "Gather" and use.idx == 1
            pixel = value.dtype in _PIXELS and use.idx == 0 and node.op_type in ("Cast", "DequantizeLinear")
            if is_float(result) and node.domain == "" and (looked_up or pixel):
                return result
            if node.op_type in INDEX_PRESERVING and use.idx == 0 and not is_float(result) and result not in seen:
                seen.add(result)
                todo.append(result)
    return None


def explained(model: ir.Model, outputs: Sequence[str] | None) -> list[str]:
    """Names of the outputs to explain: those asked for (inner tensors become outputs), else every float output.

    Raises NotFound (nearest names) for unknown names, Unsupported where no output is floating-point.
    """
    if outputs is None:
        names = [v.name for v in model.graph.outputs if is_float(v) and v.name]
        if not names:
            types = ", ".join(f"{v.name}: {v.dtype}" for v in model.graph.outputs)
            raise Unsupported(f"no output is floating-point ({types}): name an inner tensor with outputs=")
        return names
    values = ir.convenience.create_value_mapping(model.graph)
    for name in outputs:
        if name not in values:
            raise NotFound(f"no output {name!r}; {nearest(name, [v.name or '' for v in model.graph.outputs])}")
        if values[name] not in model.graph.outputs:
            model.graph.outputs.append(values[name])
    return list(dict.fromkeys(outputs))
