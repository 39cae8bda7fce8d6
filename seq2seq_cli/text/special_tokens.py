"""The special and added tokens of a published tokenizer folder, from every file that can name them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.text.files import mapping, read_json, token_id
from seq2seq_cli.text.tokenizer import NAMED_TOKENS, rust_errors

#: What a family calls its special tokens where the folder does not say.
DEFAULT_TOKENS: dict[str, dict[str, str | AddedToken | None]] = {
    "bert": {
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    },
    "gpt2": {"unk_token": "<|endoftext|>", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
    "roberta": {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "cls_token": "<s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
    },
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


def special_tokens(
    folder: Path, config: Mapping[str, Any], published: Mapping[str, Any] | None
) -> tuple[dict[int, AddedToken], dict[str, str | AddedToken | None], list[str | AddedToken]]:
    """(added tokens by id, named tokens, further special tokens).

    ``added_tokens_decoder`` in tokenizer_config.json settles it; without it the older files
    special_tokens_map.json and added_tokens.json and tokenizer.json itself are merged.
    """
    place = folder / "tokenizer_config.json"
    named: dict[str, str | AddedToken | None] = {}
    raw = {key: config[key] for key in NAMED_TOKENS if key in config}
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    added: dict[int, AddedToken] = {}
    if "added_tokens_decoder" in config:
        for key, value in mapping(config["added_tokens_decoder"], place).items():
            added[token_id(key, place)] = _token(value, place)
    else:
        place = folder / "special_tokens_map.json"
        special_map = read_json(place) or {}
        raw.update({key: special_map[key] for key in NAMED_TOKENS if key in special_map})
        extra = (
            special_map.get("extra_special_tokens") or special_map.get("additional_special_tokens") or extra
        )
    if isinstance(extra, dict):
        extra = list(extra.values())
    if not isinstance(extra, list):
        raise CheckpointError("the list of further special tokens is not a list", where=str(place))
    extra_tokens = [
        value if isinstance(value, str) else _token(value, place, special=True) for value in extra
    ]
    for key, value in raw.items():
        named[key] = value if value is None or isinstance(value, str) else _token(value, place, special=True)
    if "added_tokens_decoder" not in config:
        special_names = {str(token) for token in (*named.values(), *extra_tokens) if token is not None}
        place = folder / "added_tokens.json"
        for content, number in (read_json(place) or {}).items():
            special = content in special_names
            added[token_id(number, place)] = AddedToken(content, normalized=not special, special=special)
        for entry in (published or {}).get("added_tokens") or []:
            place = folder / "tokenizer.json"
            added[token_id(mapping(entry, place).get("id"), place)] = _token(entry, place)
    by_content = {str(token): token for token in added.values()}
    named = {key: by_content.get(str(token), token) if token else None for key, token in named.items()}
    return added, named, extra_tokens


def add_tokens(
    backend: tokenizers.Tokenizer,
    added: Mapping[int, AddedToken],
    special: Iterable[str | AddedToken],
    folder: Path,
) -> None:
    """Add what the backend lacks: by id, then the special ones. New ids follow from the order."""
    present = {repr(token) for token in backend.get_added_tokens_decoder().values()}
    contents = {str(token) for token in backend.get_added_tokens_decoder().values()}
    wanted = [token for _, token in sorted(added.items()) if repr(token) not in present]
    contents.update(map(str, wanted))
    for token in special:
        if str(token) not in contents:
            wanted.append(token if isinstance(token, AddedToken) else AddedToken(token, special=True))
            contents.add(str(token))
    names = {str(token) for token in special}
    for token in wanted:
        if str(token) in names:
            token.special = True
    with rust_errors(folder / "tokenizer_config.json", "an added token is not accepted"):
        backend.add_tokens(wanted)


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
