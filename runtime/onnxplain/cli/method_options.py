"""Options of methods as options of commands, generated from ``METHODS``: none can be forgotten or misdescribed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
from rich.console import Console

from onnxplain.cli import console
from onnxplain.cli.group import SectionOption
from onnxplain.errors import BadRequest, NotFound, nearest
from onnxplain.methods import METHODS
from onnxplain.methods.method import Method, Option

F = TypeVar("F", bound=Callable[..., Any])

KINDS: dict[str, Any] = {"int": int, "float": float}
"""Kinds that click checks; the others are text here and checked by the method, with the same error everywhere."""


SECTION = "Options of the methods (`onnxplain methods NAME` shows those of one)"


def flag(name: str) -> str:
    """As typed on a command line: ``n_steps`` is ``--n-steps``."""
    return "--" + name.replace("_", "-")


def by_option() -> dict[str, list[tuple[Method, Option]]]:
    """Option name -> the methods that take it, each with its own default, in the order of ``METHODS``."""
    found: dict[str, list[tuple[Method, Option]]] = {}
    for method in METHODS.values():
        for option in method.options:
            found.setdefault(option.name, []).append((method, option))
    return found


def method_options(command: F) -> F:
    """Adds every option that some method takes; None where it was not given, so that the method's default holds."""
    for name, takers in reversed(by_option().items()):
        option = takers[0][1]
        if option.kind == "bool":
            spelled = f"{flag(name)}/--no-{flag(name)[2:]}"
            add = click.option(spelled, name, default=None, help=_help(takers), cls=SectionOption, section=SECTION)
        else:
            given = {"type": KINDS.get(option.kind, str), "metavar": _metavar(option), "help": _help(takers)}
            add = click.option(flag(name), name, cls=SectionOption, section=SECTION, **given)
        command = add(command)
    return command


def taken(options: dict[str, Any]) -> dict[str, Any]:
    """Take the methods' options that were given out of a command's keyword arguments, files read, numbers parsed."""
    values = {name: options.pop(name) for name in by_option()}
    kinds = {name: takers[0][1].kind for name, takers in by_option().items()}
    return {name: _value(value, kinds[name]) for name, value in values.items() if value is not None}


def those_of(method: Method, given: Mapping[str, Any]) -> dict[str, Any]:
    """Of the given options those that a method takes, or the method that it averages."""
    own = {option.name for option in method.options}
    if "base" in own:
        base = given.get("base", next(option.default for option in method.options if option.name == "base"))
        own |= {option.name for option in named(base).options}
    return {name: value for name, value in given.items() if name in own}


def named(name: str) -> Method:
    """Raises NotFound with the nearest names."""
    try:
        return METHODS[name]
    except KeyError:
        raise NotFound(f"no method {name!r}; {nearest(name, METHODS)}") from None


def describe(method: Method, to: Console) -> None:
    """One method and its options with their defaults."""
    to.print(f"[bold]{method.name}[/]  {console.escape(method.summary)}", soft_wrap=True)
    if method.paper:
        to.print(f"  {console.escape(method.paper)}", soft_wrap=True)
    if method.needs:
        to.print(f"  needs: {console.escape(method.needs)}", soft_wrap=True)
    rows = [(flag(option.name), _kind(option), _default(option), option.help) for option in method.options]
    to.print()
    to.print(console.table(("option", "value", "default", ""), rows) if rows else "  no options")


def _help(takers: list[tuple[Method, Option]]) -> str:
    option = takers[0][1]
    defaults = sorted({_default(each) for _, each in takers})
    names = ", ".join(method.name for method, _ in takers) if len(takers) <= 3 else f"{len(takers)} methods"
    choices = f" One of {', '.join(map(str, option.choices))}." if option.choices else ""
    return f"{option.help[:1].upper()}{option.help[1:]}.{choices}  [{names}; default: {' or '.join(defaults)}]"


def _metavar(option: Option) -> str:
    return "NAME" if option.choices else {"array": "VALUE", "layer": "NAME"}.get(option.kind, option.kind.upper())


def _kind(option: Option) -> str:
    return ", ".join(map(str, option.choices)) if option.choices else option.kind


def _default(option: Option) -> str:
    return (
        "none"
        if option.default is None
        else str(option.default).lower()
        if option.kind == "bool"
        else str(option.default)
    )


def _value(value: Any, kind: str) -> Any:
    if not isinstance(value, str):
        return value
    if value.endswith(".npy"):
        try:
            return np.load(Path(value), allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise BadRequest(f"{value}: not a readable .npy file of plain numbers ({error})") from error
    if kind == "array":
        try:
            return float(value)
        except ValueError:
            return value
    return value
