"""What an audit was asked for: all of it, so that its record repeats it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onnxplain.errors import BadRequest, NotFound, nearest
from onnxplain.methods import METHODS
from onnxplain.sanity.levels import ORDERS
from onnxplain.sanity.policy import Policy
from onnxplain.sanity.similarity import MEASURES, Settings

CLASS_POLICIES = ("fixed", "rerank")
SUITE = (
    "gradient", "gradient_x_input", "integrated_gradients", "smoothgrad", "guided_backprop", "grad_cam",
    "guided_grad_cam",
)  # fmt: skip
"""The paper's methods."""


@dataclass(frozen=True)
class Options:
    """Of one audit. ``given``: per method the options it was asked for beyond its defaults."""

    methods: tuple[str, ...] = SUITE
    given: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    order: str = "top_down"
    blocks: tuple[str, ...] = ()
    """Name prefixes whose layers are randomised together."""
    policy: Policy = field(default_factory=Policy)
    draws: int = 5
    seed: int = 0
    """Of the random parameters, the methods' noise, the nulls and the bootstrap."""
    output: str | None = None
    target: Any = "top"
    classes: str = "fixed"
    """"fixed": the class that the trained model says is explained throughout. "rerank": the randomised model's own
    top class, as the code of Adebayo et al. does; "the weights changed" and "the class changed" are then one."""
    measures: tuple[str, ...] = ("spearman", "spearman_abs", "spearman_abs_off_baseline", "ssim", "hog_pearson")
    settings: Settings = field(default_factory=Settings)
    judge: str = "spearman"
    """The measure that the verdict is read from."""
    limit: float = 0.5
    """Share of a similarity above its null that a sensitive method keeps at most, on the mean over the levels."""
    ceiling: float = 0.9
    """A null that reaches this leaves nothing to tell: undecided."""
    resamples: int = 2000

    def __post_init__(self) -> None:
        _known("method", self.methods, METHODS)
        _known("measure", (*self.measures, self.judge), MEASURES)
        _known("method", tuple(self.given), METHODS)
        if self.order not in ORDERS:
            raise BadRequest(f"order={self.order!r}: one of {', '.join(ORDERS)}")
        if self.classes not in CLASS_POLICIES:
            raise BadRequest(f"classes={self.classes!r}: one of {', '.join(CLASS_POLICIES)}")
        if not self.methods:
            raise BadRequest("methods: name one at least")
        if not 0 <= self.seed < 2**64:
            raise BadRequest(f"seed={self.seed}: a whole number from 0 to 2**64 - 1")
        for name, least in (("draws", 1), ("resamples", 100)):
            if getattr(self, name) < least:
                raise BadRequest(f"{name}={getattr(self, name)}: {least} at least")
        for name in ("limit", "ceiling"):
            if not 0 < getattr(self, name) < 1:
                raise BadRequest(f"{name}={getattr(self, name):g}: between 0 and 1")

    @property
    def measured(self) -> tuple[str, ...]:
        """The measures, with the one that judges among them, each once."""
        return tuple(dict.fromkeys((self.judge, *self.measures)))

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return dataclasses.asdict(self)

    @classmethod
    def of_record(cls, raw: Mapping[str, Any]) -> Options:
        """From :meth:`record` after JSON. Raises BadRequest where it is not one."""
        try:
            lists = {name: tuple(raw[name]) for name in ("methods", "blocks", "measures")}
            nested = {"policy": Policy(**raw["policy"]), "settings": Settings(**raw["settings"])}
            return cls(**{**raw, **lists, **nested})
        except (KeyError, TypeError) as error:
            raise BadRequest(f"the record's options cannot be read ({error!r})") from error


def _known(what: str, names: tuple[str, ...], known: Mapping[str, Any]) -> None:
    for name in names:
        if name not in known:
            raise NotFound(f"no {what} {name!r}; {nearest(name, known)}")
