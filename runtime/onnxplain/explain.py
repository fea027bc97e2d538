"""One request from call to result. ``Model.explain`` reads as the table of contents."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain import result
from onnxplain.artifact import Artifact, Manifest
from onnxplain.conversion import converted, opened
from onnxplain.engine import Engine, Scheduler
from onnxplain.errors import BadRequest, NotFound, nearest
from onnxplain.explanation import Explanation
from onnxplain.methods.method import Ask
from onnxplain.request import inputs, options, subjects, targets
from onnxplain.request.answers import Course, answer
from onnxplain.request.inputs import Row
from onnxplain.request.subjects import Subject
from onnxplain.request.work import Progress, Work, deadline
from onnxplain.rows import Target

__all__ = ["Explanation", "Model", "converted", "load"]

Array = NDArray[Any]


def load(
    source: str | os.PathLike[str] | Artifact,
    provider: str = "auto",
    *,
    cache: str | os.PathLike[str] | None = None,
    scheduler: Scheduler | None = None,
    max_rows: int | None = None,
) -> Model:
    """A model that can be explained, from an artifact or a plain ONNX file.

    A plain file is converted, and the artifact kept in ``cache`` (the user's cache folder). ``provider``: "cpu", "cuda"
    or "auto". ``scheduler`` is shared by the models of one device; ``max_rows`` bounds the rows of one run.

    Raises BadModel for a file that is not a model, Unsupported where it has no derivative, ProviderUnavailable where
    the provider or ONNX Runtime is not there.
    """
    artifact = opened(source, cache)
    return Model(artifact, Engine(artifact, provider, scheduler=scheduler, max_rows=max_rows))


class Model:
    """An artifact on a device. Thread-safe: the rows of calls from several threads share runs. A context manager."""

    def __init__(self, artifact: Artifact, engine: Engine) -> None:
        self.artifact = artifact
        self._engine = engine

    @property
    def manifest(self) -> Manifest:
        """What is known of the model: inputs, outputs, layers, rule sets, preprocessing, labels."""
        return self.artifact.manifest

    @property
    def provider(self) -> str:
        """ "cpu" or "cuda"."""
        return self._engine.provider

    def explain(
        self,
        x: Any,
        method: str = "gradient",
        target: Any = "top",
        *,
        output: str | None = None,
        preset: str | None = None,
        seed: int | None = None,
        check_finite: bool = True,
        cancelled: Callable[[], bool] | None = None,
        timeout: float | None = None,
        progress: Progress | None = None,
        **given: Any,
    ) -> Explanation:
        """One map per row of ``x``: which values made the score what it is.

        ``x``: an array (n, ...) for a model of one input, or {input name: array}. ``target``: "top" (each row's own
        largest output), a class index or name, a pair (a, b) for the margin a - b, a position in an output of several
        axes, a weighting of the output's shape, or a list with one of these per row. ``output``: which output is
        explained, the logits unless told. ``given``: the method's options (``onnxplain.METHODS[method].options``);
        ``preset`` fills in those of a paper. ``seed`` of the noise is drawn and returned unless given. ``cancelled`` is
        asked between runs; ``timeout`` in seconds; ``progress`` is called with (rows done, rows asked for so far).

        Raises BadRequest, NotFound, Unsupported, LimitExceeded, Cancelled or DeadlineExceeded.
        """
        work = Work(self._engine.submit, cancelled, deadline(timeout), _callable(progress))
        chosen = options.choose(self.manifest, method, given, output=output, preset=preset, seed=seed)
        rows = inputs.read(self.manifest, x, check_finite=check_finite)
        where = self._output(chosen.output, rows[0], work)
        wanted = targets.resolve(where, target, len(rows))
        asked = subjects.subjects(self.manifest, rows, chosen.options.get("baseline"), chosen.seed, work)
        courses = [self._course(chosen, *each) for each in zip(asked, wanted, strict=True)]
        answers = answer(courses, frozenset({0.0, 1.0} if chosen.complete else {1.0}), work)
        return result.explanation(self.manifest, chosen, where, answers, work, self.provider)

    def _course(self, chosen: options.Chosen, subject: Subject, target: Target) -> Course:
        ask = Ask(
            options=chosen.options,
            manifest=self.manifest,
            tensors=subjects.row_specs(self.manifest, subject),
            output=chosen.output,
            layer=chosen.layer,
            base=chosen.base,
        )
        return Course(ask, subject, chosen.method.plan(ask), target)

    def predict(self, x: Any, outputs: tuple[str, ...] | None = None) -> dict[str, Array]:
        """What the model says: {output name: (n, ...)}, all its outputs unless named. Raises BadRequest or NotFound."""
        names = tuple(spec.name for spec in self.manifest.outputs)
        for name in outputs or ():
            if name not in names:
                raise NotFound(f"no output {name!r}; {nearest(name, names)}")
        return self._outputs(inputs.read(self.manifest, x), outputs or names, Work(self._engine.submit))

    def _outputs(self, rows: list[Row], names: tuple[str, ...], work: Work) -> dict[str, Array]:
        jobs = [subjects.forward(self.manifest, names, row) for row in rows]
        outcomes = work.run(jobs)
        return {name: np.stack([outcome.taps[name][0] for outcome in outcomes]) for name in names}

    def _output(self, name: str, row: Row, work: Work) -> targets.Output:
        """The explained output and its shape; where the model leaves an axis open, one row is run to see it."""
        spec = next(each for each in self.manifest.outputs if each.name == name)
        shape = spec.shape[1:]
        if not all(isinstance(size, int) for size in shape):
            shape = self._outputs([row], (name,), work)[name].shape[1:]
        return targets.Output(name, tuple(int(size) for size in shape if isinstance(size, int)), self.manifest.labels)

    def close(self) -> None:
        """Give the device's memory back; what is queued fails."""
        self._engine.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _callable(progress: Progress | None) -> Progress | None:
    if progress is not None and not callable(progress):
        raise BadRequest("progress: give a function that is called with (rows done, rows asked for)")
    return progress
