"""Published tokenizer files → a ``tokenizers.Tokenizer``, its tokenizer_config.json and its rule over words.

The rules are those of transformers 5 (``AutoTokenizer``), so that ids are equal: the families' tokenizers
are rebuilt from their vocabulary by the settings in tokenizer_config.json, even where there is a
tokenizer.json; any other class is its tokenizer.json as it stands. Only files with fixed names inside the
folder are opened. Names of files or code inside tokenizer_config.json are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.text import unigram, words
from seq2seq_cli.text.backends import backend_of, rust_errors
from seq2seq_cli.text.files import read_json, regular_file
from seq2seq_cli.text.growth import check_growth
from seq2seq_cli.text.parts import Parts
from seq2seq_cli.text.pipelines import BUILDERS, finish
from seq2seq_cli.text.special_tokens import (
    add_tokens,
    default_tokens,
    further_tokens,
    inferred,
    special_tokens,
    with_mask_of,
)
from seq2seq_cli.text.tokenizer import NAMED_TOKENS
from seq2seq_cli.text.words import Words

_NEVER_KEPT = ("auto_map", "name_or_path", "chat_template", "add_bos_token", "add_eos_token", "init_inputs")


@dataclass(frozen=True, kw_only=True)
class Found:
    """A folder's tokenizer: the backend, the configuration to keep, the rule of a family over words,
    whether the folder brings regular expressions of its own, and the files of its vocabulary and of its added
    tokens."""

    backend: tokenizers.Tokenizer
    config: dict[str, object]
    words: Words | None
    has_patterns: bool
    files: tuple[str, str]


def read_folder(folder: Path) -> Found | None:
    """The tokenizer in ``folder``, or None when it has no tokenizer files.

    Raises :class:`CheckpointError` that names the file.
    """
    published = read_json(folder / "tokenizer.json")
    if published is not None:
        check_growth(published, folder / "tokenizer.json")
    config = read_json(folder / "tokenizer_config.json") or {}
    found = _family(folder, config, published)
    if found is None:
        return None
    class_name, family = found

    added, named, extra = special_tokens(folder, config, published)
    named = {**default_tokens(family), **named}
    tokens = {name: token for name in NAMED_TOKENS if (token := named.get(name)) is not None}
    tokens = with_mask_of(family, tokens)
    parts = Parts(folder=folder, config=config, named=tokens, published=published)
    kept: dict[str, object] = {
        key: value
        for key, value in config.items()
        if (value is None or isinstance(value, bool | int | float | str))
        and key not in _NEVER_KEPT
        and not key.endswith(("_file", "_token"))
    }
    rule: Words | None = None
    further: Sequence[str | AddedToken] = further_tokens(family)
    if family in words.FAMILIES:
        backend, rule = words.build_words(family, parts)
    elif family in unigram.FAMILIES:
        backend, further, settings = unigram.build_unigram(family, parts)
        kept |= settings
    elif family == "generic":
        backend = _as_published(parts)
    else:
        backend = BUILDERS[family](parts)
    extra = list(further) if extra is None else extra
    special: Sequence[str | AddedToken] = list(tokens.values())
    if rule is not None:  # how these match is said by added_tokens_decoder alone
        special, extra = [str(token) for token in special], [str(token) for token in extra]
    add_tokens(backend, added, special, extra, folder)
    for number, token in added.items() if rule is not None else ():
        if backend.token_to_id(str(token)) != number:
            raise CheckpointError(
                f"{str(token)!r} has the id {number}, which does not follow the vocabulary",
                where=str(parts.config_file),
            )
    finish(backend, family, parts)
    if family == "generic":
        tokens = {**inferred(backend), **tokens}
    elif further or (rule is not None and extra):  # where none are listed, the family has its own
        kept["extra_special_tokens"] = [str(token) for token in extra]
    kept["tokenizer_class"] = class_name
    return Found(
        backend=backend,
        config={**kept, **{name: str(token) for name, token in tokens.items()}},
        words=rule,
        has_patterns=family == "generic" and _has_patterns(published),
        files=_files(parts, family, is_rule=rule is not None),
    )


def _files(parts: Parts, family: str, *, is_rule: bool) -> tuple[str, str]:
    """Where the vocabulary and the added tokens are read."""
    vocabulary = parts.json_file
    if is_rule or parts.published is None:
        names = _FILES_OF_FAMILY[family]
        vocabulary = next(parts.folder / name for name in names if (parts.folder / name).is_file())
    added = parts.json_file if parts.published is not None else parts.folder / "added_tokens.json"
    if "added_tokens_decoder" in parts.config or not added.is_file():
        added = parts.config_file
    return str(vocabulary), str(added)


def _has_patterns(published: Mapping[str, Any] | None) -> bool:
    steps = [(published or {}).get(name) for name in ("normalizer", "pre_tokenizer", "decoder")]
    return '"Regex":' in json.dumps(steps)


def _as_published(parts: Parts) -> tokenizers.Tokenizer:
    assert parts.published is not None
    with rust_errors(parts.json_file, "the tokenizer is not accepted"):
        return backend_of(parts.published)


# -- which family ------------------------------------------------------------------------------------------

_FAMILY_OF_CLASS = {
    "BertTokenizer": "bert",
    "DistilBertTokenizer": "bert",
    "ElectraTokenizer": "bert",
    "GPT2Tokenizer": "gpt2",
    "RobertaTokenizer": "roberta",
    "BartTokenizer": "roberta",
    "LongformerTokenizer": "roberta",
    "OpenAIGPTTokenizer": "openai-gpt",
    "AlbertTokenizer": "albert",
    "XLNetTokenizer": "xlnet",
    "T5Tokenizer": "t5",
    "MT5Tokenizer": "t5",
    "CamembertTokenizer": "camembert",
    "XLMRobertaTokenizer": "xlm-roberta",
    "MBartTokenizer": "mbart",
    "CTRLTokenizer": "ctrl",
    "XLMTokenizer": "xlm",
    "TransfoXLTokenizer": "transfo-xl",
}
_CLASS_OF_MODEL_TYPE = {
    "bert": "BertTokenizer",
    "distilbert": "BertTokenizer",
    "electra": "BertTokenizer",
    "gpt2": "GPT2Tokenizer",
    "roberta": "RobertaTokenizer",
    "bart": "RobertaTokenizer",
    "longformer": "RobertaTokenizer",
    "openai-gpt": "OpenAIGPTTokenizer",
    "albert": "AlbertTokenizer",
    "xlnet": "XLNetTokenizer",
    "t5": "T5Tokenizer",
    "mt5": "T5Tokenizer",
    "camembert": "CamembertTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "mbart": "MBartTokenizer",
    "ctrl": "CTRLTokenizer",
    "xlm": "XLMTokenizer",
    "transfo-xl": "TransfoXLTokenizer",
}
_MODEL_OF_FAMILY = {
    "bert": "WordPiece",
    **dict.fromkeys(("gpt2", "roberta", "openai-gpt"), "BPE"),
    **dict.fromkeys(unigram.FAMILIES, "Unigram"),
}
#: What a family is read from where there is no tokenizer.json; the first that is there decides.
_FILES_OF_FAMILY: dict[str, tuple[str, ...]] = {
    "bert": ("vocab.txt",),
    **dict.fromkeys(("gpt2", "roberta", "openai-gpt", "ctrl", "xlm"), ("vocab.json",)),
    "transfo-xl": (*words.PICKLED, "vocab.txt"),
    **{family: (file,) for family, file in unigram.MODEL_FILES.items()},
}
_PLAIN_CLASSES = ("", "PreTrainedTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend", "PythonBackend")
_FILES = tuple(
    dict.fromkeys([*(name for files in _FILES_OF_FAMILY.values() for name in files), "tokenizer.model"])
)


def _family(
    folder: Path, config: Mapping[str, Any], published: Mapping[str, Any] | None
) -> tuple[str, str] | None:
    """The class name to keep and the family of rules; None when there is no tokenizer."""
    there = [name for name in _FILES if regular_file(folder, name) is not None]
    class_name = _class_name(folder, config)
    if published is None and not there:
        return None
    family = _FAMILY_OF_CLASS.get(class_name, "generic")
    if family in words.FAMILIES and any(name in there for name in _FILES_OF_FAMILY[family]):
        return class_name, family  # transformers too takes these files and no tokenizer.json
    if published is not None:
        # A BERT class over a BPE file is a slip of the publisher: the file is the better witness.
        if _MODEL_OF_FAMILY.get(family) != _model_type(published):
            family = "generic"
        return class_name or "PreTrainedTokenizerFast", family
    if not class_name and ("vocab.txt" in there or "vocab.json" in there):
        class_name = _class_from_files(folder)
    if class_name not in _FAMILY_OF_CLASS:
        raise CheckpointError(
            f"a {class_name or 'SentencePiece'} without a tokenizer.json is not understood",
            where=str(folder / there[0]),
            remedy="load it with transformers' AutoTokenizer and save it: that writes a tokenizer.json",
        )
    return class_name, _FAMILY_OF_CLASS[class_name]


def _class_name(folder: Path, config: Mapping[str, Any]) -> str:
    model_config = read_json(folder / "config.json") or {}
    named = config.get("tokenizer_class") or model_config.get("tokenizer_class")
    model_type = model_config.get("model_type")
    if model_type == "encoder-decoder" and isinstance(model_config.get("encoder"), dict):
        model_type = model_config["encoder"].get("model_type")
    class_name = str(named or _CLASS_OF_MODEL_TYPE.get(str(model_type), "")).removesuffix("Fast")
    plain = class_name + "Fast" in _PLAIN_CLASSES or class_name in _PLAIN_CLASSES
    return "" if plain else class_name


def _class_from_files(folder: Path) -> str:
    if (folder / "vocab.txt").is_file():
        return "BertTokenizer"
    vocab = read_json(folder / "vocab.json") or {}
    return "RobertaTokenizer" if {"<s>", "</s>", "<mask>"} <= vocab.keys() else "GPT2Tokenizer"


def _model_type(published: Mapping[str, Any]) -> str:
    model = published.get("model")
    if not isinstance(model, dict):
        return ""
    if "type" in model:
        return str(model["type"])
    # Files of the first versions carry no type.
    if isinstance(model.get("vocab"), list):
        return "Unigram"
    return "BPE" if "merges" in model else "WordPiece"
