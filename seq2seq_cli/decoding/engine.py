"""Texts in, texts out, in order: tokenize, batch by length and token budget, decode, put back in place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seq2seq_cli.decoding.generate import run
from seq2seq_cli.decoding.options import Decoding
from seq2seq_cli.decoding.phrases import spelled
from seq2seq_cli.errors import CheckpointError, DataError, Finding
from seq2seq_cli.model import EncoderDecoder, Seq2Seq, Stack
from seq2seq_cli.text.tokenizer import Tokenizer

#: a source counts at least this many tokens in a batch, because its target takes room too
_LEAST = 32
#: how many inputs that are too long an error lists
_LISTED = 10


@dataclass(frozen=True, kw_only=True)
class Output:
    """What became of one input: the texts, the best first, their scores and their token ids."""

    texts: tuple[str, ...]
    scores: tuple[float, ...]
    ids: tuple[tuple[int, ...], ...]


EMPTY = Output(texts=("",), scores=(0.0,), ids=((),))


class TextGenerator:
    """A model with its tokenizers and options, ready for texts.

    ``truncated`` counts inputs that were cut to what the model takes, ``unreadable`` those that gave no
    token at all (their output is empty).
    """

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
        name: str = "",
    ) -> None:
        """``name`` is what the model is called in messages."""
        if source_tokenizer is None or target_tokenizer is None:
            raise CheckpointError(
                "the model folder has no tokenizer", where=name, remedy="add its tokenizer files"
            )
        self._model = model
        self._source = source_tokenizer
        self._target = target_tokenizer
        self._decoding = spelled(decoding, target_tokenizer)
        self._batch_tokens = batch_tokens
        self._truncate = truncate
        self._echo = echo
        self._with_scores = with_scores or decoding.num_return_sequences > 1
        self._taken = 0
        self.truncated = 0
        self.unreadable = 0

    def texts(self, texts: Sequence[str], *, places: Sequence[str] | None = None) -> list[Output]:
        """The outputs of ``texts``, one each, in order. White space alone gives an empty output.
        ``places`` is what the texts are called in messages.

        Inputs are numbered on from call to call; with sampling, a text's draws depend on the seed and its
        number, never on what stands beside it.
        """
        outputs = [EMPTY] * len(texts)
        filled = [number for number, text in enumerate(texts) if text.strip()]
        named = [places[n] if places else f"input {self._taken + n + 1}" for n in filled]
        rows = self._encode([texts[number] for number in filled], named)
        encoded = dict(zip(filled, rows, strict=True))
        for batch in self._batches({number: ids for number, ids in encoded.items() if ids}):
            rows = [encoded[number] for number in batch]
            for number, output in zip(batch, self._run(batch, rows, texts), strict=True):
                outputs[number] = output
        self.unreadable += sum(not ids for ids in encoded.values())
        self._taken += len(texts)
        return outputs

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

    def skip(self, count: int) -> None:
        """Number the inputs on as if ``count`` more had been answered already."""
        self._taken += count

    def _encode(self, texts: list[str], places: list[str]) -> list[list[int]]:
        """Ids of each text, cut to what the model takes: a source on the right, a prompt on the left."""
        start: list[int] = []
        tail: list[int] | None = None
        if isinstance(self._model, Seq2Seq):
            tail = list(self._source.template[1])
            limit, plain = self.source_limit, self._source.encode(texts)
        else:
            start = list(self._source.template[0])
            limit, plain = self.source_limit - len(start), self._source.encode(texts, special=False)
        long = [number for number, ids in enumerate(plain) if len(ids) > limit]
        if long and not self._truncate:
            told = [_too_long(plain[n], limit, places[n]) for n in long[:_LISTED]]
            more = [Finding(f"and {len(long) - _LISTED} more")] if len(long) > _LISTED else []
            raise DataError(findings=[*told, *more])
        self.truncated += len(long)
        return [start + _cut(ids, limit, keep_end=tail) if ids else [] for ids in plain]

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

    def _run(self, batch: list[int], rows: list[list[int]], texts: Sequence[str]) -> Iterator[Output]:
        ids, mask = _padded(rows, next(self._model.parameters()).device)
        hypotheses = run(
            self._model,
            ids,
            mask,
            self._decoding,
            keys=[self._taken + number for number in batch],
            with_scores=self._with_scores,
        )
        for number, row, found in zip(batch, rows, hypotheses, strict=True):
            written = [self._decoded(row, hypothesis.ids) for hypothesis in found]
            yield Output(
                texts=tuple(texts[number] + text if self._echo else text for text in written),
                scores=tuple(hypothesis.score for hypothesis in found),
                ids=tuple(tuple(hypothesis.ids) for hypothesis in found),
            )

    def _decoded(self, prompt: list[int], ids: list[int]) -> str:
        """The text of new tokens; a continuation keeps the space that joins it to its prompt."""
        if isinstance(self._model, Seq2Seq):
            return self._target.decode(ids)
        before, whole = self._target.decode(prompt), self._target.decode([*prompt, *ids])
        return whole[len(before) :] if whole.startswith(before) else self._target.decode(ids)


def _cut(ids: list[int], limit: int, *, keep_end: list[int] | None) -> list[int]:
    """At most ``limit`` ids: the first ones and the closing ``keep_end``, or (None) the last ones."""
    if len(ids) <= limit:
        return ids
    return ids[-limit:] if keep_end is None else ids[: limit - len(keep_end)] + keep_end


def _too_long(ids: list[int], limit: int, place: str) -> Finding:
    return Finding(
        f"an input of {len(ids)} tokens is longer than the {limit} that the model takes",
        place,
        "shorten it, or use --truncation truncate",
    )


def _padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """ids [B, L] padded on the right, and mask [B, L]."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
    mask = torch.arange(ids.shape[1])[None, :] < lengths[:, None]
    return ids.to(device), mask.to(device)
