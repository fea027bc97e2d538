"""What is made of a map for the eye: each step named, the raw map untouched, colours that mean what they say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxplain.errors import BadRequest
from onnxplain.overlay import Look, draw, one_channel

GREY = Image.new("RGB", (448, 448), (128, 128, 128))


def block(value: float, channels: int = 3) -> np.ndarray:
    """A map with one strong square in the middle of nothing."""
    made = np.zeros((channels, 28, 28))
    made[:, 10:18, 10:18] = value
    return made


def middle_and_corner(values: np.ndarray, **options: object) -> tuple[np.ndarray, np.ndarray]:
    image = np.asarray(draw(values, GREY, **options).image).astype(int)  # type: ignore[arg-type]
    return image[224, 224], image[20, 20]


def test_positive_is_red_negative_is_blue_nothing_is_the_picture() -> None:
    mixed = block(1.0)
    mixed[:, :6, :6] = -1.0
    middle, corner = middle_and_corner(mixed)
    assert middle[0] > middle[2] + 40
    assert corner[2] > corner[0] + 40
    elsewhere = np.asarray(draw(mixed, GREY).image, int)[400, 400]
    assert len(set(elsewhere.tolist())) == 1, "without attribution the picture is grey"


def test_sensitivities_are_shown_by_magnitude_and_the_record_says_so() -> None:
    up, down = draw(block(1.0), GREY, method="gradient"), draw(block(-1.0), GREY, method="gradient")
    assert np.array_equal(np.asarray(up.image), np.asarray(down.image))
    assert up.steps[0] == "absolute value, summed over the channels"
    assert draw(block(-1.0), GREY, method="integrated_gradients").steps[0] == "signed, summed over the channels"


def test_signed_channels_cancel_and_magnitudes_do_not() -> None:
    opposed = np.stack([np.ones((4, 4)), -np.ones((4, 4))])
    assert not one_channel(opposed, "NCHW", "signed")[0].any()
    assert (one_channel(opposed, "NCHW", "absolute")[0] == 2).all()
    assert (one_channel(-opposed[:1], "NCHW", "positive")[0] == 0).all()
    last = opposed.transpose(1, 2, 0)
    assert (one_channel(last, "NHWC", "absolute")[0] == 2).all()


def test_one_wild_pixel_does_not_fade_the_rest() -> None:
    wild = block(1.0)
    wild[:, 0, 0] = 1000.0
    middle, _ = middle_and_corner(wild, look=Look(percentile=99.0))
    plain, _ = middle_and_corner(block(1.0))
    assert np.abs(middle - plain).max() <= 2, "the clip keeps the block at full colour"
    faded, _ = middle_and_corner(wild, look=Look(percentile=100.0))
    assert np.abs(faded - plain).max() > 40


def test_the_raw_map_is_untouched_and_a_zero_map_is_the_picture() -> None:
    raw = block(-3.0)
    before = raw.copy()
    draw(raw, GREY, look=Look("absolute"))
    assert np.array_equal(raw, before)
    drawn = draw(np.zeros((1, 8, 8)), GREY)
    assert "the map is zero" in drawn.steps
    assert len(np.unique(np.asarray(drawn.image))) == 1


def test_a_map_of_a_layer_is_enlarged_to_the_picture() -> None:
    drawn = draw(np.ones((7, 7)), Image.new("RGB", (320, 640)), look=Look(side=448))
    assert drawn.image.size == (448, 896)
    assert "enlarged from 7 x 7 to 448 x 896, bilinear" in drawn.steps


def test_neither_large_nor_narrow_pictures_make_large_drawings() -> None:
    assert draw(np.ones((7, 7)), Image.new("RGB", (5000, 2500))).image.size == (2048, 1024)
    assert draw(np.ones((7, 7)), Image.new("RGB", (1, 5000))).image.size == (1, 2048)


def test_the_file_carries_its_steps(tmp_path: Path) -> None:
    drawn = draw(block(1.0), GREY)
    drawn.save(tmp_path / "a.png", {"method": "gradient"})
    with Image.open(tmp_path / "a.png") as image:
        record = json.loads(image.text["onnxplain"])  # type: ignore[attr-defined]
    assert record["method"] == "gradient"
    assert record["shown"] == list(drawn.steps)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: draw(np.zeros(5), GREY), r"shape \[5\]"),
        (lambda: draw(np.full((1, 2, 2), np.nan), GREY), "4 values of the map are not finite"),
        (lambda: Look(sign="both"), "signed, absolute, positive"),
        (lambda: Look(percentile=0), "above 0"),
        (lambda: Look(opacity=2), "between 0 and 1"),
    ],
)
def test_what_cannot_be_shown_says_why(make: object, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        make()  # type: ignore[operator]
