"""Texts in, texts out, in order: tokenize, batch by length and token budget, decode, put back in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from seq2seq_cli.decoding.alignment import Alignment, align
from seq2seq_cli.decoding.draft import Draft, Kind, refuse_unlike
from seq2seq_cli.decoding.generate import Tell, run
from seq2seq_cli.decoding.options import Decoding, resolve_options
from seq2seq_cli.decoding.reading import Reader
from seq2seq_cli.decoding.stepper import Hypothesis
from seq2seq_cli.decoding.wording import opening, spell
from seq2seq_cli.errors import CheckpointError, DataError, Finding, UsageError
from seq2seq_cli.model import EncoderDecoder, Seq2Seq, Stack
from seq2seq_cli.text.lines import Counts, Output, settled
from seq2seq_cli.text.tokenizer import Tokenizer

#: a source counts at least this many tokens in a batch, because its target takes room too
_LEAST = 32


EMPTY = Output(texts=("",), scores=(0.0,))


class TextGenerator:
    """A model with its tokenizers and options, ready for texts; ``counts`` what befell them."""

    def __init__(
        self,
        model: Seq2Seq | Stack,
        *,
        source_tokenizer: Tokenizer | None,
        target_tokenizer: Tokenizer | None,
        decoding: Decoding,
        batch_tokens: int = 4096,
        truncate: bool = True,
        echo: bool = False,
        with_scores: bool = False,
        token_scores: bool = False,
        prefix: str = "",
        control_ids: frozenset[int] = frozenset(),
        name: str = "",
        draft: TextGenerator | None = None,
    ) -> None:
        """``prefix`` stands before every source that the model reads; prompts should begin with one of
        ``control_ids`` where there are any, and keep it when they are cut; ``name`` is what the model is
        called in messages. ``draft`` has the model that guesses for this one, and how that reads a text."""
        if source_tokenizer is None or target_tokenizer is None:
            raise CheckpointError(
                "the model folder has no tokenizer", where=name, remedy="add its tokenizer files"
            )
        self._model = model
        self._source = source_tokenizer
        self._target = target_tokenizer
        self._decoding = spell(decoding, target_tokenizer)
        # what looks at the source compares ids: those of the target, then
        self._respelled = source_tokenizer.fingerprint != target_tokenizer.fingerprint and (
            decoding.encoder_repetition_penalty != 1.0
            or decoding.encoder_no_repeat_ngram_size > 0
            or decoding.prompt_lookup > 0
        )
        self._batch_tokens = batch_tokens
        self._echo = echo
        self._with_scores = with_scores or decoding.num_return_sequences > 1
        self._token_scores = token_scores
        self._taken = 0
        self._name = name
        self._draft = draft
        if draft is not None:
            refuse_unlike(draft.kind, self.kind, draft=draft._name)
        self.prefix = prefix
        self.counts = Counts()
        # ids of each text, cut to what the model takes: a source on the right, a prompt on the left
        self._encode = Reader(
            source_tokenizer,
            limit=self.source_limit,
            has_source=isinstance(model, Seq2Seq),
            truncate=truncate,
            prefix=prefix,
            control_ids=control_ids,
            counts=self.counts,
        )

    def texts(
        self,
        texts: Sequence[str],
        *,
        numbers: Sequence[int] | None = None,
        places: Sequence[str] | None = None,
        prefixes: Sequence[str | None] | None = None,
        ids: Sequence[Sequence[int] | None] | None = None,
    ) -> list[Output]:
        """The outputs of ``texts``, one each, in order. White space alone gives an empty output.
        ``places`` is what the texts are called in messages. ``prefixes`` is what the output of each begins
        with ("" = anything), instead of the option ``prefix`` (None = that one). DataError for one that
        gives no token. ``ids`` is what the model reads of each instead of its text (None = the text's own).

        With sampling, a text's draws depend on the seed and its number, never on what stands beside it.
        ``numbers`` are those of the texts; without them inputs are numbered on from call to call.
        """
        if numbers is None:
            numbers = range(self._taken, self._taken + len(texts))
            self._taken += len(texts)
        outputs = [EMPTY] * len(texts)
        filled = [place for place, text in enumerate(texts) if text.strip()]
        named = [places[place] if places else f"input {numbers[place] + 1}" for place in filled]
        given = {} if ids is None else {place: ids[place] for place in filled}
        encoded = {place: list(row) for place, row in given.items() if row is not None}
        read = {place: name for place, name in zip(filled, named, strict=True) if place not in encoded}
        if read:
            rows = self._encode([texts[place] for place in read], list(read.values()))
            encoded |= zip(read, rows, strict=True)
        begun: dict[int, Sequence[int]] = {}
        if prefixes is not None:
            openings = self._openings([prefixes[place] for place in filled], named)
            begun = dict(zip(filled, openings, strict=True))
        for batch in self._batches({place: ids for place, ids in encoded.items() if ids}):
            rows = [encoded[place] for place in batch]
            keys, shown = [numbers[place] for place in batch], [texts[place] for place in batch]
            wanted = [begun[place] for place in batch] if begun else None
            for place, output in zip(batch, self._run(rows, shown, keys, wanted), strict=True):
                outputs[place] = output
        for place in (place for place, ids in encoded.items() if not ids):
            self.counts.unreadable += 1
            outputs[place] = Output(texts=(self._echoed(texts[place], ""),), scores=(0.0,))
        return outputs

    def stream(self, text: str, write: Callable[[str], None], *, place: str = "input 1") -> None:
        """Hand the output of one text to ``write`` as it is decoded: whole words, the last ones at the end.
        Together the pieces are the text that ``texts`` gives. UsageError unless one path is followed."""
        wanted = self._decoding
        for name, value in (
            ("num_beams", wanted.num_beams),
            ("num_return_sequences", wanted.num_return_sequences),
        ):
            if value > 1:
                remedy = f"--{name.replace('_', '-')} 1"
                raise UsageError(f"--stream does not go with {name} {value}", where=self._name, remedy=remedy)
        # one weighs whole candidates, the other takes back what it could not complete
        for name, is_set in (
            ("penalty_alpha", wanted.penalty_alpha > 0),
            ("grammar", wanted.language is not None),
        ):
            if is_set:
                raise UsageError(
                    f"--stream does not go with {name}", where=self._name, remedy="leave one out"
                )
        if not text.strip():
            return
        row = self._encode([text], [place])[0]
        self.counts.unreadable += not row
        done, ids = self._echoed(text, ""), list[int]()
        if done:
            write(done)

        def tell(tokens: Tensor) -> None:
            nonlocal done
            ids.append(int(tokens[0]))
            whole = settled(self._echoed(text, self._decoded(row, ids, text)))
            if len(whole) > len(done) and whole.startswith(done):
                write(whole[len(done) :])
                done = whole

        if row:
            (output,) = self._run([row], [text], [0], tell=tell)
            write(output.texts[0][len(done) :])

    def aligned(self, text: str, *, place: str = "input 1") -> tuple[Output, Alignment]:
        """The output of one text, and what the tokens of its best hypothesis looked at. UsageError for a
        model without a source, DataError for a text that gives no token."""
        if not isinstance(self._model, Seq2Seq):
            remedy = "use one that was combined of two, or with --single-stack"
            raise UsageError("a language model has no source to attend to", where=self._name, remedy=remedy)
        row = self._encode([text], [place])[0] if text.strip() else []
        if not row:
            raise DataError("an empty input attends to nothing", where=place, remedy="give it a text")
        kept: list[Hypothesis] = []
        (output,) = self._run([row], [text], [0], kept=kept)
        assert self._decoding.start is not None  # nothing is written without one
        found = align(
            self._model,
            row,
            kept[0].ids,
            start=self._decoding.start,
            source_tokenizer=self._source,
            target_tokenizer=self._target,
        )
        return output, found

    @property
    def kind(self) -> Kind:
        """What a draft and its model have in common."""
        return isinstance(self._model, Seq2Seq), self._target

    @property
    def source_limit(self) -> int:
        """The longest source that is read whole, in tokens."""
        if isinstance(self._model, EncoderDecoder):
            return self._model.encoder.config.max_positions
        stack = self._model.decoder if isinstance(self._model, Seq2Seq) else self._model
        positions = stack.config.max_positions  # source or prompt and what is written share them
        return positions - min(self._decoding.max_new_tokens or positions // 4, positions // 2)

    def length(self, text: str) -> int:
        """How many tokens a source has, special ones included."""
        return len(self._source.encode([text])[0])

    def _openings(self, prefixes: Sequence[str | None], places: Sequence[str]) -> list[Sequence[int]]:
        """The ids that outputs begin with."""
        found, wrong = list[Sequence[int]](), []
        for prefix, place in zip(prefixes, places, strict=True):
            ids = self._decoding.prefix_ids if prefix is None else ()
            try:
                found.append(opening(prefix, self._target) if prefix else ids)
            except UsageError:
                wrong.append(Finding(f"the prefix {prefix!r} gives no token", place, "leave it empty"))
        if wrong:
            raise DataError(findings=wrong)
        return found

    def _batches(self, encoded: dict[int, list[int]]) -> Iterator[list[int]]:
        """Numbers of inputs to decode together: of similar length, within the token budget."""
        copies = self._decoding.rows_per_input
        batch: list[int] = []
        for number in sorted(encoded, key=lambda number: -len(encoded[number])):
            longest = max(_LEAST, len(encoded[batch[0]] if batch else encoded[number]))
            if batch and (len(batch) + 1) * longest * copies > self._batch_tokens:
                yield batch
                batch = []
            batch.append(number)
        if batch:
            yield batch

    def _run(
        self,
        rows: list[list[int]],
        texts: Sequence[str],
        keys: Sequence[int],
        prefixes: Sequence[Sequence[int]] | None = None,
        *,
        tell: Tell | None = None,
        kept: list[Hypothesis] | None = None,
    ) -> Iterator[Output]:
        """The outputs of a batch of encoded texts, in order; ``kept`` takes in each one's best hypothesis."""
        device = next(self._model.parameters()).device
        ids, mask = _padded(rows, device)
        source = None
        if self._respelled:
            source = _padded(self._target.encode(texts, special=False), device)
        hypotheses = run(
            self._model,
            ids,
            mask,
            self._decoding,
            keys=keys,
            with_scores=self._with_scores,
            tell=tell,
            token_scores=self._token_scores,
            source=source,
            prefixes=prefixes,
            draft=None if self._draft is None else self._draft._as_draft(texts, device),
        )
        if kept is not None:
            kept += [found[0] for found in hypotheses]
        for text, row, found in zip(texts, rows, hypotheses, strict=True):
            whole = [self._whole(hypothesis) for hypothesis in found]
            written = [self._decoded(row, hypothesis.ids, text) for hypothesis in whole]
            yield Output(
                texts=tuple(self._echoed(text, new) for new in written),
                scores=tuple(hypothesis.score for hypothesis in whole),
                tokens=tuple(self._told(hypothesis) for hypothesis in whole) if self._token_scores else (),
            )

    def _as_draft(self, texts: Sequence[str], device: torch.device) -> Draft:
        """This model as one that guesses for another, and the same texts in its own tokens."""
        ids, mask = _padded(self._encode(texts, [""] * len(texts)), device)
        return Draft(model=self._model, ids=ids, mask=mask)

    def _echoed(self, text: str, new: str) -> str:
        """What is put out for a text. A continuation brings its space along, what a pair writes does not."""
        if not self._echo:
            return new
        joint = " " if isinstance(self._model, Seq2Seq) and new and not text[-1].isspace() else ""
        return text + joint + new

    def _whole(self, hypothesis: Hypothesis) -> Hypothesis:
        """What was written; no token of it where it is not what the grammar asks for: rather than half a
        statement."""
        language, ids = self._decoding.language, hypothesis.ids
        begun = ids[:1] == [self._decoding.forced_bos]
        if language is None or language.accepts(ids[1:] if begun else ids):
            return hypothesis
        self.counts.incomplete += 1
        return replace(hypothesis, ids=[], token_scores=[])

    def _told(self, hypothesis: Hypothesis) -> list[tuple[str, float]]:
        """The new tokens, to be read, and the score of each."""
        return list(zip(self._target.pieces(hypothesis.ids), hypothesis.token_scores or (), strict=True))

    def _decoded(self, prompt: list[int], ids: list[int], text: str) -> str:
        """The text of new tokens; a continuation keeps the space that joins it to its prompt, where ``text``
        does not end with one."""
        if isinstance(self._model, Seq2Seq):
            return self._target.decode(ids)
        before, whole = self._target.decode(prompt), self._target.decode([*prompt, *ids])
        new = whole[len(before) :] if whole.startswith(before) else self._target.decode(ids)
        if text[-1:].isspace() and not before[-1:].isspace():  # a vocabulary that knows no space at the end
            return new.lstrip(" ")
        return new


def draft_generator(
    model: Seq2Seq | Stack,
    *,
    source_tokenizer: Tokenizer | None,
    target_tokenizer: Tokenizer | None,
    prefix: str = "",
    control_ids: frozenset[int] = frozenset(),
    name: str = "",
) -> TextGenerator:
    """A model that guesses for another one: how that decodes is its own."""
    return TextGenerator(
        model,
        source_tokenizer=source_tokenizer,
        target_tokenizer=target_tokenizer,
        decoding=resolve_options({}, {}, model.special_ids),
        prefix=prefix,
        control_ids=control_ids,
        name=name,
    )


def _padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """ids [B, L] padded on the right, and mask [B, L]."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
    mask = torch.arange(ids.shape[1])[None, :] < lengths[:, None]
    return ids.to(device), mask.to(device)
