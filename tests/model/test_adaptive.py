"""A vocabulary in clusters: its log-probabilities, its loss, and its embedding on two sides of a pair."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from seq2seq_cli.errors import UsageError
from seq2seq_cli.model import (
    AdaptiveConfig,
    EmbeddingConfig,
    EncoderDecoder,
    HeadConfig,
    Stack,
    StackConfig,
)
from seq2seq_cli.model.initialise import initialise
from seq2seq_cli.training.module import TrainingModule

IDS = torch.tensor([[1, 7, 25, 59, 30, 3], [2, 40, 8, 9, 55, 19]])
LABELS = torch.tensor([[7, 25, 59, 30, 3, -100], [40, 8, 9, 55, 19, 2]])
CASES = {
    "one piece": ((), 1, 16),
    "one table": ((8, 30), 1, 16),
    "one table as wide as the states": ((8, 30), 1, 24),
    "tables": ((8, 30), 2, 16),
    "an empty cluster": ((8, 30, 57, 58), 2, 16),
}


def config(case: str, **changes: object) -> StackConfig:
    cutoffs, divisor, size = CASES[case]
    made = StackConfig(
        vocab_size=60,
        hidden_size=24,
        num_layers=2,
        num_heads=2,
        head_size=12,
        feedforward_size=16,
        max_positions=16,
        embedding=EmbeddingConfig(
            size=size,
            positions="none",
            adaptive=AdaptiveConfig(cutoffs=cutoffs, divisor=divisor, projection_init_std=0.5),
        ),
        causal=True,
        head=HeadConfig(tied_projections=(False, True, True, True, True)),
        init_std=0.5,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def stack(case: str, **changes: object) -> Stack:
    made = Stack(config(case, **changes))
    initialise(made, config=made.config, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.startswith("head.") and name.endswith("bias"):
                parameter.normal_()
    return made.eval()


def loss(model: Stack, **options: float) -> Tensor:
    total: Tensor = TrainingModule(model, **options)(None, None, IDS, None, LABELS)
    return total


@pytest.mark.parametrize("case", CASES)
def test_probabilities_add_up(case: str) -> None:
    with torch.no_grad():
        scores = stack(case)(IDS)
    assert scores.shape == (2, 6, 60)
    torch.testing.assert_close(scores.exp().sum(-1), torch.ones(2, 6))


@pytest.mark.parametrize("case", CASES)
def test_the_loss_of_labels_is_that_of_all_scores(case: str) -> None:
    """Value and gradients; every parameter has one, also a cluster's that no label asks for."""
    model = stack(case)
    expected = torch.nn.functional.nll_loss(model(IDS).flatten(0, 1), LABELS.flatten(), reduction="sum")
    expected.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    got = loss(model)
    got.backward()
    torch.testing.assert_close(got, expected)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        there = gradients[name]
        torch.testing.assert_close(
            parameter.grad, torch.zeros_like(parameter) if there is None else there, rtol=1e-4, atol=1e-4
        )


def test_labels_are_scored_within_their_clusters() -> None:
    """No scores over the whole vocabulary are built, and tails see the labels of their cluster alone."""
    head = stack("tables").head
    assert head is not None
    labels = torch.tensor([3, 31, 59, 9, 7])
    parts = list(head.label_parts(torch.randn(5, 24), labels))
    assert [part.weight.shape for part in parts] == [(10, 16), (22, 8), (30, 4)]
    assert [part.labels.tolist() for part in parts] == [[3, 9, 9, 8, 7], [1], [1, 29]]


def test_smoothing_is_refused_where_it_would_need_all_scores() -> None:
    with pytest.raises(UsageError, match="label_smoothing_factor"):
        loss(stack("tables"), smoothing=0.1)
    loss(stack("one piece"), smoothing=0.1)


def test_tables_and_maps_are_tied_as_said() -> None:
    model = stack("tables")
    names = {name for name, _ in model.named_parameters() if name.startswith("head.")}
    biases = {f"head.outputs.{number}.bias" for number in range(3)}
    assert names == {*biases, "head.projections.0.weight", "head.clusters.weight", "head.clusters.bias"}
    untied = stack("tables", head=HeadConfig(tied=False, tied_projections=(True, True, True)))
    names = {name for name, _ in untied.named_parameters() if name.startswith("head.")}
    tables = {f"head.outputs.{number}.weight" for number in range(3)}
    assert names == {*biases, *tables, "head.clusters.weight", "head.clusters.bias"}


@pytest.mark.parametrize("share", ["embeddings", "all"])
def test_two_sides_share_all_clusters(share: str) -> None:
    decoder = config("tables", cross_attention=True)
    encoder = replace(config("tables"), head=None)
    pair = EncoderDecoder(Stack(encoder), Stack(decoder), share=share)  # type: ignore[arg-type]
    pair.tie()
    shared = dict(pair.decoder.embedding.named_parameters())
    assert len(shared) == 6
    for name, parameter in pair.encoder.embedding.named_parameters():
        assert parameter is shared[name]
    inner = [side.layers[0].feedforward.inner.weight for side in (pair.encoder, pair.decoder)]  # type: ignore[union-attr]
    assert (inner[0] is inner[1]) == (share == "all")


def test_clusters_are_not_shared_with_one_table() -> None:
    plain = replace(config("tables"), head=None, embedding=EmbeddingConfig(positions="none"))
    other = config("tables", cross_attention=True)
    pair = EncoderDecoder(Stack(plain), Stack(other), share="embeddings")
    with pytest.raises(KeyError):
        pair.tie()


def test_starting_values() -> None:
    """The published ones: maps have a deviation of their own, whichever way the rest is drawn."""
    adaptive = AdaptiveConfig(cutoffs=(30,), divisor=2, projection_init_std=3.0)
    embedding = EmbeddingConfig(size=16, positions="none", adaptive=adaptive)
    head = HeadConfig(tied_projections=(False, False))
    for init in ("normal", "uniform"):
        model = stack("tables", embedding=embedding, head=head, init=init, init_std=0.1)
        maps = [p for name, p in model.named_parameters() if ".projections." in name]
        assert len(maps) == 4
        assert all(2.0 < float(p.detach().std()) < 4.0 for p in maps)
        table = model.state_dict()["embedding.tables.0.weight"]
        assert float(table.abs().max()) <= 0.1 if init == "uniform" else float(table.abs().max()) > 0.2
        assert 0.05 < float(table.std()) < 0.12
