"""A model with everything that belongs to it, read from a folder: stacks, both tokenizers, ids, defaults."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seq2seq_cli import console
from seq2seq_cli.checkpoint.files import open_weights, read_config, read_json
from seq2seq_cli.checkpoint.generation import ID_KEYS, generation_defaults, special_ids, wish_file, wished_by
from seq2seq_cli.checkpoint.halves import Half, is_pair, is_single_stack, open_half, share_of, whole_of
from seq2seq_cli.checkpoint.loading import (
    build_stack,
    check_tensors,
    fill,
    full_config,
    placed,
    stack_config,
)
from seq2seq_cli.checkpoint.references import resolve
from seq2seq_cli.checkpoint.report import LoadReport
from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.families import Role, family_of
from seq2seq_cli.families.family import Whole
from seq2seq_cli.model import (
    EncoderDecoder,
    PrefixModel,
    Seq2Seq,
    Share,
    Stack,
)
from seq2seq_cli.model.lora import LoraSettings
from seq2seq_cli.text.tokenizer import Tokenizer

#: where the target's tokenizer lies when it is not the source's
TARGET_TOKENIZER = "decoder_tokenizer"
#: where the updates lie that were learnt beside a model that stood still
ADAPTER = "adapter"
#: the published prefix of the map between the two widths
_PROJECTION = "enc_to_dec_proj."
#: what looks at generation settings, and at what gives the file of one, before a model is loaded
Check = Callable[[Mapping[str, object], Callable[[str], str]], object]


@dataclass(frozen=True, kw_only=True)
class AdapterNotes:
    """What an adapter is: its settings, and the parameters that it holds whole, by our names."""

    settings: LoraSettings
    whole: frozenset[str]


@dataclass(kw_only=True)
class Bundle:
    """``config`` is the config.json that the model came from or will be saved with; ``role`` says what a
    single stack was loaded as. Tokenizers are None when the folder has none. ``adapter``: what was or is
    learnt beside a model that stands still."""

    model: Seq2Seq | Stack
    config: dict[str, Any]
    role: Role = "cross_decoder"
    source_tokenizer: Tokenizer | None = None
    target_tokenizer: Tokenizer | None = None
    report: LoadReport = field(default_factory=LoadReport)
    reference: str = ""
    adapter: AdapterNotes | None = None

    @property
    def decoder(self) -> Stack:
        """The stack that writes: the pair's decoder, or the single stack itself."""
        return self.model if isinstance(self.model, Stack) else self.model.decoder

    @property
    def single_stack(self) -> Stack | None:
        """The one stack of a model that has no second; None for a pair."""
        if isinstance(self.model, EncoderDecoder):
            return None
        return self.decoder

    @property
    def first_id(self) -> int | None:
        """What decoding is forced to write first, as published BARTs are; targets have it, too."""
        value = self.model.generation.get("forced_bos_token_id")
        if isinstance(value, int) and 0 <= value < self.decoder.config.vocab_size:
            return value
        return None

    def wish_file(self, key: str) -> str:
        """The file of the checkpoint that a key of ``model.generation`` was read from."""
        return wish_file(self.reference, self.config, self.model.generation, key)

    @property
    def control_ids(self) -> frozenset[int]:
        """The tokens of which a prompt should begin with one: those of the family's control codes that the
        vocabulary has. None for a pair, and for what was made here of texts of the user's own."""
        tokenizer = self.source_tokenizer
        if not isinstance(self.model, Stack) or tokenizer is None or "s2s" in self.config:
            return frozenset()
        spelled = tokenizer.encode(family_of(self.config).control_codes, special=False)
        return frozenset(ids[0] for ids in spelled if len(ids) == 1 and ids[0] != tokenizer.unk_id)

    @property
    def is_trained(self) -> bool:
        """False for a pair that was combined here and never fine-tuned."""
        return bool(self.config.get("s2s", {}).get("trained", True))


