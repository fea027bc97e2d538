"""The controls of one method: pairs of maps whose likeness the model has no part in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnxplain.artifact import Manifest, TensorSpec
from onnxplain.methods.upsampling import channels_last
from onnxplain.sanity import nulls
from onnxplain.sanity.maps import Array, Mapped, View, explained_input
from onnxplain.sanity.options import Options
from onnxplain.sanity.specimens import Specimen
from onnxplain.sanity.values import generator

SHUFFLED, INPUT_NOISE, EDGES, RANDOM_NETWORKS = "shuffled", "input_times_noise", "edges", "random_networks"
WORDS = {
    SHUFFLED: "two maps of the method's own values in random places",
    INPUT_NOISE: "two maps of the input minus the baseline, times noise",
    EDGES: "the trained model's map and the picture's edges (Sobel)",
    RANDOM_NETWORKS: "the maps of two wholly and differently randomised models",
}


@dataclass(frozen=True, eq=False)
class Subject:
    """One specimen with its trained map, ready to be compared."""

    x: Array
    map: Mapped
    view: View
    last: bool
    """Channels stand last."""

    @classmethod
    def of(cls, manifest: Manifest, specimen: Specimen, map_: Mapped) -> Subject:
        name = explained_input(manifest)
        x = specimen.arrays[name][0]
        last = channels_last(manifest, TensorSpec(name, x.dtype.name, tuple(x.shape)))
        return cls(x, map_, View.of(manifest, specimen, map_.values.shape, map_.options), last)


@dataclass(frozen=True, eq=False)
class Pair:
    """Two maps of one specimen, as raw as a method's."""

    control: str
    draw: int
    place: int
    first: Array
    second: Array


def pairs(subjects: Sequence[Subject], multiplies: bool, options: Options) -> Iterator[Pair]:
    """Of every specimen. The input times noise is made for maps times the input only; edges have no draws."""
    own_shape = all(each.view.displacement is not None for each in subjects)
    for place, each in enumerate(subjects):
        displacement = each.view.displacement if own_shape else None
        for draw in range(options.draws):
            one, two = (generator(options.seed, draw, f"control/{place}/{side}") for side in ("first", "second"))
            yield Pair(SHUFFLED, draw, place, _shuffled(each, one), _shuffled(each, two))
            if multiplies and displacement is not None:
                noisy = nulls.input_times_noise
                yield Pair(INPUT_NOISE, draw, place, noisy(displacement, one), noisy(displacement, two))
        if displacement is not None and each.x.ndim >= 2:
            yield Pair(EDGES, 0, place, each.map.values, nulls.edges(each.x, each.view.channel_axis))


def _shuffled(each: Subject, random: np.random.Generator) -> Array:
    """A CAM is shuffled at its layer's resolution, or the null would be rougher than the map."""
    layer, shape = each.map.layer_map, each.map.values.shape
    space = each.x.shape[:-1] if each.last else each.x.shape[1:]
    cam = shape == ((*space, 1) if each.last else (1, *space))
    if layer is None or not cam or layer.ndim != len(space):
        return nulls.shuffled(each.map.values, random)
    return nulls.shuffled_layer(layer, each.x.shape, each.last, random)
