"""What generate, summarize and evaluate have in common: find the model and set it up."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seq2seq_cli import console
from seq2seq_cli.errors import S2SError, UsageError

if TYPE_CHECKING:
    from seq2seq_cli.checkpoint.bundle import Bundle, Check
    from seq2seq_cli.data.rows import Row
    from seq2seq_cli.decoding.engine import TextGenerator
    from seq2seq_cli.model import Seq2Seq, Stack
    from seq2seq_cli.processes.worker import Writer
    from seq2seq_cli.recipe import Recipe, Turns
    from seq2seq_cli.text.lines import Counts

#: where finetune leaves a link to its last result
LATEST = Path("runs/latest")


def find_model(model: str | None) -> tuple[str, str]:
    """The reference to use when no recipe names one: -m, else $S2S_MODEL, else runs/latest; and what named it
    where -m did not."""
    if model is not None:
        return model, ""
    from_environment = os.environ.get("S2S_MODEL")
    if from_environment:
        return from_environment, "$S2S_MODEL"
    if LATEST.exists():
        return str(LATEST), f"the link {LATEST}"
    raise UsageError(
        "no model is named",
        remedy=f"use -m REF, set S2S_MODEL, or train one (no {LATEST} in this folder)",
    )


def open_model(
    model: str | None,
    recipe: Recipe | None,
    *,
    given: Mapping[str, Any],
    default_preset: str | None = None,
) -> tuple[Bundle, dict[str, Any]]:
    """The bundle, and the generation options of the recipe (none without one).

    With a recipe: its trained ``output``, else its ``model`` section combined in memory. What cannot be
    decoded with (see ``make_generator``) is refused before the weights are read.
    """
    from seq2seq_cli.checkpoint.bundle import warn_if_untrained
    from seq2seq_cli.checkpoint.files import checkpoints

    options: dict[str, Any] = {}
    if recipe is not None:
        options = recipe.generation.model_dump(exclude_none=True)
        options.pop("preset", None)  # already merged into the others
        if model is None:
            run = recipe.output
            # of a run that was stopped the reader says so
            if run is not None and ((run / "config.json").is_file() or checkpoints(run)):
                model = str(run)
            else:
                _check(None, given, default_preset, options)({}, lambda key: "")
                bundle = build_from_recipe(recipe)
                warn_if_untrained(bundle)
                return bundle, options
    reference, named_by = find_model(model)
    bundle = _load(reference, named_by, _check(reference, given, default_preset, options))
    return bundle, options


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How the command line wants models to write; ``given`` are its decoding options."""

    device: str
    dtype: str
    quantize: str | None
    given: Mapping[str, Any]
    batch_tokens: int
    truncate: bool
    echo: bool
    with_scores: bool
    token_scores: bool


def open_writer(model: str | None, recipe: Recipe | Turns | None, setup: Setup) -> Writer:
    """What answers lines: the one model, or those that take turns, each loaded once."""
    from seq2seq_cli.recipe import Turns

    if not isinstance(recipe, Turns):
        bundle, options = open_model(model, recipe, given=setup.given)
        return _writer(bundle, options, setup, {})
    from seq2seq_cli.tasks.corpse import Corpse

    bundles: dict[str, Bundle] = {}
    for turn in recipe.turns:
        if turn.model not in bundles:
            check = _check(turn.model, setup.given, None, turn.generation)
            bundles[turn.model] = _load(turn.model, turn.where, check)
    echoing = replace(setup, echo=True)
    writers = [_writer(bundles[turn.model], turn.generation, echoing, bundles) for turn in recipe.turns]
    return Corpse(writers, rounds=recipe.rounds, echo=setup.echo)


def _writer(
    bundle: Bundle, options: Mapping[str, Any], setup: Setup, loaded: dict[str, Bundle]
) -> TextGenerator:
    move(bundle, setup.device, setup.dtype, quantize=setup.quantize)
    return make_generator(
        bundle,
        recipe_options=options,
        given=setup.given,
        batch_tokens=setup.batch_tokens,
        truncate=setup.truncate,
        echo=setup.echo,
        with_scores=setup.with_scores,
        token_scores=setup.token_scores,
        loaded=loaded,
    )


