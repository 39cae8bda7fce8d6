"""Rules between the values of a recipe: combinations that contradict each other or would be ignored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from seq2seq_cli.errors import UsageError
from seq2seq_cli.recipe.generation import SAMPLING_OPTIONS, GenerationSection
from seq2seq_cli.recipe.grammar import check_grammar
from seq2seq_cli.recipe.problems import Problem, changed, problem
from seq2seq_cli.recipe.sections import (
    LOSS_METRICS,
    PAIRED,
    GroupSection,
    ModelSection,
    RecipeFile,
    SideSection,
    TrainingSection,
)
from seq2seq_cli.recipe.streams import streaming_problems


def recipe_problems(recipe: RecipeFile) -> Iterator[Problem]:
    """Everything that the sections of ``recipe`` get wrong together."""
    yield from _objective(recipe)
    for name in ("encoder", "decoder"):
        side = getattr(recipe.model, name)
        if side is not None:
            yield from _side(side, f"model.{name}")
    yield from _model(recipe.model)
    yield from _lora(recipe)
    yield from _training(recipe.training)
    yield from _groups(recipe)
    yield from streaming_problems(recipe)
    yield from _validation(recipe)
    if "training" in recipe.model_fields_set and recipe.data.train is None:
        remedy = "add train: FILE to the data section"
        yield problem("a recipe that trains needs data.train", remedy, "training", "data.train")
    yield from generation_problems(recipe.generation, "generation.")


def generation_problems(
    section: GenerationSection, prefix: str = "", *, complete: bool = False
) -> Iterator[Problem]:
    """Decoding options that contradict each other; ``prefix`` comes before the keys named in the problems.
    ``complete``: what is not set here is set nowhere."""
    beams, wanted = section.num_beams, section.num_return_sequences
    sampling = section.do_sample or any(getattr(section, name) is not None for name in SAMPLING_OPTIONS)
    if wanted and beams and wanted > beams and (beams > 1 or not sampling):
        what = f"num_return_sequences {wanted} is more than num_beams {beams}"
        keys = (f"{prefix}num_return_sequences", f"{prefix}num_beams")
        remedy = f"raise num_beams to {wanted}"
        yield problem(what, remedy if beams > 1 else f"{remedy} or turn on do_sample", *keys)
    lowest, highest = section.min_new_tokens, section.max_new_tokens
    if lowest and highest and lowest > highest:
        keys = (f"{prefix}min_new_tokens", f"{prefix}max_new_tokens")
        yield problem(f"min_new_tokens {lowest} is more than max_new_tokens {highest}", "swap them?", *keys)
    if section.grammar is not None:
        try:
            check_grammar(section.grammar)
        except UsageError as error:
            for each in error.findings:
                what = f"{each.what} ({each.where})" if each.where else each.what
                yield problem(what, each.remedy, f"{prefix}grammar")
    yield from strategy_problems(section, prefix, complete=complete)
    if section.do_sample is False:
        for name in SAMPLING_OPTIONS:
            if getattr(section, name) is not None and not (name == "top_k" and section.penalty_alpha):
                keys = (f"{prefix}{name}", f"{prefix}do_sample")
                yield problem(f"{name} has no effect when do_sample is false", f"remove {name}", *keys)


def strategy_problems(section: GenerationSection, prefix: str, *, complete: bool) -> Iterator[Problem]:
    """Options of different strategies, and a strategy without what it needs."""

    def clash(what: str, remedy: str, *names: str) -> Problem:
        return problem(what, remedy, *(prefix + name for name in names))

    unset = 1 if complete else None
    beams = unset if section.num_beams is None else section.num_beams
    groups, diversity, alpha = section.num_beam_groups or 1, section.diversity_penalty, section.penalty_alpha
    words = "force_words" if section.force_words else "force_words_ids"
    forced = bool(getattr(section, words, None))
    drawn = [name for name in SAMPLING_OPTIONS if not (alpha and name == "top_k")]
    sampled = section.do_sample or (
        section.do_sample is None and any(getattr(section, name) is not None for name in drawn)
    )
    if beams is not None and beams % groups:
        what = f"num_beam_groups {groups} does not divide num_beams {beams}"
        yield clash(what, "make num_beams a multiple of it", "num_beam_groups", "num_beams")
    if groups > 1 and (diversity == 0 or (complete and not diversity)):
        what = f"num_beam_groups {groups} needs a diversity_penalty above 0: the groups would be all alike"
        yield clash(what, "set diversity_penalty", "num_beam_groups", "diversity_penalty")
    if diversity and groups == 1 and (complete or section.num_beam_groups):
        what = f"diversity_penalty {diversity} has no effect without groups of beams"
        yield clash(what, "set num_beam_groups above 1", "diversity_penalty", "num_beam_groups")
    if forced and beams == 1:
        yield clash(f"{words} needs beam search", "set num_beams above 1", words, "num_beams")
    if alpha and (beams or 1) > 1:
        what = f"penalty_alpha {alpha} does not go with num_beams {beams}"
        yield clash(what, "remove one of them", "penalty_alpha", "num_beams")
    if alpha and (complete or section.top_k is not None) and (section.top_k or 0) < 2:
        yield clash("penalty_alpha needs top_k of at least 2", "set top_k", "penalty_alpha", "top_k")
    searches = {"penalty_alpha": alpha, "num_beam_groups": groups > 1, words: forced}
    for name in (name for name, asked in searches.items() if asked and sampled):
        yield clash(f"{name} does not go with sampling", "turn sampling off", name, "do_sample")
    if forced and groups > 1:
        what = f"{words} does not go with groups of beams"
        yield clash(what, "remove num_beam_groups", words, "num_beam_groups")
    yield from _guessing_problems(section, prefix, complete=complete)


def _guessing_problems(section: GenerationSection, prefix: str, *, complete: bool) -> Iterator[Problem]:
    """Guesses beside what cannot check them, two kinds of them, and a number of none."""
    draft = section.draft_model if section.draft_tokens != 0 else None
    guesses = {"prompt_lookup": section.prompt_lookup, "draft_model": draft}
    others = {"num_beams": (section.num_beams or 1) > 1, "penalty_alpha": section.penalty_alpha}
    asked = [name for name, value in guesses.items() if value]
    clashes = [(name, other) for name in asked for other, value in others.items() if value]
    for name, other in [*clashes, *([tuple(asked)] if len(asked) > 1 else [])]:
        what = f"{name} {getattr(section, name)} does not go with {other} {getattr(section, other)}"
        yield problem(what, "remove one of them", prefix + name, prefix + other)
    if section.draft_tokens and complete and not draft:
        what = "draft_tokens has no effect without a draft model"
        yield problem(what, "give draft_model", prefix + "draft_tokens", prefix + "draft_model")


def merge_generation(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Decoding options from several places, later ones winning; None = not set.

    A layer that sets a sampling option turns sampling on, and one that turns sampling off takes back the
    sampling options of the layers before it. The top_k of contrastive search is none.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        given = {name: value for name, value in layer.items() if value is not None}
        contrastive = given.get("penalty_alpha", merged.get("penalty_alpha"))
        drawn = [name for name in SAMPLING_OPTIONS if not (contrastive and name == "top_k")]
        if any(name in given for name in drawn):
            given.setdefault("do_sample", True)
        if given.get("do_sample") is False:
            merged = {name: value for name, value in merged.items() if name not in drawn}
        merged.update(given)
    return merged


#: what only one objective reads
_OF_ONE_OBJECTIVE = {
    **dict.fromkeys(("noise", "noise_density", "mean_span_length"), "denoise"),
    "whole_word": "masked_lm",
    "packing": "causal_lm",
}


def _objective(recipe: RecipeFile) -> Iterator[Problem]:
    objective, model = recipe.training.objective, recipe.model
    asked = "training.objective"
    if objective in ("seq2seq", "denoise") and model.encoder is None:
        what, remedy = f"{objective} needs model.encoder", "name a checkpoint, or family: ..."
        yield problem(what, remedy, "model.encoder", asked)
    for name in sorted(changed(recipe.training) & _OF_ONE_OBJECTIVE.keys()):
        if objective != (wanted := _OF_ONE_OBJECTIVE[name]):
            what = f"{name} belongs to {wanted}, not to {objective}"
            yield problem(what, f"remove {name}", f"training.{name}", asked)
    yield from _sources(recipe)
    if objective == "causal_lm":
        yield from _one_sided(model, "causal_lm", needed="decoder", other="encoder")
    if objective in ("masked_lm", "prefix_lm"):
        yield from _one_sided(model, objective, needed="encoder", other="decoder")


def _sources(recipe: RecipeFile) -> Iterator[Problem]:
    """What is said of sources where the rows are texts alone."""
    objective = recipe.training.objective
    if objective in PAIRED:
        return
    reads = "makes its sources from the texts" if objective == "denoise" else "has no sources"
    unread = {"source", "source_prefix"} | (set() if objective == "denoise" else {"max_source_length"})
    for name in sorted(changed(recipe.data) & unread):
        what = f"{name} has no effect: {objective} {reads}"
        yield problem(what, f"remove {name}", f"data.{name}", "training.objective")
    samples = "eval_samples" in changed(recipe.training) and recipe.training.eval_samples
    if samples and objective == "masked_lm":
        what = f"eval_samples has no effect: {objective} writes no text"
        yield problem(what, "remove eval_samples", "training.eval_samples", "training.objective")


def _one_sided(model: ModelSection, objective: str, *, needed: str, other: str) -> Iterator[Problem]:
    asked = "training.objective"
    if getattr(model, needed) is None:
        yield problem(f"{objective} needs model.{needed}", f"name the {needed}", f"model.{needed}", asked)
    if getattr(model, other) is not None:
        what = f"{objective} trains the {needed} alone"
        yield problem(what, f"remove model.{other}", f"model.{other}", asked)
    if model.share != "none":
        yield problem(f"{objective} has one side, nothing to share", "remove share", "model.share", asked)
    if model.random in (other, "both"):
        what = f"{objective} has no {other} to start fresh"
        yield problem(what, f"write random: {needed} or none", "model.random", asked)
    unused = "source" if other == "encoder" else "target"
    if getattr(model.tokenizers, unused) is not None:
        key = f"model.tokenizers.{unused}"
        yield problem(f"{objective} has no {unused} tokenizer", f"remove {unused}", key, asked)


def _side(side: SideSection, at: str) -> Iterator[Problem]:
    if side.checkpoint is None and side.family is None:
        yield problem(f"{at} names neither checkpoint nor family", "add one of the two", at)
    if side.checkpoint is not None and side.family is not None:
        remedy = "keep checkpoint to load weights, family to train from scratch"
        yield problem("checkpoint and family exclude each other", remedy, f"{at}.family", f"{at}.checkpoint")
        return
    if side.checkpoint is not None and side.config:
        remedy = "write set: to override the checkpoint's configuration"
        yield problem("config belongs to a side with family", remedy, f"{at}.config", f"{at}.family")
    if side.family is not None:
        if side.random:
            yield problem(
                "a side with family is always fresh", "remove random", f"{at}.random", f"{at}.family"
            )
        if side.set:
            remedy = "write these keys into config:"
            yield problem("set belongs to a side with checkpoint", remedy, f"{at}.set", f"{at}.family")


def _lora(recipe: RecipeFile) -> Iterator[Problem]:
    model, lora = recipe.model, recipe.model.lora
    if lora is None:
        return
    if model.share == "all":
        what, remedy = "lora would part sides that share all parameters", "write share: embeddings or none"
        yield problem(what, remedy, "model.lora", "model.share")
    if model.random == "both":
        yield problem(
            "lora updates what was loaded, and nothing is", "remove it", "model.lora", "model.random"
        )
    for part in sorted(set(lora.parts) & set(model.freeze)) if "parts" in lora.model_fields_set else ():
        what = f"lora is to update the {part}, and freeze to leave it alone"
        yield problem(what, "keep one of them", "model.lora.parts", "model.freeze")


def _model(model: ModelSection) -> Iterator[Problem]:
    sides = {"encoder": model.encoder, "decoder": model.decoder or model.encoder}
    meant = sides if model.random == "both" else sides.keys() & {model.random}
    if meant and all((side := sides[name]) is not None and side.family for name in meant):
        what, remedy = "random has no effect: what has a family is always fresh", "remove random"
        yield problem(what, remedy, "model.random", *(f"model.{name}.family" for name in sorted(meant)))
    for side_name, text in (("encoder", "source"), ("decoder", "target")):
        side = getattr(model, side_name)
        replaced = getattr(model.tokenizers, text) is not None
        if side is not None and side.tokenizer is not None and replaced:
            keys = (f"model.tokenizers.{text}", f"model.{side_name}.tokenizer")
            yield problem(f"two tokenizers for the {text}", "keep one of them", *keys)
        if side is not None and side.checkpoint is None and side.family and not (side.tokenizer or replaced):
            remedy = "add tokenizer: {train: bpe, vocab_size: N}, or a checkpoint reference"
            key = f"model.{side_name}"
            yield problem(f"the {side_name} from scratch needs a tokenizer", remedy, key, "model.tokenizers")


def _training(training: TrainingSection) -> Iterator[Problem]:
    if training.tokens_per_batch and training.per_device_train_batch_size:
        keys = ("training.tokens_per_batch", "training.per_device_train_batch_size")
        remedy = "keep one of them"
        yield problem("tokens_per_batch and per_device_train_batch_size exclude each other", remedy, *keys)
    others = ["adafactor"]
    if training.optim == "adafactor":
        others = ["adam_beta1", "adam_beta2", "adam_epsilon"]
    for name in sorted(changed(training) & set(others)):
        what = f"{name} has no effect on optim: {training.optim}"
        yield problem(what, f"remove {name}, or change optim", f"training.{name}", "training.optim")
    if training.cache_encoder_states is False and "encoder_cache_mb" in changed(training):
        keys = ("training.encoder_cache_mb", "training.cache_encoder_states")
        yield problem("encoder_cache_mb has no effect without a cache", "remove one of them", *keys)
    if training.lr_scheduler_type == "constant" and training.warmup_steps:
        remedy = "write lr_scheduler_type: constant_with_warmup"
        keys = ("training.warmup_steps", "training.lr_scheduler_type")
        yield problem("the constant schedule has no warm-up", remedy, *keys)


def _groups(recipe: RecipeFile) -> Iterator[Problem]:
    absent = {
        "causal_lm": ("encoder", "cross_attention"),
        "masked_lm": ("decoder", "cross_attention"),
        "prefix_lm": ("decoder", "cross_attention"),
    }
    objective, asked = recipe.training.objective, "training.objective"
    for index, part in enumerate(recipe.model.freeze):
        if part in absent.get(objective, ()):
            what = f"{objective} has no {part} to freeze"
            yield Problem(what, "remove it", (("model", "freeze", index), ("training", "objective")))
    for part in ("encoder", "decoder", "cross_attention", "fresh"):
        group, at = getattr(recipe.training.groups, part), f"training.groups.{part}"
        if group is None:
            continue
        if part in absent.get(objective, ()):
            yield problem(f"{objective} has no {part}", f"remove the group {part}", at, asked)
        frozen = "model.freeze" if part in recipe.model.freeze else f"{at}.freeze" if group.freeze else ""
        for name in sorted(changed(group) - {"freeze"}) if frozen else ():
            what = f"{name} has no effect on a frozen part"
            yield problem(what, f"remove it, or {frozen}", f"{at}.{name}", frozen)
        yield from _course(group, recipe.training, at)


def _course(group: GroupSection, training: TrainingSection, at: str) -> Iterator[Problem]:
    """When a part learns, and how its rate moves."""
    if group.freeze_after is not None and group.freeze_after <= group.freeze_steps:
        what = f"freeze_after {group.freeze_after} leaves no step behind freeze_steps {group.freeze_steps}"
        remedy = "both count from the start of the run"
        yield problem(what, remedy, f"{at}.freeze_after", f"{at}.freeze_steps")
    schedule = group.lr_scheduler_type or training.lr_scheduler_type
    if schedule == "constant" and group.warmup_steps:
        remedy = "write lr_scheduler_type: constant_with_warmup"
        said = f"{at if group.lr_scheduler_type else 'training'}.lr_scheduler_type"
        yield problem("the constant schedule has no warm-up", remedy, f"{at}.warmup_steps", said)


_NEEDS_VALIDATION = (
    "early_stopping_patience",
    "eval_samples",
    "eval_steps",
    "load_best_model_at_end",
    "metric_for_best_model",
    "per_device_eval_batch_size",
)


def _validation(recipe: RecipeFile) -> Iterator[Problem]:
    """Options that need validation rows, or text generated from them."""
    training = recipe.training
    if recipe.data.validation is None:
        for name in sorted(changed(training) & set(_NEEDS_VALIDATION)):
            if getattr(training, name) is not False:
                what, remedy = f"{name} needs validation rows", f"add data.validation, or remove {name}"
                yield problem(what, remedy, f"training.{name}", "data.validation")
        return
    if training.metric_for_best_model in LOSS_METRICS:
        return
    name, keys = training.metric_for_best_model, ("training.metric_for_best_model", "training.eval_samples")
    if training.eval_samples == 0:
        yield problem(f"{name} needs generated text", "raise eval_samples, or use loss", *keys)
    if training.objective not in PAIRED:
        keys = ("training.metric_for_best_model", "training.objective")
        yield problem(f"{training.objective} is not scored by {name}", "use loss or perplexity", *keys)
