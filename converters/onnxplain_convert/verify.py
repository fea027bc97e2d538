"""Runs models at conversion: parity with the source, gradients against differences, guided against the gradient.

ONNX Runtime where it is installed, since it will run the artifact, else ONNX's reference evaluator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from onnxplain.artifact import Artifact, Manifest, gradient_name, seed_name
from onnxplain.errors import Unsupported

Array = NDArray[Any]
Feeds = Mapping[str, Array]
Evaluator = Callable[[Feeds, Sequence[str]], dict[str, Array]]

_PLACED = 1024
"""Bytes from which an initializer is handed to ONNX Runtime as an array instead of inside the graph."""

PARITY = 1e-3
"""Largest accepted difference to the source, relative to the output's largest value: float32 kernels differ by 1e-5."""

_PLAIN = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.INT8, ir.DataType.UINT8})
"""Types that numpy and ONNX Runtime both have."""

_STEPS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
"""Step sizes of the central differences, relative to the size of the input."""

_RIGHT, _WRONG = 3e-3, 0.15
"""Relative disagreement at which no further step size is tried, and that none explains."""

_VISIBLE = 100.0
"""How many times the rounding error of the score a difference has to be."""


def is_quick(model: ir.Model) -> bool:
    """Can the backward pass be run here in reasonable time? onnx's own evaluator takes minutes for a convolution's.

    It is what remains without ONNX Runtime, and for float64, in which ONNX Runtime's CPU provider has no convolution.
    """
    convolutions = [node for node in model.graph if node.op_type in ("Conv", "ConvTranspose")]
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        return not convolutions
    return not any(node.outputs[0].dtype == ir.DataType.DOUBLE for node in convolutions)


def evaluator(model: ir.Model | Path | bytes) -> Evaluator:
    """Something that runs the model: feeds by input name and output names in, arrays by output name out.

    Raises Unsupported where neither ONNX Runtime nor the reference evaluator can load it.
    """
    try:
        if isinstance(model, ir.Model):
            return _onnxruntime(*_placeholders(model))
        return _onnxruntime(model, {})
    except ImportError:
        return _reference(model)
    except Exception as refused:  # the runtime's exceptions have no common base
        try:
            return _reference(model)
        except Exception as error:
            raise Unsupported(f"ONNX Runtime cannot load the model ({refused}), nor can onnx ({error})") from refused


def _placeholders(model: ir.Model) -> tuple[bytes, dict[str, Array]]:
    """The graph with its larger weights as placeholders, and those weights: gigabytes are never serialised."""
    weights: dict[str, Array] = {}
    kept: dict[str, ir.TensorProtocol] = {}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.nbytes >= _PLACED and tensor.dtype in _PLAIN:
            kept[name] = tensor
            weights[name] = np.ascontiguousarray(tensor.numpy())
            value.const_value = ir.ExternalTensor(
                "weights", 0, tensor.nbytes, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name
            )
    try:
        return ir.to_proto(model).SerializeToString(), weights
    finally:
        for name, tensor in kept.items():
            model.graph.initializers[name].const_value = tensor


def _onnxruntime(model: Path | bytes, weights: Mapping[str, Array]) -> Evaluator:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    # The runtime reads these buffers while it makes the session: they have to live until then.
    values = [ort.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
    if values:
        options.add_external_initializers(list(weights), values)
    content = str(model) if isinstance(model, Path) else model
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [x.name for x in session.get_inputs()]

    def run(feeds: Feeds, outputs: Sequence[str]) -> dict[str, Array]:
        given = {name: feeds[name] for name in names if name in feeds}
        results: list[Any] = list(session.run(list(outputs), given))
        return dict(zip(outputs, results, strict=True))

    return run


def _reference(model: ir.Model | Path | bytes) -> Evaluator:
    from onnx.reference import ReferenceEvaluator

    if isinstance(model, ir.Model):
        loaded = ir.to_proto(model)
        for tensor in loaded.graph.initializer:  # the evaluator reads no external data
            value = model.graph.initializers[tensor.name].const_value
            if tensor.data_location == onnx.TensorProto.EXTERNAL and value is not None:
                tensor.CopyFrom(onnx.numpy_helper.from_array(value.numpy(), tensor.name))
    else:
        loaded = onnx.load(str(model)) if isinstance(model, Path) else onnx.ModelProto.FromString(model)
    session = ReferenceEvaluator(loaded)
    names = set(session.input_names)

    def run(feeds: Feeds, outputs: Sequence[str]) -> dict[str, Array]:
        given = {name: value for name, value in feeds.items() if name in names}
        results: list[Any] = list(session.run(list(outputs), given))
        return dict(zip(outputs, results, strict=True))

    return run


def weight_bytes(model: ir.Model) -> int:
    """Bytes that all initializers take."""
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)


