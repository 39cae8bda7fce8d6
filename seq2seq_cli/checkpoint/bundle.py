"""A model with everything that belongs to it, read from a folder: stacks, both tokenizers, ids, defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seq2seq_cli import console
from seq2seq_cli.checkpoint.files import open_weights, read_config, read_json
from seq2seq_cli.checkpoint.loading import build_stack, fill, stack_config
from seq2seq_cli.checkpoint.references import resolve
from seq2seq_cli.checkpoint.report import LoadReport
from seq2seq_cli.errors import CheckpointError, Finding
from seq2seq_cli.families import Role, family_of
from seq2seq_cli.model import EncoderDecoder, EncoderDecoderConfig, SpecialIds, Stack
from seq2seq_cli.text.tokenizer import Tokenizer

#: where the target's tokenizer lies when it is not the source's
TARGET_TOKENIZER = "decoder_tokenizer"
_ID_KEYS = ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id")
#: decoding settings that files from before generation_config.json keep in config.json
_OLD_GENERATION_KEYS = (
    *("max_length", "min_length", "num_beams", "length_penalty", "early_stopping", "no_repeat_ngram_size"),
    *("do_sample", "temperature", "top_k", "top_p", "repetition_penalty", "num_return_sequences"),
    *("forced_bos_token_id", "forced_eos_token_id", "bad_words_ids"),
)


@dataclass(kw_only=True)
class Bundle:
    """``config`` is the config.json that the model came from or will be saved with; ``role`` says what a
    single stack was loaded as. Tokenizers are None when the folder has none."""

    model: EncoderDecoder | Stack
    config: dict[str, Any]
    role: Role = "cross_decoder"
    source_tokenizer: Tokenizer | None = None
    target_tokenizer: Tokenizer | None = None
    report: LoadReport = field(default_factory=LoadReport)
    reference: str = ""

    @property
    def decoder(self) -> Stack:
        """The stack that writes: the pair's decoder, or the single stack itself."""
        return self.model.decoder if isinstance(self.model, EncoderDecoder) else self.model

    @property
    def is_trained(self) -> bool:
        """False for a pair that was combined here and never fine-tuned."""
        return bool(self.config.get("s2s", {}).get("trained", True))


@dataclass(frozen=True, kw_only=True)
class Half:
    """One side of a folder: its config.json, its weights under published names without the pair's prefix."""

    config: dict[str, Any]
    weights: Mapping[str, Tensor]
    where: str


def is_pair(config: Mapping[str, Any]) -> bool:
    """True for the config of an encoder-decoder folder."""
    return config.get("model_type") == "encoder-decoder"


def open_half(folder: Path, side: str, *, with_weights: bool = True) -> Half:
    """The ``side`` (encoder or decoder) of a pair's folder, or the whole of a single stack's.

    Without weights only the config is read, and the folder need not have any.
    """
    config = read_config(folder)
    weights: Mapping[str, Tensor] = open_weights(folder) if with_weights else {}
    where = str(folder / "config.json")
    if not is_pair(config):
        return Half(config=config, weights=dict(weights), where=where)
    nested = config.get(side)
    if not isinstance(nested, dict):
        raise CheckpointError(f"config.json has no {side!r} section", where=where)
    prefix = f"{side}."
    if (
        side == "encoder" and _share(config) == "all"
    ):  # 4.x files of shared models hold the decoder's copy only
        prefix = "decoder."
    return Half(config=nested, weights=_under(prefix, weights), where=f"{where} ({side})")


def _share(config: Mapping[str, Any]) -> Any:
    """What the two sides of a pair's folder share; 4.x says it in a key of its own."""
    return config.get("s2s", {}).get("share") or ("all" if config.get("tie_encoder_decoder") else "none")


