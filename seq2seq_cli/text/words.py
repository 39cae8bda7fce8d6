"""CTRL, XLM, Transformer-XL: families whose rule is a program over words, which no pipeline can say.

A text is split at its added tokens, each stretch between them into words, each word into ids; decoding
joins tokens by the family's own rule. The folder keeps the published files, so that what is saved is read
again by the same rule, here and in transformers (Transformer-XL: up to 4.35, later ones have no such class).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import tokenizers
from tokenizers import AddedToken, models

from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.text.files import read_json, token_id
from seq2seq_cli.text.moses import detokenizer, lower_without_accents, number_signs, printable, tokenizer
from seq2seq_cli.text.parts import Parts
from seq2seq_cli.text.pickled_words import is_letter, read_pickled_words

FAMILIES = ("ctrl", "xlm", "transfo-xl")
PICKLED = ("vocab.pkl", "vocab.bin")


@dataclass(frozen=True, kw_only=True)
class Words:
    """One family's rule. ``files`` are its published vocabulary files, to be written when it is saved."""

    kind: str
    files: Mapping[str, str]
    split: Callable[[str], Iterable[str]]  # a stretch of text → words
    spell: Callable[[str], list[int]]  # a word → ids
    join: Callable[[list[str]], str]  # tokens → text
    apart: bool = False  #: added tokens are not joined by the rule, but set apart by spaces
    before: tuple[str, ...] = ()  #: names of the special tokens around a text
    after: tuple[str, ...] = ()

    def encode(self, text: str, added: Mapping[str, tuple[int, AddedToken]]) -> list[int]:
        """The ids of a text without a template; ``added`` gives an added token's id by its text."""
        return [number for word in self.spelled(text, added) for number in word]

    def spelled(self, text: str, added: Mapping[str, tuple[int, AddedToken]]) -> Iterator[list[int]]:
        """The ids of each word, as ``encode``; an added token is a word."""
        for stretch in stretches(text, tuple(added.items())):
            if isinstance(stretch, int):
                yield [stretch]
            else:
                yield from map(self.spell, self.split(stretch))

    def decode(self, tokens: Sequence[str], added: Iterable[str]) -> str:
        """The text of tokens, none of them special."""
        if not self.apart:
            return self.join(list(tokens))
        parts: list[str] = []
        inside: list[str] = []
        for token in tokens:
            if token not in added:
                inside.append(token)
                continue
            parts += [self.join(inside), token] if inside else [token]
            inside = []
        return " ".join([*parts, self.join(inside)] if inside else parts)


def stretches(text: str, added: tuple[tuple[str, tuple[int, AddedToken]], ...]) -> Iterator[str | int]:
    """The text between added tokens, and their ids in between. The longest of those at one place counts.

    A token may take the spaces on either side along. One that has to be a word of its own and touches
    something else is part of that.
    """
    by_text = dict(added)
    parts = [part for part in _pattern(tuple(by_text)).split(text) if part] if by_text else [text]
    for place, part in enumerate(parts):
        if part not in by_text:
            continue
        token = by_text[part][1]
        left, right = parts[place - 1] if place else "", parts[place + 1] if place + 1 < len(parts) else ""
        if token.rstrip and right:
            parts[place + 1] = right.lstrip()
        if token.lstrip and left:
            parts[place - 1] = left.rstrip()
        if token.single_word and left and left[-1] != " ":
            parts[place - 1 : place + 1] = [parts[place - 1] + part, ""]
        elif token.single_word and right and right[0] != " ":
            parts[place : place + 2] = ["", part + parts[place + 1]]
    for part in parts:
        yield by_text[part][0] if part in by_text else part


