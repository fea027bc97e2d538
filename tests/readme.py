"""README's tables, made from the code: ``python -m tests.readme`` writes them between their markers.

A marker pair is ``<!-- table: NAME -->`` and ``<!-- end -->``; what stands between them is replaced. A test compares.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"

MARKED = re.compile(r"(<!-- table: (?P<name>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def methods() -> str:
    """One line per method, in the order of ``METHODS``."""
    from onnxplain import METHODS

    return table(
        ("method", "what it gives", "rule sets", "from"),
        (
            (f"`{method.name}`", method.summary, ", ".join(method.rules) or "none: forward passes only", method.paper)
            for method in METHODS.values()
        ),
    )


def operators() -> str:
    """Operators with a rule by family, then those that have no gradient on purpose."""
    from onnxplain_convert.grad.rules import FAMILIES

    rows = [(family.name, ", ".join(f"`{name}`" for name in sorted(family.operators()))) for family in FAMILIES]
    constant = sorted({name for family in FAMILIES for _, name in family.no_gradient})
    rows.append(("no gradient on purpose", ", ".join(f"`{name}`" for name in constant)))
    return table(("family", "operators"), [row for row in rows if row[1]])


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; a bar inside a cell is escaped."""
    lines = [list(head), *(list(row) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


TABLES: dict[str, Callable[[], str]] = {"methods": methods, "operators": operators}


def current(text: str) -> str:
    """``text`` with every marked table made anew. Raises KeyError for a table that nobody makes."""
    return MARKED.sub(lambda match: f"{match[1]}\n{TABLES[match['name']]()}\n{match[3]}", text)


if __name__ == "__main__":
    README.write_text(current(README.read_text()))
