"""One side's tokenizer: text to ids and back, around a ``tokenizers.Tokenizer``."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import tokenizers
from tokenizers import AddedToken, decoders

from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.text.backends import backend_of, described, rust_errors, template_ids
from seq2seq_cli.text.pieces import check_unicode, clean_up, of_bytes, of_signs

if TYPE_CHECKING:
    from seq2seq_cli.text.words import Words

#: The named special tokens of a tokenizer_config.json.
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

#: Seconds and characters a second that patterns from a folder may take: a hundredth of the usual speed.
PATIENCE, SLOWEST = 30.0, 10_000

T = TypeVar("T")

#: What decides ids and text, beside tokenizer.json itself.
_BEHAVIOUR = (*NAMED_TOKENS, "clean_up_tokenization_spaces", "split_special_tokens")


class Tokenizer:
    """Text to ids and back for one side of a model.

    ``backend`` does the work; its truncation and padding are switched off here. ``config`` is the
    tokenizer_config.json that goes with it: the named special tokens as plain strings
    (``pad_token``, ...), the class name and the settings of that class. ``where`` names the origin
    in messages. ``words`` is the rule of a family that no pipeline can say; ``backend`` then only knows
    the tokens and their ids. With ``has_patterns`` the backend has regular expressions that nobody checked,
    and gets a time limit. ``files`` are where (the vocabulary, the added tokens) were read.
    """

    def __init__(
        self,
        *,
        backend: tokenizers.Tokenizer,
        config: Mapping[str, object],
        where: str = "tokenizer",
        words: Words | None = None,
        has_patterns: bool = False,
        files: tuple[str, str] | None = None,
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = bool(config.get("split_special_tokens", False))
        self._backend = backend
        self._config = dict(config)
        self._where = where
        self._words = words
        self._has_patterns = has_patterns
        self._files = files or (where, where)
        self.kind: str = words.kind if words is not None else type(backend.model).__name__.lower()

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer | None:
        """The tokenizer of a published folder, or None when it has no tokenizer files.

        Read are tokenizer.json, else the family's own files (vocab.txt; vocab.json and merges.txt;
        spiece.model or sentencepiece.bpe.model; Transformer-XL's vocab.pkl, vocab.bin or vocab.txt), with
        tokenizer_config.json, special_tokens_map.json and added_tokens.json beside them. Raises
        :class:`CheckpointError` for files that are broken or of a family that is not known.
        """
        from seq2seq_cli.text.published import read_folder

        found = read_folder(Path(folder))
        if found is None:
            return None
        return cls(
            backend=found.backend,
            config=found.config,
            where=str(folder),
            words=found.words,
            has_patterns=found.has_patterns,
            files=found.files,
        )

    # -- special ids ---------------------------------------------------------------------------------------

    def _named_id(self, name: str) -> int | None:
        token = self._config.get(name)
        return self._backend.token_to_id(token) if isinstance(token, str) else None

    @cached_property
    def pad_id(self) -> int | None:
        """The padding token's id."""
        return self._named_id("pad_token")

    @cached_property
    def bos_id(self) -> int | None:
        """The id that begins a text."""
        return self._named_id("bos_token")

    @cached_property
    def eos_id(self) -> int | None:
        """The id that ends a text."""
        return self._named_id("eos_token")

    @cached_property
    def cls_id(self) -> int | None:
        """BERT's first token."""
        return self._named_id("cls_token")

    @cached_property
    def sep_id(self) -> int | None:
        """BERT's separator and last token."""
        return self._named_id("sep_token")

    @cached_property
    def mask_id(self) -> int | None:
        """The token that stands for a hidden one."""
        return self._named_id("mask_token")

    @cached_property
    def unk_id(self) -> int | None:
        """The id of what the vocabulary cannot spell."""
        return self._named_id("unk_token")

    @cached_property
    def sentinel_ids(self) -> tuple[int, ...]:
        """The ids of ``<extra_id_0>``, ``<extra_id_1>``, ... (T5), as many as there are in a row."""
        found: list[int] = []
        while (number := self._backend.token_to_id(f"<extra_id_{len(found)}>")) is not None:
            found.append(number)
        return tuple(found)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """All ids that :meth:`decode` leaves out; over words, as published, those named or listed."""
        if self._words is not None:
            listed = self._config.get("extra_special_tokens")
            tokens = [self._config.get(name) for name in NAMED_TOKENS]
            tokens += listed if isinstance(listed, list) else []
            ids = (self._backend.token_to_id(token) for token in tokens if isinstance(token, str))
            return frozenset(number for number in ids if number is not None)
        return frozenset(i for i, token in self._backend.get_added_tokens_decoder().items() if token.special)

    @cached_property
    def vocab_size(self) -> int:
        """The largest id and one, added tokens included: the rows that an embedding needs."""
        return self._last[0] + 1

    @cached_property
    def _last(self) -> tuple[int, str]:
        """The largest id of a token and its text; -1 without tokens."""
        vocab = self._backend.get_vocab(with_added_tokens=True)
        last = max(vocab, key=vocab.__getitem__, default="")
        return vocab.get(last, -1), last

    def check_fits(self, rows: int) -> None:
        """CheckpointError for a token, or a template, with an id that a model of ``rows`` tokens lacks."""
        number, token = self._last
        where = self._files[number in self._backend.get_added_tokens_decoder()]
        beyond = max(template_ids(self._backend), default=-1)
        if beyond > number:
            number, token, where = beyond, "the template of special tokens", self._files[0]
        if number >= rows:
            raise CheckpointError(
                f"the tokenizer has the id {number} ({token[:40]}), and the model has {rows} tokens",
                where=where,
                remedy="use the tokenizer that the model was trained with",
            )

    @cached_property
    def template(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The special ids that :meth:`encode` puts (before, after) a text."""
        if self._words is not None:
            return self._named_ids(self._words.before), self._named_ids(self._words.after)
        with rust_errors(self._where, "the tokenizer fails"):
            encoding = self._backend.encode("a")
        ids, special = encoding.ids, encoding.special_tokens_mask
        before = next((i for i, flag in enumerate(special) if not flag), len(ids))
        after = next((i for i, flag in enumerate(reversed(special)) if not flag), 0)
        return tuple(ids[:before]), tuple(ids[len(ids) - after :])

    def _named_ids(self, names: Sequence[str]) -> tuple[int, ...]:
        ids = [self._named_id(name) for name in names]
        if None in ids:
            raise CheckpointError(f"no {names[ids.index(None)]}, which the template needs", where=self._where)
        return tuple(i for i in ids if i is not None)

    @cached_property
    def _added(self) -> dict[str, tuple[int, AddedToken]]:
        """The tokens that are found in a text before its words are, by their text."""
        return {str(token): (i, token) for i, token in self._backend.get_added_tokens_decoder().items()}

    # -- text and ids --------------------------------------------------------------------------------------

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """The ids of each text, in order; never cut, never padded.

        ``special`` adds the family's own template: ``[CLS] .. [SEP]``, ``<s> .. </s>``, nothing for GPT-2.
        Raises :class:`DataError` for a text that is not valid Unicode (a lone surrogate).
        """
        check_unicode(texts)
        with rust_errors(self._where, "the tokenizer fails on a text"):
            if self._words is not None:
                before, after = self.template if special else ((), ())
                added = {} if self._backend.encode_special_tokens else self._added
                return [[*before, *self._words.encode(text, added), *after] for text in texts]
            return self._in_time(
                lambda: [
                    e.ids for e in self._backend.encode_batch_fast(list(texts), add_special_tokens=special)
                ],
                sum(map(len, texts)),
            )

    def encode_words(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """As :meth:`encode`, but a piece that goes on with the word before it is ``~id``, below zero."""
        from seq2seq_cli.text import word_starts

        check_unicode(texts)
        with rust_errors(self._where, "the tokenizer fails on a text"):
            if self._words is not None:
                before, after = self.template if special else ((), ())
                added = {} if self._backend.encode_special_tokens else self._added
                found = word_starts.of_words(self._words, texts, added)
                return [[*before, *ids, *after] for ids in found]
            return self._in_time(
                lambda: word_starts.of_pipeline(self._backend, texts, special=special),
                sum(map(len, texts)),
            )

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids`` without special tokens; ids outside the vocabulary are left out."""
        inside = [i for i in map(int, ids) if 0 <= i < self.vocab_size]
        with rust_errors(self._where, "the tokenizer cannot decode"):
            if self._words is not None:
                tokens = [self._backend.id_to_token(i) for i in inside if i not in self.special_ids]
                text = self._words.decode([t for t in tokens if t is not None], self._added)
            else:
                text = self._in_time(
                    lambda: self._backend.decode(inside, skip_special_tokens=True), len(inside)
                )
        # BPE knows its spaces; the rules over words were published with this clean-up.
        if self._config.get("clean_up_tokenization_spaces") and (self._words or self.kind != "bpe"):
            text = clean_up(text)
        return text

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Each token alone, to be read: spaces and bytes as such, not as the vocabulary's signs for them;
        ``#ID`` for an id outside it."""
        over_bytes = isinstance(self._backend.decoder, decoders.ByteLevel)
        found = []
        for i in map(int, ids):
            token = self._backend.id_to_token(i) if i >= 0 else None
            if token is not None and token not in self._added:
                token = of_bytes(token) if over_bytes else of_signs(token)
            found.append(f"#{i}" if token is None else token)
        return found

    @cached_property
    def spellings(self) -> list[bytes]:
        """What each id adds to a text behind another token (see ``text/spelling.py``)."""
        from seq2seq_cli.text.spelling import spellings

        return spellings(self._backend, self._words, self.vocab_size)

    def extended(self, named: Mapping[str, str]) -> Tokenizer:
        """A copy with more special tokens, by their names in tokenizer_config.json (``eos_token``, ...)."""
        backend = backend_of(json.loads(self._backend.to_str()))
        backend.add_special_tokens(list(named.values()))
        config = {**self._config, **named}
        return Tokenizer(
            backend=backend,
            config=config,
            where=self._where,
            words=self._words,
            has_patterns=self._has_patterns,
        )

    def _in_time(self, work: Callable[[], T], size: int) -> T:
        """What ``work`` returns; CheckpointError when a folder's own patterns take it far too long.

        The library cannot be interrupted: the work is left to a thread that does not keep the process alive.
        """
        if not self._has_patterns:
            return work()
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(work())
            except BaseException as error:  # a panic of the library, too
                done.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        limit = PATIENCE + size / SLOWEST
        try:
            return done.result(timeout=limit)
        except FutureTimeoutError:
            raise CheckpointError(
                f"its patterns take more than {limit:.0f} s for {size} characters",
                where=self._where,
                remedy="do not use this tokenizer",
            ) from None

    # -- storage -------------------------------------------------------------------------------------------

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides ids and text; equal fingerprints are the same tokenizer."""
        behaviour = {key: self._config[key] for key in _BEHAVIOUR if self._config.get(key)}
        content = self._backend.to_str() + json.dumps(behaviour, sort_keys=True)
        if self._words is not None:
            settings = {key: value for key, value in self._config.items() if not key.endswith("_token")}
            content += json.dumps([self._words.files, settings], sort_keys=True)
        return hashlib.sha256(content.encode("utf-8")).hexdigest()

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json into ``folder``, which is made if missing.

        A family over words is written as it was published instead, with its added tokens in
        tokenizer_config.json: a tokenizer.json of it would only be nearly right.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = dict(self._config)
        if self._words is None:
            files: Mapping[str, str] = {"tokenizer.json": self._backend.to_str(pretty=True)}
        else:
            files = self._words.files
            config["added_tokens_decoder"] = {str(i): described(t) for i, t in self._added.values()}
        text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
        for name, content in {**files, "tokenizer_config.json": text + "\n"}.items():
            (folder / name).write_text(content, encoding="utf-8", newline="\n")
