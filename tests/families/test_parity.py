"""Every family in every role computes what the published implementation computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from seq2seq_cli.checkpoint.bundle import load_bundle
from seq2seq_cli.checkpoint.saving import save_bundle
from seq2seq_cli.families import FAMILIES
from seq2seq_cli.model import Stack
from tests import tiny
from tests.families.spec import Run, spec

ROWS = [[5, 6, 7, 8, 9, 10, 11, 12, 13], [14, 15, 16, 17, 18, 19], [20, 21, 22]]
ALL = [
    (family, case, role)
    for family in FAMILIES
    for case in ("", *spec(family).cases)
    for role in spec(family).roles
]


def both(family: str, case: str, role: str, folder: Path) -> tuple[Run, Stack]:
    theirs = spec(family).publish(case, role, folder)
    ours = load_bundle(str(folder), role=role).model  # type: ignore[arg-type]
    assert isinstance(ours, Stack)
    return theirs, ours


@pytest.mark.parametrize(("family", "case", "role"), ALL)
def test_equal_to_the_reference(family: str, case: str, role: str, tmp_path: Path) -> None:
    """The reference sees each text alone; ours also in a batch, padded on either side or not at all."""
    theirs, ours = both(family, case, role, tmp_path)
    expected = [theirs(row) for row in ROWS]
    scale = max(float(rows.abs().max()) for rows in expected)
    pad = spec(family).config(case).get("pad_token_id") or 0
    for rows, left in ((ROWS, False), (ROWS, True), ([ROWS[0]], False), ([ROWS[0]] * 2, False)):
        ids, mask = tiny.padded(rows, pad=pad, left=left)
        with torch.no_grad():
            got = ours(ids, mask)
            as_bool = ours(ids.masked_fill(mask == 0, 59), mask.bool())
        for row in range(len(rows)):
            wanted = expected[row if rows is ROWS else 0]
            visible = mask[row] == 1
            assert got[row][visible].shape == wanted.shape
            assert float((got[row][visible] - wanted).abs().max()) < 1e-5 * scale
            assert float((as_bool[row][visible] - wanted).abs().max()) < 1e-5 * scale, "padding shows"
    with torch.no_grad():
        assert float((ours(torch.tensor([ROWS[2]]))[0] - expected[2]).abs().max()) < 1e-5 * scale


@pytest.mark.parametrize(("family", "case", "role"), ALL)
def test_saved_as_it_was(family: str, case: str, role: str, tmp_path: Path) -> None:
    """Every tensor of the published folder that carries something we use comes back bit by bit."""
    spec(family).publish(case, role, tmp_path / "theirs")
    bundle = load_bundle(str(tmp_path / "theirs"), role=role)  # type: ignore[arg-type]
    save_bundle(bundle, tmp_path / "ours")
    theirs, ours = (load_file(tmp_path / side / "model.safetensors") for side in ("theirs", "ours"))
    assert set(ours) <= set(theirs)
    lost = sum(tensor.numel() for name, tensor in theirs.items() if name not in ours)
    assert lost == sum(bundle.report.unused.values())
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("family", "case"), [(f, c) for f, c, role in ALL if role == "decoder" and c not in spec(f).remembering]
)
@pytest.mark.parametrize("steps", [(3, 1, 4, 1), (1,) * 9, (5, 4), (9,)], ids=str)
def test_cached_is_uncached(family: str, case: str, steps: tuple[int, ...], tmp_path: Path) -> None:
    """Token by token and several at once; prompts without padding and padded on either side."""
    _, ours = both(family, case, "decoder", tmp_path)
    prompts = [[5, 6, 7, 8, 9], [14, 15, 16], [20]]
    after = torch.arange(24, 36).view(3, 4)
    for rows, left in ((prompts, False), (prompts, True), ([row * 5 for row in ([5], [6], [7])], False)):
        ids, mask = tiny.padded(rows, left=left)
        ids, mask = torch.cat([ids, after], 1), torch.cat([mask, torch.ones_like(after)], 1)
        cache, start, parts = ours.new_cache(2), 0, []  # 2: it has to grow
        with torch.no_grad():
            for step in steps:
                part = slice(start, start + step)
                parts.append(ours(ids[:, part], mask[:, part], cache=cache))
                start += step
            got = torch.cat(parts, 1)
            assert cache.length == 9
            for row, prompt in enumerate(rows):
                alone = ours(torch.tensor([[*prompt, *after[row].tolist()]]))
                assert tiny.relative_error(got[row][mask[row] == 1], alone[0]) < 1e-5


@pytest.mark.parametrize(
    "name",
    [
        *("gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "quick_gelu"),
        *("relu", "silu", "swish", "tanh", "mish", "linear"),
    ],
)
def test_activations(name: str) -> None:
    from transformers.activations import ACT2FN

    from seq2seq_cli.model.activation import ACTIVATIONS

    x = torch.linspace(-6, 6, 101)
    torch.testing.assert_close(ACTIVATIONS[name](x), ACT2FN[name](x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", ["gpt2", "openai-gpt", "ctrl"])
def test_bidirectional_encoder(family: str, tmp_path: Path) -> None:
    """Ours alone: a causal family as an encoder may lift its mask; then the first state sees the last
    token."""
    import json

    tiny.save_encoder(family, tmp_path)
    ids = torch.tensor([[5, 6, 7, 8]])
    changed = torch.tensor([[5, 6, 7, 9]])
    moved = {}
    for bidirectional in (False, True):
        path = tmp_path / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "bidirectional": bidirectional}))
        model = load_bundle(str(tmp_path), role="encoder").model
        with torch.no_grad():
            moved[bidirectional] = float((model(ids) - model(changed))[0, 0].abs().max())
    assert moved[False] == 0.0
    assert moved[True] > 1e-3
