"""Where text goes: results to stdout, progress and warnings to stderr; bars only where someone watches."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape as escape  # for the commands too
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

PIPE_WIDTH = 160
"""Columns where the output is no terminal: tables are not cut to a guessed 80."""


def out() -> Console:
    """Results. Made anew at each call: tests and pipes replace ``sys.stdout``."""
    return Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def err() -> Console:
    """Everything that is not the result."""
    return Console(file=sys.stderr, highlight=False, width=None if sys.stderr.isatty() else PIPE_WIDTH)


def warn(message: str) -> None:
    """One line on stderr for what the user should know but need not mend."""
    err().print(f"[yellow]warning:[/] {escape(message)}", soft_wrap=True)


def table(columns: Iterable[str], rows: Iterable[Iterable[object]], *, right: Iterable[str] = ()) -> Table:
    """A plain table; the columns named in ``right`` are aligned to the right."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    flush = set(right)
    for name in columns:
        made.add_column(name, justify="right" if name in flush else "left", overflow="fold")
    for row in rows:
        made.add_row(*(escape(str(cell)) for cell in row))
    return made


def facts(rows: Iterable[tuple[str, object]]) -> Table:
    """Names and values, one line each."""
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows:
        made.add_row(name, escape(str(value)))
    return made


@contextmanager
def working(what: str) -> Iterator[None]:
    """A spinner for work of unknown length; silent where stderr is no terminal."""
    console = err()
    if not console.is_terminal:
        yield
        return
    with console.status(escape(what)):
        yield


@contextmanager
def bar(what: str, unit: str) -> Iterator[Progress]:
    """A progress bar that counts ``unit`` done of all; silent where stderr is no terminal."""
    console = err()
    columns = (
        TextColumn(escape(what)),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        yield progress
