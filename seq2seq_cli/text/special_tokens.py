"""The special and added tokens of a published tokenizer folder, from every file that can name them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.text.backends import rust_errors
from seq2seq_cli.text.files import mapping, read_json, token_id
from seq2seq_cli.text.tokenizer import NAMED_TOKENS

_FAIRSEQ: dict[str, str | AddedToken | None] = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}

#: What a family calls its special tokens where the folder does not say.
_DEFAULT_TOKENS: dict[str, dict[str, str | AddedToken | None]] = {
    "bert": {
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    },
    "gpt2": {"unk_token": "<|endoftext|>", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
    **dict.fromkeys(("roberta", "camembert", "xlm-roberta", "mbart"), _FAIRSEQ),
    "openai-gpt": {"unk_token": "<unk>"},
    "albert": {
        "bos_token": "[CLS]",
        "eos_token": "[SEP]",
        "unk_token": "<unk>",
        "sep_token": "[SEP]",
        "pad_token": "<pad>",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    },
    "xlnet": {**_FAIRSEQ, "sep_token": "<sep>", "cls_token": "<cls>"},
    "t5": {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
    "ctrl": {"unk_token": "<unk>"},
    "xlm": {
        "bos_token": "<s>",
        "unk_token": "<unk>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "cls_token": "</s>",
        "mask_token": "<special1>",
    },
    "transfo-xl": {"eos_token": "<eos>", "unk_token": "<unk>"},
}

#: Names that say what a token is for, where nobody named one. Only special added tokens are considered.
_WELL_KNOWN = {
    "pad_token": ("<pad>", "[PAD]", "<|padding|>"),
    "unk_token": ("<unk>", "[UNK]"),
    "bos_token": ("<s>", "<|startoftext|>", "<|begin_of_text|>", "<|endoftext|>"),
    "eos_token": ("</s>", "<|end_of_text|>", "<|endoftext|>"),
    "cls_token": ("[CLS]", "<cls>"),
    "sep_token": ("[SEP]", "<sep>"),
    "mask_token": ("[MASK]", "<mask>"),
}


def inferred(backend: tokenizers.Tokenizer) -> dict[str, str | AddedToken]:
    """The named tokens that the backend's own special tokens give away by their spelling."""
    special = {str(token) for token in backend.get_added_tokens_decoder().values() if token.special}
    found = {name: next((t for t in tokens if t in special), None) for name, tokens in _WELL_KNOWN.items()}
    return {name: token for name, token in found.items() if token is not None}


def default_tokens(family: str) -> dict[str, str | AddedToken | None]:
    """The named tokens that a family has where its folder does not say."""
    return dict(_DEFAULT_TOKENS.get(family, {}))


def further_tokens(family: str) -> list[str]:
    """The special tokens without a name that a family over words has where its folder does not say."""
    return {"xlm": [f"<special{i}>" for i in range(10)], "transfo-xl": ["<formula>"]}.get(family, [])


#: The families whose mask takes the spaces before it along.
_MASK_TAKES_SPACES = ("camembert", "xlnet", "mbart")


def with_mask_of(family: str, named: dict[str, str | AddedToken]) -> dict[str, str | AddedToken]:
    """``named`` with the mask token as the family wants it, where the folder gives no more than its text."""
    mask = named.get("mask_token")
    if family not in _MASK_TAKES_SPACES or not isinstance(mask, str):
        return named
    return {**named, "mask_token": AddedToken(mask, lstrip=True, special=True)}