def parity(ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> dict[str, float]:
    """Per floating-point output the largest difference, absolute and relative to the output's largest value.

    Raises Unsupported where it is larger than rounding explains.
    """
    found: dict[str, float] = {}
    for name, expected in theirs.items():
        if name not in ours or expected.dtype.kind != "f" or not expected.size:
            continue
        got = ours[name].astype(np.float64)
        want = expected.astype(np.float64)
        if got.shape != want.shape:
            raise Unsupported(
                f"output {name!r} has shape {got.shape} after conversion and {want.shape} at its source. This is a bug."
            )
        absolute = float(np.abs(got - want).max(initial=0.0, where=np.isfinite(want)))
        largest = float(np.abs(want).max(initial=0.0, where=np.isfinite(want)))
        found[f"{name}/absolute"] = absolute
        found[f"{name}/relative"] = absolute / largest if largest else absolute
        limit = PARITY if expected.dtype.itemsize >= 4 else 30 * PARITY
        if found[f"{name}/relative"] > limit:
            raise Unsupported(
                f"output {name!r} differs from the source by {absolute:.3g} after conversion "
                f"({found[f'{name}/relative']:.1%} of its largest value). This is a bug: nothing was written."
            )
    return found


@dataclass(frozen=True)
class Probe:
    """An artifact under test at one point, with a random cotangent on its default output."""

    manifest: Manifest
    feeds: Feeds
    seeds: Feeds
    forward: Evaluator
    """The model alone, from what is differentiated on."""
    found: Feeds
    """Outputs, gradients and the tensors at the gates, of the whole artifact in one run."""
    rounding: float
    """Size of the rounding error to expect in a score."""

    @classmethod
    def at(
        cls, artifact: Artifact, run: Evaluator, feeds: Feeds, taps: Sequence[str], rng: np.random.Generator
    ) -> Probe:
        """``run``: the model alone; ``feeds``: its inputs; ``taps``: further tensors to keep."""
        manifest = artifact.manifest
        default = seed_name(manifest.default_output)
        y = run(feeds, manifest.explained)
        seeds = {seed_name(name): np.zeros_like(value) for name, value in y.items()}
        seeds[default] = np.asarray(rng.standard_normal(seeds[default].shape), seeds[default].dtype)
        inner = [t.name for t in manifest.differentiated if t.name not in feeds]
        names = [v.name or "" for v in artifact.model.graph.inputs]
        outputs = [v.name or "" for v in artifact.model.graph.outputs]
        kept = list(dict.fromkeys([*outputs, *taps, *inner]))
        found = _program(artifact, names, kept)({**feeds, **seeds}, kept)
        if inner:  # the scores of moved embeddings: the model from there on
            run = _program(artifact, [*(x.name for x in manifest.inputs), *inner], manifest.explained)
            feeds = {**feeds, **{name: found[name] for name in inner}}
        terms = float(np.abs(y[manifest.default_output].astype(np.float64) * seeds[default]).sum())
        return cls(manifest, feeds, seeds, run, found, terms * float(np.finfo(seeds[default].dtype).eps))

    def score(self, feeds: Feeds) -> float:
        """Cotangent times default output, summed, where ``feeds`` replace the probe's own."""
        y = self.manifest.default_output
        value = self.forward({**self.feeds, **feeds}, [y])[y].astype(np.float64)
        return float((self.seeds[seed_name(y)].astype(np.float64) * value).sum())


def _program(artifact: Artifact, inputs: Sequence[str], outputs: Sequence[str]) -> Evaluator:
    return evaluator(ir.Model(artifact.cut(inputs, outputs), ir_version=artifact.model.ir_version))


def check_gradients(probe: Probe, rng: np.random.Generator, *, exact: bool) -> float | None:
    """Relative difference between the gradient and the slope that central differences see along it.

    Kinks and rounding spoil differences: steps whose effect drowns in rounding are left out, the best of the others
    counts, and where ``exact`` the gradient is refused (Unsupported) if the last two steps agree with each other and
    not with it, along it or in a random direction, and the point is no kink. None: nothing to compare.
    """
    tensors = [t.name for t in probe.manifest.differentiated]
    if "gradient" not in probe.manifest.rules:
        return None
    gradient = {t: probe.found[gradient_name("gradient", t)].astype(np.float64) for t in tensors}
    random = {t: rng.standard_normal(g.shape) for t, g in gradient.items()}
    along = [_slopes(probe, gradient, direction) for direction in (gradient, random)]
    for found in along:
        if exact and found is not None and found.error > _WRONG and found.is_steady:
            raise Unsupported(
                f"the gradient of {probe.manifest.default_output!r} is not its slope: {found.expected:.6g} against "
                f"{found.slopes[-1]:.6g} by central differences. This is a bug: nothing was written."
            )
    return None if along[0] is None else along[0].error


@dataclass(frozen=True)
class _Slopes:
    """What one direction shows: the gradient along it, and the slopes seen with smaller and smaller steps."""

    expected: float
    typical: float
    """The gradient along a direction that has nothing to do with it."""
    slopes: list[float]
    bends: list[float]
    """Differences between the slopes ahead and behind: at a kink they do not vanish with the step."""

    @property
    def error(self) -> float:
        """The smallest relative difference."""
        return min(abs(s - self.expected) / max(abs(s), abs(self.expected), self.typical) for s in self.slopes)

    @property
    def is_steady(self) -> bool:
        limit = 0.02 * max(abs(self.slopes[-1]), self.typical)
        return len(self.slopes) > 1 and abs(self.slopes[-1] - self.slopes[-2]) <= limit and self.bends[-1] <= limit


def _slopes(probe: Probe, gradient: Mapping[str, Array], direction: Mapping[str, Array]) -> _Slopes | None:
    """None where the direction is zero, or its effect drowns in rounding at every step."""
    length = _norm(direction)
    if not length or not np.isfinite(length):
        return None
    unit = {t: d / length for t, d in direction.items()}
    expected = float(sum((gradient[t] * d).sum() for t, d in unit.items()))
    typical = _norm(gradient) / float(np.sqrt(sum(g.size for g in gradient.values())))
    size = _norm({t: probe.feeds[t] for t in unit}) or 1.0
    middle = probe.score({})
    found = _Slopes(expected, typical, [], [])
    for step in (relative * size for relative in _STEPS):
        ahead, behind = (
            probe.score({t: _moved(probe.feeds[t], h * d) for t, d in unit.items()}) for h in (step, -step)
        )
        if max(abs(ahead - behind), abs(expected) * 2 * step) > _VISIBLE * probe.rounding:
            found.slopes.append((ahead - behind) / (2 * step))
            found.bends.append(abs(ahead + behind - 2 * middle) / step)
            if abs(found.slopes[-1] - expected) < _RIGHT * max(abs(expected), typical):
                break
    return found if found.slopes else None


def _norm(tensors: Mapping[str, Array]) -> float:
    return float(np.sqrt(sum((x.astype(np.float64) ** 2).sum() for x in tensors.values())))


def _moved(x: Array, by: Array) -> Array:
    return np.asarray(x + by, x.dtype)


def check_guided(probe: Probe, arriving: Mapping[str, str]) -> None:
    """Guided backpropagation must differ from the gradient once a gate that is open meets a negative signal.

    ``arriving`` {tensor read by a gate: gradient arriving at what it writes}. Raises Unsupported otherwise.
    """
    met = any(bool(((probe.found[x] > 0) & (probe.found[g] < 0)).any()) for x, g in arriving.items())
    pairs = [
        (gradient_name("gradient", t.name), gradient_name("guided", t.name)) for t in probe.manifest.differentiated
    ]
    if met and all(np.array_equal(probe.found[a], probe.found[b]) for a, b in pairs):
        raise Unsupported(
            "guided backpropagation gave the plain gradient although a gate met a negative signal. This is a bug: "
            "nothing was written."
        )
