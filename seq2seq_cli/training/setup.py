"""From a recipe to everything that a run needs, checked before anything is trained or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from seq2seq_cli import console
from seq2seq_cli.checkpoint.bundle import Bundle, load_bundle
from seq2seq_cli.data.batches import plan_epoch, plan_validation
from seq2seq_cli.data.rows import Row
from seq2seq_cli.data.sources import check_paths, read_rows, stream_rows
from seq2seq_cli.data.streamed import StreamedDataset, Windows
from seq2seq_cli.decoding.options import Decoding
from seq2seq_cli.errors import DataError, Finding, UsageError
from seq2seq_cli.model import Stack
from seq2seq_cli.model.attention import Attention
from seq2seq_cli.recipe import PAIRED, Recipe, require, where_of
from seq2seq_cli.training.datasets import Dataset, make_dataset
from seq2seq_cli.training.encoder_cache import keeps_states
from seq2seq_cli.training.lora import add_updates, digest
from seq2seq_cli.training.models import build_model, check_scratch
from seq2seq_cli.training.module import TrainingModule, reached_parameters, tensors_of
from seq2seq_cli.training.optimizer import Parts, check_optimizer, split_parts
from seq2seq_cli.training.samples import Sample, choose_samples, sample_decoding
from seq2seq_cli.training.steps import BATCHES, ORDER, StepPlan
from seq2seq_cli.training.trackers import require_trackers

if TYPE_CHECKING:
    from seq2seq_cli.data.batch import Batch
    from seq2seq_cli.training.state import Checkpoint

#: padded tokens of a validation batch where the recipe states neither budget nor rows
_EVALUATION_TOKENS = 8192
#: settings that may change between two starts of one run: they touch neither the weights nor their order
_FREE = {
    *("logging_steps", "save_steps", "eval_steps", "save_total_limit", "max_minutes", "eval_samples"),
    *("per_device_eval_batch_size", "load_best_model_at_end", "gradient_accumulation_steps", "skip_nan"),
    *("gradient_checkpointing", "ddp_timeout", "report_to"),
}


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A run that is ready to start. ``identity`` is what must be the same when it is resumed."""

    recipe: Recipe
    bundle: Bundle
    parts: Parts
    fresh: frozenset[str]  #: names of newly initialised parameters
    train: Dataset
    train_rows: Sequence[Row]
    validation: Dataset | None
    validation_batches: list[list[int]]
    samples: Sequence[Sample]  #: validation rows that text is generated for
    plan: StepPlan
    identity: Mapping[str, Any]
    keeps_states: bool  #: the encoder stands still, and what it says of a source is remembered
    decoding: Decoding  #: how text is generated for the samples

    def collate(self, indices: Sequence[int], epoch: int) -> Batch:
        """The batch of these training rows in this epoch."""
        return self.train.batch(indices, epoch=epoch)

    def where(self, row: int) -> str:
        """The place of a training row of the window or epoch that was collated last, for messages."""
        if isinstance(self.train, StreamedDataset):
            return self.train.where(row)
        return self.train_rows[row].where


