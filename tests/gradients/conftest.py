"""What the gradient tests measured, printed at the end of the run: errors per network, cases per outcome."""

from __future__ import annotations

from collections.abc import Callable

import pytest

TABLES = pytest.StashKey[dict[str, list[str]]]()

Report = Callable[[str, str], None]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLES] = {}


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> Report:
    """report(table, line): the line stands in that table after the run."""

    def add(table: str, line: str) -> None:
        pytestconfig.stash[TABLES].setdefault(table, []).append(line)

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for title, lines in config.stash[TABLES].items():
        terminalreporter.section(title)
        for line in lines:
            terminalreporter.write_line(line)
