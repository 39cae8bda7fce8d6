"""What a recipe's objective makes of its rows: the data set to learn from."""

from __future__ import annotations

from collections.abc import Sequence

from seq2seq_cli.checkpoint.bundle import Bundle
from seq2seq_cli.data.dataset import PairDataset, TextDataset
from seq2seq_cli.data.denoised import DenoiseDataset
from seq2seq_cli.data.noise import DEFAULTS, Noise
from seq2seq_cli.data.packed import PackedDataset
from seq2seq_cli.data.rows import Row
from seq2seq_cli.data.streamed import StreamedDataset
from seq2seq_cli.errors import CheckpointError, UsageError
from seq2seq_cli.model import EncoderDecoder, Seq2Seq
from seq2seq_cli.recipe import Recipe, where_of
from seq2seq_cli.text.tokenizer import Tokenizer

Whole = PairDataset | TextDataset | PackedDataset | DenoiseDataset
Dataset = Whole | StreamedDataset[Whole]


def make_dataset(recipe: Recipe, bundle: Bundle, rows: Sequence[Row]) -> Whole:
    """``rows`` tokenized for the recipe's objective and cut to what it and the model allow.

    CheckpointError without tokenizers or special ids; UsageError where they do not fit the objective.
    """
    data, objective, ids = recipe.data, recipe.training.objective, bundle.model.special_ids
    source, target = bundle.source_tokenizer, bundle.target_tokenizer
    if source is None or target is None:
        raise CheckpointError("the checkpoint has no tokenizer", where=bundle.reference)
    start, eos = ids.bos if ids.start is None else ids.start, next(iter(ids.eos), None)
    if (start is None or eos is None) and objective != "masked_lm":
        raise CheckpointError("the checkpoint states no start or no eos id", where=bundle.reference)
    if objective in ("causal_lm", "masked_lm"):
        most = bundle.decoder.config.max_positions
        length = _length(recipe, "data.max_target_length", data.max_target_length, most)
        if recipe.training.packing:
            assert start is not None
            assert eos is not None
            return PackedDataset(rows=rows, tokenizer=target, start_id=start, eos_id=eos, block_length=length)
        return TextDataset(
            rows=rows,
            tokenizer=target,
            objective="causal_lm" if objective == "causal_lm" else "masked_lm",
            start_id=start,
            eos_id=eos,
            max_length=length,
            whole_word=recipe.training.whole_word,
            seed=recipe.training.seed,
        )
    assert isinstance(bundle.model, Seq2Seq)
    assert start is not None
    assert eos is not None
    source_length, target_length = _lengths(recipe, bundle.model)
    if objective == "denoise":
        return DenoiseDataset(
            rows=rows,
            source_tokenizer=source,
            target_tokenizer=target,
            noise=_noise(recipe, source, target),
            start_id=start,
            eos_id=eos,
            first_id=bundle.first_id,
            max_source_length=source_length,
            max_target_length=target_length,
            seed=recipe.training.seed,
        )
    return PairDataset(
        rows=rows,
        source_tokenizer=source,
        target_tokenizer=target,
        start_id=start,
        eos_id=eos,
        first_id=bundle.first_id,
        max_source_length=source_length,
        max_target_length=target_length,
        source_prefix=data.source_prefix,
    )


def _noise(recipe: Recipe, source: Tokenizer, target: Tokenizer) -> Noise:
    """The noise that the recipe names, else what the tokenizers were made for: spans where both sides have
    the same one with sentinels, infilling where the source's has a mask token."""
    training, where = recipe.training, where_of(recipe, "training.noise") or recipe.file
    sentinels = source.sentinel_ids if source.fingerprint == target.fingerprint else ()
    kind = training.noise or ("spans" if len(sentinels) > 1 else "infilling")
    if kind == "spans" and len(sentinels) < 2:
        raise UsageError(
            "noise: spans needs one tokenizer on both sides, with <extra_id_0>, <extra_id_1>, ...",
            where=where,
            remedy="write noise: infilling, or join sides of a T5",
        )
    if kind == "infilling" and source.mask_id is None:
        raise UsageError(
            "denoise needs a source tokenizer with a mask token, or sentinels (<extra_id_0>, ...)",
            where=where,
            remedy="take an encoder that has one, such as BERT, BART or T5",
        )
    marks = sentinels if kind == "spans" else (source.mask_id or 0,)
    density, mean = DEFAULTS[kind]
    return Noise(
        kind=kind,
        density=training.noise_density or density,
        mean_span_length=training.mean_span_length or mean,
        marks=marks,
    )


def _lengths(recipe: Recipe, model: Seq2Seq) -> tuple[int, int]:
    """The most tokens of a source and of a target: as asked for, else what the model takes."""
    source, target = recipe.data.max_source_length, recipe.data.max_target_length
    most_source = most_target = model.decoder.config.max_positions
    if isinstance(model, EncoderDecoder):
        most_source = model.encoder.config.max_positions
    else:  # both have to fit into one row of positions; what one side asks for, the other has not
        most_source -= target or 1
        most_target -= source or 1
    return (
        _length(recipe, "data.max_source_length", source, most_source)
        if source
        else min(model.longest_source if target is None else most_source, most_source),
        _length(recipe, "data.max_target_length", target, most_target)
        if target
        else min(model.longest_target if source is None else most_target, most_target),
    )


def _length(recipe: Recipe, key: str, asked: int | None, most: int) -> int:
    if asked is not None and asked > most:
        raise UsageError(
            f"{key.partition('.')[2]} {asked} is more than the {most} positions that the model has",
            where=where_of(recipe, key),
            remedy=f"at most {most}",
        )
    return asked or most
