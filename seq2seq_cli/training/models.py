"""The model section of a recipe -> the model to train: joined, loaded again, or a single stack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch

from seq2seq_cli import __version__
from seq2seq_cli.checkpoint.bundle import (
    TARGET_TOKENIZER,
    Bundle,
    load_bundle,
)
from seq2seq_cli.checkpoint.files import read_config, read_json
from seq2seq_cli.checkpoint.generation import generation_defaults, special_ids
from seq2seq_cli.checkpoint.halves import is_encoder_decoder, is_single_stack, open_half
from seq2seq_cli.checkpoint.loading import full_config
from seq2seq_cli.checkpoint.references import Source, resolve
from seq2seq_cli.combiner import Side, combine, combine_single
from seq2seq_cli.combiner.sides import Opened, build
from seq2seq_cli.errors import CheckpointError, Finding, UsageError
from seq2seq_cli.families import Family, Role, family_named
from seq2seq_cli.families import family_of as family_by_config
from seq2seq_cli.model import SpecialIds
from seq2seq_cli.recipe import PAIRED, ModelSection, Recipe, SideSection, TrainTokenizer, where_of
from seq2seq_cli.text.tokenizer import Tokenizer
from seq2seq_cli.text.training import train_tokenizer

if TYPE_CHECKING:
    from seq2seq_cli.data.rows import Row

_Which = Literal["encoder", "decoder"]


def build_model(recipe: Recipe, rows: Sequence[Row]) -> Bundle:
    """The model that the recipe starts from. ``rows`` are what tokenizers are trained on, where the recipe
    asks for that: sources for the encoder's, targets for the decoder's, or the texts that rows have alone."""
    section = recipe.model
    objective = recipe.training.objective
    if objective in ("causal_lm", "masked_lm"):
        which: _Which = "decoder" if objective == "causal_lm" else "encoder"
        side = _side(section, which, _tokenizers(section, rows, only=which)[which])
        given = {key.removeprefix(f"{which}_"): value for key, value in section.set.items()}
        side = replace(side, settings={**given, **side.settings})
        return single_stack(side, "decoder" if objective == "causal_lm" else "masked_lm", seed=section.seed)
    unchanged = _unchanged_folder(section)
    is_single = unchanged is not None and is_single_stack(read_config(unchanged.folder))
    if objective == "prefix_lm" and not is_single:
        return combine_single(
            _side(section, "encoder", _one_tokenizer(section, rows)), settings=section.set, seed=section.seed
        )
    if unchanged is not None and (is_single or is_encoder_decoder(read_config(unchanged.folder))):
        return load_bundle(unchanged.reference)
    tokenizers = _tokenizers(section, rows, paired=objective in PAIRED)
    return combine(
        _side(section, "encoder", tokenizers["encoder"]),
        _side(section, "decoder", tokenizers["decoder"]),
        settings=section.set,
        share=section.share,
        seed=section.seed,
    )


def check_scratch(recipe: Recipe) -> None:
    """UsageError, with each finding's line, for families and options of sides from scratch that there are
    not."""
    findings = list[Finding]()
    for which in ("encoder", "decoder"):
        side: SideSection | None = getattr(recipe.model, which)
        if side is None or side.family is None:
            continue
        at = f"model.{which}"
        try:
            family = family_named(side.family, where=where_of(recipe, f"{at}.family"))
        except UsageError as error:
            findings += error.findings
            continue
        places = {key: where_of(recipe, f"{at}.config.{key}") for key in side.config}
        findings += family.unknown(side.config, places.__getitem__)
    if findings:
        raise UsageError(findings=findings)


def _unchanged_folder(section: ModelSection) -> Source | None:
    """The one checkpoint that the section names when it changes nothing about it."""
    plain = section.model_copy(update={"freeze": [], "seed": 0, "lora": None})
    asked = set(plain.model_dump(exclude_defaults=True))
    side = section.encoder
    if asked != {"encoder"} or side is None or side.checkpoint is None:
        return None
    alone = set(side.model_dump(exclude_defaults=True)) == {"checkpoint"}
    return resolve(side.checkpoint) if alone else None


def _section(section: ModelSection, which: _Which) -> SideSection:
    side = getattr(section, which) or section.encoder
    assert isinstance(side, SideSection)  # the recipe's own rules see to it
    return side


def _side(section: ModelSection, which: _Which, tokenizer: Tokenizer | None) -> Side:
    side = _section(section, which)
    return Side(
        reference=side.checkpoint,
        family=side.family,
        config=side.config,
        tokenizer=tokenizer,
        random=side.random or section.random in (which, "both"),
        settings=side.set,
    )


# -- tokenizers ------------------------------------------------------------------------------------------


def _tokenizers(
    section: ModelSection, rows: Sequence[Row], *, only: _Which | None = None, paired: bool = False
) -> dict[str, Tokenizer | None]:
    """encoder/decoder -> the tokenizer that the recipe gives it; None = the checkpoint's own."""
    asked: dict[_Which, str | TrainTokenizer | None] = {
        "encoder": section.tokenizers.source or (section.encoder.tokenizer if section.encoder else None),
        "decoder": section.tokenizers.target or _section(section, "decoder").tokenizer,
    }
    one = asked["encoder"] == asked["decoder"] and (section.decoder is None or section.share != "none")
    if isinstance(asked["encoder"], TrainTokenizer) and one and only is None:
        both = _train(asked["encoder"], (text for row in rows for text in (row.source, row.target)))
        return {"encoder": both, "decoder": both}
    made: dict[str, Tokenizer | None] = {}
    for which, spec in asked.items():
        if spec is None or only not in (None, which):
            made[which] = None
        elif isinstance(spec, str):
            made[which] = _read_tokenizer(spec, which)
        else:
            source = which == "encoder" and paired  # other rows have a target alone
            made[which] = _train(spec, (row.source if source else row.target for row in rows))
    return made


