"""Where a map says that something is: a mask above a fraction of its maximum, and the boxes of its components.

Zhou et al. 2016, arXiv:1512.04150, section 3.2 (20 %); Selvaraju et al. 2017, arXiv:1610.02391, section 4.1 (15 %).
Both take the box of the largest component; here every component has its own, so that several occurrences are found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxplain.rows import Floats


def mask(map_: Floats, threshold: float) -> NDArray[np.bool_]:
    """Places above ``threshold`` of the map's maximum; none where nothing is positive."""
    top = float(np.max(map_, initial=0.0))
    return map_ > threshold * top if top > 0 else np.zeros(map_.shape, np.bool_)


def boxes(found: NDArray[np.bool_]) -> Floats:
    """(components, 5): top, left, bottom, right (the last two exclusive) and places of a mask's components.

    Largest first. Places belong together that share an edge.
    """
    components: list[_Component] = []
    above: list[tuple[int, int, _Component]] = []
    for y, line in enumerate(found):
        here = []
        for start, stop in _runs(line):
            own = _Component(y, start, y + 1, stop, stop - start)
            for left, right, component in above:
                if left < stop and start < right:
                    own = own.joined(component)
            components.append(own)
            here.append((start, stop, own))
        above = here
    whole = dict.fromkeys(component.root() for component in components)
    rows = sorted((each.row for each in whole), key=lambda row: (-row[4], row[:2]))
    return np.array(rows, np.float64).reshape(len(rows), 5)


def _runs(line: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Start and stop of every stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], line, [False]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


@dataclass(eq=False)
class _Component:
    """A union-find over horizontal runs: a map's mask has few of them, whatever its size."""

    top: int
    left: int
    bottom: int
    right: int
    size: int
    parent: _Component | None = None

    @property
    def row(self) -> tuple[int, int, int, int, int]:
        return self.top, self.left, self.bottom, self.right, self.size

    def root(self) -> _Component:
        here = self
        while here.parent is not None:
            here = here.parent
        if here is not self:
            self.parent = here
        return here

    def joined(self, other: _Component) -> _Component:
        mine, its = self.root(), other.root()
        if mine is not its:
            its.top, its.left = min(mine.top, its.top), min(mine.left, its.left)
            its.bottom, its.right = max(mine.bottom, its.bottom), max(mine.right, its.right)
            its.size += mine.size
            mine.parent = its
        return self
