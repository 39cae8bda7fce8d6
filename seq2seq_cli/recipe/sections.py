"""The sections of a recipe: every key, its type, its limits and its default.

Limits of one value are stated here, once, for recipes, command-line flags and Python calls alike; rules
between values are in ``checks.py``. A key that no code reads does not belong here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from seq2seq_cli.recipe.fields import (
    Count,
    CountOrZero,
    FilePath,
    Positive,
    PositiveOrZero,
    Section,
    Seed,
    Share,
    SourceLike,
    Text,
    TokenizerLike,
    Warmup,
    kind_of,
    several_names,
    side,
)
from seq2seq_cli.recipe.generation import GenerationSection

Part = Literal["encoder", "decoder", "cross_attention", "fresh"]
Metric = Literal[
    "loss",
    "perplexity",
    "exact_match",
    "token_error_rate",
    "bleu",
    "chrf",
    "rouge1",
    "rouge2",
    "rougeL",
    "rougeLsum",
]
Schedule = Literal[
    "linear",
    "cosine",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "polynomial",
    "noam",
    "relative_step",
]
#: Metrics that come from the loss alone, and those where less is better.
LOSS_METRICS = ("loss", "perplexity")
SMALLER_IS_BETTER = (*LOSS_METRICS, "token_error_rate")


class TrainTokenizer(Section):
    """A tokenizer that is trained on the texts of its side."""

    train: Literal["bpe", "wordpiece", "unigram"] = Field(description="the algorithm")
    vocab_size: Annotated[int, Field(ge=16, le=10_000_000)] = Field(description="entries of the vocabulary")
    lowercase: bool = Field(default=False, description="fold case before everything else")


Tokenizer = Annotated[
    Annotated[Text, Tag("text")] | Annotated[TrainTokenizer, Tag("mapping")],
    Discriminator(kind_of),
    TokenizerLike,
]


class SideSection(Section):
    """One side of the pair: a checkpoint, or a family with a configuration, trained from scratch."""

    checkpoint: Text | None = Field(
        default=None, description="checkpoint reference: folder, hub id, alias, pkg:..."
    )
    random: bool = Field(
        default=False, description="architecture and tokenizer of the checkpoint, weights fresh"
    )
    set: dict[str, Any] = Field(default={}, description="configuration keys of the checkpoint to override")
    family: Text | None = Field(default=None, description="model_type of a side from scratch, as gpt2")
    config: dict[str, Any] = Field(default={}, description="config.json keys of a side from scratch")
    tokenizer: Tokenizer | None = Field(
        default=None, description="checkpoint reference, or train: and vocab_size:"
    )


Side = Annotated[SideSection, BeforeValidator(side, json_schema_input_type=str | SideSection)]


class TokenizersSection(Section):
    """Tokenizers that replace those of the checkpoints."""

    source: Tokenizer | None = Field(default=None, description="for the encoder's texts")
    target: Tokenizer | None = Field(default=None, description="for the decoder's texts")


Trackers = Annotated[
    list[Literal["tensorboard", "wandb", "trackio", "mlflow"]], BeforeValidator(several_names)
]

#: objectives that learn a target for a source; the others read one text
PAIRED = ("seq2seq", "prefix_lm")


class LoraSection(Section):
    """Low-rank updates of what was loaded, which itself stands still; what is fresh learns as a whole."""

    r: Count = Field(default=8, description="rank of the updates")
    alpha: Positive = Field(default=8.0, description="updates are scaled by alpha / r")
    use_rslora: bool = Field(default=False, description="scale by alpha / sqrt(r) instead")
    dropout: Share = Field(default=0.0, description="dropout before the updates")
    parts: Annotated[list[Literal["encoder", "decoder", "cross_attention"]], Field(min_length=1)] = Field(
        default=["encoder", "decoder", "cross_attention"], description="parts that get updates"
    )
    target_modules: Annotated[list[Text], Field(min_length=1)] | None = Field(
        default=None, description="published names of matrices, or their ends; default: all in the layers"
    )


class ModelSection(Section):
    """What to join, and how. Without ``decoder`` the encoder's checkpoint serves on both sides."""

    encoder: Side | None = Field(default=None, description="the side that reads the source")
    decoder: Side | None = Field(default=None, description="the side that writes the target")
    set: dict[str, Any] = Field(
        default={}, description="configuration overrides: encoder_KEY, decoder_KEY or KEY"
    )
    share: Literal["none", "embeddings", "all"] = Field(
        default="none", description="parameters both sides share"
    )
    random: Literal["none", "encoder", "decoder", "both"] = Field(
        default="none", description="sides to start fresh"
    )
    tokenizers: TokenizersSection = Field(default=TokenizersSection(), description="replace the tokenizers")
    freeze: list[Part] = Field(default=[], description="parts that are not trained")
    lora: LoraSection | None = Field(default=None, description="train low-rank updates of what was loaded")
    seed: Seed = Field(default=0, description="seed of fresh parameters")


