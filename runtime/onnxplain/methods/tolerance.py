"""``tolerance=``: rows are added until the map's own estimated error is below it, or a cap is reached."""

from __future__ import annotations

from collections.abc import Mapping

from onnxplain.methods.method import Ask, Option

OPTIONS = (
    Option(
        "tolerance",
        "float",
        None,
        "add rows until the map's estimated relative error is below this (0.05 is 5 %); none: take the rows asked for",
        minimum=1e-6,
        maximum=1.0,
    ),
    Option(
        "max_rows",
        "int",
        5000,
        "most rows that tolerance may take per input row; a map stopped by it comes back with converged=False",
        minimum=1,
    ),
)


def reached(ask: Ask, error: Mapping[str, float]) -> bool:
    """No precision was asked for, or every tensor's map has it. An unknown error (nan) has not reached anything."""
    tolerance = ask.options["tolerance"]
    return tolerance is None or all(each <= tolerance for each in error.values())


def most_rows(ask: Ask, cap: int) -> int:
    """The tightest of the three caps on rows: the method's own, the request's and the process's."""
    return min(cap, int(ask.options["max_rows"]), ask.row_limit)
