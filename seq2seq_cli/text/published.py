"""Published tokenizer files → a ``tokenizers.Tokenizer`` and its tokenizer_config.json.

The rules are those of transformers 5 (``AutoTokenizer``), so that ids are equal: BERT, GPT-2 and RoBERTa
tokenizers are rebuilt from their vocabulary by the settings in tokenizer_config.json, even where there is a
tokenizer.json; any other class is its tokenizer.json as it stands. Only files with fixed names inside the
folder are opened. Names of files or code inside tokenizer_config.json are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.text.files import check_size, mapping, read_json, token_id
from seq2seq_cli.text.special_tokens import DEFAULT_TOKENS, add_tokens, inferred, special_tokens
from seq2seq_cli.text.tokenizer import rust_errors

_NEVER_KEPT = ("auto_map", "name_or_path", "chat_template", "add_bos_token", "add_eos_token", "init_inputs")


@dataclass(frozen=True, kw_only=True)
class _Pieces:
    """What a folder says about its tokenizer, before anything is built."""

    folder: Path
    config: Mapping[str, Any]
    named: dict[str, str | AddedToken]
    published: Mapping[str, Any] | None  # tokenizer.json


def read_folder(folder: Path) -> tuple[tokenizers.Tokenizer, dict[str, object]] | None:
    """The backend and the configuration to keep, or None when ``folder`` has no tokenizer files.

    Raises :class:`CheckpointError` that names the file.
    """
    published = read_json(folder / "tokenizer.json")
    has_legacy = (folder / "vocab.txt").is_file() or (folder / "vocab.json").is_file()
    config = read_json(folder / "tokenizer_config.json") or {}
    class_name, family = _family(folder, config, published, has_legacy)
    if published is None and not has_legacy:
        return None

    added, named, extra = special_tokens(folder, config, published)
    if family in DEFAULT_TOKENS:
        named = {**DEFAULT_TOKENS[family], **named}
    tokens = {name: token for name, token in named.items() if token is not None}
    pieces = _Pieces(folder=folder, config=config, named=tokens, published=published)
    backend = _BUILDERS[family](pieces)
    add_tokens(backend, added, (*tokens.values(), *extra), folder)
    _finish(backend, family, pieces)
    if family == "generic":
        tokens = {**inferred(backend), **tokens}
    kept = {
        key: value
        for key, value in config.items()
        if (value is None or isinstance(value, bool | int | float | str))
        and key not in _NEVER_KEPT
        and not key.endswith(("_file", "_token"))
    }
    kept["tokenizer_class"] = class_name
    return backend, {**kept, **{name: str(token) for name, token in tokens.items()}}


# -- which family ------------------------------------------------------------------------------------------

_FAMILY_OF_CLASS = {
    "BertTokenizer": "bert",
    "DistilBertTokenizer": "bert",
    "ElectraTokenizer": "bert",
    "GPT2Tokenizer": "gpt2",
    "RobertaTokenizer": "roberta",
    "BartTokenizer": "roberta",
    "LongformerTokenizer": "roberta",
}
_CLASS_OF_MODEL_TYPE = {
    "bert": "BertTokenizer",
    "distilbert": "BertTokenizer",
    "electra": "BertTokenizer",
    "gpt2": "GPT2Tokenizer",
    "roberta": "RobertaTokenizer",
    "bart": "RobertaTokenizer",
    "longformer": "RobertaTokenizer",
    "albert": "AlbertTokenizer",
    "camembert": "CamembertTokenizer",
    "ctrl": "CTRLTokenizer",
    "openai-gpt": "OpenAIGPTTokenizer",
    "t5": "T5Tokenizer",
    "transfo-xl": "TransfoXLTokenizer",
    "xlm": "XLMTokenizer",
    "xlnet": "XLNetTokenizer",
}
_MODEL_OF_FAMILY = {"bert": "WordPiece", "gpt2": "BPE", "roberta": "BPE"}
_PLAIN_CLASSES = ("", "PreTrainedTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend", "PythonBackend")
_OTHER_FILES = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "vocab.pkl", "vocab.bin")


def _family(
    folder: Path, config: Mapping[str, Any], published: Mapping[str, Any] | None, has_legacy: bool
) -> tuple[str, str]:
    """The class name to keep and the family of rules; a class without rules needs a tokenizer.json."""
    model_config = read_json(folder / "config.json") or {}
    named = config.get("tokenizer_class") or model_config.get("tokenizer_class")
    model_type = model_config.get("model_type")
    if model_type == "encoder-decoder" and isinstance(model_config.get("encoder"), dict):
        model_type = model_config["encoder"].get("model_type")
    class_name = str(named or _CLASS_OF_MODEL_TYPE.get(str(model_type), "")).removesuffix("Fast")
    if class_name + "Fast" in _PLAIN_CLASSES or class_name in _PLAIN_CLASSES:
        class_name = ""
    if published is not None:
        family = _FAMILY_OF_CLASS.get(class_name, "generic")
        # A BERT class over a BPE file is a slip of the publisher: the file is the better witness.
        if _MODEL_OF_FAMILY.get(family) != _model_type(published):
            family = "generic"
        return class_name or "PreTrainedTokenizerFast", family
    if not class_name and has_legacy:
        class_name = _class_from_files(folder)
    other = next((name for name in _OTHER_FILES if (folder / name).is_file()), None)
    if class_name in _FAMILY_OF_CLASS or (not has_legacy and other is None):
        return class_name, _FAMILY_OF_CLASS.get(class_name, "generic")
    raise CheckpointError(
        f"a {class_name or 'SentencePiece'} without a tokenizer.json is not understood",
        where=str(folder / (other or "tokenizer_config.json")),
        remedy="load it with transformers' AutoTokenizer and save it: that writes a tokenizer.json",
    )


def _class_from_files(folder: Path) -> str:
    if (folder / "vocab.txt").is_file():
        return "BertTokenizer"
    vocab = read_json(folder / "vocab.json") or {}
    return "RobertaTokenizer" if {"<s>", "</s>", "<mask>"} <= vocab.keys() else "GPT2Tokenizer"


def _model_type(published: Mapping[str, Any]) -> str:
    model = published.get("model")
    if not isinstance(model, dict):
        return ""
    # Files of the first versions carry no type.
    return str(model.get("type") or ("BPE" if "merges" in model else "WordPiece"))


# -- building ------------------------------------------------------------------------------------------------


def _bert(pieces: _Pieces) -> tokenizers.Tokenizer:
    file = _vocabulary_file(pieces, "vocab.txt")
    with rust_errors(file, "the vocabulary is not accepted"):
        vocab = _vocabulary(pieces) or models.WordPiece.read_file(str(file))
        backend = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token=_named(pieces, "unk_token")))
    lowercase = _flag(pieces, "do_lower_case", True)
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=_flag(pieces, "tokenize_chinese_chars", True),
        strip_accents=_optional_flag(pieces, "strip_accents"),
        lowercase=lowercase,
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    return backend


def _byte_level(pieces: _Pieces) -> tokenizers.Tokenizer:
    file = _vocabulary_file(pieces, "vocab.json")
    with rust_errors(file, "the vocabulary or merges.txt is not accepted"):
        vocab = _vocabulary(pieces)
        if vocab is not None:
            merges = _merges(pieces)
        else:
            _vocabulary_file(pieces, "merges.txt")
            vocab, merges = models.BPE.read_file(str(file), str(pieces.folder / "merges.txt"))
        model = models.BPE(vocab, merges, continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False)
    backend = tokenizers.Tokenizer(model)
    space = _flag(pieces, "add_prefix_space", False)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    backend.decoder = decoders.ByteLevel()
    return backend


def _as_published(pieces: _Pieces) -> tokenizers.Tokenizer:
    file = pieces.folder / "tokenizer.json"
    with rust_errors(file, "the tokenizer is not accepted"):
        return tokenizers.Tokenizer.from_str(json.dumps(pieces.published))


_BUILDERS: dict[str, Callable[[_Pieces], tokenizers.Tokenizer]] = {
    "bert": _bert,
    "gpt2": _byte_level,
    "roberta": _byte_level,
    "generic": _as_published,
}


def _finish(backend: tokenizers.Tokenizer, family: str, pieces: _Pieces) -> None:
    """The template of special tokens around a text; its ids are known once all tokens are added."""

    def pair(name: str) -> tuple[str, int]:
        token = _named(pieces, name)
        number = backend.token_to_id(token)
        assert number is not None  # every named token was added
        return token, number

    if family == "bert":
        cls, sep = pair("cls_token"), pair("sep_token")
        backend.post_processor = processors.TemplateProcessing(
            single=f"{cls[0]}:0 $A:0 {sep[0]}:0",
            pair=f"{cls[0]}:0 $A:0 {sep[0]}:0 $B:1 {sep[0]}:1",
            special_tokens=[cls, sep],
        )
    elif family == "roberta":
        trim = _flag(pieces, "trim_offsets", True)
        space = _flag(pieces, "add_prefix_space", False)
        backend.post_processor = processors.RobertaProcessing(
            pair("sep_token"), pair("cls_token"), trim_offsets=trim, add_prefix_space=space
        )
    elif family == "gpt2":
        backend.post_processor = _gpt2_template(pieces, pair)


def _gpt2_template(pieces: _Pieces, pair: Callable[[str], tuple[str, int]]) -> Any:
    """tokenizer.json's own; without one ``add_bos_token`` and ``add_eos_token`` say (OPT begins with bos)."""
    if pieces.published is not None and pieces.published.get("post_processor"):
        bare = {"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": []}
        bare["post_processor"] = pieces.published["post_processor"]
        with rust_errors(pieces.folder / "tokenizer.json", "the post_processor is not accepted"):
            return tokenizers.Tokenizer.from_str(json.dumps(bare)).post_processor
    legacy = pieces.published is None
    bos = pair("bos_token") if legacy and _flag(pieces, "add_bos_token", False) else None
    eos = pair("eos_token") if legacy and _flag(pieces, "add_eos_token", False) else None
    single = " ".join([*([f"{bos[0]}:0"] if bos else []), "$A:0", *([f"{eos[0]}:0"] if eos else [])])
    return processors.TemplateProcessing(
        single=single, pair=f"{single} $B:1", special_tokens=[token for token in (bos, eos) if token]
    )


