"""Which parameters are randomised together, and in which order: blocks of layers, levels of blocks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnxplain.errors import BadRequest, NotFound, nearest
from onnxplain.sanity.parameters import Block, Parameters

ORDERS = ("top_down", "bottom_up", "independent", "all")


@dataclass(frozen=True)
class Level:
    """One state of the model: the block that was reached, and every initializer randomised by then."""

    name: str
    names: tuple[str, ...]


def grouped(found: Parameters, prefixes: Sequence[str]) -> Parameters:
    """Layers whose name, or a parameter's name, lies under a prefix (``layer4`` holds ``layer4.0.conv1``) as one block.

    The longest prefix wins; other layers stay blocks of their own. A block stands where its first layer stood. Raises
    NotFound for a prefix under which nothing lies.
    """
    made: dict[str, Block] = {}
    for block in found.blocks:
        under = [prefix for prefix in prefixes if any(_under(name, prefix) for name in (block.name, *block.names))]
        name = max(under, key=len) if under else block.name
        if name not in made:
            made[name] = replace(block, name=name)
            continue
        first = made[name]
        both = {parameter.name: parameter for parameter in (*first.parameters, *block.parameters)}
        made[name] = Block(name, (*first.layers, *block.layers), tuple(both.values()))
    for prefix in prefixes:
        if prefix not in made:
            names = [name for block in found.blocks for name in (block.name, *block.names)]
            raise NotFound(f"no layer under {prefix!r}; {nearest(prefix, names)}")
    return replace(found, blocks=tuple(made.values()))


def _under(name: str, prefix: str) -> bool:
    return re.match(re.escape(prefix.strip("/")) + r"($|[/.:])", name.lstrip("/")) is not None


def levels(blocks: Sequence[Block], order: str) -> tuple[Level, ...]:
    """``top_down`` and ``bottom_up`` randomise one block more at each level, from the output's or the input's side;
    ``independent`` one block at a time; ``all`` everything at once. Raises BadRequest for another order.

    A parameter has the same random values at every level of a draw: the levels of a cascade are nested.
    """
    if order not in ORDERS:
        raise BadRequest(f"order={order!r}: one of {', '.join(ORDERS)}")
    if order == "all":
        return (Level("all", _union(blocks)),)
    if order == "independent":
        return tuple(Level(block.name, block.names) for block in blocks)
    walked = list(reversed(blocks)) if order == "top_down" else list(blocks)
    return tuple(Level(block.name, _union(walked[: k + 1])) for k, block in enumerate(walked))


def _union(blocks: Sequence[Block]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for block in blocks for name in block.names))
