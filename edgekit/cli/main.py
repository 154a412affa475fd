"""The command line: arguments and printing. The only place that exits.

Exit codes: 0 done; 1 a gate failed (the artifact is kept under a name that says rejected); 2 something the
user gave cannot be used (one line, no traceback unless --debug); 130 interrupted.
torch is imported by the commands that need it, never by `--help`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from edgekit import __version__
from edgekit.errors import EdgekitError, GateError, UsageError

# Commands that live beside what they use; their modules import nothing heavy at import.
MOUNTED = {
    "devices": "edgekit.cli.devices",
    "bench": "edgekit.cli.devices",
    "history": "edgekit.cli.history",
    "compare": "edgekit.cli.history",
    "farm": "edgekit.cli.farm",
    "sweep": "edgekit.cli.sweep",
    "cache": "edgekit.cli.cache",
    "cost": "edgekit.cli.cost",
}


class _Commands(TyperGroup):
    """The commands below, and those of MOUNTED, imported when they are asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *MOUNTED]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in MOUNTED:
            return super().get_command(ctx, cmd_name)
        group: Any = typer.main.get_command(importlib.import_module(MOUNTED[cmd_name]).app)
        return group.commands[cmd_name]


app = typer.Typer(
    name="edgekit",
    cls=_Commands,
    help="Compile PyTorch vision models into small, fast, proven artifacts for edge devices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(show: bool) -> None:
    if show:
        print(f"edgekit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


class _Build(TyperCommand):
    """Steps whose option may stand alone: `--lite` takes the word behind it only where it is its own."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        from edgekit.pipeline.step_settings import is_lite, is_qat, is_train

        takes = {"--lite": is_lite, "--train": is_train, "--qat": is_qat}
        following = [*args[1:], ""][: len(args)]
        alone = [arg in takes and not takes[arg](word) for arg, word in zip(args, following, strict=True)]
        return super().parse_args(ctx, [f"{a}=" if bare else a for a, bare in zip(args, alone, strict=True)])


@app.command(cls=_Build)
def build(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A model name (edgekit models), timm:NAME, tv:NAME, FILE.py:FUNCTION, FILE.onnx or an "
            "exported FILE.pt2."
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", "-t", help="One of those above; repeat for several. Default tflite-int8."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Directory; default build/MODEL.")] = None,
    recipe: Annotated[Path | None, typer.Option("--recipe", help="TOML file; flags win over it.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="embedded or embedded-hard (generated images) or imagefolder:PATH, see docs/data.md.",
        ),
    ] = None,
    original: Annotated[
        str | None,
        typer.Option("--original", help="The model that MODEL was made from; proofs refer to its answers."),
    ] = None,
    original_weights: Annotated[
        str | None, typer.Option("--original-weights", help="Weights of --original; default auto.")
    ] = None,
    exif: Annotated[
        str | None,
        typer.Option(help="Turn photos by their EXIF orientation: apply or ignore (default)."),
    ] = None,
    class_names: Annotated[
        str | None,
        typer.Option("--class-names", metavar="FILE", help="Names of the outputs: one a line, or JSON."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", help="auto, reference, imagenet, random, or FILE or FILE#ENTRY."),
    ] = None,
    resolution: Annotated[int | None, typer.Option(help="Input side in pixels; default the model's.")] = None,
    lite: Annotated[
        str | None,
        typer.Option(
            "--lite",
            metavar="[=STEPS]",
            help="Surgery: no-se,relu6,3x3 (these without a value), fuse, or auto; see docs/steps.md.",
        ),
    ] = None,
    recover: Annotated[
        str | None,
        typer.Option(metavar="MINUTES", help="15min: surgery is followed by distillation from the original."),
    ] = None,
    prune: Annotated[
        str | None,
        typer.Option(
            "--prune",
            metavar="BUDGET",
            help="0.5 (of the channels), macs=0.5, params=0.6, latency=3ms, latency=3ms@DEVICE, dead; "
            "see docs/steps.md.",
        ),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(
            "--train",
            metavar="[=HOW]",
            help="20min (without a value), 500steps or FILE.py:FUNCTION, see docs/steps.md.",
        ),
    ] = None,
    mixed: Annotated[
        str | None,
        typer.Option(
            "--mixed",
            metavar="DEMAND",
            help="Precisions by node for tflite-int8: latency=4ms, latency=4ms@DEVICE, latency=1.06x, "
            "sqnr=30 or drop=0.002; see docs/mixed.md.",
        ),
    ] = None,
    qat: Annotated[
        str | None,
        typer.Option(
            "--qat",
            metavar="[=HOW]",
            help="Train the integers: auto (without a value: where the gates fail), light (no labels), full, "
            "full,minutes=20; see docs/qat.md.",
        ),
    ] = None,
    calibration: Annotated[int | None, typer.Option(help="Calibration images; default 128.")] = None,
    evaluation: Annotated[int | None, typer.Option(help="Evaluation images; default 2000.")] = None,
    profile: Annotated[str | None, typer.Option(help="Quantization: fast or thorough (default).")] = None,
    quantizer: Annotated[
        str | None, typer.Option(help="edgekit (default), or nncf for openvino-int8, to compare with.")
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="auto (default), tensors, classification or segmentation.")
    ] = None,
    io: Annotated[str | None, typer.Option(help="Input and output dtype: int8, uint8 or float32.")] = None,
    dynamic_batch: Annotated[
        bool, typer.Option("--dynamic-batch", help="Leave the batch open in ONNX and OpenVINO files.")
    ] = False,
    latency: Annotated[
        str | None, typer.Option(help="quick (default), publish (5 processes, 1000 samples) or off.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads when latency is measured; default 1.")] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Accuracy the artifact may lose, as a fraction; default 0.015.")
    ] = None,
    tensorflow_check: Annotated[
        bool, typer.Option("--tensorflow-check", help="Run .tflite files under TensorFlow's interpreter too.")
    ] = False,
    no_fallback: Annotated[
        bool, typer.Option("--no-fallback", help="Fail when any operator runs outside the delegate.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Of random weights and sampling; default 0.")] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Allow pickled content in the files given; it can run any code.")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", help="Cores to use; default those this process may run on.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Stage results; default $EDGEKIT_CACHE.")] = None,
    cache_limit: Annotated[
        str | None,
        typer.Option(
            help='What the cache may hold: "2GB", "5%", "off"; default 10GB or a tenth of the disk.'
        ),
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Redo every stage.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Build artifacts of MODEL with their proofs and a report.

    \b
    Targets:
      tflite-int8  tflite-int16x8  tflite-dynamic-int8  tflite-float16
      tflite-float32  onnx-int8  onnx-float32  tensorrt-int8
      openvino-int8  openvino-float16  savedmodel
    """
    from edgekit.files import default_root, has_home
    from edgekit.pipeline import pipeline
    from edgekit.pipeline import recipe as recipes
    from edgekit.pipeline.step_settings import lite_of, mixed_of, prune_of, qat_of, recover_of, train_of
    from edgekit.report.terminal import Progress, print_summary

    if recover is not None and lite is None and recipe is None:
        raise UsageError(f"--recover {recover}: follows surgery: --lite --recover {recover}")
    surgery = None if lite is None else lite_of(lite)
    settings: dict[str, Any] = {
        "model": model,
        "weights": weights,
        "original": original,
        "original_weights": original_weights,
        "resolution": resolution,
        "seed": seed,
        "data": {
            "source": data,
            "calibration": calibration,
            "evaluation": evaluation,
            "exif": exif,
            "class_names": class_names,
        },
        "lite": surgery if recover is None else {**(surgery or {}), **recover_of(recover)},
        "prune": None if prune is None else prune_of(prune),
        "train": None if train is None else train_of(train),
        "qat": None if qat is None else qat_of(qat),
        "quantize": {"profile": profile, "quantizer": quantizer},
        "mixed": None if mixed is None else mixed_of(mixed),
        "task": {"name": task},
        "target": {"names": target or None, "io": io, "dynamic_batch": dynamic_batch or None},
        "verify": {
            "max_top1_drop": max_drop,
            "tensorflow": tensorflow_check or None,
            "max_partitions": 1 if no_fallback else None,
            "max_undelegated": 0 if no_fallback else None,
        },
        "device": {"profile": latency, "threads": threads},
        "machine": {"jobs": jobs, "cache_limit": cache_limit},
    }
    start = recipe or (recipes.shipped_for(model) if model else None)
    if start is not None:
        plan = recipes.load(start, settings)
    elif model is not None:
        plan = recipes.from_dict(recipes.without_none(settings), "edgekit build")
    else:
        raise UsageError("edgekit build: no model: give a name (edgekit models lists them) or --recipe FILE")
    if cache is None and not (has_home() or {"EDGEKIT_CACHE", "XDG_CACHE_HOME"} & set(os.environ)):
        print(f"no home directory: results are kept in {default_root()}, or --cache", file=sys.stderr)
    with Progress() as display:
        run = pipeline.build(plan, out=out, trust=trust, cache=cache, use_cache=not no_cache, display=display)
    print_summary(run.report, run.directory)
    run.raise_for_gates()


@app.command()
def models(
    pattern: Annotated[str | None, typer.Argument(help="A part of the name, or a glob.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """List models: parameters, MACs, resolution and the weights at hand."""
    from edgekit.report.terminal import models_table
    from edgekit.zoo import models as catalogue

    models_table(catalogue(pattern))


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A build directory or a .tflite file.")],
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Show what a model file really is: operators, dtypes, scales, what runs where."""
    from edgekit.pipeline import finished

    finished.inspect(path)


@app.command()
def check(
    path: Annotated[Path, typer.Argument(help="A .tflite file, or a build directory.")],
    target: Annotated[str, typer.Option("--target", "-t", help="What will run it: edgetpu.")] = "edgetpu",
    log: Annotated[
        Path | None, typer.Option("--log", help="edgetpu_compiler's log of the file, to compare with.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: a list of files.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Say which operators an accelerator will take and why it leaves the others, before compiling for it.

    Exit code 1 when it leaves any. With --log the compiler's word counts.
    """
    from edgekit.pipeline import finished

    if target != "edgetpu":
        raise UsageError(f"check --target {target}: not an accelerator whose rules are known: edgetpu")
    found = finished.check(path, log)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        from edgekit.report.preflight import print_preflight

        for content in found:
            print_preflight(content)
    left = {content["file"]: (content["compiler"] or content)["on_cpu"] for content in found}
    if any(left.values()):
        said = ", ".join(f"{file}: {count}" for file, count in left.items() if count)
        raise GateError(f"check: operators that stay on the processor: {said}")


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(help="A build directory with report.json.")],
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Validate report.json of a build, write report.html and report.md again, and print the summary."""
    from edgekit.pipeline import finished
    from edgekit.report.terminal import print_summary

    print_summary(finished.render(directory), directory)


@app.command()
def repro(
    directory: Annotated[Path, typer.Argument(help="A build directory with report.json.")],
    trust: Annotated[bool, typer.Option("--trust", help="As in build.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Build again from the recipe in the report, without the cache, and compare byte by byte."""
    from edgekit.pipeline import finished
    from edgekit.report.terminal import Progress

    with Progress() as display:
        same = finished.reproduce(directory, trust=trust, display=display)
    for target, identical in same.items():
        print(f"{target}: {'byte-identical' if identical else 'DIFFERENT'}")
    if not all(same.values()):
        raise GateError(f"{directory}: {sum(not s for s in same.values())} of {len(same)} artifacts differ")


def main() -> None:
    """Entry point of the `edgekit` command."""
    from edgekit.cli.streams import tolerate_encodings
    from edgekit.pipeline.threads import wait_passively

    tolerate_encodings()
    wait_passively()  # before any command loads torch
    try:
        app()
    except EdgekitError as error:
        _explain(error, str(error))
        sys.exit(1 if isinstance(error, GateError) else 2)
    except OSError as error:
        from edgekit.files import REFUSALS

        reason = REFUSALS.get(error.errno or 0) or error.strerror or str(error)
        _explain(error, f"{error.filename or 'a file'}: {reason}")
        sys.exit(2)
    except KeyboardInterrupt:
        print("edgekit: interrupted; finished stages are kept", file=sys.stderr)
        sys.exit(130)


def _explain(error: BaseException, message: str) -> None:
    if "--debug" in sys.argv:
        traceback.print_exception(error)
    print(f"edgekit: {' '.join(message.split())}", file=sys.stderr)
