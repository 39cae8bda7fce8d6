"""Texts read in pieces, with the published memory between them, and as a pair's target without it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import seq2seq_cli
from seq2seq_cli.checkpoint.bundle import load_bundle
from seq2seq_cli.decoding import generate_ids
from seq2seq_cli.model import EncoderDecoder, KVCache, PrefixModel, SpecialIds, Stack
from tests import tiny
from tests.families import stored
from tests.families.spec import spec

LONG = [7, 31, 12, 58, 3, 22, 40, 9, 17, 33, 51, 26, 2, 45, 11, 38, 29]
PIECES = (3, 1, 4, 1, 1, 5, 2)
MEMORIES = [case for case, config in stored.configs("transfo-xl").items() if config["mem_len"]]
STORED = [(f, case) for f in ("bert", "roberta", "transfo-xl") for case in stored.configs(f)]


def decoder(case: str, folder: Path) -> Stack:
    spec("transfo-xl").publish("" if case == "base" else case, "decoder", folder)
    model = load_bundle(str(folder), role="decoder").model
    assert isinstance(model, Stack)
    return model


@pytest.mark.parametrize(("family", "case"), STORED)
def test_texts_longer_than_any_memory(family: str, case: str, tmp_path: Path) -> None:
    for role in spec(family).roles:
        name = "" if case == "base" else case
        expected = spec(family).publish(name, role, tmp_path / role)(LONG)
        model = load_bundle(str(tmp_path / role), role=role).model  # type: ignore[arg-type]
        with torch.no_grad():
            got = model(torch.tensor([LONG]))[0]
        assert tiny.relative_error(got, expected) < 1e-5, role


def in_pieces(model: Stack, ids: Tensor, mask: Tensor | None, pieces: tuple[int, ...], memory: int) -> Tensor:
    cache, start, found = model.new_cache(2), 0, []
    for size in pieces:
        part = slice(start, start + size)
        found.append(model(ids[:, part], None if mask is None else mask[:, part], cache=cache))
        start += size
        assert cache.length == start
        assert cache.mask is not None or cache.slots == memory
        assert cache.slots <= memory + 2 * max(pieces)
    return torch.cat(found, 1)


@pytest.mark.parametrize("case", MEMORIES)
def test_pieces_are_the_published_ones(case: str, tmp_path: Path) -> None:
    """transformers 4.30.2, handed its own mems; then with padding on either side of the first piece, and rows
    of different lengths beside each other."""
    model, expected = decoder(case, tmp_path), stored.outputs("transfo-xl", case)["pieces.3"]
    memory = stored.configs("transfo-xl")[case]["mem_len"]
    with torch.no_grad():
        got = in_pieces(model, torch.tensor([LONG] * 2), None, PIECES, memory)
        assert tiny.relative_error(got[1], expected) < 1e-5
        for left in (True, False):
            ids, mask = tiny.padded([LONG[:3], [4, *LONG[:3], 5]], pad=50, left=left)
            rest = torch.tensor([LONG[3:]] * 2)
            ids, mask = torch.cat([ids, rest], 1), torch.cat([mask, torch.ones_like(rest)], 1)
            got = in_pieces(model, ids, mask, (5, *PIECES[1:]), memory)
            assert tiny.relative_error(got[0][mask[0] == 1], expected) < 1e-5


@pytest.mark.parametrize("case", ["pre-norm-remembering", "remembering"])
def test_a_memory_is_really_forgotten(case: str, tmp_path: Path) -> None:
    """What lies further back than the memory reaches (through both layers) leaves no trace."""
    model = decoder(case, tmp_path)
    changed = torch.tensor([[44, *LONG[1:]], LONG])
    memory = stored.configs("transfo-xl")[case]["mem_len"]
    with torch.no_grad():
        got = in_pieces(model, changed, None, (1,) * len(LONG), memory)
    difference = (got[0] - got[1]).abs().amax(-1)
    assert float(difference[: 2 * memory].min()) > 1e-2
    assert float(difference[2 * memory + 1 :].max()) < 1e-4


def test_rows_move_with_their_memory(tmp_path: Path) -> None:
    """Beams that swap places after the cache has begun to forget."""
    model = decoder("remembering", tmp_path)
    ids = torch.tensor([LONG, LONG[::-1], [5, *LONG[1:]]])
    swap = torch.tensor([2, 0, 0])
    with torch.no_grad():
        cache = model.new_cache(2)
        for token in ids.t()[:11]:
            model(token[:, None], cache=cache)
        cache.select(swap)
        got = torch.cat([model(token[:, None], cache=cache) for token in ids[swap].t()[11:]], 1)
        expected = in_pieces(model, ids, None, (1,) * len(LONG), 5)[swap, 11:]
    assert tiny.relative_error(got, expected) < 1e-5


@pytest.mark.parametrize(("name", "beams"), [("greedy", 1), ("beams", 3)])
@pytest.mark.parametrize("case", MEMORIES)
def test_writing_goes_on_with_the_memory(case: str, name: str, beams: int, tmp_path: Path) -> None:
    """As transformers 4.30.2 generates: prompts in one piece, shorter and longer than the memory, then token
    by token, twice a memory full; all in one batch."""
    model, told = decoder(case, tmp_path), stored.outputs("transfo-xl", case)
    model.special_ids, model.generation = SpecialIds(), {}  # nothing ends a text
    prompts = [told[f"ids.{number}"].tolist() for number in range(4)]
    options = {"num_beams": beams, "length_penalty": 0.0, "no_repeat_ngram_size": 2, "max_new_tokens": 14}
    for left in (True, False):
        ids, mask = tiny.padded(prompts, pad=50, left=left)
        for number, (written,) in enumerate(generate_ids(model, ids, mask, **options)):
            assert written.ids == told[f"{name}.{number}"].tolist()
            assert written.score == pytest.approx(float(told[f"{name}-score.{number}"]), rel=1e-5)


def test_a_target_has_no_memory(tmp_path: Path) -> None:
    """As a pair's decoder it reads and writes each target as one whole, longer than its memory or not."""
    spec("bert").publish("", "encoder", tmp_path / "bert")
    found = []
    for name, changes in {
        "as-published": {},
        "short": {"mem_len": 1},
        "none": {"mem_len": 0, "same_length": False},
    }.items():
        spec("transfo-xl").publish("", "decoder", tmp_path / name)
        path = tmp_path / name / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        pair = seq2seq_cli.combine(tmp_path / "bert", tmp_path / name)
        assert isinstance(pair.model, EncoderDecoder)
        source = torch.tensor([[5, 6, 7]])
        with torch.no_grad():
            whole = pair.model(source, None, torch.tensor([LONG]))
            encoded, cache = pair.model.encode(source), pair.model.decoder.new_cache(4)
            steps = [pair.model.decoder(torch.tensor([[t]]), encoded=encoded, cache=cache) for t in LONG]
        assert tiny.relative_error(torch.cat(steps, 1), whole) < 1e-5
        found.append(whole)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_start_and_end_of_a_target_are_the_published_eos(tmp_path: Path) -> None:
    spec("transfo-xl").publish("", "decoder", tmp_path)
    ids = seq2seq_cli.combine(tmp_path, tmp_path).model.special_ids
    assert (ids.start, ids.eos, ids.pad) == (2, (2,), 2)


