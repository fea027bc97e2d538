"""Small artifacts with hand-written gradients, their formulas in numpy, and jobs to run on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxplain.artifact import MANIFEST_KEY, Artifact, Manifest, TensorSpec
from onnxplain.rows import Job, Purpose, Round, Rows, Target

Array = NDArray[Any]
ONNX_TYPES = {"float16": "float16", "float32": "float", "float64": "double"}

GRADIENT = Purpose("y", "gradient", ("x",))
SHAPE = (2, 3, 3)
N_CLASSES = 4


def artifact(text: str, weights: Mapping[str, Array], **manifest: Any) -> Artifact:
    """An artifact from ONNX text, its weights and its manifest's fields."""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in weights.items())
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    made = ir.from_proto(model)
    fields: dict[str, Any] = {
        "explained": ("y",),
        "default_output": "y",
        "rules": ("gradient",),
        "layers": (),
        "rows": "independent",
        **manifest,
    }
    made.metadata_props[MANIFEST_KEY] = Manifest(**fields).to_json()
    return Artifact.of(made)


@dataclass(frozen=True)
class Tanh:
    """y = tanh(flatten(x) @ w) @ v, with its gradient written by hand: 18 numbers in, 4 classes out."""

    w: Array
    v: Array

    @classmethod
    def drawn(cls, dtype: str, seed: int = 0) -> Tanh:
        rng = np.random.default_rng(seed)
        return cls(rng.normal(size=(18, 64)).astype(dtype) / 3, rng.normal(size=(64, N_CLASSES)).astype(dtype) / 3)

    def artifact(self, rows: str = "independent", batch: str = "n") -> Artifact:
        dtype = self.w.dtype.name
        t = ONNX_TYPES[dtype]
        dims = [int(batch) if batch.isdigit() else batch]
        text = f"""<ir_version: 10, opset_import: ["": 18]>
        net ({t}[{batch},2,3,3] x, {t}[{batch},4] "seed/y") => ({t}[{batch},4] y, {t}[{batch},2,3,3] "gradient/x")
        <int64[2] flat = {{-1, 18}}, int64[4] full = {{-1, 2, 3, 3}}>
        {{
            f = Reshape(x, flat)
            a = MatMul(f, w)
            h = Tanh(a)
            y = MatMul(h, v)
            vt = Transpose<perm = [1, 0]>(v)
            wt = Transpose<perm = [1, 0]>(w)
            gh = MatMul("seed/y", vt)
            hh = Mul(h, h)
            ghh = Mul(gh, hh)
            ga = Sub(gh, ghh)
            gf = MatMul(ga, wt)
            "gradient/x" = Reshape(gf, full)
        }}"""
        spec = TensorSpec("x", dtype, (*dims, *SHAPE))
        return artifact(
            text,
            {"w": self.w, "v": self.v},
            inputs=(spec,),
            outputs=(TensorSpec("y", dtype, (*dims, N_CLASSES)),),
            differentiated=(spec,),
            stands_for={"x": "x"},
            gradients={"gradient": {"x": "gradient/x", "h": "gh", "y": "seed/y"}},
            rows=rows,
        )

    def __call__(self, x: Array) -> Array:
        return np.asarray(np.tanh(x.reshape(len(x), 18) @ self.w) @ self.v)

    def gradient(self, x: Array, seed: Array) -> Array:
        """Of sum(seed * y) with respect to x, per row."""
        h = np.tanh(x.reshape(len(x), 18) @ self.w)
        return np.asarray(((seed @ self.v.T) * (1 - h * h)) @ self.w.T).reshape(x.shape)

    def wide(self) -> Tanh:
        return Tanh(self.w.astype(np.float64), self.v.astype(np.float64))


def job(
    x: Array,
    rows: Rows,
    *,
    baselines: Array | None = None,
    target: Target | int = 1,
    seed: int = 7,
    scale: float = 1.0,
    purpose: Purpose = GRADIENT,
) -> Job:
    return Job(
        round=Round(purpose, rows),
        inputs={"x": x},
        baselines={"x": np.zeros((1, *x.shape), x.dtype) if baselines is None else baselines},
        target=Target((target,)) if isinstance(target, int) else target,
        seed=seed,
        scale={"x": scale},
    )


def row(rng: np.random.Generator, dtype: str = "float32") -> Array:
    return rng.normal(size=SHAPE).astype(dtype)


def line(n: int, *, multiply: bool = True) -> Rows:
    """Midpoint rule on a straight path, with a cruder rule (every second point) to check it."""
    alpha = (np.arange(n) + 0.5) / n
    check = np.where(np.arange(n) % 2, 1.0, -1.0) / n
    return Rows.table(alpha, np.full(n, 1 / n), check=check, multiply=multiply)
