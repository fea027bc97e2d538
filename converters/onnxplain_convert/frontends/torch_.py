"""PyTorch: an nn.Module with an example input, or a torch.export.ExportedProgram, through torch.onnx (dynamo)."""

from __future__ import annotations

import contextlib
import inspect
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxplain.errors import BadRequest, Unsupported
from onnxplain_convert.frontends.source import Array, Source

if TYPE_CHECKING:
    import torch

TAKES = "a PyTorch nn.Module (with example=) or torch.export.ExportedProgram"

OPSET = 20
"""Of the export: inside the window, and the newest that needs no rewriting for ONNX Runtime on CUDA."""


def handles(obj: Any) -> bool:
    """Without importing torch: an object of a torch class exists only where torch is imported already."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    return isinstance(obj, torch.nn.Module | torch.export.ExportedProgram)


def to_onnx(obj: Any, example: Any = None) -> Source:
    """Export in evaluation mode with a dynamic batch axis where the model allows it; the module is left as it was.

    ``example``: a tensor or array, a tuple of them, or {forward's parameter: tensor}; its first axis is the batch axis.
    Raises BadRequest without an example, Unsupported where PyTorch cannot export the model.
    """
    import torch

    if isinstance(obj, torch.export.ExportedProgram):
        return _from_program(obj, example)
    if example is None:
        raise BadRequest(
            f"a PyTorch module ({type(obj).__qualname__}) is exported by running it once: give example=, "
            "for instance torch.zeros(1, 3, 224, 224), a tuple of tensors, or {parameter: tensor}"
        )
    args, kwargs = _arguments(example, _dtype(obj))
    with _evaluation(obj), torch.no_grad():
        outputs = obj(*args, **kwargs)
        names = _output_names(outputs)
        program = _exported(obj, args, kwargs)
    model = _named_outputs(program.model, names)
    inputs = [v.name or "" for v in model.graph.inputs]

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        given = iter([torch.from_numpy(np.ascontiguousarray(feeds[name])) for name in inputs])
        moved_args, moved_kwargs = _filled((args, kwargs), given)
        with _evaluation(obj), torch.no_grad():
            flat = _flat(obj(*moved_args, **moved_kwargs))
        return {name: value.detach().cpu().numpy() for name, (_, value) in zip(names, flat, strict=True)}

    return Source(model, _info(type(obj).__qualname__), run, _example(inputs, (args, kwargs)))


def _from_program(program: torch.export.ExportedProgram, example: Any) -> Source:
    import torch

    module = program.module()
    args, kwargs = program.example_inputs or ((), {})
    if example is not None:
        args, kwargs = _arguments(example, None)
    with torch.no_grad():
        names = _output_names(module(*args, **kwargs))
    with _quiet():
        try:
            exported = torch.onnx.export(program, dynamo=True, opset_version=OPSET, verbose=False)
        except Exception as error:
            raise Unsupported(f"PyTorch cannot export this program to ONNX: {_short(error)}") from error
    assert exported is not None
    model = _named_outputs(exported.model, names)
    inputs = [v.name or "" for v in model.graph.inputs]

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        given = iter([torch.from_numpy(np.ascontiguousarray(feeds[name])) for name in inputs])
        moved_args, moved_kwargs = _filled((args, kwargs), given)
        with torch.no_grad():
            flat = _flat(module(*moved_args, **moved_kwargs))
        return {name: value.detach().cpu().numpy() for name, (_, value) in zip(names, flat, strict=True)}

    return Source(model, _info("ExportedProgram"), run, _example(inputs, (args, kwargs)))


def _exported(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.onnx.ONNXProgram:
    """With one symbolic batch axis; where the module fixes it, with the example's own."""
    import torch
    from torch.utils import _pytree

    batch = torch.export.Dim("batch", min=1)
    args, kwargs = _two_rows((args, kwargs))
    shapes = _pytree.tree_map(lambda x: {0: batch} if isinstance(x, torch.Tensor) and x.ndim else None, (args, kwargs))
    attempts: list[dict[str, Any]] = [{"dynamic_shapes": _by_parameter(module, shapes)}, {}]
    first: Exception | None = None
    for more in attempts:
        try:
            with _quiet():
                program = torch.onnx.export(
                    module, args, kwargs=kwargs, dynamo=True, opset_version=OPSET, verbose=False, **more
                )
        except Exception as error:
            first = first or error
            continue
        assert program is not None
        return program
    raise Unsupported(f"PyTorch cannot export {type(module).__qualname__} to ONNX: {_short(first)}") from first


def _arguments(example: Any, dtype: torch.dtype | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    import torch

    def tensor(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(np.ascontiguousarray(value))
            return value.to(dtype) if dtype is not None and value.is_floating_point() else value
        return value

    if isinstance(example, Mapping):
        return (), {str(name): tensor(value) for name, value in example.items()}
    if isinstance(example, tuple | list):
        return tuple(tensor(value) for value in example), {}
    return (tensor(example),), {}


def _dtype(module: torch.nn.Module) -> torch.dtype | None:
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), None)


def _two_rows(tree: Any) -> Any:
    """A batch of one would be taken for a constant by torch.export."""
    import torch
    from torch.utils import _pytree

    def doubled(x: Any) -> Any:
        return torch.cat([x, x]) if isinstance(x, torch.Tensor) and x.ndim and x.shape[0] == 1 else x

    return _pytree.tree_map(doubled, tree)


def _filled(tree: Any, tensors: Iterator[torch.Tensor]) -> Any:
    """The arguments with their tensors replaced, in order; what is no tensor stays."""
    import torch
    from torch.utils import _pytree

    return _pytree.tree_map(lambda x: next(tensors) if isinstance(x, torch.Tensor) else x, tree)


def _by_parameter(module: torch.nn.Module, shapes: tuple[tuple[Any, ...], dict[str, Any]]) -> Any:
    args, kwargs = shapes
    if not kwargs:
        return args
    return {**dict(zip(inspect.signature(module.forward).parameters, args, strict=False)), **kwargs}


def _flat(outputs: Any) -> list[tuple[str, torch.Tensor]]:
    """Tensors of whatever a module returns, in order, each with the key or position that it was found under."""
    import torch
    from torch.utils import _pytree

    found = []
    for path, leaf in _pytree.tree_flatten_with_path(outputs)[0]:
        if isinstance(leaf, torch.Tensor):
            keys = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path]
            found.append(("_".join(keys), leaf))
    return found


