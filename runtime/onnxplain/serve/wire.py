"""Messages of the server read and written: requests to calls, explanations, models and methods to responses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from onnxplain.artifact import Dim, TensorSpec
from onnxplain.errors import BadRequest, NotFound, nearest
from onnxplain.explanation import Explanation
from onnxplain.methods import METHODS
from onnxplain.methods.method import Method, Option
from onnxplain.serve.models import Entry, Servable, State
from onnxplain.v1 import codec
from onnxplain.v1 import explain_pb2 as pb

FIELDS = tuple(field.name for field in pb.ExplainResponse.DESCRIPTOR.fields)

NAMED = {"output": str, "preset": str, "seed": int, "check_finite": bool}
"""Options that every method has, and their types: parameters of `Model.explain` by name."""

RESERVED = frozenset({"self", "x", "method", "target", "cancelled", "timeout", "progress"})
"""Parameters of `Model.explain` that are not options: the wire has fields for them, or gRPC its own ways."""


@dataclass(frozen=True)
class Call:
    """What an ExplainRequest asks for, checked as far as the model is not needed for it."""

    inputs: Mapping[str, codec.Array] | codec.Array
    method: str
    target: Any
    options: dict[str, Any]
    """The method's own."""
    named: dict[str, Any]
    """Of ``NAMED`` those that are given."""
    fields: frozenset[str]
    n: int
    """Rows of the input, for the price: the longest first axis."""


def call(request: pb.ExplainRequest) -> Call:
    """Raises BadRequest where a tensor's dtype, shape and bytes disagree, NotFound for unknown fields and options."""
    if not request.inputs:
        raise BadRequest('inputs: empty; give every input of the model by name, or the only one under ""')
    inputs = {name: codec.array(message, f"input {name!r}") for name, message in request.inputs.items()}
    if "" in inputs and len(inputs) > 1:
        raise BadRequest(f'inputs: "" is the only input of a model that has one, got {len(inputs)}: name each of them')
    options = {}
    for name, message in request.options.items():
        if name in RESERVED or not name.isidentifier():
            raise BadRequest(f"options: {name[:40]!r} is not an option; DescribeModel lists those of every method")
        options[name] = codec.item(message, f"option {name!r}")
    named = {name: _named(name, options.pop(name)) for name in NAMED if name in options}
    for name in request.fields:
        if name not in FIELDS:
            raise NotFound(f"fields: ExplainResponse has no field {name[:40]!r}; {nearest(name[:40], FIELDS)}")
    return Call(
        inputs=inputs.get("", inputs),
        method=request.method or "gradient",
        target=_target(request),
        options=options,
        named=named,
        fields=frozenset(request.fields or FIELDS),
        n=max((array.shape[0] for array in inputs.values() if array.ndim), default=1),
    )


def _named(name: str, value: Any) -> Any:
    if value is None:
        return None
    if not isinstance(value, NAMED[name]) or (NAMED[name] is int and isinstance(value, bool)):
        raise BadRequest(f"option {name!r} is of type {NAMED[name].__name__}, got {type(value).__name__}")
    return value


def _target(request: pb.ExplainRequest) -> Any:
    if request.targets and request.HasField("target"):
        raise BadRequest("target and targets are both set: give one target for all rows, or one per row")
    if request.targets:
        return [_one(message, f"targets[{k}]") for k, message in enumerate(request.targets)]
    return _one(request.target, "target")


def _one(message: pb.Target, where: str) -> Any:
    target = codec.target_of(message, where)
    if message.WhichOneof("kind") == "pair":
        # Two plain numbers could be a position too; as places of one axis each they are a pair and nothing else.
        return tuple((each,) if isinstance(each, int) else each for each in target)
    return target


