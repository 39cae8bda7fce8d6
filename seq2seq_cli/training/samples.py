"""What a model is asked to write at an evaluation, for people to read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

from seq2seq_cli.data.denoised import DenoiseDataset
from seq2seq_cli.decoding.options import Decoding, resolve_options
from seq2seq_cli.recipe import PAIRED
from seq2seq_cli.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from seq2seq_cli.checkpoint.bundle import Bundle
    from seq2seq_cli.data.rows import Row
    from seq2seq_cli.recipe import Recipe
    from seq2seq_cli.training.datasets import Whole

#: samples that are shown and stored; the others are scored
SHOWN = 3
#: characters of a text that a language model is asked to continue and of what is shown beside it
_CONTINUED = 400


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A validation row that text is generated for. The model reads ``read``, or ``ids`` where no text would
    give them; ``source`` and ``references`` are what people are shown."""

    source: str
    read: str
    references: tuple[str, ...]
    ids: tuple[int, ...] | None = None


def choose_samples(recipe: Recipe, bundle: Bundle, rows: Sequence[Row], data: Whole) -> list[Sample]:
    """The first rows of the validation ``data``: ``eval_samples`` of them, or the few that are shown where
    none is scored. Denoising is asked for the first epoch's holes, a language model for the second half of a
    text; a masked language model writes none."""
    objective, wanted = recipe.training.objective, recipe.training.eval_samples
    numbers = list(dict.fromkeys(data.row_numbers[:wanted].tolist()))
    if objective in PAIRED:
        prefix = recipe.data.source_prefix
        return [
            Sample(source=row.source, read=prefix + row.source, references=row.references)
            for row in (rows[number] for number in numbers)
        ]
    wanted = min(wanted, SHOWN)
    if isinstance(data, DenoiseDataset):
        return [_denoised(data, bundle, index) for index in range(min(wanted, len(data)))]
    if objective == "causal_lm":
        return list(_continued(rows[number].target for number in numbers[:wanted]))
    return []


def _denoised(data: DenoiseDataset, bundle: Bundle, index: int) -> Sample:
    assert bundle.source_tokenizer is not None  # the data set was made with them
    assert bundle.target_tokenizer is not None
    source, target = data.example(index, 0)
    shown = _with_marks(source.tolist(), bundle.source_tokenizer, frozenset(data.noise.marks))
    said = bundle.target_tokenizer.decode(target.tolist())
    return Sample(source=shown, read=shown, references=(said,), ids=tuple(source.tolist()))


def _with_marks(ids: Sequence[int], tokenizer: Tokenizer, marks: frozenset[int]) -> str:
    """The text of ``ids`` with its holes, which decoding leaves out."""
    runs = ((hole, list(run)) for hole, run in groupby(ids, marks.__contains__))
    texts = ("".join(tokenizer.pieces(run)) if hole else tokenizer.decode(run).strip() for hole, run in runs)
    return " ".join(text for text in texts if text)


def _continued(texts: Iterable[str]) -> Iterator[Sample]:
    """The first half of each text, to its last whole word where it has any, and what came behind."""
    for text in texts:
        whole = " ".join(text.split())[:_CONTINUED]
        half = whole[: (len(whole) + 1) // 2]
        begun = half.rpartition(" ")[0] or half
        if rest := whole[len(begun) :]:
            yield Sample(source=begun, read=begun, references=(rest,))


def sample_decoding(recipe: Recipe, bundle: Bundle, samples: Sequence[Sample], *, longest: int) -> Decoding:
    """The recipe's generation section over the checkpoint's defaults. Where neither limits the length, the
    ``longest`` training target does, or of a language model what it is to find: a model that has learnt
    nothing yet would write to its last position."""
    without = {"preset", "draft_model", "draft_tokens"}  # a draft changes no output
    options = recipe.generation.model_dump(exclude_none=True, exclude=without)
    model, tokenizer = bundle.model, bundle.target_tokenizer
    decoding = resolve_options(options, model.generation, model.special_ids, file_of=bundle.wish_file)
    if decoding.max_new_tokens is not None or decoding.max_length is not None:
        return decoding
    if recipe.training.objective == "causal_lm" and samples and tokenizer is not None:
        rests = tokenizer.encode([sample.references[0] for sample in samples], special=False)
        longest = min(longest, max(map(len, rests)))
    return replace(decoding, max_new_tokens=max(1, longest))
