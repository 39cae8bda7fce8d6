"""Objectives on raw text beyond the plain ones: denoising, whole words, packing. Each learns, resumes to the
bit and is refused where it does not go."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models

from seq2seq_cli.checkpoint.bundle import load_bundle
from seq2seq_cli.data import cache
from seq2seq_cli.data.denoised import DenoiseDataset
from seq2seq_cli.data.packed import PackedDataset
from seq2seq_cli.errors import UsageError
from seq2seq_cli.recipe import Recipe
from seq2seq_cli.text.tokenizer import Tokenizer
from seq2seq_cli.text.training import train_tokenizer
from seq2seq_cli.training.run import finetune
from seq2seq_cli.training.setup import prepare
from tests.training.helpers import BERT, GPT2, ONE_SIDED, RECIPE, WORDS, log_of

Make = Callable[..., Recipe]
DENOISE = RECIPE.replace(
    "data: {train: train.jsonl, validation: dev.jsonl}", "data: {train: text.txt, validation: text.txt}"
)
DENOISE = DENOISE.replace("eval_samples: 4}", "objective: denoise, dropout: 0.1, save_steps: 5}")
MASKED = ONE_SIDED.format(side="encoder", family="bert", config=BERT, objective="masked_lm")
PACKED = ONE_SIDED.format(side="decoder", family="gpt2", config=GPT2, objective="causal_lm")
PACKED = PACKED.replace("eval_steps: 10}", "eval_steps: 10, packing: true}")
SPANS = """
model:
  encoder: {family: t5, config: {d_model: 32, d_kv: 16, d_ff: 32, num_layers: 1,
            num_heads: 2}, tokenizer: marked}
  decoder: {family: t5, config: {d_model: 32, d_kv: 16, d_ff: 32, num_layers: 1,
            num_heads: 2}, tokenizer: marked}
data: {train: text.txt, validation: text.txt}
training: {objective: denoise, max_steps: 30, tokens_per_batch: 96, learning_rate: 1e-2, logging_steps: 2}
output: runs/tiny
"""


def digest(run: str) -> dict[str, str]:
    """SHA-256 of every tensor of a run's model."""
    state = load_bundle(run, role=None).model.state_dict()
    return {name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in state.items()}


@pytest.fixture
def marked(workplace: Path) -> Path:
    """A tokenizer with sentinels, as T5's."""
    plain = train_tokenizer("unigram", 60, WORDS)
    plain.extended({f"mark_{i}": f"<extra_id_{i}>" for i in range(12)}).save(workplace / "marked")
    return workplace / "marked"


def test_denoising_learns_and_resumes_to_the_bit(workplace: Path, recipe: Make) -> None:
    results = finetune(recipe("training.num_train_epochs=6", text=DENOISE))
    log = [record for record in log_of(Path("runs/tiny")) if "evaluation" in record]
    assert log[-1]["evaluation"]["loss"] < log[0]["evaluation"]["loss"] - 0.3
    assert set(log[-1]["evaluation"]) == {"loss", "perplexity", "source_sensitivity"}
    whole = digest("runs/tiny")
    again = recipe("training.num_train_epochs=6", "output=runs/again", text=DENOISE)
    assert finetune(again, resume=str(Path("runs/tiny/checkpoint-5")))["steps"] == results["steps"]
    assert digest("runs/again") == whole


def samples_of(run: str) -> list[dict[str, str]]:
    """What the last evaluation of a run showed."""
    last: list[dict[str, str]] = log_of(Path(run))[-1]["samples"]
    return last


def test_denoising_shows_what_is_made_of_the_holes(workplace: Path, recipe: Make) -> None:
    finetune(recipe("training.num_train_epochs=2", text=DENOISE))
    texts = Path("text.txt").read_text().splitlines()
    samples = samples_of("runs/tiny")
    assert [sample["reference"] for sample in samples] == texts[:3]
    for sample, text in zip(samples, texts, strict=False):
        kept = sample["source"].split()
        assert "[MASK]" in sample["source"]
        assert [word for word in kept if word in text.split()]
    none = recipe("training.eval_samples=0", "output=runs/none", text=DENOISE)
    finetune(none)
    assert all("samples" not in record for record in log_of(Path("runs/none")))


def test_spans_are_shown_with_their_sentinels(workplace: Path, marked: Path, recipe: Make) -> None:
    prepared = prepare(recipe(text=SPANS))
    assert isinstance(prepared.validation, DenoiseDataset)
    sample = prepared.samples[0]
    assert "<extra_id_0>" in sample.source
    assert sample.ids == tuple(prepared.validation[0][0].tolist())
    assert sample.references[0].split() != Path("text.txt").read_text().splitlines()[0].split()


@pytest.mark.parametrize("packing", ["true", "false"])
def test_a_language_model_is_asked_for_the_other_half(workplace: Path, recipe: Make, packing: str) -> None:
    finetune(recipe(f"training.packing={packing}", text=PACKED))
    texts = Path("text.txt").read_text().splitlines()
    samples = samples_of("runs/one")
    assert samples
    for sample in samples:
        assert sample["source"] + sample["reference"] in texts
        assert sample["source"]
        assert sample["reference"].startswith(" ")
    assert set(log_of(Path("runs/one"))[-1]["evaluation"]) == {"loss", "perplexity"}


