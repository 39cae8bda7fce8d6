"""Which parameter belongs to which part, what is decayed, frozen, counted and clipped."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from seq2seq_cli.model import (
    EmbeddingConfig,
    EncoderDecoder,
    FinalNormConfig,
    HeadConfig,
    Stack,
    StackConfig,
)
from seq2seq_cli.model.initialise import initialise
from seq2seq_cli.recipe import Recipe
from seq2seq_cli.training.module import TrainingModule, reached_parameters
from seq2seq_cli.training.optimizer import (
    Parts,
    clip_gradients,
    gradient_norms,
    make_optimizer,
    set_rates,
    split_parts,
)

SIZES = {"vocab_size": 30, "num_layers": 1, "num_heads": 2, "feedforward_size": 16, "max_positions": 10}


def model(*, encoder_size: int = 16, share: str = "none") -> EncoderDecoder:
    encoder = StackConfig(
        **SIZES, hidden_size=encoder_size, head_size=encoder_size // 2, embedding=EmbeddingConfig(norm=True)
    )
    decoder = StackConfig(
        **SIZES,
        hidden_size=16,
        head_size=8,
        causal=True,
        cross_attention=True,
        head=HeadConfig(),
        norm_order="post" if share == "all" else "pre",
        final_norm=FinalNormConfig() if share != "all" else None,
        embedding=EmbeddingConfig(norm=share == "all"),
    )
    made = EncoderDecoder(Stack(encoder), Stack(decoder), share=share)
    initialise(made, config=decoder, generator=torch.Generator().manual_seed(0))
    made.tie()
    return made


def batch() -> tuple[torch.Tensor, ...]:
    make = torch.Generator().manual_seed(1)
    source, target = (torch.randint(1, 30, (3, 6), generator=make) for _ in range(2))
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] * 6]).bool()
    labels = target.roll(-1, 1)
    labels[1, 3:] = -100
    return source, mask, target, mask, labels


def names_of(parts: Parts) -> dict[str, set[str]]:
    return {part.name: {name for name, _ in part.parameters} for part in parts.parts}


def test_every_parameter_is_in_one_part(recipe: Callable[..., Recipe]) -> None:
    pair = model(encoder_size=8)
    parts = names_of(split_parts(pair, recipe().training))
    assert sorted(name for names in parts.values() for name in names) == sorted(
        name for name, _ in pair.named_parameters()
    )
    assert {"projection.weight", "decoder.layers.0.cross_norm.bias"} <= parts["cross_attention"]
    assert "encoder.embedding.weight" in parts["encoder"]
    assert set(parts) == {"encoder", "decoder", "cross_attention"}


def test_fresh_is_a_part_only_where_the_recipe_speaks_of_it(recipe: Callable[..., Recipe]) -> None:
    pair = model(encoder_size=8)
    fresh = {"projection.weight", "decoder.layers.0.cross_attention.key.weight"}
    quiet = names_of(split_parts(pair, recipe().training, fresh=fresh))
    assert "fresh" not in quiet
    training = recipe("training.groups.fresh.learning_rate=0.5").training
    spoken = split_parts(pair, training, fresh=fresh)
    assert names_of(spoken)["fresh"] == fresh
    assert {part.name: part.peak for part in spoken.parts}["fresh"] == 0.5
    frozen = split_parts(pair, recipe().training, fresh=fresh, freeze=["fresh"])
    assert {part.name: part.frozen for part in frozen.parts}["fresh"]


@pytest.mark.parametrize("share", ["embeddings", "all"])
def test_shared_parameters_count_once_as_the_decoders(recipe: Callable[..., Recipe], share: str) -> None:
    pair = model(share=share)
    parts = split_parts(pair, recipe().training)
    assert "decoder.embedding.weight" in names_of(parts)["decoder"]
    ids = [id(p) for part in parts.parts for _, p in part.parameters]
    assert len(ids) == len(set(ids)) == len(list(pair.parameters()))
    optimizer = make_optimizer(parts, recipe().training)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(ids)


def test_biases_and_norms_are_not_decayed(recipe: Callable[..., Recipe]) -> None:
    pair = model()
    training = recipe("training.weight_decay=0.1", "training.groups.encoder.weight_decay=0.2").training
    optimizer = make_optimizer(split_parts(pair, training), training)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in pair.named_parameters():
        plain = name.endswith("bias") or "norm." in name
        expected = 0.0 if plain else (0.2 if name.startswith("encoder.") else 0.1)
        assert decay[id(parameter)] == expected, name


def test_a_part_starts_late_with_its_own_warmup(recipe: Callable[..., Recipe]) -> None:
    training = recipe(
        "training.groups.encoder.freeze_steps=5",
        "training.groups.encoder.warmup_steps=2",
        "training.groups.encoder.learning_rate=0.1",
        "training.learning_rate=1",
    ).training
    parts = split_parts(model(), training)
    optimizer = make_optimizer(parts, training)
    rates = [set_rates(optimizer, parts, step, 25) for step in range(25)]
    assert [r["encoder"] for r in rates[:8]] == pytest.approx([0, 0, 0, 0, 0, 0, 0.05, 0.1])
    assert rates[0]["decoder"] == 1.0
    assert rates[24]["encoder"] == pytest.approx(0.1 / 18)
    for step, learns in ((0, False), (4, False), (5, True)):
        parts.set_frozen(step)
        assert {p.requires_grad for _, p in parts.parts[0].parameters} == {learns}
    assert {p.requires_grad for _, p in parts.parts[1].parameters} == {True}


def test_norms_of_parts_add_up_and_clipping_is_torchs(recipe: Callable[..., Recipe]) -> None:
    pair = model()
    parts = split_parts(pair, recipe().training)
    TrainingModule(pair)(*batch()).backward()
    total, by_part = gradient_norms(parts)
    assert math.hypot(*(float(norm) for norm in by_part.values())) == pytest.approx(float(total))
    before = {name: p.grad.clone() for name, p in pair.named_parameters()}
    clip_gradients(parts, float(total), 0.5)
    ours = {name: p.grad.clone() for name, p in pair.named_parameters()}
    for name, parameter in pair.named_parameters():
        parameter.grad = before[name].clone()
    theirs = torch.nn.utils.clip_grad_norm_(pair.parameters(), 0.5)
    assert float(theirs) == pytest.approx(float(total))
    for name, parameter in pair.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad)


def test_parameters_without_gradient_are_found(recipe: Callable[..., Recipe]) -> None:
    pair = model()
    pair.unused = torch.nn.Parameter(torch.zeros(2))
    reached = reached_parameters(TrainingModule(pair)(*batch()))
    parts = split_parts(pair, recipe().training, reached=reached)
    assert parts.left_out == ("unused",)
    assert not pair.unused.requires_grad
    assert all(id(p) in reached for name, p in pair.named_parameters() if name != "unused")


def test_loss_is_that_of_the_models_logits() -> None:
    pair = model(encoder_size=8).eval()
    source, mask, target, target_mask, labels = batch()
    ours = TrainingModule(pair)(source, mask, target, target_mask, labels)
    logits = pair(source, mask, target, target_mask)
    plain = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="sum")
    torch.testing.assert_close(ours, plain)


def test_smoothing_is_for_training_only() -> None:
    pair = model()
    smooth, plain = TrainingModule(pair, smoothing=0.2), TrainingModule(pair)
    with torch.no_grad():
        assert smooth.train()(*batch()) != plain.train()(*batch())
        assert smooth.eval()(*batch()) == plain.eval()(*batch())


def test_each_part_has_a_schedule_of_its_own_and_stops_where_it_should(recipe: Callable[..., Recipe]) -> None:
    training = recipe(
        "training.learning_rate=1",
        *("training.groups.encoder.freeze_after=4", "training.groups.encoder.learning_rate=0.4"),
        *("training.groups.decoder.lr_scheduler_type=constant", "training.groups.decoder.freeze_steps=2"),
        "training.groups.cross_attention.lr_scheduler_type=noam",
        "training.groups.cross_attention.warmup_steps=4",
    ).training
    parts = split_parts(model(), training)
    optimizer = make_optimizer(parts, training)
    rates = [set_rates(optimizer, parts, step, 8) for step in range(8)]
    assert [r["encoder"] for r in rates] == pytest.approx([0.4, 0.3, 0.2, 0.1, 0, 0, 0, 0])
    assert [r["decoder"] for r in rates] == [0, 0, 1, 1, 1, 1, 1, 1]
    assert [r["cross_attention"] for r in rates[2:6]] == pytest.approx([3 / 8, 1 / 2, 5**-0.5, 6**-0.5])
    learning = []
    for step in (0, 2, 4):
        parts.set_frozen(step)
        learning.append([part.parameters[0][1].requires_grad for part in parts.parts])
    assert learning == [[True, False, True], [True, True, True], [False, True, True]]
    parts.set_open()
    assert all(parameter.requires_grad for part in parts.parts for _, parameter in part.parameters)


@pytest.mark.parametrize(
    ("settings", "idle"),
    [
        (["encoder.freeze_steps=3", "decoder.freeze_steps=3", "cross_attention.freeze_steps=3"], 0),
        (["encoder.freeze_after=4", "decoder.freeze_after=5", "cross_attention.freeze_after=3"], 5),
        (["encoder.freeze_after=4", "decoder.freeze_after=9", "cross_attention.freeze_after=3"], None),
    ],
)
def test_steps_in_which_nothing_learns_are_found(
    recipe: Callable[..., Recipe], settings: list[str], idle: int | None
) -> None:
    training = recipe(*(f"training.groups.{setting}" for setting in settings)).training
    assert split_parts(model(), training).idle_step(9) == idle