def special_tokens(
    folder: Path, config: Mapping[str, Any], published: Mapping[str, Any] | None
) -> tuple[dict[int, AddedToken], dict[str, str | AddedToken | None], list[str | AddedToken] | None]:
    """(added tokens by id, named tokens, further special tokens or None where nothing says).

    ``added_tokens_decoder`` in tokenizer_config.json settles it; without it the older files
    special_tokens_map.json and added_tokens.json and tokenizer.json itself are merged.
    """
    place = folder / "tokenizer_config.json"
    named: dict[str, str | AddedToken | None] = {}
    raw = {key: config[key] for key in NAMED_TOKENS if key in config}
    extra = _further(config, place)
    added: dict[int, AddedToken] = {}
    if "added_tokens_decoder" in config:
        for key, value in mapping(config["added_tokens_decoder"], place).items():
            added[token_id(key, place)] = _token(value, place)
    else:
        place = folder / "special_tokens_map.json"
        special_map = read_json(place) or {}
        raw.update({key: special_map[key] for key in NAMED_TOKENS if key in special_map})
        more = _further(special_map, place)
        if isinstance(special_map.get("extra_special_tokens"), list):
            extra = [*(extra or []), *(more or [])]
        elif extra is None:
            extra = more
    for key, value in raw.items():
        named[key] = value if value is None or isinstance(value, str) else _token(value, place, special=True)
    if "added_tokens_decoder" not in config:
        special_names = {str(token) for token in (*named.values(), *(extra or ())) if token is not None}
        place = folder / "added_tokens.json"
        for content, number in (read_json(place) or {}).items():
            special = content in special_names
            added[token_id(number, place)] = AddedToken(content, normalized=not special, special=special)
        for entry in (published or {}).get("added_tokens") or []:
            place = folder / "tokenizer.json"
            added[token_id(mapping(entry, place).get("id"), place)] = _token(entry, place)
    by_content = {str(token): token for token in added.values()}
    named = {key: by_content.get(str(token), token) if token else None for key, token in named.items()}
    return added, named, extra


def _further(source: Mapping[str, Any], place: Path) -> list[str | AddedToken] | None:
    """The special tokens without a name that one file lists under its old or new key; None without a key."""
    key = "extra_special_tokens"
    if "additional_special_tokens" in source and not source.get(key):
        key = "additional_special_tokens"
    if key not in source:
        return None
    extra = source[key] or []
    if isinstance(extra, dict):
        extra = list(extra.values())
    if not isinstance(extra, list):
        raise CheckpointError("the list of further special tokens is not a list", where=str(place))
    return [value if isinstance(value, str) else _token(value, place, special=True) for value in extra]


def add_tokens(
    backend: tokenizers.Tokenizer,
    added: Mapping[int, AddedToken],
    named: Iterable[str | AddedToken],
    further: Iterable[str | AddedToken],
    folder: Path,
) -> None:
    """Add what the backend lacks: by id, then the named ones, then further special ones. New ids follow from
    the order; of two tokens with one text the later says how it is matched."""
    present = backend.get_added_tokens_decoder().values()
    as_they_are = {repr(token) for token in present}
    wanted: list[str | AddedToken] = [
        token for _, token in sorted(added.items()) if repr(token) not in as_they_are
    ]
    known = {str(token) for token in (*present, *wanted)}
    named = list(named)
    wanted += [token for token in (*named, *further) if str(token) not in known]
    names = {str(token) for token in named}
    tokens = [AddedToken(token, special=True) if isinstance(token, str) else token for token in wanted]
    for token in tokens:
        if str(token) in names:
            token.special = True
    with rust_errors(folder / "tokenizer_config.json", "an added token is not accepted"):
        backend.add_tokens(tokens)


def _token(value: object, path: Path, *, special: bool | None = None) -> AddedToken:
    """An added token from its published object; ``special`` overrules the object's own mark."""
    entry = mapping(value, path)
    content = entry.get("content")
    if not isinstance(content, str):
        raise CheckpointError("a special token has no text", where=str(path), remedy='give it a "content"')
    flags = {
        key: bool(entry[key])
        for key in ("single_word", "lstrip", "rstrip", "normalized", "special")
        if key in entry
    }
    return AddedToken(content, **({**flags, "special": special} if special is not None else flags))
