"""Runs one model after the other on the same specimens, and measures its maps against the trained model's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from onnxplain.artifact import Artifact
from onnxplain.engine import Engine, Scheduler
from onnxplain.errors import BadRequest, NotFound, Unsupported
from onnxplain.explain import Model
from onnxplain.sanity import controls
from onnxplain.sanity.controls import Subject
from onnxplain.sanity.finding import Finding
from onnxplain.sanity.maps import Array, Mapped, Said, mapped, multiplies, said
from onnxplain.sanity.options import Options
from onnxplain.sanity.similarity import Seen, compare, unfit
from onnxplain.sanity.specimens import Specimen

Progress = Callable[[int, int], None]
"""Called with (maps of a model by a method that are done, all of them)."""
SHOWN = 2
"""Images whose maps are kept for the report."""


class Bench:
    """``findings`` fill up as :meth:`trained` and then :meth:`randomised` are called."""

    def __init__(
        self,
        artifact: Artifact,
        provider: str,
        scheduler: Scheduler,
        specimens: Sequence[Specimen],
        options: Options,
        levels: int,
        progress: Progress | None,
    ) -> None:
        self._artifact, self._wanted, self._scheduler = artifact, provider, scheduler
        self._specimens, self._options, self._levels, self._progress = specimens, options, levels, progress
        self._done, self._all = 0, (1 + levels * options.draws) * len(options.methods)
        self.provider = ""
        self.findings: list[Finding] = []
        self.left_out: dict[str, str] = {}
        self._subjects: dict[str, list[Subject]] = {}
        self._trained: dict[str, list[Seen]] = {}
        self._before: dict[str, list[Seen]] = {}

    def trained(self) -> Said | None:
        """The trained model's maps, and the controls made of them. Raises where no method can explain the model."""
        with self._model({}) as model:
            self.provider = model.provider
            for method in self._options.methods:
                try:
                    maps = mapped(model, method, self._specimens, self._options, None)
                except (BadRequest, NotFound, Unsupported) as error:  # a network without places has no Grad-CAM
                    self.left_out[method] = str(error)
                    if not self.findings and method == self._options.methods[-1]:
                        raise
                else:
                    self._begin(method, maps)
                self._tell()
            self._all = self._done + self._levels * self._options.draws * len(self.findings)
            return said(model, self._specimens, self._options.output)

    def randomised(self, level: int, draw: int, weights: Mapping[str, Array], *, whole: bool) -> Said | None:
        """Measure one randomised model; ``whole``: all its parameters are random."""
        options = self._options
        with self._model(weights) as model:
            for finding in self.findings:
                targets = finding.targets if options.classes == "fixed" else None
                maps = mapped(model, finding.method, self._specimens, options, targets)
                views = self._seen(finding.method, maps)
                for measure, curve in finding.curves.items():
                    curve[level, draw] = self._alike(measure, self._trained[finding.method], views)
                if draw == 0:
                    for kept, view in zip(finding.shown, views, strict=False):
                        kept.append(view.signed)
                if whole and options.draws > 1:
                    self._two_random(finding, draw, views)
                self._tell()
            return said(model, self._specimens, options.output)

    def _begin(self, method: str, maps: list[Mapped]) -> None:
        manifest, options = self._artifact.manifest, self._options
        subjects = [Subject.of(manifest, each, map_) for each, map_ in zip(self._specimens, maps, strict=True)]
        self._subjects[method] = subjects
        self._trained[method] = trained = self._seen(method, maps)
        finding = Finding(method, maps[0].options, [map_.target for map_ in maps])
        shape = (self._levels, options.draws, len(maps))
        finding.curves = {measure: np.full(shape, np.nan) for measure in self._measures(method)}
        finding.shown = [[each.signed] for each in trained[:SHOWN]]
        for pair in controls.pairs(subjects, multiplies(method, maps[0].options), options):
            a, b = (subjects[pair.place].view.seen(each, options) for each in (pair.first, pair.second))
            rows = 1 if pair.control == controls.EDGES else options.draws
            for measure, table in self._tables(finding, pair.control, rows).items():
                table[pair.draw, pair.place] = compare(measure, a, b, options.settings)
        self.findings.append(finding)

    def _measures(self, method: str) -> Iterator[str]:
        """Those that maps of these shapes have; the others are named."""
        shapes = {each.signed.shape for each in self._trained[method]}
        for measure in self._options.measured:
            reasons = [why for shape in shapes if (why := unfit(measure, shape, self._options.settings)) is not None]
            if reasons:
                self.left_out[measure] = reasons[0]
            else:
                yield measure

    def _two_random(self, finding: Finding, draw: int, views: list[Seen]) -> None:
        """What of a similarity comes from the architecture and the image: this draw against the one before it."""
        for measure, table in self._tables(finding, controls.RANDOM_NETWORKS, self._options.draws).items():
            if draw:
                table[draw] = self._alike(measure, self._before[finding.method], views)
        self._before[finding.method] = views

    def _tables(self, finding: Finding, control: str, rows: int) -> dict[str, Array]:
        empty = {measure: np.full((rows, len(self._specimens)), np.nan) for measure in finding.curves}
        return finding.controls.setdefault(control, empty)

    def _seen(self, method: str, maps: Sequence[Mapped]) -> list[Seen]:
        pairs = zip(self._subjects[method], maps, strict=True)
        return [subject.view.seen(map_.values, self._options) for subject, map_ in pairs]

    def _alike(self, measure: str, first: Sequence[Seen], second: Sequence[Seen]) -> list[float]:
        return [compare(measure, a, b, self._options.settings) for a, b in zip(first, second, strict=True)]

    def _model(self, weights: Mapping[str, Array]) -> Model:
        engine = Engine(self._artifact, self._wanted, scheduler=self._scheduler, weights=weights)
        return Model(self._artifact, engine)

    def _tell(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._all)
