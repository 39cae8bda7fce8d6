"""One run from its recipe to the model in its folder: lock, resume, train, publish."""

from __future__ import annotations

import json
import math
import shlex
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from seq2seq_cli import console
from seq2seq_cli.checkpoint.folder import verify_manifest
from seq2seq_cli.errors import DivergedError, Finding, UsageError
from seq2seq_cli.recipe import load_recipe, require
from seq2seq_cli.training import runfolder
from seq2seq_cli.training.fitting import Cut, find_cut, remembered
from seq2seq_cli.training.group import PATIENCE, join_again, together
from seq2seq_cli.training.loop import Trainer
from seq2seq_cli.training.progress import cut_log
from seq2seq_cli.training.report import write_report
from seq2seq_cli.training.setup import Prepared, prepare, replanned, settings_of
from seq2seq_cli.training.sharding import plain_accelerate
from seq2seq_cli.training.signals import StopRequest, listening
from seq2seq_cli.training.state import Checkpoint, RunState, checkpoint_folder

if TYPE_CHECKING:
    from accelerate import Accelerator

    from seq2seq_cli.recipe import Recipe


def finetune(recipe: Recipe, *, resume: str = "auto", overwrite: bool = False) -> dict[str, Any]:
    """Train as ``recipe`` says, into its ``output`` folder; what all_results.json then holds.

    resume: ``auto`` goes on from the newest whole checkpoint in the folder, a checkpoint folder from that
    one, ``never`` wants an empty folder. overwrite: an earlier run there is replaced. In a launch of several
    processes every one calls this. Raises the errors of ``seq2seq_cli.errors``; StoppedError after a signal.
    """
    require(recipe, "output", purpose="finetune")
    assert recipe.output is not None
    run = recipe.output
    with listening() as stop, ExitStack() as held:
        accelerator = make_accelerator(recipe)
        together(
            accelerator, lambda: accelerator.is_main_process and held.enter_context(runfolder.locked(run))
        )

        def look() -> tuple[Checkpoint | None, dict[str, Any] | None]:
            if overwrite:
                runfolder.refuse_own_input(recipe, run)
            found = runfolder.find_checkpoint(run, resume=resume, overwrite=overwrite)
            return found, _finished(recipe, run, found)

        checkpoint, done = together(accelerator, look)
        _refuse_parted(accelerator, checkpoint, run)
        if done is not None:
            return done
        prepared = _prepared(recipe, accelerator, checkpoint)
        trainer = start(prepared, accelerator=accelerator, stop=stop, checkpoint=checkpoint, run=run)
        prepared = trainer.prepared
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:  # nothing is left that could refuse: an earlier run may go
            _begin(recipe, run, checkpoint, overwrite=overwrite)
        _announce(trainer, checkpoint)
        stop.at_once = False
        trainer.run()
        finish = partial(_finish, prepared, trainer.state, run) if accelerator.is_main_process else dict
        with trainer.group.watching(), trainer.group.patiently():
            results: dict[str, Any] = trainer.group.together(finish)
        accelerator.end_training()
        return results


def _refuse_parted(accelerator: Accelerator, checkpoint: Checkpoint | None, run: Path) -> None:
    """UsageError where the processes of a launch do not all see the same checkpoint."""
    if accelerator.num_processes == 1:
        return
    from accelerate.utils import gather_object

    steps: list[int | None] = gather_object([None if checkpoint is None else checkpoint.state.step])
    if len(set(steps)) > 1:
        seen = ", ".join(
            f"process {n} " + ("none" if s is None else f"step {s}") for n, s in enumerate(steps)
        )
        raise UsageError(
            f"the processes do not find the same checkpoint: {seen}",
            where=str(run),
            remedy="give all machines one output folder, on a disk that they share",
        )


def _prepared(recipe: Recipe, accelerator: Accelerator, checkpoint: Checkpoint | None) -> Prepared:
    """Everything that the run needs; with auto_find_batch_size the batches that fit, found once a run."""
    processes = accelerator.num_processes
    finding, asked = recipe.training.auto_find_batch_size, Cut.of(recipe)
    if finding and checkpoint is not None:
        recipe = remembered(recipe, checkpoint.identity, processes=processes)
    prepared = together(accelerator, partial(prepare, recipe, processes=processes, checkpoint=checkpoint))
    if finding and checkpoint is None:
        found = find_cut(prepared, accelerator).into(recipe)
        prepared = replanned(prepared, found, processes=processes)
    if finding:
        prepared = replace(prepared, identity={**prepared.identity, **asked.as_asked()})
    if checkpoint is not None:
        runfolder.refuse_differences(
            checkpoint.identity,
            prepared.identity,
            what="this run was started with other values",
            where=checkpoint.folder,
            remedy="set them back, name another --output, or start again with --overwrite",
        )
    return prepared