def _one_tokenizer(section: ModelSection, rows: Sequence[Row]) -> Tokenizer | None:
    """The tokenizer of a single stack that reads and writes; a trained one sees both texts of each row."""
    spec = section.tokenizers.source or (section.encoder.tokenizer if section.encoder else None)
    if isinstance(spec, TrainTokenizer):
        return _train(spec, (text for row in rows for text in (row.source, row.target)))
    return None if spec is None else _read_tokenizer(spec, "encoder")


def _train(spec: TrainTokenizer, texts: Iterable[str]) -> Tokenizer:
    return train_tokenizer(spec.train, spec.vocab_size, texts, lowercase=spec.lowercase)


def _read_tokenizer(reference: str, which: _Which) -> Tokenizer:
    folder = resolve(reference).folder
    own = Tokenizer.from_folder(folder / TARGET_TOKENIZER) if which == "decoder" else None
    found = own or Tokenizer.from_folder(folder)
    if found is None:
        raise CheckpointError("the folder has no tokenizer files", where=str(folder))
    return found


# -- single stacks ---------------------------------------------------------------------------------------


def single_stack(side: Side, role: Role, *, seed: int) -> Bundle:
    """One stack with its head: a language model (``decoder``) or a masked one (``masked_lm``).

    A head that the checkpoint lacks is fresh. UsageError for unknown settings or missing ids,
    CheckpointError for unusable folders.
    """
    family, config, weights, where, generation = _opened(side, "decoder" if role == "decoder" else "encoder")
    if unknown := family.unknown((*side.config, *side.settings), lambda _: where):
        raise UsageError(findings=unknown)
    tokenizer = side.tokenizer
    if tokenizer is None and side.reference is not None:
        tokenizer = _read_tokenizer(side.reference, "decoder" if role == "decoder" else "encoder")
    if tokenizer is None:
        raise UsageError("a stack from scratch needs a tokenizer", where=where)
    if weights is None and side.tokenizer is not None:
        config["vocab_size"] = tokenizer.vocab_size
    half = Opened(
        family=family,
        config={**config, **side.config, **side.settings},
        own=None if side.reference is None else dict(config),
        typed={key: key for key in side.settings},
        weights=weights,
        tokenizer=tokenizer,
        where=where,
        origin=side.reference or f"{family.name} from scratch",
    )
    generator = torch.Generator().manual_seed(seed)
    stack, report = build(half, role, may_be_fresh=lambda name: name.startswith("head."), generator=generator)
    config, origin = half.config, half.origin
    replaced = side.tokenizer is not None
    stack.special_ids = _ids(config, tokenizer, stack.config.vocab_size, replaced=replaced, where=where)
    stack.generation = generation_defaults({}, generation)
    ids = stack.special_ids
    config |= {"bos_token_id": ids.bos, "eos_token_id": ids.eos[0], "pad_token_id": ids.pad}
    config |= {"model_type": family.name, "architectures": [family.architectures[role]], "dtype": "float32"}
    config |= {"is_decoder": role == "decoder"}
    if role == "masked_lm" and "mask_token_id" in family.options:
        config["mask_token_id"] = tokenizer.mask_id  # what it will be trained with
    config["s2s"] = {
        "version": __version__,
        "origin": origin,
        "fresh": sorted(report.fresh),
        "trained": False,
    }
    return Bundle(
        model=stack,
        config=config,
        role=role,
        source_tokenizer=tokenizer,
        target_tokenizer=tokenizer,
        report=report,
        reference=origin,
    )


def _opened(
    side: Side, which: _Which
) -> tuple[Family, dict[str, Any], Mapping[str, torch.Tensor] | None, str, dict[str, Any]]:
    """Family, full configuration, weights (None = fresh), where it is from, generation_config.json."""
    if side.family is not None:
        family = family_named(side.family)
        return family, dict(family.options), None, f"{side.family} from scratch", {}
    assert side.reference is not None  # the recipe's own rules see to it
    folder = resolve(side.reference).folder
    half = open_half(folder, which, with_weights=not side.random)
    family = family_by_config(half.config, where=half.where)
    weights = None if side.random else half.weights
    generation = read_json(folder, "generation_config.json") or {}
    return family, full_config(family, half.config), weights, half.where, generation


def _ids(
    config: dict[str, Any], tokenizer: Tokenizer, vocab_size: int, *, replaced: bool, where: str
) -> SpecialIds:
    """Special ids: the configuration's, or with a tokenizer of one's own that one's."""
    stated = SpecialIds() if replaced else special_ids(config, {}, vocab_size)

    def first(*values: int | None) -> int | None:
        return next((value for value in values if value is not None), None)

    eos = first(*stated.eos, tokenizer.eos_id, tokenizer.sep_id)
    if eos is None:
        raise UsageError("no eos id is known", where=where, remedy="set eos_token_id in the side's set:")
    bos = first(stated.bos, tokenizer.bos_id, tokenizer.cls_id, eos)
    pad = first(stated.pad, tokenizer.pad_id, eos)
    return SpecialIds(bos=bos, eos=(eos,), pad=pad)
