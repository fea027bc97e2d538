"""``onnxplain audit``: do explanations of this file follow its parameters?"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxplain.cli import console, target
from onnxplain.cli.audit_images import specimens
from onnxplain.cli.group import Command
from onnxplain.cli.method_options import method_options, named, taken, those_of
from onnxplain.cli.pictures import Flags, picture_flags
from onnxplain.conversion import opened
from onnxplain.errors import BadRequest, ProviderUnavailable

if TYPE_CHECKING:  # scipy, scikit-image and the engine are loaded when there is something to audit, not for the help
    from onnxplain.artifact import Artifact
    from onnxplain.sanity.audit import Audit
    from onnxplain.sanity.policy import Policy

NOT_PASSED = 3
"""Exit status where a required method is not found sensitive; wrong calls end with 2, failures with 1."""


class Names(click.ParamType[Any]):
    """Comma-separated names as a tuple."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))


@click.command(
    cls=Command,
    short_help="Are explanations of a model about the model at all?",
    examples=(
        ("onnxplain audit net.onnx images/ --report report.html", "the paper's methods, layer by layer from the top"),
        (
            "onnxplain audit net.onnx images/ --json report.json --methods gradient,grad_cam --require grad_cam",
            "for CI: exit status 3 where Grad-CAM is not found sensitive",
        ),
        ("onnxplain audit net.onnx images/ --randomise adebayo-code --classes rerank --judge spearman_abs", ""),
        ("onnxplain audit net.onnx digits.npy --order independent --draws 10", "one layer at a time, inputs as rows"),
    ),
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="HTML file to write.")
@click.option("--json", "json_", type=click.Path(path_type=Path, dir_okay=False), help="JSON of all numbers to write.")
@click.option("--methods", type=Names(), help="Which, with commas between them.  [default: the paper's]")
@click.option("--require", type=Names(), default="", help="Methods that must be found sensitive, or the status is 3.")
@click.option("--order", default="top_down", help="top_down and bottom_up cascade; independent; all (one level).")
@click.option("--block", "blocks", multiple=True, help="Name prefix whose layers are one level (repeatable).")
@click.option("--randomise", help="As in a paper: adebayo-paper, adebayo-code, adebayo-code-mlp.")
@click.option("--values", help="truncated_normal, he, glorot or permute.  [default: truncated_normal]")
@click.option("--weight-std", type=float, help="Of truncated_normal.  [default: the original's scale]")
@click.option("--gain", type=float, help="Of he and glorot.")
@click.option("--biases", help="random, keep or constant.  [default: random]")
@click.option("--bias-value", type=float, help="Of --biases constant.")
@click.option("--normalisation", help="Scales and shifts: random, keep or reset.  [default: random]")
@click.option("--statistics", help="Running means and variances: keep or reset.  [default: keep]")
@click.option("--draws", default=5, type=click.IntRange(min=1), help="Random models per level.")
@click.option("--classes", default="fixed", help="Class explained: fixed (the trained model's) or rerank.")
@click.option("--measures", type=Names(), help="Similarities to report.  [default: the paper's]")
@click.option("--judge", default="spearman", help="The similarity that verdicts are read from.")
@click.option("--limit", default=0.5, help="What a sensitive method keeps at most, of 1.")
@click.option("--most", type=click.IntRange(min=1), help="Take this many images at most.")
@click.option("-t", "--target", "wanted", default="top", help="Class number or name, top, or a pair.")
@click.option("--output", help="Which output to explain.  [default: the logits]")
@click.option("--provider", default="auto", type=click.Choice(["auto", "cpu", "cuda"]), help="Device.")
@click.option(
    "--save-model", type=click.Path(path_type=Path, dir_okay=False),
    help="Keep the first draw of the last level as an artifact.",
)  # fmt: skip
@picture_flags
@method_options
def audit(
    model: Path,
    images: tuple[Path, ...],
    report: Path | None,
    json_: Path | None,
    methods: tuple[str, ...] | None,
    require: tuple[str, ...],
    most: int | None,
    wanted: str,
    provider: str,
    save_model: Path | None,
    **options: Any,
) -> None:
    """Replace a model's parameters by random ones, and see whether its explanations notice.

    MODEL is an .onnx file. IMAGES are folders or files: pictures, or inputs as .npy or .npz whose rows are one image
    each. The sanity checks of Adebayo et al. (2018) with controls: every similarity stands beside its null, with an
    interval over draws and images. The model's file is never changed.
    """
    try:
        from onnxplain.sanity.audit import audit as run
        from onnxplain.sanity.options import SUITE, Options
    except ImportError as error:
        raise ProviderUnavailable(f'{error.name} is not installed: pip install "onnxplain[audit]"') from error
    for path in (report, json_, save_model):
        if path is not None and not path.parent.is_dir():
            raise BadRequest(f"{path}: there is no folder {path.parent}")
    flags, asked = Flags.take(options), taken(options)
    seed = asked.pop("seed", 0)
    chosen = tuple(dict.fromkeys((*(methods or SUITE), *require)))
    given = {name: those_of(named(name), asked) for name in chosen}
    measures = options.pop("measures")
    plan = Options(
        methods=chosen,
        given={name: each for name, each in given.items() if each},
        policy=_policy(options),
        seed=seed,
        target=target.parse(wanted),
        **({} if measures is None else {"measures": measures}),
        **options,
    )
    with console.working(f"loading {model}"):
        artifact = opened(model)
    looked_at = specimens(images, artifact.manifest, flags, most)
    with console.bar("auditing", "maps") as progress:
        task = progress.add_task("")
        done = run(
            artifact,
            looked_at,
            plan,
            provider=provider,
            progress=lambda count, total: progress.update(task, completed=count, total=total),
        )
    _say(done)
    if json_ is not None:
        from onnxplain.sanity.record import record

        json_.write_text(json.dumps(record(done), allow_nan=False), encoding="utf-8")
        console.out().print(f"numbers    {json_}", soft_wrap=True)
    if report is not None:
        from onnxplain.sanity.report import write

        write(done, report, f"Audit of {model.name}")
        console.out().print(f"report     {report}", soft_wrap=True)
    if save_model is not None:
        _save(done, artifact, save_model)
    _guard(done, require)


