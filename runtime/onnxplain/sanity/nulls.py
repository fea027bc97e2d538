"""What a similarity would be if the model had no part in it: the controls that stand beside every number.

Adebayo et al. 2018 (arXiv:1810.03292) compare with random masks, with the input times noise (section 5.2) and with an
edge detector. The random maps here are a method's own values in other places: a heavy tail, zeros and positivity alone
make maps alike (two independent maps of Student's t score an SSIM of 0.8 by the paper's code).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.filters import sobel

from onnxplain.methods.upsampling import upsampled

Array = NDArray[Any]


def shuffled(map_: Array, random: np.random.Generator) -> Array:
    """The same values in other places: places are moved with all their channels' values, each channel by itself."""
    return random.permutation(map_.reshape(-1)).reshape(map_.shape)


def shuffled_layer(layer_map: Array, shape: tuple[int, ...], last: bool, random: np.random.Generator) -> Array:
    """Of a CAM: shuffled at the layer's resolution and brought to the input's (a row of ``shape``), so that it is as
    smooth as the map."""
    return upsampled(shuffled(layer_map.astype(np.float64), random), shape, last, "bilinear")


def input_times_noise(displacement: Array, random: np.random.Generator) -> Array:
    """Input minus baseline, times independent standard normal values: what every map times the input shares."""
    noisy: Array = displacement * random.standard_normal(displacement.shape)
    return noisy


def edges(x: Array, channel_axis: int | None) -> Array:
    """Sobel's edge detector on the mean over the channels: a picture without a model. The axis of channels stays."""
    grey = np.asarray(x, np.float64)
    grey = grey if channel_axis is None else grey.mean(axis=channel_axis)
    found = np.asarray(sobel(grey))
    return found if channel_axis is None else np.expand_dims(found, channel_axis)
