"""A file of the models folder becomes a model that is ready: checked, converted apart where plain, warmed up."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from onnxplain.artifact import MANIFEST_KEY, Manifest, TensorSpec
from onnxplain.engine import Scheduler
from onnxplain.errors import OnnxplainError
from onnxplain.explain import Model, load
from onnxplain.serve.convert import convert_apart
from onnxplain.serve.limits import Limits
from onnxplain.serve.models import Servable
from onnxplain.trust import own_files, read_proto

log = logging.getLogger(__name__)

FREE_AXIS = 8
"""Length of an axis in the warm-up that neither the model nor its preprocessing says anything about."""


def load_and_warm_up(
    path: Path, *, provider: str, scheduler: Scheduler, limits: Limits, stop: Callable[[], bool]
) -> Model:
    """The model of a file, sharing its device with the others of ``scheduler``.

    Raises BadModel, Unsupported or ProviderUnavailable where the file cannot be served, saying why."""
    proto = read_proto(path)
    own_files(proto, path)
    plain = all(entry.key != MANIFEST_KEY for entry in proto.metadata_props)
    del proto
    if plain:
        path = convert_apart(path, limits, stop)
    model = load(path, provider, scheduler=scheduler)
    try:
        warm_up(model, path.name)
    except BaseException:
        model.close()
        raise
    return model


def warm_up(model: Servable, name: str) -> None:
    """Explain one row of zeros, so that the first caller does not pay for building the program.

    Where an axis had to be guessed a failure is only logged: it may be the guess that is wrong.
    """
    guessed, inputs = False, dict[str, Any]()
    for spec in model.manifest.inputs:
        shape, guess = row_shape(spec, model.manifest)
        guessed = guessed or guess
        inputs[spec.name] = np.zeros(shape, spec.dtype)
    try:
        model.explain(inputs, method="gradient")
    except OnnxplainError as error:
        if not guessed:
            raise
        log.warning("file=%r no warm-up: its input has free axes, and with a guess it says: %s", name, error)


def row_shape(spec: TensorSpec, manifest: Manifest) -> tuple[tuple[int, ...], bool]:
    """A shape of one row of an input, with the row axis; True where an axis beyond the first was guessed."""
    size = manifest.preprocessing.size if manifest.preprocessing else None
    first = 2 if manifest.preprocessing and manifest.preprocessing.layout == "NCHW" else 1
    pixels = {first + i: side for i, side in enumerate(size)} if size and len(spec.shape) == 4 else {}
    shape, guessed = [], False
    for axis, dim in enumerate(spec.shape):
        if isinstance(dim, int):
            shape.append(dim)
        elif axis == 0:
            shape.append(1)
        else:
            shape.append(pixels.get(axis, FREE_AXIS))
            guessed = guessed or axis not in pixels
    return tuple(shape), guessed
