"""Every encoder with every decoder: joined from folders, it learns, writes, and comes back from disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import seq2seq_cli
from seq2seq_cli.families import FAMILIES
from seq2seq_cli.model import EncoderDecoder
from tests import tiny
from tests.families.spec import spec

IDS = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SOURCES = [[5, 6, 7, 8], [9, 10, 11, 12, 13, 14, 15], [20, 21], [22, 23, 24], [25, 26, 27, 28, 29]]
TARGETS = torch.tensor([[1, t, t + 1, t + 2, 2] for t in (30, 34, 38, 42, 46)])
PAIRS = [(encoder, decoder) for encoder in FAMILIES for decoder in FAMILIES]


class Published:
    """A checkpoint of each family for each side, made when it is asked for; every second family is narrower
    as an encoder than as a decoder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, family: str, role: str) -> Path:
        folder = self._folder / family / role
        if not folder.exists():
            narrow = role == "encoder" and list(FAMILIES).index(family) % 2
            spec(family).publish("", role, folder, width=24 if narrow else None)
        return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return Published(tmp_path_factory.mktemp("published"))


def combined(encoder: str, decoder: str, folders: Published) -> seq2seq_cli.Pair:
    ids = {} if FAMILIES[decoder].lacks_special_tokens else IDS
    return seq2seq_cli.combine(folders(encoder, "encoder"), folders(decoder, "decoder"), **ids)


def logits(model: EncoderDecoder, source: Tensor, mask: Tensor | None, target: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(source, mask, target)
    return found


def loss_of(model: EncoderDecoder, source: Tensor, mask: Tensor) -> Tensor:
    scores = model(source, mask, TARGETS[:, :-1])
    return F.cross_entropy(scores.flatten(0, 1), TARGETS[:, 1:].flatten())


@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
def test_pair(encoder: str, decoder: str, published: Published, tmp_path: Path) -> None:
    pair = combined(encoder, decoder, published)
    model = pair.model
    assert isinstance(model, EncoderDecoder)
    check_report(pair, published(encoder, "encoder"), "encoder")
    check_report(pair, published(decoder, "decoder"), "decoder")
    check_masks(tiny.scramble(model, std=0.2))
    pair = combined(encoder, decoder, published)
    check_learning(pair.model)
    check_decoding(pair.model)
    pair.save(tmp_path / "saved")
    again = seq2seq_cli.load(tmp_path / "saved")
    before, after = pair.model.state_dict(), again.model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    source, mask = tiny.padded(SOURCES)
    found = [logits(each.model, source, mask, TARGETS) for each in (pair, again)]
    # not to the bit: where weights lie in memory may change how a product is rounded
    assert tiny.relative_error(found[1], found[0]) < 1e-6
    assert again.model.special_ids == pair.model.special_ids


def check_report(pair: seq2seq_cli.Pair, folder: Path, side: str) -> None:
    """Every parameter is accounted for, and so is every tensor of the file."""
    report = pair.report
    own = dict(pair.model.named_parameters())
    sizes = {name: size for part in (report.loaded, report.fresh) for name, size in part.items()}
    assert sum(sizes.values()) == sum(parameter.numel() for parameter in own.values())
    crossing = {name for name in own if ".cross_" in name}
    assert crossing
    tensors = load_file(folder / "model.safetensors")
    counted = sum(
        size
        for part in (report.loaded, report.unused)
        for n, size in part.items()
        if n.startswith(f"{side}.")
    )
    assert counted == sum(tensor.numel() for tensor in tensors.values())


def check_masks(model: EncoderDecoder) -> None:
    """Logits follow every source token, ignore padding, and do not see the future."""
    source, mask = tiny.padded(SOURCES)
    first = logits(model, source, mask, TARGETS)
    left, left_mask = tiny.padded(SOURCES, pad=44, left=True)
    assert tiny.relative_error(logits(model, left, left_mask, TARGETS), first) < 1e-5
    for row in (1, 2):
        alone = logits(model, torch.tensor([SOURCES[row]]), None, TARGETS[row : row + 1])
        assert tiny.relative_error(first[row : row + 1], alone) < 1e-5
    changed = source.clone()
    changed[:, 0] = 50
    assert bool(((logits(model, changed, mask, TARGETS) - first).abs().amax(-1) > 1e-5).all())
    target = TARGETS.clone()
    target[:, 2] = 51
    moved = (logits(model, source, mask, target) - first).abs().amax(-1)
    assert float(moved[:, :2].max()) == 0.0
    assert bool((moved[:, 2:] > 1e-5).all())


def check_learning(model: EncoderDecoder) -> None:
    """Every parameter that may learn gets a gradient within two steps, and five pairs are learnt."""
    source, mask = tiny.padded(SOURCES)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2)
    reached, losses = set[str](), []
    for step in range(30):
        optimizer.zero_grad()
        loss = loss_of(model, source, mask)
        loss.backward()
        losses.append(float(loss.detach()))
        if step < 2:
            reached |= {n for n, p in trained.items() if p.grad is not None and bool(p.grad.any())}
        nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimizer.step()
    assert not set(trained) - reached
    assert losses[-1] < 0.6 * losses[0], losses


def check_decoding(model: EncoderDecoder) -> None:
    """Greedy decoding with its cache is greedy decoding without; beam search's score is the model's own."""
    source, mask = tiny.padded(SOURCES)
    ids = model.special_ids
    settings = {"max_new_tokens": 6, "length_penalty": 0.0}
    greedy = seq2seq_cli.generate_ids(model, source, mask, **settings)
    target = torch.full((len(SOURCES), 1), ids.start)
    for _ in range(6):
        target = torch.cat([target, logits(model, source, mask, target)[:, -1:].argmax(-1)], dim=1)
    for row, hypotheses in enumerate(greedy):
        assert hypotheses[0].ids == target[row, 1 : 1 + len(hypotheses[0].ids)].tolist()
    beams = seq2seq_cli.generate_ids(model, source, mask, num_beams=3, **settings)
    for row, hypotheses in enumerate(beams):
        found = hypotheses[0].ids
        read = torch.tensor([[ids.start, *found[:-1]]])
        said = logits(model, torch.tensor([SOURCES[row]]), None, read)[0].log_softmax(-1)
        expected = float(said[torch.arange(len(found)), found].sum())
        assert hypotheses[0].score == pytest.approx(expected, abs=1e-4)
