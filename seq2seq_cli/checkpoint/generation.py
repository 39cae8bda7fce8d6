"""What a folder says about decoding: its special ids, and how it wants to be decoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from seq2seq_cli.checkpoint.strict_json import shown
from seq2seq_cli.errors import CheckpointError, Finding, counted
from seq2seq_cli.model import SpecialIds

ID_KEYS = ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id")
#: decoding settings that files from before generation_config.json keep in config.json
OLD_GENERATION_KEYS = (
    *("max_length", "min_length", "num_beams", "length_penalty", "early_stopping", "no_repeat_ngram_size"),
    *("do_sample", "temperature", "top_k", "top_p", "repetition_penalty", "num_return_sequences"),
    *("forced_bos_token_id", "forced_eos_token_id", "bad_words_ids"),
)
#: tokens to force or to avoid
_TOKEN_KEYS = (
    *("forced_bos_token_id", "forced_eos_token_id", "bad_words_ids", "force_words_ids"),
    *("suppress_tokens", "begin_suppress_tokens"),
)


def special_ids(
    config: Mapping[str, Any],
    generation: Mapping[str, Any],
    vocab_size: int,
    *,
    start_from_bos: bool = False,
    folder: Path | None = None,
) -> SpecialIds:
    """The ids that a folder states; generation_config.json wins over config.json. Ids beyond the vocabulary
    (defaults that a small model never adjusted) count as not stated."""

    def stated(key: str) -> list[int]:
        value = generation.get(key) if generation.get(key) is not None else config.get(key)
        values = value if isinstance(value, list) else [value]
        wrong = [v for v in values if v is not None and (not isinstance(v, int) or isinstance(v, bool))]
        if wrong:
            name = "config.json" if generation.get(key) is None else "generation_config.json"
            where = name if folder is None else str(folder / name)
            raise CheckpointError(f"{key}={shown(value)} is not a token id", where=where)
        return [v for v in values if v is not None and 0 <= v < vocab_size]

    def first(key: str) -> int | None:
        return next(iter(stated(key)), None)

    start = first("decoder_start_token_id")
    if start is None and start_from_bos:
        start = first("bos_token_id")
    return SpecialIds(
        start=start, eos=tuple(stated("eos_token_id")), pad=first("pad_token_id"), bos=first("bos_token_id")
    )


def generation_defaults(config: Mapping[str, Any], generation: Mapping[str, Any]) -> dict[str, object]:
    """How the checkpoint wants to be decoded: generation_config.json, and what an old config.json says. It
    has no say in which other checkpoints are loaded."""
    old = {key: config[key] for key in OLD_GENERATION_KEYS if key in config}
    no_wish = (*ID_KEYS, "draft_model", "draft_tokens")
    return {key: value for key, value in {**old, **generation}.items() if key not in no_wish}


def wish_file(reference: str, config: Mapping[str, Any], wished: Mapping[str, Any], key: str) -> str:
    """The file of a checkpoint that a key of what it ``wished`` for (``generation_defaults``) is from."""
    old = key in OLD_GENERATION_KEYS and key in config and config[key] == wished.get(key)
    return f"{reference}/{'config.json' if old else 'generation_config.json'}"


def wished_by(
    folder: Path, config: Mapping[str, Any], generation: Mapping[str, Any], vocab_size: int
) -> dict[str, object]:
    """``generation_defaults``; CheckpointError for tokens to force or to avoid that the vocabulary lacks."""
    found = generation_defaults(config, generation)
    wrong = [
        Finding(
            f"{key}: {number} is not one of the model's {vocab_size} tokens",
            str(folder / ("generation_config.json" if key in generation else "config.json")),
        )
        for key in _TOKEN_KEYS
        for number in _numbers(found.get(key))
        if not 0 <= number < vocab_size
    ]
    if wrong:
        raise CheckpointError(findings=counted(wrong))
    return found


def _numbers(value: object) -> Iterator[int]:
    """The whole numbers in lists of lists."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        waiting += value if isinstance(value, list) else []
        if isinstance(value, int) and not isinstance(value, bool):
            yield value