def load_bundle(
    reference: str,
    *,
    role: Role | None = None,
    check: Check | None = None,
) -> Bundle:
    """Load what ``reference`` names.

    role None: an encoder-decoder where the folder is one, else the language model of a single stack, which
    writes the way it was published or trained; with role decoder it writes from left to right like any other.
    role encoder/decoder/masked_lm: that one stack (of a pair's folder: its encoder or decoder).
    ``check`` sees how the checkpoint wants to be decoded, and which file says so of a key, before its weights
    are read.
    CheckpointError when anything is missing, unexpected, of another shape or not finite.
    """
    folder = resolve(reference).folder
    config = read_config(folder)
    if check is not None:
        wished = generation_defaults(config, read_json(folder, "generation_config.json") or {})
        check(wished, partial(wish_file, reference, config, wished))
    if not isinstance(config.get("s2s", {}), dict):
        raise CheckpointError("the key s2s is not a mapping", where=str(folder / "config.json"))
    if role is None and is_pair(config):
        return _load_pair(folder, config, reference)
    if role is None and is_single_stack(config):
        return _load_prefix(folder, config, reference)
    whole = whole_of(config)
    if role is None and whole is not None:
        return _load_whole(folder, whole, config, reference)
    bundle = _load_single(folder, config, reference, role or "decoder")
    if role is None:
        family = family_of(bundle.config)
        with placed(str(folder / "config.json")):
            bundle.decoder.open_place = family.open_place(full_config(family, bundle.config))
    return bundle


def _load_single(folder: Path, config: dict[str, Any], reference: str, role: Role) -> Bundle:
    side = "encoder" if role in ("encoder", "masked_lm") else "decoder"
    half = open_half(folder, side)
    stack, report = _build(half, role)
    generation = read_json(folder, "generation_config.json") or {}
    options = family_of(half.config).options
    stack.special_ids = special_ids(
        {**options, **half.config}, generation, stack.config.vocab_size, folder=folder
    )
    stack.generation = wished_by(folder, config, generation, stack.config.vocab_size)
    source = Tokenizer.from_folder(folder)
    target = Tokenizer.from_folder(folder / TARGET_TOKENIZER) if is_pair(config) else None
    tokenizer = source if side == "encoder" else target or source
    _check_fit((tokenizer, stack))
    return Bundle(
        model=stack,
        config=half.config,
        role=role,
        source_tokenizer=tokenizer,
        target_tokenizer=tokenizer,
        report=report,
        reference=reference,
    )


def _load_prefix(folder: Path, config: dict[str, Any], reference: str) -> Bundle:
    """One stack that was combined or trained to write targets for sources."""
    bundle = _load_single(folder, config, reference, "decoder")
    assert isinstance(bundle.model, Stack)
    model = PrefixModel(bundle.model).eval()
    ids = bundle.model.special_ids
    model.special_ids = replace(ids, start=ids.bos if ids.start is None else ids.start)
    model.generation = bundle.model.generation
    return replace(bundle, model=model, report=bundle.report.prefixed("stack"))


def _load_pair(folder: Path, config: dict[str, Any], reference: str) -> Bundle:
    left, right = open_half(folder, "encoder"), open_half(folder, "decoder")
    encoder, encoder_report = _build(left, "encoder")
    decoder, decoder_report = _build(right, "cross_decoder")
    weights, where = open_weights(folder), str(folder / "config.json")
    model, projected = join(
        encoder,
        decoder,
        share=share_of(config, where),
        projection=weights.under(_PROJECTION),
        unknown=[name for name in weights if not name.startswith(("encoder.", "decoder.", _PROJECTION))],
        where=where,
    )
    generation = read_json(folder, "generation_config.json") or {}
    fallback = {key: right.config.get(key) for key in ID_KEYS if key not in config}
    model.special_ids = special_ids(
        {**fallback, **config},
        generation,
        model.decoder.config.vocab_size,
        start_from_bos=True,
        folder=folder,
    )
    model.generation = wished_by(folder, config, generation, model.decoder.config.vocab_size)
    source = Tokenizer.from_folder(folder)
    target = Tokenizer.from_folder(folder / TARGET_TOKENIZER)
    if target is None and config.get("s2s", {}).get("same_tokenizer", True):
        target = source
    _check_fit((source, encoder), (target, decoder))
    return Bundle(
        model=model,
        config=config,
        source_tokenizer=source,
        target_tokenizer=target,
        report=encoder_report.prefixed("encoder") + decoder_report.prefixed("decoder") + projected,
        reference=reference,
    )