@cache
def _pattern(texts: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")


# -- building ------------------------------------------------------------------------------------------------


def build_words(family: str, parts: Parts) -> tuple[tokenizers.Tokenizer, Words]:
    """(the vocabulary under its published names, without a pipeline; the family's rule)."""
    vocab, words = {"ctrl": _ctrl, "xlm": _xlm, "transfo-xl": _transformer_xl}[family](parts)
    return tokenizers.Tokenizer(models.WordLevel(vocab, unk_token=parts.token("unk_token"))), words


def _ctrl(parts: Parts) -> tuple[dict[str, int], Words]:
    """CTRL (Keskar et al. 2019): every piece of a word but its last ends in ``@@``."""
    vocab, files = _vocabulary(parts)
    merges = _merges(files["merges.txt"].split("\n")[1:-1])  # the first line is a head line

    def id_of(piece: str) -> int | None:
        last = piece.removesuffix("</w>")
        return vocab.get(last) if last != piece else vocab.get(piece + "@@")

    def join(tokens: list[str]) -> str:
        return " ".join(tokens).replace("@@ ", "").strip()

    words = Words(
        kind="bpe",
        files=files,
        split=re.compile(r"[\S\x1c-\x1f]+\n?").findall,  # Unicode's White_Space; Python's \s has four more
        spell=_speller(vocab, merges, id_of, _unk_id(parts, vocab)),
        join=join,
    )
    return vocab, words


def _xlm(parts: Parts) -> tuple[dict[str, int], Words]:
    """XLM (Lample and Conneau 2019): Moses' words, lower-cased and without accents where its settings say so.

    ``lang`` in tokenizer_config.json chooses Moses' language; transformers has it as an argument of a method
    that nothing calls with one, so English is the default here as it is there.
    """
    vocab, files = _vocabulary(parts)
    language = _language(parts, "lang")
    tokenize = tokenizer(language)
    bare = parts.flag("do_lowercase_and_remove_accent", True)

    def split(text: str) -> list[str]:
        words = tokenize(printable(text, language))
        return lower_without_accents(words) if bare else words

    def join(tokens: list[str]) -> str:
        return "".join(tokens).replace("</w>", " ").strip()

    words = Words(
        kind="bpe",
        files=files,
        split=split,
        spell=_speller(
            vocab, _merges(files["merges.txt"].split("\n")[:-1]), vocab.get, _unk_id(parts, vocab)
        ),
        join=join,
        before=("bos_token",),
        after=("sep_token",),
    )
    return vocab, words


def _transformer_xl(parts: Parts) -> tuple[dict[str, int], Words]:
    """Transformer-XL (Dai et al. 2019): one id a word, of Moses' words as in WikiText-103."""
    letters = parts.config.get("delimiter") == ""
    names, unk = _word_list(parts, letters)
    vocab = {name: place for place, name in reversed(list(enumerate(names)))}
    if unk is None:
        unk = next((vocab[name] for name in ("<UNK>", "<unk>") if name in vocab), None)
    if unk is None or not 0 <= unk < len(names):
        raise CheckpointError("the vocabulary has no <unk>", where=str(parts.folder))
    number = unk
    language = _language(parts, "language")
    protected = [parts.token(name) for name in ("eos_token", "unk_token")] + ["<formula>"]
    tokenize = tokenizer(language, split_hyphens=True, protected=protected)
    detokenize = detokenizer(language)
    lower = parts.flag("lower_case", False)

    def split(text: str) -> list[str]:
        text = text.strip()
        if lower:  # letter by letter: a final sigma is a sigma
            text = "".join(letter.lower() for letter in text)
        return list(text) if letters else tokenize(text)

    words = Words(
        kind="wordlevel",
        files={"vocab.txt": "".join(f"{name}\n" for name in names)},
        split=split,
        spell=lambda word: [vocab.get(word, number)],
        join=lambda tokens: number_signs(detokenize(tokens)).strip(),
        apart=True,
    )
    return vocab, words


# -- vocabularies ------------------------------------------------------------------------------------------


def _vocabulary(parts: Parts) -> tuple[dict[str, int], dict[str, str]]:
    """vocab.json as token → id, and it and merges.txt as they are to be written again."""
    file = parts.required("vocab.json")
    vocab = {token: token_id(number, file) for token, number in (read_json(file) or {}).items()}
    merges = "\n".join(parts.lines("merges.txt"))
    return vocab, {"vocab.json": json.dumps(vocab, ensure_ascii=False), "merges.txt": merges}


def _merges(lines: list[str]) -> list[tuple[str, str]]:
    """The pairs in a merges.txt, best first; XLM's has their frequencies in a third column."""
    pairs = (line.split()[:2] for line in lines)
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]


def _word_list(parts: Parts, letters: bool) -> tuple[list[str], int | None]:
    """Transformer-XL's words in the order of their ids, and the unknown word's id where the file says it. A
    line of white space is a letter where they are ``letters``."""
    pickled = next((name for name in PICKLED if (parts.folder / name).is_file()), None)
    if pickled is not None:
        return read_pickled_words(parts.required(pickled), letters=letters)
    lines = parts.lines("vocab.txt")
    fields = [[line] if letters and is_letter(line) else line.split() for line in lines]
    if fields and not fields[-1]:
        fields.pop()
    if not all(fields):
        number = fields.index([]) + 1
        raise CheckpointError("a line without a word", where=f"{parts.folder / 'vocab.txt'}:{number}")
    return list(dict.fromkeys(words[0] for words in fields)), None


def _unk_id(parts: Parts, vocab: Mapping[str, int]) -> int:
    unk = parts.token("unk_token")
    if unk not in vocab:
        raise CheckpointError(f"the unk_token {unk!r} is not in vocab.json", where=str(parts.folder))
    return vocab[unk]


def _language(parts: Parts, key: str) -> str:
    """The language of Moses' rules; those that need a segmenter of their own are refused by name."""
    language = parts.config.get(key) or "en"
    if language in _SEGMENTED:
        raise CheckpointError(
            f"{key}={language!r}: {_SEGMENTED[language]}, which is not supported",
            where=str(parts.config_file),
            remedy="use a family whose tokenizer needs none, such as xlm-roberta",
        )
    if not isinstance(language, str) or not re.fullmatch("[a-z]{2,3}", language):
        raise CheckpointError(f"{key}={language!r} is not a language code", where=str(parts.config_file))
    return language


_SEGMENTED = {
    "ja": "Japanese texts are cut into words by KyTea",
    "th": "Thai texts are cut into words by PyThaiNLP",
    "zh": "Chinese texts are cut into words by jieba",
}


def _speller(
    vocab: Mapping[str, int],
    merges: list[tuple[str, str]],
    id_of: Callable[[str], int | None],
    unk: int,
) -> Callable[[str], list[int]]:
    """What turns a word into ids by BPE (Sennrich et al. 2016), its last letter marked by ``</w>``.

    Published vocabularies lack some of the pieces that their merges pass through. Those get places of
    their own in the model, and the unknown word's id when a word ends up in them.
    """
    letters = sorted(set("".join(vocab)))
    known = (piece for letter in letters for piece in (letter, letter + "</w>") if id_of(piece) is not None)
    made = (piece for left, right in merges for piece in (left, right, left + right))
    pieces = [_NO_PIECE, *dict.fromkeys([*known, *made])]
    ids = [unk if (number := id_of(piece)) is None else number for piece in pieces]
    model = models.BPE(
        {piece: place for place, piece in enumerate(pieces)},
        merges,
        unk_token=_NO_PIECE,
        end_of_word_suffix="</w>",
        fuse_unk=False,
    )
    return lambda word: [ids[token.id] for token in model.tokenize(word)]


_NO_PIECE = " "  # no word has a space inside
