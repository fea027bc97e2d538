"""What the CAM family shares: a layer's feature maps in, one map per input out.

A method says what share every feature map has at every place (``Shares``); the map is the sum of the shares. Chosen
feature maps and chosen neurons (Omeiza et al. 2019, arXiv:1908.01224) are the same computation as if the layer had only
these: sums over places run over the chosen ones, and the others' shares are zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxplain.artifact import Layer
from onnxplain.errors import BadRequest
from onnxplain.methods.feature_map import default_layer
from onnxplain.methods.layout import LAYOUTS, Layout, layout
from onnxplain.methods.localisation import boxes, mask
from onnxplain.methods.method import Ask, Method, Option, Plan, Reduced
from onnxplain.methods.upsampling import at_inputs, channels_last, spaces
from onnxplain.rows import Floats, Ints, Outcome, Purpose, Round, Rows

Shares = Callable[[Floats, Floats], Floats]
"""From activations and gradients, both (maps, places) in float64, to the shares, of the same shape."""

OPTIONS = (
    Option("layer", "layer", None, "whose feature maps are weighted; none: the last layer with spatial axes"),
    Option("relu", "bool", True, "keep only what speaks for the score, as in the paper (off: the signed map)"),
    Option(
        "interpolation",
        "choice",
        "bilinear",
        "how the map comes to the input's size (between pixel centres, corners not aligned)",
        choices=("bilinear", "nearest"),
    ),
    Option("maps", "indices", None, "only these feature maps of the layer, as 3 or 3,17; none: all"),
    Option("neurons", "indices", None, "only these places of the layer, as row:column, as 2:3,4:5; none: all"),
    Option("layer_layout", "choice", "auto", "how the layer's tensor is to be read", choices=LAYOUTS),
    Option("per_map", "bool", False, "give each feature map's own share too (extras: maps), before the ReLU"),
)

NEEDS = "a layer with spatial axes (convolutions), or a vision transformer's tokens"


def threshold(default: float) -> Option:
    """The option of methods that localise."""
    return Option(
        "threshold",
        "float",
        default,
        "the mask and its boxes (extras) are where the map is above this fraction of its maximum",
        minimum=0.0,
        maximum=1.0,
    )


def having(options: tuple[Option, ...], **defaults: Any) -> tuple[Option, ...]:
    """The options with other defaults."""
    return tuple(replace(each, default=defaults.get(each.name, each.default)) for each in options)


@dataclass(frozen=True)
class View:
    """The part of a layer that is looked at."""

    layout: Layout
    channels: int
    maps: Ints
    places: Ints
    """Flat positions."""

    def take(self, row: Floats) -> Floats:
        """(maps, places) of one row of the layer, in float64."""
        flat = self.layout.folded(row).reshape(self.channels, -1)
        return flat[np.ix_(self.maps, self.places)]

    def put(self, shares: Floats) -> Floats:
        """(maps, space...), zero at the places that were not chosen."""
        whole = np.zeros((len(self.maps), math.prod(self.layout.space)))
        whole[:, self.places] = shares
        return whole.reshape(len(self.maps), *self.layout.space)


def layer_of(ask: Ask) -> Layer:
    """The layer asked for, or the default one."""
    return ask.layer or default_layer(ask.manifest, ask.output, ask.tensors)


def round_(ask: Ask, rows: Rows | None = None, *, gradients: bool = True) -> Round:
    """The layer's activations, and gradients where wanted, at ``rows``: the input itself unless given."""
    tensor = (layer_of(ask).tensor,)
    purpose = ask.purpose("gradient", tensor, sums=False) if gradients else Purpose(ask.output, None, taps=tensor)
    return Round(purpose, Rows.table([1.0]) if rows is None else rows)


