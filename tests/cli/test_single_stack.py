"""UniLM's way, end to end: one stack from scratch learns to reverse words, stops, goes on, and writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

import seq2seq_cli
from seq2seq_cli.errors import UsageError
from seq2seq_cli.model import PrefixModel
from seq2seq_cli.text.training import train_tokenizer
from tests import tiny
from tests.cli.conftest import TEXTS, Run
from tests.training import helpers

RECIPE = """
model:
  encoder:
    family: bert
    config: {hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 64,
             max_position_embeddings: 32, hidden_dropout_prob: 0.0, attention_probs_dropout_prob: 0.0}
    tokenizer: {train: wordpiece, vocab_size: 60}
data: {train: train.jsonl, validation: dev.jsonl, max_target_length: 12}
training: {objective: prefix_lm, max_steps: 75, per_device_train_batch_size: 16, learning_rate: 5e-3,
           save_steps: 25, eval_steps: 25, eval_samples: 2, lr_scheduler_type: constant}
output: runs/tiny
"""


def test_a_single_stack_learns_and_writes(s2s: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    helpers.write_data(tmp_path, rows=200)
    (tmp_path / "r.yaml").write_text(RECIPE)
    whole = s2s("finetune", "r.yaml")
    assert whole.returncode == 0, whole.stderr
    rest = s2s("finetune", "r.yaml", "-o", "rest", "--resume", "runs/tiny/checkpoint-50")
    assert rest.returncode == 0, rest.stderr
    one, other = (load_file(tmp_path / f / "model.safetensors") for f in ("runs/tiny", "rest"))
    assert all(torch.equal(other[name], tensor) for name, tensor in one.items())
    config = json.loads((tmp_path / "runs/tiny/config.json").read_text())
    assert config["model_type"] == "bert"
    assert config["s2s"]["single_stack"] is True
    pair = seq2seq_cli.load(tmp_path / "runs/tiny")
    assert isinstance(pair.model, PrefixModel)
    scores = [line["evaluation"] for line in helpers.log_of(tmp_path / "runs/tiny") if "evaluation" in line]
    assert scores[-1]["loss"] < 1.2  # the logarithm of eight words is 2.1
    written = s2s("generate", "-m", "runs/tiny", "red cat", "sun", "--num-beams", "2")
    assert written.returncode == 0, written.stderr
    assert written.stdout.count(b"\n") == 2
    again = s2s("combine", "runs/tiny", "--single-stack", "-o", "again")
    assert again.returncode == 0, again.stderr
    assert b"with model: {encoder: again} and training: {objective: prefix_lm}" in again.stderr
    # a folder of that kind is trained on as it is, under either objective
    more = RECIPE.replace("family: bert", "checkpoint: again").split("    config:")[0]
    rest = RECIPE[RECIPE.index("data:") :].replace("max_steps: 75", "max_steps: 2").replace("tiny", "more")
    (tmp_path / "more.yaml").write_text(more + rest)
    assert s2s("finetune", "more.yaml").returncode == 0
    assert s2s("finetune", "more.yaml", "--set", "training.objective=seq2seq", "-o", "o").returncode == 0


def test_what_is_fresh_is_known_after_saving(s2s: Run, tmp_path: Path) -> None:
    """A bare encoder brings no head; a recipe may give what is fresh a rate of its own."""
    done = s2s("combine", "minilm", "--single-stack", "-o", str(tmp_path / "one"))
    assert done.returncode == 0, done.stderr
    pair = seq2seq_cli.load(tmp_path / "one")
    fresh = set(pair.config["s2s"]["fresh"])
    assert fresh
    assert fresh == {name for name, _ in pair.model.named_parameters() if ".head." in name} - {
        "stack.head.weight"  # the embedding itself
    }


def test_a_prefix_model_has_one_side(s2s: Run, tmp_path: Path) -> None:
    wrong = s2s("combine", "minilm", "gpt2", "--single-stack", "--share", "all", "-o", str(tmp_path / "x"))
    assert wrong.returncode == 2
    assert b"--single-stack does not go with DECODER, --share" in wrong.stderr


def test_source_and_target_share_the_positions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seq2seq_cli.recipe import load_recipe
    from seq2seq_cli.training.setup import prepare

    monkeypatch.chdir(tmp_path)
    helpers.write_data(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE)
    prepared = prepare(load_recipe(tmp_path / "r.yaml", []))
    assert prepared.bundle.single_stack is not None
    with pytest.raises(UsageError, match="max_source_length 30 is more than the 20"):
        prepare(load_recipe(tmp_path / "r.yaml", ["data.max_source_length=30"]))


@pytest.mark.parametrize("family", ["xlnet", "xlm"])
def test_a_published_stack_writes_its_own_way(s2s: Run, family: str, tmp_path: Path) -> None:
    """Lines of unequal length through the program are what transformers generates behind each."""
    kind = {"xlnet": transformers.XLNetLMHeadModel, "xlm": transformers.XLMWithLMHeadModel}[family]
    changes = {"mask_token_id": 4} if family == "xlm" else {}
    theirs = tiny.scramble(
        kind(tiny.config(family, vocab_size=34, tie_word_embeddings=False, **changes)), seed=3
    )
    theirs.generation_config.bad_words_ids = [[n] for n in range(5)]  # all special tokens
    theirs.save_pretrained(tmp_path / "model")
    tokenizer = train_tokenizer("wordpiece", 60, TEXTS)
    tokenizer.save(tmp_path / "model")
    options = {"use_mems": False} if family == "xlnet" else {}
    lines = ["who sells tea", "tea", "list all the orders of may"]
    expected = []
    for line in lines:
        prompt = torch.tensor([[*tokenizer.template[0], *tokenizer.encode([line], special=False)[0]]])
        settings = {"max_new_tokens": 5, "min_new_tokens": 5, "num_beams": 2, "pad_token_id": 0, **options}
        ids = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), **settings)[0].tolist()
        expected.append(tokenizer.decode(ids).replace(" ", ""))
    flags = ("--max-new-tokens", "5", "--min-new-tokens", "5", "--num-beams", "2", "--echo")
    done = s2s("generate", "-m", "model", *flags, stdin="\n".join(lines).encode())
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().replace(" ", "").splitlines() == expected
    assert len(set(expected)) == 3
