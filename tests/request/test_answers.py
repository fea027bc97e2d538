"""How a request's rows go through their plans, with an engine that only counts and answers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from onnxplain.artifact import Layer
from onnxplain.errors import BadRequest, Cancelled, LimitExceeded
from onnxplain.methods import METHODS
from onnxplain.request.answers import Answer, Course, answer
from onnxplain.request.subjects import Subject
from onnxplain.request.work import Work
from onnxplain.rows import TOP, Job, Outcome, Target
from tests.methods import fake

X = np.array([1.0, -2.0])
BOTH = frozenset({0.0, 1.0})


class Engine:
    """Answers f(x) = x0^2 - x1 in two classes (f, -f), by the fake of the methods' tests; keeps what it was asked."""

    def __init__(self, tops: Callable[[Job], int] = lambda job: 0) -> None:
        self.jobs: list[Job] = []
        self.tops = tops

    def submit(self, job: Job, cancelled: Callable[[], bool]) -> Future[Outcome]:
        self.jobs.append(job)
        future: Future[Outcome] = Future()
        rows = job.round.rows
        points = rows.alpha[:, None] * X
        sign = {0: 1.0, 1: -1.0}[self.tops(job) if job.target.is_top else job.target.index[0]]
        known = Outcome(
            n_rows=len(rows),
            scores=sign * (points[:, 0] ** 2 - points[:, 1]),
            top=np.full(len(rows), self.tops(job)),
        )
        if job.round.purpose.rules is None:
            future.set_result(known)
            return future
        gradients = {rules: lambda p: {"x": sign * np.array([2 * p["x"][0], -1.0])} for rules in ("gradient", "guided")}
        engine = fake.FakeEngine(gradients, {"x": X}, taps=lambda p: (np.ones((1, 2, 2)), np.ones((1, 2, 2))))
        made = engine.outcome(job.round)
        future.set_result(Outcome(**{**vars(made), "scores": known.scores, "top": known.top}))
        return future


def followed(
    engine: Any, method: str, target: Target, ends: frozenset[float], n: int = 1, **options: Any
) -> list[Answer]:
    asks = [fake.ask(method, {"x": X}, **options)] * n
    subject = Subject({"x": X}, {"x": X}, {"x": np.zeros((1, 2))}, seed=0)
    courses = [Course(ask, subject, METHODS[method].plan(ask), target) for ask in asks]
    return answer(courses, ends, Work(engine.submit))


def purposes(engine: Engine) -> list[tuple[str | None, list[float]]]:
    return [(job.round.purpose.rules, job.round.rows.alpha.tolist()) for job in engine.jobs]


def test_the_gradient_of_the_top_class_is_one_run() -> None:
    engine = Engine(tops=lambda job: 1)
    (course,) = followed(engine, "gradient", TOP, frozenset({1.0}))
    assert purposes(engine) == [("gradient", [1.0])]
    assert course.target == Target((1,))
    assert course.scores == {1.0: -3.0}


def test_the_top_class_is_fixed_before_a_path_is_run() -> None:
    engine = Engine()
    (course,) = followed(engine, "integrated_gradients", TOP, BOTH, n_steps=3)
    assert purposes(engine)[0] == (None, [1.0])
    assert [job.target for job in engine.jobs] == [TOP, Target((0,)), Target((0,))]
    assert course.scores == {1.0: 3.0, 0.0: 0.0}
    np.testing.assert_allclose(course.reduced.attributions["x"], [1.0, 2.0])


def test_scores_that_the_rows_give_are_not_asked_for_again() -> None:
    engine = Engine()
    (course,) = followed(engine, "integrated_gradients", Target((0,)), BOTH, n_steps=3, quadrature="trapezoid")
    assert purposes(engine) == [("gradient", [0.0, 0.5, 1.0])]
    assert course.scores == {1.0: 3.0, 0.0: 0.0}
    engine = Engine()
    followed(engine, "integrated_gradients", Target((0,)), BOTH, n_steps=2, quadrature="riemann_right")
    assert purposes(engine) == [("gradient", [0.5, 1.0]), (None, [0.0])]


