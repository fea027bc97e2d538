"""Plans followed to their end: one per input row, all rows' rounds submitted together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from onnxplain.errors import LimitExceeded
from onnxplain.methods.method import Ask, Plan, Reduced
from onnxplain.request.subjects import Subject
from onnxplain.request.targets import with_top
from onnxplain.request.work import Work
from onnxplain.rows import Outcome, Purpose, Round, Rows, Target


@dataclass
class Course:
    """One row on its way: its plan, the rounds that it waits for, and what is known of its scores."""

    ask: Ask
    subject: Subject
    plan: Plan
    target: Target
    rounds: Sequence[Round] = ()
    n_rows: int = 0
    scores: dict[float, float] = field(default_factory=dict)
    """Position on the path without noise (1 the input, 0 the baseline) -> score."""
    reduced: Reduced | None = None

    def advance(self, outcomes: Sequence[Outcome] | None) -> None:
        """Raises LimitExceeded where the plan asks for more rows than one input row may cost."""
        try:
            self.rounds = next(self.plan) if outcomes is None else self.plan.send(outcomes)
        except StopIteration as stop:
            self.rounds, self.reduced = (), stop.value
        self.n_rows += sum(len(each.rows) for each in self.rounds)
        if self.n_rows > self.ask.row_limit:
            raise LimitExceeded(
                f"the method takes {self.n_rows} rows for an input row, the limit is {self.ask.row_limit}"
            )

    @property
    def only_here(self) -> bool:
        """All rows of the waiting rounds are the input itself: the program can find its top class there."""
        return all((each.rows.alpha == 1).all() and (each.rows.noise == 0).all() for each in self.rounds)

    def learn(self, round_: Round, outcome: Outcome) -> None:
        """Take the scores of rows without noise at either end of the path."""
        for k, (alpha, noise) in enumerate(zip(round_.rows.alpha, round_.rows.noise, strict=True)):
            if alpha in (0.0, 1.0) and noise == 0.0:
                self.scores[float(alpha)] = float(outcome.scores[k])


@dataclass(frozen=True)
class Answer:
    """One row's result: its target without "top", its scores at the ends of the path, and what its plan returned."""

    subject: Subject
    target: Target
    scores: Mapping[float, float]
    reduced: Reduced


def answer(courses: Sequence[Course], ends: frozenset[float], work: Work) -> list[Answer]:
    """Every course to its end, with the scores at ``ends`` (1 the input, 0 the baseline).

    A target "top" is the class of the input itself and is fixed before anything else is run; where a plan begins with
    nothing but the input itself, the same run finds it.
    """
    for course in courses:
        course.advance(None)
    _fix_tops([each for each in courses if each.target.is_top and not (each.only_here and ends == {1.0})], work)
    extra = [_missing(each, ends) for each in courses]
    waiting = list(courses)
    while waiting:
        _round(waiting, extra, work)
        waiting = [each for each in waiting if each.reduced is None]
        extra = [None] * len(waiting)
    return [
        Answer(each.subject, each.target, each.scores, each.reduced) for each in courses if each.reduced is not None
    ]


def _fix_tops(courses: Sequence[Course], work: Work) -> None:
    rounds = [_scored(each.ask, (1.0,)) for each in courses]
    jobs = [each.subject.job(round_, each.target) for each, round_ in zip(courses, rounds, strict=True)]
    for course, round_, outcome in zip(courses, rounds, work.run(jobs) if jobs else [], strict=True):
        course.target = with_top(course.target, int(outcome.top[0]))
        course.learn(round_, outcome)


def _scored(ask: Ask, alphas: Sequence[float]) -> Round:
    return Round(Purpose(ask.output), Rows.table(list(alphas)))


def _missing(course: Course, ends: frozenset[float]) -> Round | None:
    """A forward round for the ends of the path that no row of the plan's first rounds is at."""
    known = set(course.scores)
    for each in course.rounds:
        known |= {float(alpha) for alpha, noise in zip(each.rows.alpha, each.rows.noise, strict=True) if noise == 0.0}
    alphas = sorted(ends - known)
    return _scored(course.ask, alphas) if alphas else None


def _round(courses: Sequence[Course], extra: Sequence[Round | None], work: Work) -> None:
    """Run what every course waits for, and an extra round for some, and let each go on."""
    rounds = [[*course.rounds, *([more] if more else [])] for course, more in zip(courses, extra, strict=True)]
    for course, own, outcomes in zip(courses, rounds, _run(courses, rounds, work), strict=True):
        if course.target.is_top:
            tops = {int(outcome.top[0]) for outcome in outcomes}
            course.target = with_top(course.target, min(tops))
            if len(tops) > 1:
                # Two programs of one model may round differently where two classes all but tie: one class for both.
                (outcomes,) = _run([course], [own], work)
        for round_, outcome in zip(own, outcomes, strict=True):
            course.learn(round_, outcome)
        course.advance(outcomes[: len(course.rounds)])


def _run(courses: Sequence[Course], rounds: Sequence[Sequence[Round]], work: Work) -> Iterator[list[Outcome]]:
    jobs = [
        course.subject.job(each, course.target) for course, own in zip(courses, rounds, strict=True) for each in own
    ]
    outcomes = work.run(jobs)
    start = 0
    for own in rounds:
        yield outcomes[start : start + len(own)]
        start += len(own)
