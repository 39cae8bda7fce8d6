"""How to decode: the options under transformers' names, checked, and filled in from the checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from seq2seq_cli.decoding.overlay import ASKED_NAMES, OTHER_NAMES, overlay, renamed
from seq2seq_cli.decoding.wishes import extremes, refuse, unknown_file
from seq2seq_cli.errors import Finding, UsageError
from seq2seq_cli.recipe.checks import generation_problems
from seq2seq_cli.recipe.fields import Count, CountOrZero, Id, Ids, Texts, Words
from seq2seq_cli.recipe.generation import GenerationSection
from seq2seq_cli.recipe.problems import Problem
from seq2seq_cli.recipe.validation import validate

if TYPE_CHECKING:
    from seq2seq_cli.decoding.grammar import Language
    from seq2seq_cli.decoding.stop import Stop
    from seq2seq_cli.model import SpecialIds


def _is_phrase(value: list[Any]) -> bool:
    return any(isinstance(each, int) for each in value)


#: a phrase of ids alone is short for a list of it
AlternativeIds = Annotated[
    list[Words],
    Field(min_length=1),
    BeforeValidator(lambda value: [value] if isinstance(value, list) and _is_phrase(value) else value),
]
#: guesses of a draft that are checked at once, where nobody says how many
DRAFT_TOKENS = 5
#: what transformers 4 writes as max_length when nobody chose one; never a wish
_LIBRARY_MAX_LENGTH = 20


class DecodingOptions(GenerationSection):
    """The options of recipes and flags, and those that only make sense as token ids (Python, checkpoints).

    ``max_length`` and ``min_length`` count the prompt as well; the ``_new_tokens`` forms win over them.
    ``stop_strings`` is transformers' name of ``stop``.
    """

    max_length: Count | None = None
    min_length: CountOrZero | None = None
    bad_words_ids: list[Words] | None = None
    stop_strings: Texts | None = None
    decoder_start_token_id: Id | None = None
    bos_token_id: Id | None = None
    eos_token_id: Ids | None = None
    pad_token_id: Id | None = None
    force_words_ids: list[AlternativeIds] | None = None


#: token ids and what is added to the score of the last one where the others stand before it
Biases = tuple[tuple[tuple[int, ...], float], ...]


@dataclass(frozen=True, kw_only=True)
class Wording:
    """The options that are texts; ``wording.spell`` makes ids of them."""

    bad_words: tuple[str, ...] = ()
    force_words: tuple[tuple[str, ...], ...] = ()
    sequence_bias: tuple[tuple[str, float], ...] = ()
    prefix: str = ""
    stop: tuple[str, ...] = ()
    grammar: str = ""

    def names(self) -> list[str]:
        """Those that are set."""
        return [name for name, value in vars(self).items() if value]


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Resolved options: nothing is None that a strategy has to have.

    ``wording`` holds what still has to become ids: empty once ``wording.spell`` has seen it.
    """

    start: int | None
    eos: tuple[int, ...]
    max_new_tokens: int | None  #: None = as far as the model reaches
    max_length: int | None
    min_new_tokens: int
    min_length: int
    num_beams: int
    length_penalty: float
    early_stopping: bool | Literal["never"]
    no_repeat_ngram_size: int
    encoder_no_repeat_ngram_size: int
    repetition_penalty: float
    encoder_repetition_penalty: float
    exponential_decay: tuple[int, float] | None
    sequence_bias: Biases
    bad_words_ids: tuple[tuple[int, ...], ...]
    suppress_tokens: tuple[int, ...]
    begin_suppress_tokens: tuple[int, ...]
    forced_bos: int | None
    forced_eos: int | None
    prefix_ids: tuple[int, ...]
    stop: Stop | None
    language: Language | None
    do_sample: bool
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    epsilon_cutoff: float
    eta_cutoff: float
    renormalize_logits: bool
    remove_invalid_values: bool
    num_return_sequences: int
    seed: int
    pad: int
    num_beam_groups: int
    diversity_penalty: float
    force_words_ids: tuple[tuple[tuple[int, ...], ...], ...]
    penalty_alpha: float
    prompt_lookup: int
    draft_model: str  #: its reference, "" = none
    draft_tokens: int  #: 0 where there is no draft
    wording: Wording

    @property
    def rows_per_input(self) -> int:
        """How many rows of the decoder work on one input."""
        if self.num_beams > 1:
            return self.num_beams
        if self.penalty_alpha:
            return self.top_k
        return self.num_return_sequences if self.do_sample else 1


def _problems(options: DecodingOptions) -> Iterator[Problem]:
    yield from generation_problems(options, complete=True)
    if (options.min_length or 0) > (options.max_length or math.inf):
        yield Problem(
            f"min_length {options.min_length} is more than max_length {options.max_length}",
            "swap them?",
            (("min_length",), ("max_length",)),
        )
    if not options.do_sample and options.num_beams is None and (options.num_return_sequences or 1) > 1:
        yield Problem(
            f"num_return_sequences {options.num_return_sequences} needs as many beams, or sampling",
            "raise num_beams, or turn on do_sample",
            (("num_return_sequences",),),
        )


def resolve_options(
    given: Mapping[str, Any],
    checkpoint: Mapping[str, Any],
    ids: SpecialIds,
    *,
    file_of: Callable[[str], str] = unknown_file,
) -> Decoding:
    """Options as asked for, else from the checkpoint's generation config, else the plain defaults.

    There is no hidden top-k and no hidden limit of 20 tokens. Asking for a sampling option turns sampling
    on, and what only the checkpoint wished for gives way (see ``overlay``). UsageError for unknown names,
    values out of range and combinations that contradict each other, all at once; CheckpointError where they
    are the checkpoint's alone, with what ``file_of`` says of the key.
    """
    return _resolved(checked_options(given, checkpoint, file_of=file_of), ids)