def test_noisy_rows_are_no_scores() -> None:
    engine = Engine()
    (course,) = followed(engine, "smoothgrad", Target((0,)), frozenset({1.0}), n_samples=4)
    assert purposes(engine) == [("gradient", [1.0] * 4), (None, [1.0])]
    assert course.scores == {1.0: 3.0}


def test_all_rows_are_submitted_together() -> None:
    engine = Engine()
    waves: list[int] = []

    class Watched(Work):
        def run(self, jobs: Any) -> Any:
            waves.append(len(jobs))
            return super().run(jobs)

    asks = [fake.ask("integrated_gradients", {"x": X}, n_steps=2)] * 5
    subject = Subject({"x": X}, {"x": X}, {"x": np.zeros((1, 2))}, seed=0)
    targets = [Target((0,))] * 4 + [TOP]
    method = METHODS["integrated_gradients"]
    courses = [Course(ask, subject, method.plan(ask), target) for ask, target in zip(asks, targets, strict=True)]
    answer(courses, BOTH, Watched(engine.submit))
    assert waves == [1, 10]  # the one "top"; then a path and its ends for each


def test_two_programs_that_disagree_about_the_top_class_are_run_for_one() -> None:
    engine = Engine(tops=lambda job: 0 if job.round.purpose.rules == "guided" else 1)
    x = np.ones((1, 2, 2))
    layers = (Layer("relu", "Relu", "r", ("N", 1, 2, 2)),)
    ask = fake.ask("guided_grad_cam", {"x": x}, fake.manifest({"x": x}, layers=layers))
    subject = Subject({"x": X}, {"x": X}, {"x": np.zeros((1, 2))}, seed=0)
    waiting = Course(ask, subject, METHODS["guided_grad_cam"].plan(ask), TOP)
    (course,) = answer([waiting], frozenset({1.0}), Work(engine.submit))
    assert [job.target for job in engine.jobs] == [TOP, TOP, Target((0,)), Target((0,))]
    assert course.target == Target((0,))
    assert course.scores == {1.0: 3.0}


def test_one_failure_drops_the_rest() -> None:
    asked: list[Callable[[], bool]] = []

    def submit(job: Job, cancelled: Callable[[], bool]) -> Future[Outcome]:
        asked.append(cancelled)
        future: Future[Outcome] = Future()
        if len(asked) == 2:
            future.set_exception(BadRequest("the second"))
        return future

    engine = type("Broken", (), {"submit": staticmethod(submit)})
    with pytest.raises(BadRequest, match="the second"):
        followed(engine, "gradient", Target((0,)), frozenset({1.0}), n=3)
    assert [cancelled() for cancelled in asked] == [True] * 3


def test_a_plan_that_asks_too_much_is_stopped() -> None:
    ask = fake.ask("integrated_gradients", {"x": X}, n_steps=100)
    ask = replace(ask, row_limit=50)
    subject = Subject({"x": X}, {"x": X}, {"x": np.zeros((1, 2))}, seed=0)
    engine = Engine()
    with pytest.raises(LimitExceeded, match="100 rows"):
        answer(
            [Course(ask, subject, METHODS["integrated_gradients"].plan(ask), Target((0,)))], BOTH, Work(engine.submit)
        )
    assert not engine.jobs


def test_cancelled_is_what_the_engine_says() -> None:
    def submit(job: Job, cancelled: Callable[[], bool]) -> Future[Outcome]:
        future: Future[Outcome] = Future()
        future.set_exception(Cancelled("gone"))
        return future

    with pytest.raises(Cancelled):
        followed(type("Gone", (), {"submit": staticmethod(submit)}), "gradient", Target((0,)), frozenset({1.0}))