def _wishes(
    generation: Mapping[str, Any], default_preset: str | None, recipe_options: Mapping[str, Any]
) -> dict[str, Any]:
    """The options of checkpoint, default preset and recipe; the last wins, what contradicts it gives way."""
    from seq2seq_cli.decoding.overlay import overlay
    from seq2seq_cli.recipe import load_preset

    default = load_preset(default_preset) if default_preset else {}
    return overlay(overlay(generation, default), recipe_options)


def _check(
    reference: str | None,
    given: Mapping[str, Any],
    default_preset: str | None,
    recipe_options: Mapping[str, Any],
) -> Check:
    """What refuses options that ``reference`` cannot be decoded with, once its checkpoint says what it wishes
    for; and a draft model that cannot guess for it."""

    def check(generation: Mapping[str, Any], file_of: Callable[[str], str]) -> None:
        from seq2seq_cli.decoding.options import checked_options

        wished = _wishes(generation, default_preset, recipe_options)
        options = checked_options(given, wished, file_of=_foreign(default_preset, recipe_options, file_of))
        draft = options.draft_model
        if draft is not None and options.draft_tokens != 0 and reference is not None:
            from seq2seq_cli.checkpoint.peek import peek
            from seq2seq_cli.decoding.draft import refuse_unlike

            refuse_unlike(peek(draft), peek(reference), draft=draft)

    return check


def _foreign(
    default_preset: str | None, recipe_options: Mapping[str, Any], file_of: Callable[[str], str]
) -> Callable[[str], str]:
    """``file_of`` for the keys that the checkpoint alone wishes for; "" for the others."""
    from seq2seq_cli.recipe import load_preset

    ours = {**(load_preset(default_preset) if default_preset else {}), **recipe_options}
    return lambda key: "" if key in ours else file_of(key)


def _load(reference: str, named_by: str, check: Check | None) -> Bundle:
    """The bundle; its errors say who named it, where that was not the command line. Warns of one that was
    never trained."""
    from seq2seq_cli.checkpoint.bundle import load_bundle, warn_if_untrained

    try:
        bundle = load_bundle(reference, check=check)
        warn_if_untrained(bundle)
        return bundle
    except S2SError as error:
        if named_by:
            error.findings = tuple(
                replace(each, where=f"{each.where or reference} (named by {named_by})")
                for each in error.findings
            )
        raise


def build_from_recipe(recipe: Recipe) -> Bundle:
    """The model section of a recipe, in memory; tokenizers that it trains see the training rows."""
    from seq2seq_cli.data.sources import read_rows
    from seq2seq_cli.recipe import PAIRED
    from seq2seq_cli.training.models import build_model

    data = recipe.data
    rows: Sequence[Row] = []
    if data.train is not None:
        source = data.source if recipe.training.objective in PAIRED else None
        rows = read_rows(data.train, source=source, target=data.target, on_bad_row=data.on_bad_row)
    return build_model(recipe, rows)


def move(bundle: Bundle, device: str, dtype: str, *, quantize: str | None = None) -> None:
    """Put the model on a device, in a number format, its matrices rounded where asked for.

    UsageError when the device is not there, or does not go with that.
    """
    import torch

    try:
        place = torch.device(device)
    except RuntimeError:
        raise UsageError(
            f"no kind of device is called {device!r}", where="--device", remedy="cpu, cuda, cuda:1, mps, ..."
        ) from None
    try:
        if place.type == "meta":
            raise RuntimeError("computes nothing")
        if place.type != "cpu" and place.index is None and "LOCAL_RANK" in os.environ:
            # one of several processes: to each its own, as far as there are so many
            number = int(os.environ["LOCAL_RANK"]) % max(1, torch.accelerator.device_count())
            place = torch.device(place.type, number)
        bundle.model.to(device=place, dtype=getattr(torch, dtype))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        if "out of memory" in str(error).lower():
            raise
        raise UsageError(
            f"the device {device!r} cannot be used here",
            where="--device",
            remedy="`s2s env` lists those that can",
        ) from None
    if quantize is not None:
        from seq2seq_cli.model.quantized import quantize as round_matrices

        if place.type != "cpu" or dtype != "float32":
            remedy = "leave out --device and --dtype"
            raise UsageError("eight bits are for float32 on a CPU", where="--quantize", remedy=remedy)
        round_matrices(bundle.model)


