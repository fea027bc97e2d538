"""A model's parameters drawn anew (Adebayo et al. 2018, arXiv:1810.03292, section 4): initializers, no framework.

Forward and backward pass read the same initializers, so both change together. The model itself is never touched.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxplain.artifact import MANIFEST_KEY, Artifact
from onnxplain.errors import BadRequest, NotFound, nearest
from onnxplain.sanity.parameters import Parameter, Parameters
from onnxplain.sanity.policy import Policy
from onnxplain.sanity.values import code_range, follows_fans, renewed

Array = NDArray[Any]
EXTERNAL_ABOVE = 2**30
"""Bytes of weights above which they are written beside the model: one protobuf message can hold 2 GiB."""


class Randomiser:
    """Draws of one model's parameters. Any draw of any parameter can be repeated alone."""

    def __init__(self, artifact: Artifact, parameters: Parameters, policy: Policy, seed: int) -> None:
        self._artifact = artifact
        self._parameters = {parameter.name: parameter for parameter in parameters}
        self._unowned = parameters.unowned
        self.policy, self.seed = policy, seed
        changed = [p for p in parameters if policy.action(p.role) != "keep"]
        if not changed:
            raise BadRequest("with these options no parameter of the model is randomised: nothing would change")

    def weights(self, names: Iterable[str], draw: int) -> dict[str, Array]:
        """Initializer -> new values, for those of ``names`` that the policy changes. Raises NotFound for another."""
        made = {}
        for name in names:
            if name not in self._parameters:
                raise NotFound(f"no parameter {name!r}; {nearest(name, self._parameters)}")
            parameter = self._parameters[name]
            if self.policy.action(parameter.role) != "keep":
                made[name] = renewed(parameter, self._stored(name), self.policy, self.seed, draw)
        return made

    @property
    def notes(self) -> tuple[str, ...]:
        """Options that do not apply to this model, parameters that stay as they are, and why."""
        return tuple(self._notes())

    def _notes(self) -> Iterator[str]:
        roles = {parameter.role for parameter in self._parameters.values()}
        if not roles & {"mean", "variance"}:
            yield "statistics: the model has no running statistics (exporters fold them into the weights)"
        if not roles & {"scale", "shift"}:
            yield "normalisation: the model has no scales or shifts of a normalisation"
        if "bias" not in roles:
            yield "biases: the model has none"
        drawn = [p for p in self._parameters.values() if self.policy.action(p.role) == "random"]
        if self.policy.values in ("he", "glorot"):
            others = [p.name for p in drawn if not follows_fans(p, self.policy)]
            if others:
                yield f"{self.policy.values}: no fans, so drawn at their own scale: {_listed(others)}"
        if self.policy.std is not None:
            unknown = [p.name for p in drawn if p.codes is not None and p.codes.step is None]
            if unknown:
                yield f"std: codes whose step the graph does not say, so std counts codes: {_listed(unknown)}"
            clipped = [p.name for p in drawn if p.codes is not None and self._clips(p)]
            if clipped:
                yield f"std: wider than the codes can hold, so values are clipped: {_listed(clipped)}"
        elif zero := [p.name for p in drawn if p.role != "weight" and not self._stored(p.name).any()]:
            yield f"all zero, so zero at their own scale too: {_listed(zero)}"
        if self._unowned:
            yield f"constants that no layer owns, left as they are: {_listed(self._unowned)}"

    def _clips(self, parameter: Parameter) -> bool:
        codes, stored = parameter.codes, self._stored(parameter.name)
        if codes is None or codes.step is None or self.policy.std is None or stored.dtype.name.startswith("float"):
            return False
        return bool(np.any(2 * self.policy.std > codes.step * code_range(stored)[1]))

    def _stored(self, name: str) -> Array:
        tensor = self._artifact.model.graph.initializers[name].const_value
        assert tensor is not None  # it is a parameter because it has values
        return tensor.numpy()


def randomised(artifact: Artifact, weights: Mapping[str, Array], how: Mapping[str, Any]) -> Artifact:
    """An artifact of its own with ``weights`` in place of the original's; the original is not changed.

    Its digest is the SHA-256 of the original's and of the new values; ``how`` is kept in the manifest's source.
    """
    digest = hashlib.sha256(artifact.manifest.digest.encode())
    model = artifact.model.clone()
    for name, array in sorted(weights.items()):
        value = model.graph.initializers[name]
        assert value.const_value is not None
        value.const_value = ir.tensor(np.ascontiguousarray(array), dtype=value.const_value.dtype, name=name)
        digest.update(name.encode() + b"\0" + np.ascontiguousarray(array).tobytes())
    manifest = dataclasses.replace(
        artifact.manifest,
        digest=digest.hexdigest(),
        parity={},
        source={**artifact.manifest.source, "randomised": {"of": artifact.manifest.digest, **how}},
    )
    model.metadata_props[MANIFEST_KEY] = manifest.to_json()
    return Artifact(model, manifest)


def save(artifact: Artifact, path: str | Path) -> Path:
    """Write a new file, whole or not at all. Raises BadRequest where there is one already or it cannot be written."""
    path = Path(path)
    if path.exists():
        raise BadRequest(f"{path} is there already: a randomised model never replaces a file")
    tensors = [v.const_value for v in artifact.model.graph.initializers.values() if v.const_value is not None]
    data = path.name + ".data" if sum(tensor.nbytes for tensor in tensors) > EXTERNAL_ABOVE else None
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            made = Path(folder) / path.name
            ir.save(artifact.model if data is not None else _embedded(artifact.model), made, external_data=data)
            if data is not None:
                os.replace(made.with_name(data), path.with_name(data))
            os.replace(made, path)
    except OSError as error:
        raise BadRequest(f"{path}: cannot be written ({error.strerror or error})") from error
    return path


def _embedded(model: ir.Model) -> ir.Model:
    """With the weights that are mapped from the original's data file in the graph."""
    copy = model.clone()
    for value in copy.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            value.const_value = ir.tensor(tensor.numpy(), dtype=tensor.dtype, name=value.name)
    return copy


def _listed(names: Iterable[str], most: int = 6) -> str:
    known = list(names)
    return ", ".join(known[:most]) + (f" and {len(known) - most} more" if len(known) > most else "")