def make_accelerator(recipe: Recipe) -> Accelerator:
    """The device and, under a launcher, the group of processes; processes but the first say nothing."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

    groups = (getattr(recipe.training.groups, name) for name in type(recipe.training.groups).model_fields)
    waiting = any(group is not None and (group.freeze_steps or group.freeze_after) for group in groups)
    join_again(limit=recipe.training.ddp_timeout)
    AcceleratorState._reset_state()  # an earlier run in this process may have had another precision
    with plain_accelerate():
        accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),  # on a CPU it forms no group unless told so
            mixed_precision=recipe.training.mixed_precision,
            # parts that are frozen for a while take no part in the exchange until they learn
            kwargs_handlers=[
                DistributedDataParallelKwargs(find_unused_parameters=waiting),
                # until the first step one of them may prepare for long; see Group
                InitProcessGroupKwargs(timeout=timedelta(seconds=PATIENCE * recipe.training.ddp_timeout)),
            ],
        )
    if not accelerator.is_main_process:
        console.verbosity = -1
    return accelerator


def start(
    prepared: Prepared,
    *,
    accelerator: Accelerator,
    stop: StopRequest,
    checkpoint: Checkpoint | None = None,
    run: Path | None = None,
) -> Trainer:
    """A trainer at the beginning, or where ``checkpoint`` left off."""
    state = RunState() if checkpoint is None else checkpoint.state
    state.finished = ""
    best = state.best_step
    if checkpoint is None or run is None or best is None:
        kept = True
    else:  # of another run's checkpoints none is here when this one ends
        kept = _inside(checkpoint, run) and checkpoint_folder(run, best).is_dir()
    if not kept:
        console.warn(
            f"the checkpoint of the best step so far, {best}, is not in {run}: the best is sought anew"
        )
        state.best_step, state.best_value, state.bad_evaluations = None, None, 0
    # whatever is saved from here on has been trained
    # what generate has to know later: that it may trust the weights, and what stood before every source
    ours = prepared.bundle.config.setdefault("s2s", {})
    ours |= {"trained": True, "source_prefix": prepared.recipe.data.source_prefix}
    trainer = Trainer(prepared, accelerator=accelerator, stop=stop, state=state, run=run)
    if checkpoint is not None:
        trainer.resume(checkpoint.folder)
    return trainer


def _finished(recipe: Recipe, run: Path, checkpoint: Checkpoint | None) -> dict[str, Any] | None:
    """The results of a run that was over already; None when there is something left to do."""
    results = run / runfolder.RESULTS_FILE
    if checkpoint is None or not checkpoint.state.finished or not results.is_file():
        return None
    limit = recipe.training.max_minutes
    if checkpoint.state.finished == "max_minutes" and (
        limit is None or checkpoint.state.elapsed < 60 * limit
    ):
        return None
    _refuse_another_recipe(recipe, run)
    console.say(
        f"{run} is finished ({checkpoint.state.step} steps); nothing to do. "
        "To train again, name another --output or add --overwrite."
    )
    found: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))
    return found


def _refuse_another_recipe(recipe: Recipe, run: Path) -> None:
    """UsageError where ``recipe`` would train otherwise than the finished run was trained."""
    try:
        before = load_recipe(run / runfolder.RECIPE_FILE)
    except UsageError:  # written by another version of s2s, or changed by hand
        return
    side = "decoder" if recipe.training.objective == "causal_lm" else "encoder"
    runfolder.refuse_differences(
        settings_of(before),
        settings_of(recipe),
        what="this run is finished, and was trained with other values",
        where=run,
        remedy="train again with --overwrite, or name another --output "
        f"(there, `model: {{{side}: {run}}}` goes on from this model)",
    )


def _begin(recipe: Recipe, run: Path, checkpoint: Checkpoint | None, *, overwrite: bool) -> None:
    """Bring the run's folder to where this start begins."""
    inside = checkpoint is not None and _inside(checkpoint, run)
    if checkpoint is not None and inside:
        runfolder.clear(run, keep_until=checkpoint.state.step)
    elif overwrite:
        runfolder.clear(run)
    (run / runfolder.RESULTS_FILE).unlink(missing_ok=True)
    (run / runfolder.LOG_FILE).touch()  # by it a run's folder is known
    runfolder.write_file(run / runfolder.RECIPE_FILE, recipe.dump_yaml())
    cut_log(run / runfolder.LOG_FILE, checkpoint.state.step if checkpoint is not None and inside else 0)


