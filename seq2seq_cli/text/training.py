"""A tokenizer trained on one's own texts.

The trainers of ``tokenizers`` walk hash maps in an order that changes from process to process. BPE is not
touched by it. WordPiece numbers its ``##`` letters in that order, which decides ties between merges, and
unigram sums its scores in it; both are put right here, so that the same texts give the same tokenizer.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

from seq2seq_cli.errors import DataError, UsageError
from seq2seq_cli.text.backends import rust_errors
from seq2seq_cli.text.tokenizer import Tokenizer

KINDS = ("bpe", "wordpiece", "unigram")

_TEXT_TOKENS = {
    "pad_token": "<pad>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
_BERT_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
#: Every byte has a token of its own, so that any text is spelled without loss.
_BYTES = 256


def train_tokenizer(
    kind: str, vocab_size: int, texts: Iterable[str], *, lowercase: bool = False
) -> Tokenizer:
    """Train a tokenizer; the same texts give the same tokenizer.

    ``kind`` is ``bpe`` (byte-level; any text survives the way to ids and back; no template),
    ``wordpiece`` (BERT's cleaning, ``[CLS] .. [SEP]``) or ``unigram`` (pieces marked by ``▁``; no template).
    ``vocab_size`` counts special tokens; little text may give fewer. Special tokens that are spelled out in
    a text are ordinary characters. Raises :class:`UsageError` for an unknown kind or a size that is too
    small, :class:`DataError` when there is no text.
    """
    if kind not in KINDS:
        raise UsageError(f"unknown tokenizer kind {kind!r}", remedy="known: " + ", ".join(KINDS))
    tokens = _BERT_TOKENS if kind == "wordpiece" else _TEXT_TOKENS
    smallest = len(tokens) + (_BYTES if kind == "bpe" else 1)
    if vocab_size < smallest:
        raise UsageError(f"vocab_size {vocab_size} is too small for {kind}", remedy=f"at least {smallest}")
    known = [text for text in texts if text.strip()]
    if not known:
        raise DataError("there is no text to train a tokenizer on")
    with rust_errors("the training texts", f"training a {kind} tokenizer failed"):
        train = {"bpe": _bpe, "wordpiece": _wordpiece, "unigram": _unigram}[kind]
        backend = train(known, vocab_size, lowercase)
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in tokens.values()]
    )
    config = {**tokens, "tokenizer_class": "PreTrainedTokenizerFast", "split_special_tokens": True}
    return Tokenizer(backend=backend, config=config, where=f"trained {kind}")


def _bpe(texts: Sequence[str], vocab_size: int, lowercase: bool) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    if lowercase:
        backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(_TEXT_TOKENS.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend


def _wordpiece(texts: Sequence[str], vocab_size: int, lowercase: bool) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words = Counter(
        word
        for text in texts
        for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text))
    )
    counts: Counter[str] = Counter()
    for word, count in words.items():
        counts[word[0]] += count
        for letter in word[1:]:
            counts["##" + letter] += count
    special = list(_BERT_TOKENS.values())
    ranked = sorted(counts, key=lambda letter: (-counts[letter], letter))
    letters = sorted(ranked[: vocab_size - len(special)])
    # Given as special tokens, the letters have their ids before the trainer meets any word.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=special + letters,
        limit_alphabet=0,
        show_progress=False,
    )
    scratch = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    scratch.normalizer, scratch.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    scratch.train_from_iterator(texts, trainer)
    backend.model = models.WordPiece(scratch.get_vocab(with_added_tokens=False), unk_token="[UNK]")
    cls, sep = (("[CLS]", special.index("[CLS]")), ("[SEP]", special.index("[SEP]")))
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[cls, sep],
    )
    return backend


def _unigram(texts: Sequence[str], vocab_size: int, lowercase: bool) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.Unigram())
    if lowercase:
        backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    special = list(_TEXT_TOKENS.values())
    letters = set("▁").union(*(text.lower() if lowercase else text for text in texts))
    if vocab_size < (smallest := len(letters) + len(special)):
        raise UsageError(
            f"vocab_size {vocab_size} is too small for the {len(letters)} letters in the texts",
            remedy=f"at least {smallest}",
        )
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    pieces = [(p, round(s, 6)) for p, s in json.loads(backend.to_str())["model"]["vocab"] if p not in special]
    pieces.sort(key=lambda piece: (-piece[1], piece[0]))
    # Letters that no piece kept come last, a hair's breadth apart in a hash map's order: make them equal.
    tail = next((i for i in range(len(pieces), 0, -1) if len(pieces[i - 1][0]) > 1), 0)
    singles = [(letter, pieces[tail][1]) for letter, _ in sorted(pieces[tail:])]
    vocab = [(token, 0.0) for token in special] + pieces[:tail] + singles
    backend.model = models.Unigram(vocab, unk_id=special.index("<unk>"))
    return backend