class SourceTarget(Section):
    """Two parallel text files, one line a row."""

    source: Text
    target: Text


Source = Annotated[
    Annotated[Text, Tag("text")]
    | Annotated[list[Text], Tag("list")]
    | Annotated[SourceTarget, Tag("mapping")],
    Discriminator(kind_of),
    SourceLike,
]


class DataSection(Section):
    """Where the rows come from and which fields hold the two texts. Paths: relative to the current folder."""

    train: Source | None = Field(default=None, description="rows to learn from")
    validation: Source | None = Field(default=None, description="rows to choose the best checkpoint by")
    test: Source | None = Field(default=None, description="rows that evaluate scores")
    source: Text = Field(default="source", description="field of the source text")
    target: Text = Field(default="target", description="field of the target text")
    references: Text | None = Field(default=None, description="field with all accepted targets, for scoring")
    reference_separator: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="splits one text into several accepted targets"
    )
    source_prefix: str = Field(default="", description="put before every source text")
    max_source_length: Count | None = Field(default=None, description="tokens; default: what the model takes")
    max_target_length: Count | None = Field(default=None, description="tokens; default: what the model takes")
    on_bad_row: Literal["error", "skip"] = Field(
        default="error", description="skip counts bad rows, at most 1 %"
    )
    streaming: bool = Field(
        default=False, description="read training rows as they are needed; needs max_steps"
    )
    buffer_size: Annotated[int, Field(ge=2, le=10_000_000)] = Field(
        default=16384, description="of streaming: rows held at a time, and shuffled among themselves"
    )


class GroupSection(Section):
    """Its own optimizer settings for one part of the model."""

    learning_rate: PositiveOrZero | None = Field(default=None, description="peak learning rate of this part")
    weight_decay: PositiveOrZero | None = Field(default=None, description="weight decay of this part")
    warmup_steps: Warmup | None = Field(default=None, description="warm-up of this part")
    lr_scheduler_type: Schedule | None = Field(default=None, description="course of this part's rate")
    freeze_steps: CountOrZero = Field(default=0, description="steps before this part starts to learn")
    freeze_after: Count | None = Field(default=None, description="steps after which this part stops to learn")
    freeze: bool = Field(default=False, description="never train this part")


class GroupsSection(Section):
    """Parts of the model with settings of their own; ``fresh`` = newly initialised parameters."""

    encoder: GroupSection | None = None
    decoder: GroupSection | None = None
    cross_attention: GroupSection | None = None
    fresh: GroupSection | None = None


class AdafactorSection(Section):
    """What Adafactor has beside rate and weight decay; as in transformers' optimizer of this name."""

    scale_parameter: bool = Field(default=False, description="steps relative to the size of the parameter")
    clip_threshold: Positive = Field(default=1.0, description="largest RMS of an update")
    decay_rate: Annotated[float, Field(ge=-1, lt=0)] = Field(
        default=-0.8, description="the second moment's decay at step t is 1 - t^decay_rate"
    )
    beta1: Share | None = Field(default=None, description="keep a first moment with this decay; null: none")


