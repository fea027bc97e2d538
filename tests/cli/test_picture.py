"""A picture becomes the input that the model's authors meant, or an error that says why not."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxplain import picture
from onnxplain.artifact import Preprocessing, TensorSpec
from onnxplain.errors import BadRequest, LimitExceeded

IMAGENET = Preprocessing("NCHW", "RGB", (224, 224), picture.IMAGENET_MEAN, picture.IMAGENET_STD)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_a_plain_colour_is_normalised_per_channel() -> None:
    seen = picture.prepare(Image.new("RGB", (300, 200), (255, 128, 0)), IMAGENET)
    assert seen.array.shape == (1, 3, 224, 224)
    assert seen.array.dtype == np.float32
    want = (np.array([1.0, 128 / 255, 0.0]) - picture.IMAGENET_MEAN) / picture.IMAGENET_STD
    # float32 of a value of order 2: half a unit in the last place is 1.2e-7.
    np.testing.assert_allclose(seen.array[0, :, 100, 100].astype(np.float64), want, rtol=0, atol=2e-7)


def test_bgr_and_channels_last() -> None:
    how = Preprocessing("NHWC", "BGR", (8, 8), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), scale=1.0)
    seen = picture.prepare(Image.new("RGB", (8, 8), (10, 20, 30)), how)
    assert seen.array.shape == (1, 8, 8, 3)
    assert seen.array[0, 4, 4].tolist() == [30.0, 20.0, 10.0]


def test_grey_is_one_channel_and_bytes_stay_bytes() -> None:
    how, warning = picture.guess(TensorSpec("x", "uint8", (None, 28, 28, 1)))
    seen = picture.prepare(Image.new("RGB", (56, 56), (200, 200, 200)), how, "uint8")
    assert seen.array.shape == (1, 28, 28, 1)
    assert seen.array.dtype == np.uint8
    assert (seen.array == 200).all()
    assert "NHWC" in warning
    assert "--mean" in warning


def test_the_crop_is_resize_of_the_shorter_side_then_the_middle() -> None:
    """The reference does it in the order of the words; cutting first and resizing once is the same but for edges."""
    ramp = np.linspace(0, 255, 400)[None, :, None] * np.ones((200, 1, 3))
    image = Image.fromarray(ramp.astype(np.uint8))
    how = Preprocessing("NHWC", "RGB", (100, 100), (0.0,) * 3, (1.0,) * 3, scale=1.0, shorter=128)
    seen = picture.prepare(image, how)
    resized = image.resize((256, 128), Image.Resampling.BILINEAR).crop((78, 14, 178, 114))
    # A grey value a pixel is about 1: half a pixel of rounding in the box is at most one grey value.
    assert np.abs(seen.array[0].astype(float) - np.asarray(resized, float)).max() <= 1.0
    assert seen.region.size == (156, 156)


def test_own_size_where_the_model_takes_any() -> None:
    how, _ = picture.guess(TensorSpec("x", "float32", (None, 3, "h", "w")))
    assert how.size is None
    assert picture.prepare(Image.new("RGB", (31, 17)), how).array.shape == (1, 3, 17, 31)


def test_transparency_is_white_and_exif_turns() -> None:
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert picture.read(encoded(clear)).getpixel((0, 0)) == (255, 255, 255)
    wide = Image.new("RGB", (40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    assert picture.read(encoded(wide, "JPEG", exif=exif)).size == (20, 40)


def test_sixteen_bit_grey_is_scaled_not_cut_off() -> None:
    wide = Image.fromarray(np.full((4, 4), 32768, np.uint16))
    assert picture.read(encoded(wide)).getpixel((0, 0)) == (127, 127, 127)


def test_what_cannot_be_decoded_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"nowhere\.png: no such file"):
        picture.read(tmp_path / "nowhere.png")
    text = tmp_path / "text.png"
    text.write_text("not a picture")
    with pytest.raises(BadRequest, match="not a picture that can be decoded"):
        picture.read(text)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    cut = tmp_path / "cut.png"
    cut.write_bytes(encoded(noise)[:2000])
    with pytest.raises(BadRequest, match="damaged"):
        picture.read(cut)


def test_a_bomb_is_refused_from_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture, "MAX_PIXELS", 100)
    with pytest.raises(LimitExceeded, match="11 x 11"):
        picture.read(encoded(Image.new("RGB", (11, 11))))


def test_flags_go_over_what_the_model_says() -> None:
    made = picture.override(IMAGENET, size=(64, 32), mean=(0.5,), std=(0.25,))
    assert (made.size, made.mean, made.std) == ((64, 32), (0.5,) * 3, (0.25,) * 3)
    with pytest.raises(BadRequest, match="2 values"):
        picture.override(IMAGENET, mean=(0.1, 0.2))
    with pytest.raises(BadRequest, match="none may be 0"):
        picture.override(IMAGENET, std=(0.0,))


def test_which_input_takes_the_picture() -> None:
    image = TensorSpec("image", "float32", (1, 3, 8, 8))
    assert picture.picture_input([TensorSpec("mask", "int64", (1, 8)), image]) == image
    with pytest.raises(BadRequest, match=r"ids \[1, 'n'\]"):
        picture.picture_input([TensorSpec("ids", "int64", (1, "n"))])
    with pytest.raises(BadRequest, match="neither axis 1 nor axis 3"):
        picture.guess(TensorSpec("x", "float32", (1, 5, 8, 8)))
