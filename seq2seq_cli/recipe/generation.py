"""The ``generation`` section: every decoding option that has a flag, its limits and what it means.

Names and meanings are those of transformers' GenerationConfig where it has one. ``bad_words``, ``prefix``,
``stop`` and the texts of ``sequence_bias`` become token ids where the target's tokenizer is known
(``decoding/wording.py``).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from seq2seq_cli.recipe.fields import (
    Alternatives,
    Bias,
    Count,
    CountOrZero,
    EarlyStopping,
    Id,
    Ids,
    Positive,
    PositiveOrZero,
    Probability,
    Section,
    Seed,
    Share,
    Text,
    Texts,
    Written,
    as_pair,
)

#: Asking for one of these turns sampling on.
SAMPLING_OPTIONS = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")


class GenerationSection(Section):
    """How text is generated. What is not set comes from the checkpoint's generation_config.json."""

    preset: Text | None = Field(
        default=None, description="options from configs/decoding/NAME.yaml; the rest wins"
    )
    max_new_tokens: Count | None = Field(default=None, description="longest output, in tokens")
    min_new_tokens: CountOrZero | None = Field(default=None, description="shortest output, in tokens")
    num_beams: Count | None = Field(default=None, description="beams of beam search; 1 = none")
    length_penalty: float | None = Field(
        default=None, description="above 0 prefers longer beams, below 0 shorter"
    )
    early_stopping: EarlyStopping | None = Field(
        default=None, description="true: stop at num_beams finished; never: only when none can get better"
    )
    no_repeat_ngram_size: CountOrZero | None = Field(
        default=None, description="no n-gram of this size twice; 0 = off"
    )
    encoder_no_repeat_ngram_size: CountOrZero | None = Field(
        default=None, description="no n-gram of this size that the source has; 0 = off"
    )
    repetition_penalty: Positive | None = Field(
        default=None, description="above 1 makes used tokens less likely"
    )
    encoder_repetition_penalty: Positive | None = Field(
        default=None, description="above 1 makes tokens of the source more likely"
    )
    exponential_decay_length_penalty: Annotated[tuple[Id, Positive], BeforeValidator(as_pair)] | None = Field(
        default=None, description="from this many tokens on, ending gets likelier by this factor a token"
    )
    bad_words: Texts | None = Field(
        default=None, description="words that are not written, at a start or inside a text"
    )
    sequence_bias: Bias | None = Field(
        default=None, description="words made likelier (above 0) or less likely (below 0), added to scores"
    )
    suppress_tokens: Ids | None = Field(default=None, description="ids that are never written")
    begin_suppress_tokens: Ids | None = Field(default=None, description="ids that are not written first")
    forced_bos_token_id: Id | None = Field(default=None, description="id of the first token")
    forced_eos_token_id: Id | None = Field(
        default=None, description="id of the last token where an output reaches its limit"
    )
    prefix: Written | None = Field(default=None, description="text that every output begins with")
    stop: Texts | None = Field(
        default=None, description="an output ends with the token that completes this text, which stays in it"
    )
    grammar: Text | None = Field(
        default=None,
        description="outputs follow it: regex:PATTERN, json:SCHEMA, lark:RULES, a file, or a name of ours",
    )
    prompt_lookup: CountOrZero | None = Field(
        default=None,
        description="guess so many tokens ahead from source and prompt, check them in one step; 0 = off",
    )
    draft_model: Text | None = Field(
        default=None, description="smaller model with the same target tokens that guesses ahead"
    )
    draft_tokens: CountOrZero | None = Field(
        default=None, description="how many tokens the draft model guesses at once; 0 = none"
    )
    do_sample: bool | None = Field(default=None, description="draw tokens instead of taking the likeliest")
    temperature: Positive | None = Field(
        default=None, description="below 1 sharper, above 1 more varied; samples"
    )
    top_k: CountOrZero | None = Field(default=None, description="sample from the k likeliest tokens; 0 = all")
    top_p: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="sample from the fewest tokens with this probability together"
    )
    min_p: Probability | None = Field(
        default=None, description="sample from tokens at least this share as likely as the likeliest"
    )
    typical_p: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="sample from the most typical tokens with this probability together"
    )
    epsilon_cutoff: Share | None = Field(
        default=None, description="sample from tokens at least this likely; 0 = all"
    )
    eta_cutoff: Share | None = Field(
        default=None, description="as epsilon_cutoff, and lower where the choice is open; 0 = all"
    )
    renormalize_logits: bool | None = Field(
        default=None, description="beams: make scores log-probabilities again behind all other options"
    )
    remove_invalid_values: bool | None = Field(
        default=None, description="replace NaN and infinite scores of a broken model"
    )
    num_return_sequences: Count | None = Field(default=None, description="outputs a source")
    seed: Seed | None = Field(default=None, description="seed of sampling")
    num_beam_groups: Count | None = Field(
        default=None, description="groups that the beams are split into, each unlike the ones before it"
    )
    diversity_penalty: PositiveOrZero | None = Field(
        default=None, description="what a group of beams pays for a token that another one took in this step"
    )
    force_words: list[Alternatives] | None = Field(
        default=None,
        description="phrases that beam search puts into the output; of alternatives, split by |, one",
    )
    penalty_alpha: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="contrastive search among the top_k: weight of being unlike what is there"
    )