def test_a_single_stack_forgets_nothing_of_its_source(tmp_path: Path) -> None:
    model = PrefixModel(decoder("remembering", tmp_path))
    source, target = torch.tensor([LONG]), torch.tensor([[1, 30, 31]])
    with torch.no_grad():
        whole = model(source, None, target)
        encoded = model.encode(source)
        steps = [model.decoder(target[:, [t]], cache=encoded.memory) for t in range(3)]
        changed = model(torch.tensor([[44, *LONG[1:]]]), None, target)
    assert tiny.relative_error(torch.cat(steps, 1), whole) < 1e-5
    assert float((changed - whole).abs().max()) > 1e-3


def test_biases_that_layers_share_are_one(tmp_path: Path) -> None:
    model = decoder("shared-biases", tmp_path)
    first, second = (layer.self_attention.relative for layer in model.layers)  # type: ignore[union-attr]
    assert first.content_bias is second.content_bias  # type: ignore[union-attr]
    assert first.position_bias is second.position_bias  # type: ignore[union-attr]
    apart = decoder("base", tmp_path / "apart")
    first, second = (layer.self_attention.relative for layer in apart.layers)  # type: ignore[union-attr]
    assert not torch.equal(first.content_bias, second.content_bias)  # type: ignore[union-attr]


def test_what_one_text_never_uses_is_frozen(tmp_path: Path) -> None:
    spec("xlnet").publish("", "decoder", tmp_path)
    model = load_bundle(str(tmp_path), role="decoder").model
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    relative = "layers.{}.self_attention.relative.segment_{}"
    expected = {relative.format(layer, part) for layer in (0, 1) for part in ("bias", "embedding")}
    assert frozen == {"mask_embedding", *expected}


def test_what_is_forgotten_takes_no_room() -> None:
    cache = KVCache(num_layers=1, capacity=1, memory=3)
    for token in range(60):
        new = torch.full((1, 1, 1, 1), float(token))
        if not cache.slots:
            new = torch.cat([torch.zeros(1, 1, 3, 1), new], 2)
        keys, values = cache.append(0, new, new)
        assert keys[0, 0, :, 0].tolist() == [max(0, token + back) for back in (-3, -2, -1, 0)]
        assert torch.equal(keys, values)
        cache.advance(None, steps=1, rows=1, device=torch.device("cpu"))
        assert keys.untyped_storage().nbytes() <= 4 * 10
    assert (cache.length, cache.slots) == (60, 3)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_distances_reach_over_all_positions(family: str, tmp_path: Path) -> None:
    """The longest text that relative positions allow, padding id and all; one token more is beyond the
    table."""
    spec(family).publish("relative-key-query", "encoder", tmp_path)
    model = load_bundle(str(tmp_path), role="encoder").model
    assert isinstance(model, Stack)
    assert model.config.max_positions == 40
    table = model.layers[0].self_attention.relative.table.weight  # type: ignore[union-attr]
    assert table.shape[0] == 79  # type: ignore[union-attr]
    ids = (torch.arange(40) % 50 + 5)[None]
    with torch.no_grad():
        before = model(ids)
        table[[0, 78]] += 1.0  # type: ignore[index]
        moved = (model(ids) - before).abs().amax(-1)[0]
    assert bool((moved[[0, 39]] > 1e-3).all())