class TrainingSection(Section):
    """How to train. Names and meanings are those of transformers' TrainingArguments where one exists."""

    objective: Literal["seq2seq", "prefix_lm", "causal_lm", "masked_lm", "denoise"] = Field(
        default="seq2seq", description="what is learnt"
    )
    noise: Literal["infilling", "spans"] | None = Field(
        default=None, description="of denoise: BART's or T5's; default: what the tokenizers were made for"
    )
    noise_density: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="of denoise: share of tokens taken out; default: infilling 0.3, spans 0.15"
    )
    mean_span_length: Annotated[float, Field(ge=1, le=1000)] | None = Field(
        default=None, description="of denoise: mean tokens of a hole; default 3"
    )
    whole_word: bool = Field(default=False, description="of masked_lm: mask all pieces of a word")
    packing: bool = Field(
        default=False, description="of causal_lm: texts one behind another in blocks of max_target_length"
    )
    learning_rate: Positive = Field(default=5e-5, description="peak learning rate")
    weight_decay: PositiveOrZero = Field(default=0.0, description="decoupled weight decay")
    optim: Literal["adamw_torch_fused", "adamw_torch", "adafactor", "adamw_8bit", "adamw_bnb_8bit"] = Field(
        default="adamw_torch_fused", description="optimizer; the last two: AdamW with moments in eight bits"
    )
    adafactor: AdafactorSection = Field(default=AdafactorSection(), description="settings of Adafactor")
    adam_beta1: Share = Field(default=0.9, description="AdamW's beta1")
    adam_beta2: Share = Field(default=0.999, description="AdamW's beta2")
    adam_epsilon: Positive = Field(default=1e-8, description="AdamW's epsilon")
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="evaluate and save the running average of the weights, with this decay"
    )
    max_grad_norm: PositiveOrZero = Field(
        default=1.0, description="clip gradients to this norm; 0 = do not clip"
    )
    num_train_epochs: Positive = Field(default=3.0, description="passes over the training rows")
    max_steps: Count | None = Field(default=None, description="stop after so many steps; wins over epochs")
    max_minutes: Positive | None = Field(default=None, description="stop, and save, after so many minutes")
    tokens_per_batch: Count | None = Field(
        default=None,
        description="padded tokens a batch of rows of like length; default 4096 without a batch size",
    )
    per_device_train_batch_size: Count | None = Field(
        default=None, description="rows a batch, of any lengths, instead of tokens"
    )
    per_device_eval_batch_size: Count | None = Field(default=None, description="rows a validation batch")
    auto_find_batch_size: bool = Field(
        default=False, description="find the largest batch that fits; a step stays as large as it was"
    )
    gradient_accumulation_steps: Count = Field(default=1, description="batches a step")
    warmup_steps: Warmup = Field(
        default=0, description="steps of rising learning rate; below 1: share of all steps"
    )
    lr_scheduler_type: Schedule = Field(default="linear", description="course of the learning rate")
    label_smoothing_factor: Share = Field(default=0.0, description="probability spread over the other tokens")
    dropout: Share | None = Field(default=None, description="replaces the dropout rates of the checkpoints")
    eval_steps: Count | None = Field(
        default=None, description="validate every so many steps; default: each epoch"
    )
    save_steps: Count | None = Field(
        default=None, description="save every so many steps; default: each epoch"
    )
    logging_steps: Count = Field(default=10, description="write a log line every so many steps")
    report_to: Trackers = Field(default=[], description="trackers that get the figures of the log")
    save_total_limit: Count | None = Field(
        default=None, description="checkpoints to keep (the best is kept too)"
    )
    eval_samples: CountOrZero = Field(
        default=64, description="validation rows to generate from; some are shown"
    )
    metric_for_best_model: Metric = Field(default="loss", description="what best means")
    greater_is_better: bool | None = Field(default=None, description="default: by the metric")
    load_best_model_at_end: bool | None = Field(
        default=None, description="keep the best checkpoint as result; default: true with validation rows"
    )
    early_stopping_patience: Count | None = Field(
        default=None, description="stop after so many validations without a better one"
    )
    skip_nan: CountOrZero = Field(
        default=0, description="steps without finite numbers to pass over before the run ends"
    )
    seed: Seed = Field(default=42, description="seed of order, dropout and fresh parameters")
    mixed_precision: Literal["no", "bf16", "fp16"] = Field(
        default="no", description="number format of training"
    )
    torch_compile: bool = Field(
        default=False, description="translate the loss into machine code: minutes at the start, faster steps"
    )
    ddp_timeout: Positive = Field(
        default=1800.0, description="seconds that processes wait for one another in a step"
    )
    gradient_checkpointing: bool = Field(
        default=False, description="keep each layer's input only and work the layer out again: less memory"
    )
    cache_encoder_states: bool | None = Field(
        default=None, description="keep the states of a frozen encoder; default: where nothing else changes"
    )
    encoder_cache_mb: Count = Field(default=1024, description="most memory for these states, in MB")
    groups: GroupsSection = Field(default=GroupsSection(), description="settings for parts of the model")

    @model_validator(mode="before")
    @classmethod
    def _default_batch(cls, data: Any) -> Any:
        sizes = ("tokens_per_batch", "per_device_train_batch_size")
        if isinstance(data, dict) and all(data.get(name) is None for name in sizes):
            return {**data, "tokens_per_batch": 4096}
        return data


class RecipeFile(Section):
    """A run of s2s: what to join, the rows to learn from, how to train, how to generate."""

    model: ModelSection
    data: DataSection = DataSection()
    training: TrainingSection = TrainingSection()
    generation: GenerationSection = GenerationSection()
    output: FilePath | None = Field(
        default=None, description="folder of the run; relative to the current folder"
    )