def _inside(checkpoint: Checkpoint, run: Path) -> bool:
    return checkpoint.folder.resolve().parent == run.resolve()


def _announce(trainer: Trainer, checkpoint: Checkpoint | None) -> None:
    prepared, accelerator = trainer.prepared, trainer.accelerator
    each = f"{accelerator.num_processes} × " if accelerator.num_processes > 1 else ""
    objective = prepared.recipe.training.objective
    begin = f"{objective}: {prepared.plan.total} steps on {each}{accelerator.device.type}"
    parts = " · ".join(
        f"{part.name} {sum(p.numel() for _, p in part.parameters):,}"
        + (" frozen" if part.frozen else f" at {part.peak:g}")
        + (f" from step {part.freeze_steps}" if part.freeze_steps else "")
        + (f" to step {part.freeze_after}" if part.freeze_after else "")
        for part in prepared.parts.parts
    )
    console.say(f"{begin} · parameters and learning rates: {parts}")
    if checkpoint is not None:
        console.say(f"going on after step {trainer.state.step}, from {checkpoint.folder}")


def _finish(prepared: Prepared, state: RunState, run: Path) -> dict[str, Any]:
    """Put the best (or last) model into the run's folder, write the results, point ``latest`` there."""
    step, best = state.step, state.best_step
    if prepared.recipe.training.load_best_model_at_end and best is not None:
        damage = _damage(checkpoint_folder(run, best))
        if damage:
            console.warn(f"the last model is taken instead of the best, of step {best}: {damage[0]}")
        else:
            step = best
    records = _last_records(run / runfolder.LOG_FILE, step)
    if math.isnan(records.get("validation_loss", 0.0)):
        what = f"training diverged: the validation loss of step {step} is not finite"
        remedy = "start again with --overwrite and a lower learning_rate or a longer warm-up"
        raise DivergedError(what, where=str(run), remedy=remedy)
    runfolder.publish(run, checkpoint_folder(run, step))
    results = {
        "steps": state.step,
        "stopped_by": state.finished,
        "model_of_step": step,
        "tokens_seen": state.tokens_seen,
        "seconds": round(state.seconds, 3),
        "tokens_per_second": round(state.tokens_seen / max(1e-9, state.seconds), 1),
        "skipped_steps": state.skipped,
    } | records
    runfolder.write_file(run / runfolder.RESULTS_FILE, json.dumps(results, indent=2) + "\n")
    write_report(run, prepared, state)
    runfolder.point_latest(run)
    which = "best" if step == best else "last"
    writes = prepared.recipe.training.objective != "masked_lm"
    hint = f". Try: echo 'a line of text' | s2s generate -m {shlex.quote(str(run))}" if writes else ""
    console.say(f"{run} holds the {which} model, of step {step}{hint}")
    return results


def _damage(folder: Path) -> list[Finding]:
    """What is wrong with a checkpoint on disk."""
    if not folder.is_dir():
        return [Finding("there is no such folder", str(folder))]
    return verify_manifest(folder)


def _last_records(log: Path, step: int) -> dict[str, Any]:
    """The last training loss, and the evaluation of ``step``, as the log has them."""
    found: dict[str, Any] = {}
    for line in filter(None, log.read_text(encoding="utf-8").split("\n")):
        record = json.loads(line)
        if "loss" in record:
            found["train_loss"] = record["loss"]
        elif "evaluation" in record and record["step"] == step:
            evaluation = {"loss": math.nan, **record["evaluation"]}  # the log has finite numbers alone
            found |= {f"validation_{name}": value for name, value in evaluation.items()}
    return found
