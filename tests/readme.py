"""README's tables, made from the code: ``python -m tests.readme`` writes them between their markers.

A marker pair is ``<!-- table: NAME -->`` and ``<!-- end -->``; what stands between them is replaced. A test compares.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import onnx

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
    """Operators with a rule by family, those said in other operators, those that have no gradient on purpose."""
    from onnxplain_convert.grad.rules import FAMILIES
    from onnxplain_convert.opset.microsoft import ADAPTERS, DOMAIN

    rows = [(family.name, family.operators()) for family in FAMILIES]
    constant = {name for family in FAMILIES for _, name in family.no_gradient}
    known = constant.union(*(names for _, names in rows))
    rows += [("from other opsets", from_other_opsets() - known), (f"`{DOMAIN}`", set(ADAPTERS))]
    rows.append(("no gradient on purpose", constant))
    return table(
        ("family", "operators"), [(kind, ", ".join(f"`{name}`" for name in sorted(names))) for kind, names in rows]
    )


def from_other_opsets() -> set[str]:
    """Operators of the default domain outside the opset window that are brought into it."""
    from onnxplain_convert.opset.newer import NEWER
    from onnxplain_convert.opset.upgrades import UPGRADES
    from onnxplain_convert.opset.window import HIGHEST

    # onnx's stubs lack the function bodies
    schemas: list[Any] = [schema for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""]
    there = {schema.name for schema in schemas if schema.since_version <= HIGHEST}
    defined = {s.name for s in schemas if s.has_function or s.has_context_dependent_function}
    gone = {schema.name for schema in schemas if schema.deprecated}
    return defined - there | set(NEWER) | {name for name, _ in UPGRADES if name in gone}


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