def checked_options(
    given: Mapping[str, Any],
    checkpoint: Mapping[str, Any],
    *,
    file_of: Callable[[str], str] = unknown_file,
) -> DecodingOptions:
    """The same, without the ids that only the model knows: what can be said before it loads."""
    given, checkpoint = renamed(given, ASKED_NAMES), renamed(checkpoint, OTHER_NAMES)
    wished = {key: value for key, value in checkpoint.items() if key in DecodingOptions.model_fields}
    if wished.get("max_length") == _LIBRARY_MAX_LENGTH:
        del wished["max_length"]
    options, problems = validate(
        DecodingOptions,
        overlay(wished, given),
        lambda options: [*_problems(options), *extremes(options, given)],
    )
    if options is None:
        refuse(problems, given=given, wished=wished, file_of=file_of)
    return options


def _resolved(options: DecodingOptions, ids: SpecialIds) -> Decoding:
    def either(value: Any, default: Any) -> Any:
        return default if value is None else value

    bias = options.sequence_bias
    eos = ids.eos if options.eos_token_id is None else tuple(options.eos_token_id)  # [] = none
    return Decoding(
        start=either(options.decoder_start_token_id, ids.start),
        eos=eos,
        max_new_tokens=options.max_new_tokens,
        max_length=options.max_length,
        min_new_tokens=either(options.min_new_tokens, 0),
        min_length=either(options.min_length, 0),
        num_beams=either(options.num_beams, 1),
        length_penalty=either(options.length_penalty, 1.0),
        early_stopping=either(options.early_stopping, False),
        no_repeat_ngram_size=either(options.no_repeat_ngram_size, 0),
        encoder_no_repeat_ngram_size=either(options.encoder_no_repeat_ngram_size, 0),
        repetition_penalty=either(options.repetition_penalty, 1.0),
        encoder_repetition_penalty=either(options.encoder_repetition_penalty, 1.0),
        exponential_decay=options.exponential_decay_length_penalty,
        sequence_bias=tuple((tuple(word), x) for word, x in bias) if isinstance(bias, list) else (),
        bad_words_ids=tuple(tuple(word) for word in options.bad_words_ids or ()),
        suppress_tokens=tuple(options.suppress_tokens or ()),
        begin_suppress_tokens=tuple(options.begin_suppress_tokens or ()),
        forced_bos=options.forced_bos_token_id,
        forced_eos=options.forced_eos_token_id,
        prefix_ids=(),
        stop=None,
        language=None,
        do_sample=either(options.do_sample, False),
        temperature=either(options.temperature, 1.0),
        top_k=either(options.top_k, 0),
        top_p=either(options.top_p, 1.0),
        min_p=either(options.min_p, 0.0),
        typical_p=either(options.typical_p, 1.0),
        epsilon_cutoff=either(options.epsilon_cutoff, 0.0),
        eta_cutoff=either(options.eta_cutoff, 0.0),
        renormalize_logits=either(options.renormalize_logits, False),
        remove_invalid_values=either(options.remove_invalid_values, False),
        num_return_sequences=either(options.num_return_sequences, 1),
        seed=either(options.seed, 0),
        pad=either(either(options.pad_token_id, ids.pad), eos[0] if eos else 0),
        num_beam_groups=either(options.num_beam_groups, 1),
        diversity_penalty=either(options.diversity_penalty, 0.0),
        force_words_ids=tuple(tuple(map(tuple, each)) for each in options.force_words_ids or ()),
        penalty_alpha=either(options.penalty_alpha, 0.0),
        prompt_lookup=either(options.prompt_lookup, 0),
        draft_model=options.draft_model or "",
        draft_tokens=either(options.draft_tokens, DRAFT_TOKENS) if options.draft_model else 0,
        wording=Wording(
            force_words=tuple(map(tuple, options.force_words or ())),
            bad_words=tuple(options.bad_words or ()),
            sequence_bias=tuple(bias.items()) if isinstance(bias, dict) else (),
            prefix=options.prefix or "",
            grammar=options.grammar or "",
            stop=(*(options.stop or ()), *(options.stop_strings or ())),
        ),
    )


def check_ids(decoding: Decoding, vocab_size: int) -> None:
    """UsageError for ids that the model does not have."""
    used = {
        "decoder_start_token_id": [decoding.start],
        "eos_token_id": decoding.eos,
        "forced_bos_token_id": [decoding.forced_bos],
        "forced_eos_token_id": [decoding.forced_eos],
        "bad_words_ids": [token for word in decoding.bad_words_ids for token in word],
        "sequence_bias": [token for word, _ in decoding.sequence_bias for token in word],
        "suppress_tokens": decoding.suppress_tokens,
        "begin_suppress_tokens": decoding.begin_suppress_tokens,
        "force_words_ids": [i for each in decoding.force_words_ids for phrase in each for i in phrase],
        "pad_token_id": [decoding.pad] if decoding.num_beam_groups > 1 else [],
    }
    wrong = [(name, i) for name, ids in used.items() for i in ids if i is not None and i >= vocab_size]
    if wrong:
        raise UsageError(
            findings=[
                Finding(f"{name}: {i} is not one of the model's {vocab_size} tokens") for name, i in wrong
            ]
        )