def prepare(recipe: Recipe, *, processes: int = 1, checkpoint: Checkpoint | None = None) -> Prepared:
    """Read the data, build (or, from ``checkpoint``, load) the model, and plan the steps.

    Raises UsageError, DataError or CheckpointError for whatever is wrong with any of them.
    """
    require(recipe, "data.train", purpose="training")
    training = recipe.training
    _check_precision(recipe)
    check_scratch(recipe)
    check_optimizer(training.optim, where=where_of(recipe, "training.optim"))
    require_trackers(recipe)
    rows, validation_rows = _read(recipe)
    windows = rows if isinstance(rows, Windows) else None
    rows = rows[0] if isinstance(rows, Windows) else rows
    bundle = _model(recipe, rows, checkpoint)
    model = bundle.model
    # Weights that are views of a mapped file lie at odd addresses, where the matrix library may round
    # otherwise; memory of our own makes a resumed run equal to one that was never interrupted.
    for parameter in model.parameters():
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
    _set_dropout(model, training.dropout)
    for module in model.modules():
        if isinstance(module, Stack):
            module.recomputes = training.gradient_checkpointing
    make = partial(make_dataset, recipe, bundle)
    train = make(rows) if windows is None else StreamedDataset(windows, make)
    console.say(f"training rows{', first window' if windows else ''}: {train.summary}")
    validation = make(validation_rows) if validation_rows else None
    if validation is not None:
        console.say(f"validation rows: {validation.summary}")
    anew = checkpoint is None or recipe.model.lora is not None
    fresh = _fresh_names(bundle) if anew or checkpoint is None else checkpoint.fresh
    base: set[str] = set()
    if recipe.model.lora is not None:
        base = add_updates(bundle, recipe.model, fresh=fresh, where=where_of(recipe, "model.lora"))
    reached = _reached(bundle, train)
    parts = split_parts(model, training, fresh=fresh, freeze=recipe.model.freeze, reached=reached, base=base)
    if all(part.frozen for part in parts.parts):
        where = where_of(recipe, "model.freeze" if recipe.model.freeze else "training.groups")
        raise UsageError("every part of the model is frozen: nothing would be learnt", where=where)
    if parts.left_out:
        console.say(f"left out, because no gradient reaches them: {', '.join(parts.left_out)}", level=1)
    plan = _plan(recipe, train, processes)
    if (idle := parts.idle_step(plan.total)) is not None:
        where = where_of(recipe, "training.groups")
        raise UsageError(f"no part of the model learns in step {idle + 1} of {plan.total}", where=where)
    _warn_of_vain_settings(parts, plan.total)
    _warn_of_long_rows(recipe, train)
    samples = [] if validation is None else choose_samples(recipe, bundle, validation_rows, validation)
    return Prepared(
        recipe=recipe,
        bundle=bundle,
        parts=parts,
        fresh=frozenset(fresh),
        train=train,
        train_rows=rows,
        validation=validation,
        validation_batches=_validation_batches(recipe, validation),
        samples=samples,
        plan=plan,
        identity={
            **_identity(recipe, train, validation, plan),
            "weights that stand still (sha256)": digest(model, base) if base else None,
        },
        keeps_states=keeps_states(recipe, model, train, parts),
        decoding=sample_decoding(recipe, bundle, samples, longest=int(train.lengths[:, 1].max())),
    )


def _warn_of_vain_settings(parts: Parts, total: int) -> None:
    """Say which parts never learn in so few steps, or never at the rate that was asked for."""
    for part in parts.parts:
        if not part.frozen and part.freeze_steps >= total:
            console.warn(
                f"{part.name} learns from step {part.freeze_steps + 1} on, and the run has {total} steps"
            )
        elif not part.warmed_up(total, total):
            console.warn(
                f"the learning rate of {part.name} is still rising when the run of {total} steps ends"
            )


def _warn_of_long_rows(recipe: Recipe, train: Dataset) -> None:
    """Say how many rows no batch of ``tokens_per_batch`` has room for: each becomes one of its own."""
    budget = recipe.training.tokens_per_batch
    above = 0 if budget is None else int((train.lengths.sum(axis=1) > budget).sum())
    if above:
        console.warn(
            f"{above} of {len(train)} rows have more tokens than tokens_per_batch {budget}: a batch each"
        )


def replanned(prepared: Prepared, recipe: Recipe, *, processes: int) -> Prepared:
    """``prepared`` with the batches that ``recipe`` asks for, which differs in nothing else."""
    plan = _plan(recipe, prepared.train, processes)
    return replace(
        prepared,
        recipe=recipe,
        plan=plan,
        validation_batches=_validation_batches(recipe, prepared.validation),
        identity={**prepared.identity, **_identity(recipe, prepared.train, prepared.validation, plan)},
    )


def _check_precision(recipe: Recipe) -> None:
    if recipe.training.mixed_precision == "fp16" and not torch.cuda.is_available():
        raise UsageError(
            "fp16 needs a GPU",
            where=where_of(recipe, "training.mixed_precision"),
            remedy="write mixed_precision: no",
        )