def _under(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, without it."""
    return {n.removeprefix(prefix): weights[n] for n in weights if n.startswith(prefix)}


def load_bundle(reference: str, *, role: Role | None = None) -> Bundle:
    """Load what ``reference`` names.

    role None: an encoder-decoder where the folder is one, else the language model of a single stack.
    role encoder/decoder/masked_lm: that one stack (of a pair's folder: its encoder or decoder).
    CheckpointError when anything is missing, unexpected, of another shape or not finite.
    """
    folder = resolve(reference).folder
    config = read_config(folder)
    if is_pair(config) and role is None:
        return _load_pair(folder, config, reference)
    return _load_single(folder, config, reference, role or "decoder")


def _load_single(folder: Path, config: dict[str, Any], reference: str, role: Role) -> Bundle:
    side = "encoder" if role in ("encoder", "masked_lm") else "decoder"
    half = open_half(folder, side)
    family = family_of(half.config, where=half.where)
    stack, report = build_stack(
        family, stack_config(family, half.config, role, where=half.where), half.weights, where=half.where
    )
    generation = read_json(folder, "generation_config.json") or {}
    stack.special_ids = special_ids({**family.options, **half.config}, generation, stack.config.vocab_size)
    stack.generation = generation_defaults(config, generation)
    source = Tokenizer.from_folder(folder)
    target = Tokenizer.from_folder(folder / TARGET_TOKENIZER) if is_pair(config) else None
    tokenizer = source if side == "encoder" else target or source
    return Bundle(
        model=stack,
        config=half.config,
        role=role,
        source_tokenizer=tokenizer,
        target_tokenizer=tokenizer,
        report=report,
        reference=reference,
    )


def _load_pair(folder: Path, config: dict[str, Any], reference: str) -> Bundle:
    stacks, reports = {}, {}
    for side, role in (("encoder", "encoder"), ("decoder", "cross_decoder")):
        half = open_half(folder, side)
        family = family_of(half.config, where=half.where)
        translated = stack_config(family, half.config, role, where=half.where)  # type: ignore[arg-type]
        stacks[side], reports[side] = build_stack(family, translated, half.weights, where=half.where)
    projection = _under("enc_to_dec_proj.", open_weights(folder))
    model, fresh = join(stacks["encoder"], stacks["decoder"], share=_share(config), projection=projection)
    if fresh.fresh:
        raise CheckpointError(
            "enc_to_dec_proj is missing although the widths differ", where=str(folder / "config.json")
        )
    generation = read_json(folder, "generation_config.json") or {}
    fallback = {key: config["decoder"].get(key) for key in _ID_KEYS if key not in config}
    model.special_ids = special_ids(
        {**fallback, **config}, generation, model.decoder.config.vocab_size, start_from_bos=True
    )
    model.generation = generation_defaults(config, generation)
    source = Tokenizer.from_folder(folder)
    target = Tokenizer.from_folder(folder / TARGET_TOKENIZER)
    if target is None and config.get("s2s", {}).get("same_tokenizer", True):
        target = source
    return Bundle(
        model=model,
        config=config,
        source_tokenizer=source,
        target_tokenizer=target,
        report=reports["encoder"].prefixed("encoder") + reports["decoder"].prefixed("decoder") + fresh,
        reference=reference,
    )


def join(
    encoder: Stack,
    decoder: Stack,
    *,
    share: Any = "none",
    projection: Mapping[str, Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> tuple[EncoderDecoder, LoadReport]:
    """Two stacks as one model; the projection between their widths is read or fresh."""
    config = EncoderDecoderConfig(encoder=encoder.config, decoder=decoder.config, share=share)
    with torch.device("meta"):
        model = EncoderDecoder(config)
    model.encoder, model.decoder = encoder, decoder
    loaded: dict[str, int] = {}
    fresh: dict[str, int] = {}
    if model.projection is not None:
        given = dict(projection or {})
        for name, parameter in model.projection.named_parameters():
            if name in given and given[name].shape != parameter.shape:
                raise CheckpointError(
                    f"enc_to_dec_proj.{name} has the wrong shape {tuple(given[name].shape)}"
                )
            (loaded if name in given else fresh)[f"projection.{name}"] = parameter.numel()
        fill(model.projection, given)
        if fresh:
            torch.nn.init.normal_(model.projection.weight, std=decoder.config.init_std, generator=generator)
            torch.nn.init.zeros_(model.projection.bias)
    model.tie()
    return model.eval(), LoadReport(loaded=loaded, fresh=fresh)


def special_ids(
    config: Mapping[str, Any],
    generation: Mapping[str, Any],
    vocab_size: int,
    *,
    start_from_bos: bool = False,
) -> SpecialIds:
    """The ids that a folder states; generation_config.json wins over config.json. Ids beyond the vocabulary
    (defaults that a small model never adjusted) count as not stated."""

    def stated(key: str) -> list[int]:
        value = generation.get(key) if generation.get(key) is not None else config.get(key)
        values = value if isinstance(value, list) else [value]
        wrong = [v for v in values if v is not None and (not isinstance(v, int) or isinstance(v, bool))]
        if wrong:
            raise CheckpointError(findings=[Finding(f"{key}={value!r} is not a token id", "config.json")])
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
    """How the checkpoint wants to be decoded: generation_config.json, and what an old config.json says."""
    old = {key: config[key] for key in _OLD_GENERATION_KEYS if key in config}
    return {key: value for key, value in {**old, **generation}.items() if key not in _ID_KEYS}


def warn_if_untrained(bundle: Bundle) -> None:
    """Say so when a pair was combined but never fine-tuned: its cross-attention is random."""
    if not bundle.is_trained:
        console.warn(
            f"{bundle.reference or 'this model'} was combined but never fine-tuned: its fresh parameters are "
            "random and so is its output · run s2s finetune first"
        )