def _policy(options: dict[str, Any]) -> Policy:
    """Takes what says how new values come about out of the options: a preset, and what was given over it."""
    from onnxplain.sanity.policy import Policy, preset

    name = options.pop("randomise")
    options["std"] = options.pop("weight_std")  # --std is how a picture becomes the input
    given = {field.name: options.pop(field.name) for field in dataclasses.fields(Policy)}
    known = {field: value for field, value in given.items() if value is not None}
    return dataclasses.replace(preset(name) if name else Policy(), **known)


def _say(done: Audit) -> None:
    from onnxplain.sanity.verdict import percent

    rows = []
    for finding in done.findings:
        verdict = finding.verdict
        if verdict is None:
            rows.append((finding.method, "undecided", "–", "–", "–", "–"))
            continue
        kept = verdict.retained
        rows.append((
            finding.method,
            verdict.verdict,
            percent(kept.mean),
            f"{percent(kept.low)} to {percent(kept.high)}",
            f"{verdict.null_mean:.2f} {verdict.null}",
            "never" if verdict.half is None else f"{verdict.half} of {len(done.levels)}",
        ))  # fmt: skip
    to = console.out()
    columns = ("method", "verdict", "kept", "95 % interval", "null", "half gone at level")
    to.print(console.table(columns, rows, right=("kept", "95 % interval")))
    models = len(done.levels) * done.options.draws
    to.print(
        f"by {done.options.judge}; random models: {models}, images: {len(done.specimens)}; kept: the share of the"
        " similarity above its null, mean over the levels",
        soft_wrap=True,
    )
    for name, why in done.left_out.items():
        console.warn(f"{name} left out: {why}")
    for note in done.notes:
        console.warn(note)


def _save(done: Audit, artifact: Artifact, path: Path) -> None:
    from onnxplain.sanity.levels import grouped
    from onnxplain.sanity.parameters import parameters
    from onnxplain.sanity.randomise import Randomiser, randomised, save

    plan, level = done.options, done.levels[-1]
    found = grouped(parameters(artifact, plan.output), plan.blocks)
    weights = Randomiser(artifact, found, plan.policy, plan.seed).weights(level.names, 0)
    how = {"policy": dataclasses.asdict(plan.policy), "seed": plan.seed, "draw": 0, "level": level.name}
    save(randomised(artifact, weights, how), path)
    console.out().print(f"model      {path}: {level.name}, draw 0", soft_wrap=True)


def _guard(done: Audit, require: tuple[str, ...]) -> None:
    """Ends with ``NOT_PASSED`` where a required method is not found sensitive."""
    found = {finding.method: finding.verdict for finding in done.findings}
    failed = False
    for name in require:
        verdict = found.get(name)
        if verdict is not None and verdict.verdict == "sensitive":
            continue
        failed = True
        why = done.left_out.get(name, "no verdict") if verdict is None else f"{verdict.verdict}, {verdict.reason}"
        console.err().print(f"[red]not passed:[/] {console.escape(f'{name}: {why}')}", soft_wrap=True)
    if failed:
        raise click.exceptions.Exit(NOT_PASSED)