def _output_names(outputs: Any) -> list[str]:
    names = [name for name, _ in _flat(outputs)]
    if names == [""]:
        return ["output"]
    return [f"output_{name}" if name.isdigit() else name for name in names]


def _named_outputs(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """The exporter names outputs after the last operator; here they get the names that the module gives them."""
    taken = {v.name for v in model.graph.inputs} | set(model.graph.initializers)
    for value, name in zip(model.graph.outputs, names, strict=True):
        if name not in taken and not value.is_graph_input():
            value.name = name
    return model


def _example(inputs: Sequence[str], tree: Any) -> dict[str, Array]:
    import torch
    from torch.utils import _pytree

    tensors = [x for x in _pytree.tree_leaves(tree) if isinstance(x, torch.Tensor)]
    return {name: t.detach().cpu().numpy() for name, t in zip(inputs, tensors, strict=True)}


def _info(name: str) -> dict[str, Any]:
    import torch

    return {"framework": "torch", "producer": f"torch {torch.__version__}", "opset": {"ai.onnx": OPSET}, "file": name}


def _short(error: Exception | None) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3])[:500]


@contextlib.contextmanager
def _evaluation(module: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode, and back to what every submodule was in."""
    before = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in before:
            m.training = training


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter logs and warns about its own internals, which a caller can do nothing about."""
    names = ("torch.onnx", "onnxscript", "onnx_ir")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