# -- checked access ---------------------------------------------------------------------------------------


def _named(pieces: _Pieces, name: str) -> str:
    if name not in pieces.named:
        raise CheckpointError(
            f"the {name} is switched off, but this family's tokenizer needs it",
            where=str(pieces.folder / "tokenizer_config.json"),
        )
    return str(pieces.named[name])


def _optional_flag(pieces: _Pieces, key: str) -> bool | None:
    value = pieces.config.get(key)
    if value is not None and not isinstance(value, bool):
        raise CheckpointError(
            f"{key} must be true or false, not {value!r}", where=str(pieces.folder / "tokenizer_config.json")
        )
    return value


def _flag(pieces: _Pieces, key: str, default: bool) -> bool:
    value = _optional_flag(pieces, key)
    return default if value is None else value


def _vocabulary_file(pieces: _Pieces, name: str) -> Path:
    """The file that the vocabulary comes from: tokenizer.json, else ``name``, checked to be there."""
    if pieces.published is not None:
        return pieces.folder / "tokenizer.json"
    file = pieces.folder / name
    if not file.is_file():
        raise CheckpointError(f"{name} is missing", where=str(pieces.folder), remedy="fetch the folder again")
    check_size(file)
    return file


def _vocabulary(pieces: _Pieces) -> dict[str, int] | None:
    if pieces.published is None:
        return None
    vocab = mapping(
        mapping(pieces.published.get("model"), pieces.folder / "tokenizer.json").get("vocab"), pieces.folder
    )
    return {token: token_id(number, pieces.folder / "tokenizer.json") for token, number in vocab.items()}


def _merges(pieces: _Pieces) -> list[tuple[str, str]]:
    assert pieces.published is not None
    merges = []
    for entry in pieces.published["model"].get("merges") or []:
        parts = entry.split(" ") if isinstance(entry, str) else entry
        if not (isinstance(parts, list) and len(parts) == 2 and all(isinstance(p, str) for p in parts)):
            raise CheckpointError(
                f"not a pair of tokens in merges: {entry!r}", where=str(pieces.folder / "tokenizer.json")
            )
        merges.append((parts[0], parts[1]))
    return merges
