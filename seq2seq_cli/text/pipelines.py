"""WordPiece and BPE pipelines, and the template of special tokens of every family that has a pipeline."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.text import unigram
from seq2seq_cli.text.backends import rust_errors
from seq2seq_cli.text.parts import Parts


def _bert(parts: Parts) -> tokenizers.Tokenizer:
    file = parts.vocabulary_file("vocab.txt")
    with rust_errors(file, "the vocabulary is not accepted"):
        vocab = parts.vocabulary() or models.WordPiece.read_file(str(file))
        backend = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token=parts.token("unk_token")))
    lowercase = parts.flag("do_lower_case", True)
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=parts.flag("tokenize_chinese_chars", True),
        strip_accents=parts.optional_flag("strip_accents"),
        lowercase=lowercase,
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    return backend


def _byte_level(parts: Parts) -> tokenizers.Tokenizer:
    """GPT-2 (Radford et al. 2019), RoBERTa, BART: BPE over bytes; any text is spelled without loss."""
    backend = tokenizers.Tokenizer(_bpe(parts, end_of_word_suffix=""))
    space = parts.flag("add_prefix_space", False)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    backend.decoder = decoders.ByteLevel()
    return backend


def _gpt(parts: Parts) -> tokenizers.Tokenizer:
    """GPT (Radford et al. 2018): BERT's cleaning and words, then BPE with a mark on a word's last piece."""
    backend = tokenizers.Tokenizer(_bpe(parts, end_of_word_suffix="</w>", unk_token=parts.token("unk_token")))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.BPEDecoder(suffix="</w>")
    return backend


def _bpe(parts: Parts, *, end_of_word_suffix: str, unk_token: str | None = None) -> models.BPE:
    file = parts.vocabulary_file("vocab.json")
    with rust_errors(file, "the vocabulary or merges.txt is not accepted"):
        vocab = parts.vocabulary()
        if vocab is not None:
            merges = parts.merges()
        else:
            merges_file = parts.required("merges.txt")
            vocab, merges = models.BPE.read_file(str(file), str(merges_file))
        settings = {} if unk_token is None else {"unk_token": unk_token}
        return models.BPE(
            vocab,
            merges,
            continuing_subword_prefix="",
            end_of_word_suffix=end_of_word_suffix,
            fuse_unk=False,
            **settings,
        )


BUILDERS: dict[str, Callable[[Parts], tokenizers.Tokenizer]] = {
    "bert": _bert,
    "gpt2": _byte_level,
    "roberta": _byte_level,
    "openai-gpt": _gpt,
}


def finish(backend: tokenizers.Tokenizer, family: str, parts: Parts) -> None:
    """Put the template of special tokens around a text; their ids are known once all tokens are added."""

    def pair(token: str) -> tuple[str, int]:
        number = backend.token_to_id(token)
        if number is None:
            raise CheckpointError(
                f"the template of special tokens needs {token!r}, which is no token", where=str(parts.folder)
            )
        return token, number

    with rust_errors(parts.folder, "the template of special tokens is not accepted"):
        if family == "bert":
            cls, sep = pair(parts.token("cls_token")), pair(parts.token("sep_token"))
            backend.post_processor = processors.TemplateProcessing(
                single=f"{cls[0]}:0 $A:0 {sep[0]}:0",
                pair=f"{cls[0]}:0 $A:0 {sep[0]}:0 $B:1 {sep[0]}:1",
                special_tokens=[cls, sep],
            )
        elif family == "roberta":
            trim = parts.flag("trim_offsets", True)
            space = parts.flag("add_prefix_space", False)
            sep, cls = pair(parts.token("sep_token")), pair(parts.token("cls_token"))
            backend.post_processor = processors.RobertaProcessing(
                sep, cls, trim_offsets=trim, add_prefix_space=space
            )
        elif family in ("gpt2", "openai-gpt"):
            backend.post_processor = _published_template(parts) or _plain_template(parts, pair)
        elif family == "albert" and (template := _published_template(parts)) is not None:
            backend.post_processor = template
        elif family in unigram.FAMILIES:
            backend.post_processor = unigram.template(family, parts, pair)


def _published_template(parts: Parts) -> Any:
    """tokenizer.json's own template, or None."""
    if parts.published is None or not parts.published.get("post_processor"):
        return None
    bare = {"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": []}
    bare["post_processor"] = parts.published["post_processor"]
    with rust_errors(parts.json_file, "the post_processor is not accepted"):
        return tokenizers.Tokenizer.from_str(json.dumps(bare)).post_processor


def _plain_template(parts: Parts, pair: Callable[[str], tuple[str, int]]) -> Any:
    """Nothing, or what ``add_bos_token`` and ``add_eos_token`` say (OPT begins with bos); a tokenizer.json
    without a template means nothing."""
    legacy = parts.published is None
    bos = pair(parts.token("bos_token")) if legacy and parts.flag("add_bos_token", False) else None
    eos = pair(parts.token("eos_token")) if legacy and parts.flag("add_eos_token", False) else None
    single = " ".join([*([f"{bos[0]}:0"] if bos else []), "$A:0", *([f"{eos[0]}:0"] if eos else [])])
    return processors.TemplateProcessing(
        single=single, pair=f"{single} $B:1", special_tokens=[token for token in (bos, eos) if token]
    )