def test_holes_change_from_epoch_to_epoch(workplace: Path, recipe: Make) -> None:
    prepared = prepare(recipe(text=DENOISE))
    assert isinstance(prepared.train, DenoiseDataset)
    one, two = (prepared.collate([0, 1, 2, 3], epoch) for epoch in (0, 1))
    assert one.source_ids is not None
    assert two.source_ids is not None
    assert one.source_ids.tolist() != two.source_ids.tolist()
    assert one.labels.equal(two.labels)
    assert prepared.train.noise.kind == "infilling"
    assert (prepared.train.noise.density, prepared.train.noise.mean_span_length) == (0.3, 3.0)
    other = prepare(recipe("training.noise_density=0.5", "training.mean_span_length=1.5", text=DENOISE)).train
    assert isinstance(other, DenoiseDataset)
    assert (other.noise.density, other.noise.mean_span_length) == (0.5, 1.5)


def test_a_pair_without_tokenizer_trains_it_on_the_texts(workplace: Path, recipe: Make) -> None:
    bundle = prepare(recipe(text=DENOISE)).bundle
    assert bundle.source_tokenizer is not None
    assert bundle.source_tokenizer.encode(["red"], special=False) != [[bundle.source_tokenizer.unk_id]]


def test_sentinels_ask_for_spans(marked: Path, recipe: Make) -> None:
    data = prepare(recipe(text=SPANS)).train
    assert isinstance(data, DenoiseDataset)
    assert data.noise.kind == "spans"
    assert math.isclose(data.noise.density, 0.15)
    results = finetune(recipe(text=SPANS))
    log = [record["loss"] for record in log_of(Path("runs/tiny")) if "loss" in record]
    assert log[-1] < log[0]
    assert results["steps"] == 30


def test_noise_needs_tokenizers_for_it(workplace: Path, recipe: Make) -> None:
    with pytest.raises(UsageError, match=r"noise: spans needs one tokenizer.*--set training.noise"):
        prepare(recipe("training.noise=spans", text=DENOISE))
    backend = Backend(models.WordLevel({"red": 0, "<unk>": 1, "<s>": 2}, unk_token="<unk>"))
    Tokenizer(backend=backend, config={"unk_token": "<unk>", "eos_token": "<s>"}).save(workplace / "bare")
    with pytest.raises(UsageError, match="mask token, or sentinels"):
        prepare(recipe("model.encoder.tokenizer=bare", text=DENOISE))


def test_whole_words_resume_to_the_bit(workplace: Path, recipe: Make) -> None:
    changes = ["training.whole_word=true", "training.max_steps=8", "training.save_steps=3"]
    made = recipe(*changes, text=MASKED)
    data = prepare(made).train
    assert any((data[i] < 0).any() for i in range(len(data))), "there are words of several pieces"
    finetune(made)
    again = recipe(*changes, "output=runs/again", text=MASKED)
    finetune(again, resume=str(Path("runs/one/checkpoint-6")))
    assert digest("runs/again") == digest("runs/one")


def test_packed_texts_are_learnt_without_padding(workplace: Path, recipe: Make) -> None:
    changes = ["training.max_steps=24", "training.save_steps=10"]
    made = recipe(*changes, text=PACKED)
    prepared = prepare(made)
    assert isinstance(prepared.train, PackedDataset)
    assert set(prepared.train.lengths[:-1, 1]) == {24}, "the positions of the model"
    assert prepared.train.summary.truncated_targets == 0
    plain = prepare(recipe("training.packing=false", text=PACKED))
    assert plain.train.lengths.sum() == prepared.train.lengths.sum(), "the same tokens are learnt"
    finetune(made)
    losses = [record["loss"] for record in log_of(Path("runs/one")) if "loss" in record]
    assert losses[-1] < losses[0] - 0.5
    finetune(recipe(*changes, "output=runs/again", text=PACKED), resume=str(Path("runs/one/checkpoint-20")))
    assert digest("runs/again") == digest("runs/one")


@pytest.mark.parametrize(
    ("text", "change", "message"),
    [
        (RECIPE, "training.noise=spans", "noise belongs to denoise, not to seq2seq"),
        (MASKED, "training.noise_density=0.2", "noise_density belongs to denoise, not to masked_lm"),
        (PACKED, "training.mean_span_length=2.0", "mean_span_length belongs to denoise"),
        (PACKED, "training.whole_word=true", "whole_word belongs to masked_lm, not to causal_lm"),
        (MASKED, "training.packing=true", "packing belongs to causal_lm, not to masked_lm"),
        (DENOISE, "data.source_prefix=x", "source_prefix has no effect: denoise makes its sources from"),
        (DENOISE, "data.source=x", "source has no effect: denoise makes its sources from the texts"),
        *(
            (text, f"data.{name}={value}", f"{name} has no effect: {objective} has no sources")
            for text, objective in ((PACKED, "causal_lm"), (MASKED, "masked_lm"))
            for name, value in (("source", "x"), ("source_prefix", "x"), ("max_source_length", "9"))
        ),
        (MASKED, "training.eval_samples=4", "eval_samples has no effect: masked_lm writes no text"),
        (DENOISE, "training.mean_span_length=0.5", "mean_span_length"),
        (DENOISE, "training.metric_for_best_model=bleu", "denoise is not scored by bleu"),
    ],
)
def test_what_does_not_go_is_refused(
    workplace: Path, recipe: Make, text: str, change: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        recipe(change, text=text)


def test_a_second_start_tokenizes_nothing(
    workplace: Path, recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_SMALL", 1)
    finetune(recipe("output=runs/without", text=DENOISE))
    monkeypatch.setenv("S2S_CACHE", str(workplace / "cache"))
    finetune(recipe(text=DENOISE))

    def never(*_: object, **__: object) -> None:
        raise AssertionError("tokenized again")

    monkeypatch.setattr(Tokenizer, "encode", never)
    again = recipe("output=runs/again", text=DENOISE)
    finetune(again, resume=str(Path("runs/tiny/checkpoint-5")))
    assert digest("runs/again") == digest("runs/tiny") == digest("runs/without")