def _read(recipe: Recipe) -> tuple[Sequence[Row] | Windows, Sequence[Row]]:
    """Rows to learn from and to validate with; every missing file is reported at once."""
    data = recipe.data
    source = data.source if recipe.training.objective in PAIRED else None
    findings: list[Finding] = []
    for spec in (data.train, data.validation):
        if spec is not None:
            try:
                check_paths(spec, source=source)
            except DataError as error:
                findings += error.findings
    if findings:
        raise DataError(findings=findings)

    named: dict[str, Any] = {
        "source": source,
        "target": data.target,
        "references": data.references,
        "reference_separator": data.reference_separator,
        "on_bad_row": data.on_bad_row,
    }
    validation = read_rows(data.validation, split="validation", **named) if data.validation else []
    assert data.train is not None  # asked for before
    if data.streaming:
        open_rows = partial(stream_rows, data.train, split="train", **named)
        return Windows(open_rows, data.buffer_size), validation
    return read_rows(data.train, split="train", **named), validation


def _model(recipe: Recipe, rows: Sequence[Row], checkpoint: Checkpoint | None) -> Bundle:
    if checkpoint is None or recipe.model.lora is not None:  # its checkpoints have the updates merged
        return build_model(recipe, rows)
    roles: dict[str, Any] = {"causal_lm": "decoder", "masked_lm": "masked_lm"}
    return load_bundle(str(checkpoint.folder), role=roles.get(recipe.training.objective))


def _fresh_names(bundle: Bundle) -> Sequence[str]:
    """What is newly initialised: by this start, or by the combine that wrote the folder."""
    if bundle.report.fresh:
        return list(bundle.report.fresh)
    return [] if bundle.is_trained else list(bundle.config.get("s2s", {}).get("fresh", ()))


def _set_dropout(model: nn.Module, probability: float | None) -> None:
    """Replace every dropout rate of the model; None keeps the checkpoint's."""
    if probability is None:
        return
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
        elif isinstance(module, Attention):
            module.dropout = probability


def _reached(bundle: Bundle, train: Dataset) -> set[int]:
    """Parameters that the loss depends on, found on one row."""
    module = TrainingModule(bundle.model)
    first = int(train.lengths.sum(axis=1).argmin())
    loss = module(*tensors_of(train.batch([first]), torch.device("cpu")))
    return reached_parameters(loss)


def _plan(recipe: Recipe, train: Dataset, processes: int) -> StepPlan:
    training = recipe.training
    batches_per_step = training.gradient_accumulation_steps * processes

    def batches(epoch: int) -> list[list[int]]:
        data = train.window(epoch) if isinstance(train, StreamedDataset) else train
        return plan_epoch(
            data.lengths,
            seed=training.seed,
            epoch=epoch,
            tokens_per_batch=training.tokens_per_batch,
            batch_size=training.per_device_train_batch_size,
            batches_per_step=batches_per_step,
        )

    return StepPlan(
        batches,
        batches_per_step=batches_per_step,
        epochs=training.num_train_epochs,
        max_steps=training.max_steps,
    )


def _validation_batches(recipe: Recipe, validation: Dataset | None) -> list[list[int]]:
    if validation is None:
        return []
    training = recipe.training
    rows = training.per_device_eval_batch_size
    budget = None if rows else training.tokens_per_batch or _EVALUATION_TOKENS
    return plan_validation(validation.lengths, tokens_per_batch=budget, batch_size=rows)


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """What a recipe says about the numbers of its run, flat."""
    skipped = {"model": set[str](), "data": {"test"}, "training": _FREE - {"gradient_accumulation_steps"}}
    return {
        f"{name}.{key}": value
        for name, without in skipped.items()
        for key, value in getattr(recipe, name).model_dump(mode="json", exclude=without).items()
    }


def _identity(recipe: Recipe, train: Dataset, validation: Dataset | None, plan: StepPlan) -> dict[str, Any]:
    """Everything that decides the numbers of a run, flat, for comparison with an earlier start."""
    values: dict[str, Any] = {}
    for name, section in (("model", recipe.model), ("training", recipe.training)):
        for key, value in section.model_dump(mode="json").items():
            if name == "model" or key not in _FREE:
                values[f"{name}.{key}"] = value
    return {
        **values,
        BATCHES: plan.batches_per_step,
        "training rows (sha256 of their tokens)": train.content_hash,
        "validation rows (sha256 of their tokens)": validation.content_hash if validation else None,
        ORDER: plan.fingerprint(0),
    }
