"""``s2s finetune``: train a model as a recipe describes."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from seq2seq_cli import cli, console
from seq2seq_cli.cli.options import OutputFolder, Overrides, Overwrite, Processes, new_app
from seq2seq_cli.errors import CheckpointError, DataError, DivergedError, StoppedError, UsageError
from seq2seq_cli.recipe import load_recipe, require

if TYPE_CHECKING:
    from seq2seq_cli.recipe import Recipe

app = new_app()
_SHARED = (UsageError, DataError, CheckpointError, DivergedError, StoppedError)


@app.command()
def finetune(
    file: Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe; - is stdin.")],
    overrides: Overrides = None,
    output: OutputFolder = None,
    resume: Annotated[
        str,
        typer.Option(
            "--resume",
            metavar="auto|never|FOLDER",
            help="Go on from the newest whole checkpoint, never, or from this one.",
        ),
    ] = "auto",
    overwrite: Overwrite = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Report sizes, steps, memory and time; train and write nothing."),
    ] = False,
    strategy: Annotated[
        Literal["ddp", "fsdp2"] | None,
        typer.Option(
            "--strategy", help="With --dry-run and --num-processes: how the processes share the work."
        ),
    ] = None,
    skip_nan: Annotated[
        int | None,
        typer.Option(
            "--skip-nan",
            metavar="N",
            help="Pass over up to N steps whose numbers are not finite [short for training.skip_nan].",
        ),
    ] = None,
    num_processes: Processes = None,
) -> None:
    """Train a model as a recipe describes.

    The resolved recipe goes to stdout with --dry-run; everything else goes to stderr and into the run's
    folder. Also runs under `accelerate launch -m seq2seq_cli finetune RECIPE` and torchrun.
    """
    overrides = [*(overrides or ()), *([] if skip_nan is None else [f"training.skip_nan={skip_nan}"])]
    recipe = load_recipe(file, overrides)
    recipe = recipe if output is None else replace(recipe, output=output)
    require(recipe, *(["data.train"] if dry_run else ["data.train", "output"]), purpose="training")
    if strategy is not None and (not dry_run or (num_processes or 1) == 1):
        what = "--strategy asks what several processes would need"
        raise UsageError(what, remedy="use it with --dry-run and --num-processes N")
    if dry_run and (resume != "auto" or overwrite):
        what = "--overwrite" if resume == "auto" else f"--resume {resume}"
        raise UsageError(
            f"{what} has no effect on --dry-run, which reads and writes no run", remedy="remove it"
        )
    if dry_run:
        from seq2seq_cli.training.dry_run import dry_run as report

        report(recipe, processes=num_processes or 1, strategy=strategy or "ddp")
        print(recipe.dump_yaml(), end="")
        return
    launched = "LOCAL_RANK" in os.environ
    if num_processes is not None and num_processes > 1 and not launched:
        if str(file) == "-":
            raise UsageError("several processes cannot share stdin", remedy="give the recipe as a file")
        from seq2seq_cli.training.launch import launch

        given = _arguments(file, overrides, output, resume, overwrite)
        raise typer.Exit(launch(given, processes=num_processes))
    _train(recipe, resume=resume, overwrite=overwrite)


def _arguments(
    file: Path, overrides: list[str], output: Path | None, resume: str, overwrite: bool
) -> list[str]:
    """The command line of one of several processes."""
    flags = {-1: ["--quiet"], 1: ["--verbose"]}.get(console.verbosity, [])
    return [
        *(["--debug"] if cli.debug else []),
        *flags,
        *("finetune", str(file), "--resume", resume),
        *(part for override in overrides for part in ("--set", override)),
        *(["--output", str(output)] if output is not None else []),
        *(["--overwrite"] if overwrite else []),
    ]


def _train(recipe: Recipe, *, resume: str, overwrite: bool) -> None:
    from seq2seq_cli.training.group import LostProcessError
    from seq2seq_cli.training.launch import follow_parent
    from seq2seq_cli.training.run import finetune as train

    follow_parent()
    try:
        train(recipe, resume=resume, overwrite=overwrite)
    except _SHARED as error:
        # every process of a group finds the same, or is told of it: one of them says it
        if os.environ.get("RANK", "0") != "0":
            raise typer.Exit(error.exit_code) from None
        raise
    except LostProcessError as error:
        if not error.speaks:
            raise typer.Exit(error.exit_code) from None
        raise
    finally:
        if "RANK" in os.environ:
            _leave_group()


def _leave_group() -> None:
    import torch.distributed as dist

    with suppress(Exception):
        if dist.is_initialized():
            dist.destroy_process_group()