def with_preset(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The decoding flags on top of the preset that they name; UsageError when there is no such preset, and
    when the two contradict each other."""
    from seq2seq_cli.recipe import generation_section, load_preset, merge_generation

    rest = {name: value for name, value in flags.items() if name != "preset"}
    preset = flags.get("preset")
    merged = merge_generation(load_preset(preset) if preset else {}, rest)
    generation_section(merged, where=lambda name: "--" + name.replace("_", "-"))
    return merged


def make_generator(
    bundle: Bundle,
    *,
    recipe_options: Mapping[str, Any],
    given: Mapping[str, Any],
    default_preset: str | None = None,
    batch_tokens: int = 4096,
    truncate: bool = True,
    echo: bool = False,
    with_scores: bool = False,
    token_scores: bool = False,
    loaded: dict[str, Bundle] | None = None,
) -> TextGenerator:
    """A text generator with the options of checkpoint, default preset, recipe, ``given``; the last wins, and
    what contradicts it gives way. A draft model may be among those that are ``loaded``; else it becomes so.
    """
    from seq2seq_cli.decoding import resolve_options
    from seq2seq_cli.decoding.engine import TextGenerator

    wished = _wishes(bundle.model.generation, default_preset, recipe_options)
    file_of = _foreign(default_preset, recipe_options, bundle.wish_file)
    decoding = resolve_options(given, wished, bundle.model.special_ids, file_of=file_of)
    return TextGenerator(
        bundle.model,
        source_tokenizer=bundle.source_tokenizer,
        target_tokenizer=bundle.target_tokenizer,
        decoding=decoding,
        batch_tokens=batch_tokens,
        truncate=truncate,
        echo=echo,
        with_scores=with_scores,
        token_scores=token_scores,
        prefix=_source_prefix(bundle),
        control_ids=bundle.control_ids,
        name=bundle.reference,
        draft=_draft(decoding.draft_model, bundle.model, {} if loaded is None else loaded)
        if decoding.draft_tokens
        else None,
    )


def _draft(reference: str, model: Seq2Seq | Stack, loaded: dict[str, Bundle]) -> TextGenerator:
    """The model that guesses for another one: on its device, in its number format, rounded where it is."""
    from seq2seq_cli.decoding.engine import draft_generator
    from seq2seq_cli.model.quantized import is_quantized, quantize

    if reference not in loaded:
        loaded[reference] = _load(reference, "draft_model", None)
    bundle, like = loaded[reference], next(model.parameters())
    bundle.model.to(device=like.device, dtype=like.dtype)
    if is_quantized(model):
        quantize(bundle.model)
    return draft_generator(
        bundle.model,
        source_tokenizer=bundle.source_tokenizer,
        target_tokenizer=bundle.target_tokenizer,
        prefix=_source_prefix(bundle),
        control_ids=bundle.control_ids,
        name=reference,
    )


def _source_prefix(bundle: Bundle) -> str:
    return str(bundle.config.get("s2s", {}).get("source_prefix", ""))


def report(counts: Counts) -> None:
    """Say how many inputs were not read as they stand, and how many outputs are not written."""
    if counts.truncated:
        console.warn(f"{counts.truncated} input(s) were longer than the model takes and were truncated")
    if counts.unreadable:
        console.warn(f"{counts.unreadable} input(s) gave no token; their output is empty")
    if counts.uncoded:
        console.warn(
            f"{counts.uncoded} prompt(s) begin with none of the control codes that the model was trained "
            "with; begin each with one, such as Links, Wikipedia, Books, Reviews or Questions"
        )
    if counts.incomplete:
        console.warn(
            f"{counts.incomplete} output(s) ended before their grammar was complete and are left empty; "
            "raise --max-new-tokens"
        )