def _load_whole(folder: Path, whole: Whole, config: dict[str, Any], reference: str) -> Bundle:
    """A family's own encoder-decoder. Its sides have one token table where the published code sees one."""
    left, right = open_half(folder, "encoder"), open_half(folder, "decoder")
    weights, where, family = open_weights(folder), right.where, family_of(config)
    options = full_config(family, family.respelled(config))
    encoder, encoder_report = _build(left, "encoder")
    adds = whole.bias in right.weights and bool(right.weights[whole.bias].any())
    decoder, decoder_report = _build(right, "cross_decoder", adds_to_logits=adds)
    if adds and decoder.head is not None and decoder.head.bias is not None:
        decoder.head.bias.requires_grad_(False)  # published as numbers that are never trained
    tables = [dict(stack.embedding.named_parameters())["weight"] for stack in (encoder, decoder)]
    same = torch.equal(*tables)
    used = {*left.names, *right.names}
    unknown = [
        name
        for name in weights
        if name not in used
        and not name.endswith(whole.shared)
        and not any(re.fullmatch(rf"(.*\.)?{pattern}", name) for pattern in family.ignored)
    ]
    model, joined = join(
        encoder,
        decoder,
        share="embeddings" if same and (whole.one_table or options["tie_word_embeddings"]) else "none",
        projection={},
        unknown=unknown,
        where=where,
    )
    generation = read_json(folder, "generation_config.json")
    model.special_ids = special_ids(right.config, generation or {}, decoder.config.vocab_size, folder=folder)
    # without a generation_config.json the family's published defaults are how it wants to be decoded
    defaults = options if generation is None else config
    model.generation = wished_by(folder, defaults, generation or {}, decoder.config.vocab_size)
    source = Tokenizer.from_folder(folder)
    target = Tokenizer.from_folder(folder / TARGET_TOKENIZER) or source
    _check_fit((source, encoder), (target, decoder))
    return Bundle(
        model=model,
        config=config,
        source_tokenizer=source,
        target_tokenizer=target,
        report=encoder_report.prefixed("encoder") + decoder_report.prefixed("decoder") + joined,
        reference=reference,
    )


def _check_fit(*pairs: tuple[Tokenizer | None, Stack]) -> None:
    """Refuse tokenizers with ids that the stack beside them lacks."""
    for tokenizer, stack in pairs:
        if tokenizer is not None:
            tokenizer.check_fits(stack.config.vocab_size)


def _build(half: Half, role: Role, *, adds_to_logits: bool = False) -> tuple[Stack, LoadReport]:
    """A side as a stack, with nothing fresh. ``adds_to_logits``: its head has a bias."""
    family = family_of(half.config, where=half.where)
    config = stack_config(family, half.config, role, where=half.where)
    if config.head is not None and adds_to_logits:
        config = replace(config, head=replace(config.head, bias=True))
    return build_stack(family, config, half.weights, published=half.config, where=half.where)


def join(
    encoder: Stack,
    decoder: Stack,
    *,
    share: Share = "none",
    projection: Mapping[str, Tensor] | None = None,
    unknown: Collection[str] = (),
    generator: torch.Generator | None = None,
    where: str = "",
) -> tuple[EncoderDecoder, LoadReport]:
    """Two stacks as one model; ``projection`` is what a file has of the map between their widths, None =
    fresh. CheckpointError when it does not fit, when the file holds ``unknown`` names as well, and when the
    sides cannot share."""
    with torch.device("meta"):
        model = EncoderDecoder(encoder, decoder, share=share)
    wanted = dict(model.projection.named_parameters()) if model.projection is not None else {}
    given = {name: tensor for name, tensor in (projection or {}).items() if name in wanted}
    if projection is not None:
        strangers = [*unknown, *(f"{_PROJECTION}{name}" for name in projection if name not in wanted)]
        check_tensors(_named(wanted), _named(given), strangers, where=where)
    if model.projection is not None:
        fill(model.projection, given)
        if projection is None:
            torch.nn.init.normal_(model.projection.weight, std=decoder.config.init_std, generator=generator)
            torch.nn.init.zeros_(model.projection.bias)
    try:
        model.tie()
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"the two sides cannot share {share}: {error}", where=where) from None
    sizes = {name: parameter.numel() for name, parameter in _named(wanted).items()}
    report = LoadReport(fresh=sizes) if projection is None else LoadReport(loaded=sizes)
    return model.eval(), report


def _named(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters of the projection under their names in the whole model."""
    return {f"projection.{name}": tensor for name, tensor in parameters.items()}


def warn_if_untrained(bundle: Bundle) -> None:
    """Say so when a pair was combined but never fine-tuned: its cross-attention is random."""
    if not bundle.is_trained:
        fresh = "its fresh parameters are random and so is its output"
        if not bundle.config["s2s"].get("fresh", True):
            fresh = "nothing in it is fresh, but it never learned to write a target for a source"
        console.warn(
            f"{bundle.reference or 'this model'} was combined but never fine-tuned: {fresh} · run s2s "
            "finetune first"
        )
