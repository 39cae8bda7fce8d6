"""What a run may start from: checkpoints, combined pairs, shared parameters, single stacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from seq2seq_cli.checkpoint.bundle import load_bundle
from seq2seq_cli.errors import CheckpointError, UsageError
from seq2seq_cli.recipe import Recipe
from seq2seq_cli.text.training import train_tokenizer
from seq2seq_cli.training.run import finetune
from seq2seq_cli.training.setup import prepare
from seq2seq_cli.training.state import read_checkpoint
from tests.tiny import save_encoder, save_language_model
from tests.training.helpers import WORDS

Make = Callable[..., Recipe]
PAIR = """
model: {encoder: bert, decoder: gpt2}
data: {train: train.jsonl}
training: {max_steps: 4, tokens_per_batch: 96, save_steps: 2, learning_rate: 1e-3}
output: runs/tiny
"""


@pytest.fixture
def folders(workplace: Path) -> Path:
    """Published-format folders ``bert`` and ``gpt2`` with tokenizers, and ``big`` with too many tokens."""
    save_encoder("bert", workplace / "bert")
    save_language_model("gpt2", workplace / "gpt2", bos_token_id=2, eos_token_id=3)
    for name in ("bert", "gpt2"):
        train_tokenizer("wordpiece", 60, WORDS).save(workplace / name)
    return workplace


def test_checkpoints_are_joined_and_trained(folders: Path, recipe: Make) -> None:
    prepared = prepare(recipe(text=PAIR))
    assert any(".cross_attention." in name for name in prepared.fresh)
    assert not any(name.startswith("encoder.") for name in prepared.fresh)
    results = finetune(recipe(text=PAIR))
    assert results["model_of_step"] == 4, "without validation rows the last model is the result"


@pytest.mark.parametrize("share", ["embeddings", "all"])
def test_shared_parameters_stay_shared_over_a_resume(folders: Path, recipe: Make, share: str) -> None:
    changes = ["model.decoder=bert", f"model.share={share}", "training.dropout=0.1"]
    finetune(recipe(*changes, text=PAIR))
    whole = load_bundle("runs/tiny").model
    finetune(recipe(*changes, "output=runs/again", text=PAIR), resume=str(Path("runs/tiny/checkpoint-2")))
    again = load_bundle("runs/again").model
    assert again.encoder.embedding.weight is again.decoder.embedding.weight
    for name, parameter in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], parameter, rtol=1e-5, atol=1e-6)


def test_a_combined_folder_is_taken_whole_with_what_was_fresh(folders: Path, recipe: Make) -> None:
    from seq2seq_cli.checkpoint.saving import save_bundle

    first = prepare(recipe(text=PAIR))
    save_bundle(first.bundle, Path("pair"))
    made = recipe("model.decoder=null", "model.encoder=pair", text=PAIR)
    again = prepare(made)
    assert again.fresh == first.fresh
    for name, parameter in first.bundle.model.state_dict().items():
        assert torch.equal(again.bundle.model.state_dict()[name], parameter)
    finetune(made)
    trained = prepare(recipe("model.decoder=null", "model.encoder=runs/tiny", "output=b", text=PAIR))
    assert not trained.fresh, "what was fine-tuned is fresh no more"


def test_dropout_is_set_where_the_family_has_it(folders: Path, recipe: Make) -> None:
    model = prepare(recipe("training.dropout=0.4", text=PAIR)).bundle.model
    rates = {name: m.p for name, m in model.named_modules() if isinstance(m, torch.nn.Dropout)}
    assert set(rates.values()) == {0.4}
    assert any(name.endswith("layers.0.dropout") for name in rates)
    assert not any("feedforward" in name or "final" in name for name in rates), "neither BERT nor GPT-2"


def test_random_sides_and_settings_reach_the_model(folders: Path, recipe: Make) -> None:
    made = prepare(recipe("model.random=decoder", "model.set={decoder_n_layer: 1}", text=PAIR))
    assert len(made.bundle.decoder.layers) == 1
    assert all(name in made.fresh for name, _ in made.bundle.model.named_parameters() if "decoder" in name)


def test_dropout_replaces_every_rate(folders: Path, recipe: Make) -> None:
    model = prepare(recipe("training.dropout=0.25", text=PAIR)).bundle.model
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.25}
    assert model.decoder.layers[0].cross_attention.dropout == 0.25


@pytest.mark.parametrize(
    ("objective", "side", "name"), [("causal_lm", "decoder", "gpt2"), ("masked_lm", "encoder", "bert")]
)
def test_a_single_stack_goes_on_from_a_checkpoint(
    folders: Path, recipe: Make, objective: str, side: str, name: str
) -> None:
    text = PAIR.replace("encoder: bert, decoder: gpt2", f"{side}: {name}").replace("train.jsonl", "text.txt")
    made = recipe(f"training.objective={objective}", text=text)
    prepared = prepare(made)
    assert {n for n in prepared.fresh if not n.startswith("head.")} == set()
    finetune(made)
    assert read_checkpoint(Path("runs/tiny/checkpoint-4")).state.finished == "steps"
    role = "masked_lm" if objective == "masked_lm" else "decoder"
    assert load_bundle("runs/tiny", role=role).config["s2s"]["trained"]
    joined = {"decoder": "model.decoder=runs/tiny", "encoder": "model.encoder=runs/tiny"}[side]
    assert finetune(recipe(joined, "output=runs/pair", text=PAIR))["steps"] == 4


@pytest.mark.parametrize(
    ("objective", "side", "name", "key"),
    [
        ("causal_lm", "decoder", "gpt2", "resid_pdrop"),
        ("masked_lm", "encoder", "bert", "hidden_dropout_prob"),
    ],
)
def test_settings_of_the_model_reach_a_single_stack(
    folders: Path, recipe: Make, objective: str, side: str, name: str, key: str
) -> None:
    text = PAIR.replace("encoder: bert, decoder: gpt2", f"{side}: {name}").replace("train.jsonl", "text.txt")
    for setting in (key, f"{side}_{key}"):
        made = prepare(recipe(f"training.objective={objective}", f"model.set.{setting}=0.375", text=text))
        assert made.bundle.config[key] == 0.375
    other = "encoder" if side == "decoder" else "decoder"
    for wrong in ("foo", f"{other}_{key}"):
        with pytest.raises(UsageError, match=f"'{wrong}' is not an option of {name}"):
            prepare(recipe(f"training.objective={objective}", f"model.set.{wrong}=0.375", text=text))


def test_a_tokenizer_too_large_for_the_weights_is_refused(folders: Path, recipe: Make) -> None:
    train_tokenizer("bpe", 300, WORDS).save(folders / "big")
    with pytest.raises(CheckpointError, match="tokenizer has"):
        prepare(recipe("model.tokenizers.target=big", text=PAIR))


def test_one_tokenizer_is_trained_for_both_sides_where_they_are_one(recipe: Make) -> None:
    made = prepare(recipe("model.decoder=null", "model.encoder.family=bert", "model.share=all"))
    source, target = made.bundle.source_tokenizer, made.bundle.target_tokenizer
    assert source is not None
    assert target is not None
    assert source.fingerprint == target.fingerprint