def explanation(result: Explanation, fields: frozenset[str], rank: int) -> pb.ExplainResponse:
    """The asked-for fields of an explanation; ``rank`` is the number of axes of the explained output's rows."""
    everything: dict[str, Callable[[], Any]] = {
        "attributions": lambda: _tensors(result.attributions),
        "scores": lambda: codec.tensor(result.scores),
        "baseline_scores": lambda: _optional(result.baseline_scores),
        "targets": lambda: [_resolved(target, rank) for target in result.targets],
        "convergence_delta": lambda: _optional(result.convergence_delta),
        "error": lambda: _tensors(result.error or {}),
        "n_rows": lambda: result.n_rows,
        "seed": lambda: result.seed,
        "converged": lambda: codec.tensor(result.converged),
        "warnings": lambda: result.warnings,
        "options": lambda: {name: codec.value(value, name) for name, value in result.options.items()},
        "method": lambda: result.method,
        "model_digest": lambda: result.model_digest,
        "provider": lambda: result.provider,
        "versions": lambda: result.versions,
        "extras": lambda: _tensors(result.extras),
        "output": lambda: result.output,
    }
    return pb.ExplainResponse(**{name: make() for name, make in everything.items() if name in fields})


def _resolved(target: Any, rank: int) -> pb.Target:
    if isinstance(target, tuple) and len(target) == 2 and rank == 1:
        first, second = (codec.target(each, "targets") for each in target)
        return pb.Target(pair=pb.Target.Pair(first=first, second=second))
    return codec.target(target, "targets")


def _tensors(arrays: Mapping[str, Any]) -> dict[str, pb.Tensor]:
    return {name: codec.tensor(array, name) for name, array in arrays.items()}


def _optional(array: Any) -> pb.Tensor | None:
    return None if array is None else codec.tensor(array)


_STATES = {
    State.LOADING: pb.ModelStatus.LOADING,
    State.READY: pb.ModelStatus.READY,
    State.FAILED: pb.ModelStatus.FAILED,
}


def listing(entries: Iterable[Entry]) -> pb.ListModelsResponse:
    """Every file of the folder, in order of its name."""
    return pb.ListModelsResponse(
        models=[
            pb.ModelStatus(
                name=entry.name,
                state=_STATES[entry.state],
                digest=entry.model.manifest.digest if entry.model else "",
                reason=entry.reason,
            )
            for entry in entries
        ]
    )


def description(name: str, model: Servable) -> pb.DescribeModelResponse:
    """What the manifest says of the model, and the methods with their options and defaults."""
    manifest = model.manifest
    return pb.DescribeModelResponse(
        name=name,
        digest=manifest.digest,
        inputs=[_spec(spec) for spec in manifest.inputs],
        outputs=[_spec(spec) for spec in manifest.outputs],
        explained=sorted(manifest.explained, key=lambda output: output != manifest.default_output),
        differentiated=[_spec(spec) for spec in manifest.differentiated],
        methods=[_method(method) for method in METHODS.values() if set(method.rules) <= set(manifest.rules)],
        layers=[
            pb.Layer(name=layer.name, op=layer.op, tensor=_spec(TensorSpec(layer.tensor, "", layer.shape or ())))
            for layer in manifest.layers
        ],
        rules=manifest.rules,
        rows=manifest.rows,
        provider=model.provider,
        labels=manifest.labels or (),
    )


def _spec(spec: TensorSpec) -> pb.TensorSpec:
    return pb.TensorSpec(name=spec.name, dtype=spec.dtype, shape=[_dim(dim) for dim in spec.shape])


def _dim(dim: Dim) -> pb.TensorSpec.Dim:
    return pb.TensorSpec.Dim(size=dim) if isinstance(dim, int) else pb.TensorSpec.Dim(symbol=dim or "")


def _method(method: Method) -> pb.Method:
    return pb.Method(
        name=method.name,
        summary=method.summary,
        paper=method.paper,
        options=[_option(option) for option in method.options],
        completeness=method.completeness,
    )


def _option(option: Option) -> pb.Option:
    return pb.Option(
        name=option.name,
        kind=option.kind,
        default=codec.value(option.default, option.name),
        help=option.help,
        choices=option.choices,
        minimum=option.minimum,
        maximum=option.maximum,
    )