def view_of(ask: Ask, shape: tuple[int, ...]) -> View:
    """Of a layer whose row has ``shape``. Raises BadRequest where it has no places, or not those chosen."""
    layer, images = layer_of(ask), spaces(ask.manifest, ask.tensors)
    read = layout(shape, images.values(), ask.options["layer_layout"], layer.op)
    if read is None:
        rows = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in ask.tensors)
        as_ = "" if ask.options["layer_layout"] == "auto" else f" read as {ask.options['layer_layout']}"
        raise BadRequest(
            f"layer {layer.name!r} has rows of shape {list(shape)}{as_}: neither feature maps with the spatial axes of"
            f" an input nor tokens on a grid over one; the inputs' rows are {rows}. Take another layer"
            " (`onnxplain inspect` lists them)"
        )
    channels = shape[0] if read.kind == "channels_first" else shape[-1]
    return View(read, channels, _maps(ask, layer, channels), _places(ask, layer, read.space))


def _maps(ask: Ask, layer: Layer, channels: int) -> Ints:
    chosen = ask.options["maps"]
    if chosen is None:
        return np.arange(channels)
    if chosen.ndim != 1 or chosen.max() >= channels:
        raise BadRequest(
            f"maps={chosen.tolist()}: layer {layer.name!r} has {channels} feature maps, 0 to {channels - 1}"
        )
    return np.unique(chosen)


def _places(ask: Ask, layer: Layer, space: tuple[int, ...]) -> Ints:
    chosen = ask.options["neurons"]
    if chosen is None:
        return np.arange(math.prod(space))
    if chosen.ndim != 2 or chosen.shape[1] != len(space) or (chosen >= space).any():
        raise BadRequest(
            f"neurons={chosen.tolist()}: give places of {len(space)} numbers;"
            f" layer {layer.name!r} has {' x '.join(map(str, space))} of them"
        )
    return np.unique(np.ravel_multi_index(tuple(chosen.T), space))


def taken(ask: Ask, outcome: Outcome) -> tuple[View, Floats, Floats]:
    """View, activations and gradients, both (maps, places), of an outcome of one row."""
    ((name, values),) = outcome.taps.items()
    view = view_of(ask, values.shape[1:])
    return view, view.take(values[0]), view.take(outcome.tap_gradients[name][0])


def layer_map(ask: Ask, view: View, shares: Floats) -> Floats:
    """The map at the layer's resolution, (space...)."""
    combined: Floats = view.put(shares).sum(axis=0)
    return np.maximum(combined, 0.0) if ask.options["relu"] else combined


def finished(ask: Ask, view: View, shares: Floats) -> Reduced:
    """The map at the inputs' size; the extras are ``layer_map``, ``mask/INPUT``, ``boxes/INPUT`` and ``maps``."""
    map_ = layer_map(ask, view, shares)
    maps = at_inputs(map_, ask.manifest, ask.tensors, ask.options["interpolation"])
    extras = {"layer_map": map_, **dict(_localised(ask, maps))}
    if ask.options["per_map"]:
        extras["maps"] = view.put(shares)
    return Reduced(maps, extras=extras)


def _localised(ask: Ask, maps: dict[str, Floats]) -> Iterator[tuple[str, Floats]]:
    for spec in ask.tensors:
        if spec.name not in maps:
            continue
        map_, name = maps[spec.name], ask.manifest.stands_for[spec.name]
        found = mask(map_[..., 0] if channels_last(ask.manifest, spec) else map_[0], ask.options["threshold"])
        yield f"mask/{name}", found.astype(np.float64)
        if found.ndim == 2:
            yield f"boxes/{name}", boxes(found)


def cam(
    name: str, summary: str, shares: Shares, paper: str, *, options: tuple[Option, ...] = (), needs: str = NEEDS
) -> Method:
    """A CAM of one row: the backward pass need not go below the layer."""

    def plan(ask: Ask) -> Plan:
        (outcome,) = yield [round_(ask)]
        view, activations, gradients = taken(ask, outcome)
        return finished(ask, view, shares(activations, gradients))

    return Method(name, summary, plan, ("gradient",), options or (*OPTIONS, threshold(0.15)), paper=paper, needs=needs)
