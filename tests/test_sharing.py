"""One model on both sides, for every family: the same storage when combined, saved, loaded and trained."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

import seq2seq_cli
from seq2seq_cli.errors import UsageError
from seq2seq_cli.families import FAMILIES
from seq2seq_cli.model import EncoderDecoder
from tests import tiny
from tests.families.spec import spec
from tests.training.helpers import RECIPE, write_data

IDS = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def shared(model: nn.Module) -> set[str]:
    """The encoder's parameters whose storage is the decoder's parameter of the same name."""
    assert isinstance(model, EncoderDecoder)
    theirs = {name: p.data_ptr() for name, p in model.decoder.named_parameters()}
    return {name for name, p in model.encoder.named_parameters() if theirs[name] == p.data_ptr()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("share", ["embeddings", "all"])
def test_every_family_shares_with_itself(family: str, share: str, tmp_path: Path) -> None:
    known = FAMILIES[family]
    options: dict[str, Any] = {} if known.lacks_special_tokens else dict(IDS)
    if known.whole is None:
        spec(family).publish("", "decoder", tmp_path / "one")
    else:
        config = transformers.AutoConfig.for_model(**spec(family).base)
        tiny.scramble(transformers.AutoModelForSeq2SeqLM.from_config(config)).save_pretrained(
            tmp_path / "one"
        )
        if share == "all":  # a published encoder and decoder differ; fresh ones may be one
            with pytest.raises(UsageError, match="weights of their own"):
                seq2seq_cli.combine(tmp_path / "one", share=share, **options)
            options |= {"random_encoder": True, "random_decoder": True}
    pair = seq2seq_cli.combine(tmp_path / "one", share=share, **options)  # type: ignore[arg-type]
    names = [name for name, _ in pair.model.encoder.named_parameters()]  # type: ignore[union-attr]
    expected = {n for n in names if share == "all" or n.startswith("embedding.")}
    assert expected
    assert shared(pair.model) == expected
    apart = seq2seq_cli.combine(tmp_path / "one", **options)
    assert not shared(apart.model)
    sizes = dict(apart.model.encoder.named_parameters())  # type: ignore[union-attr]
    saved = sum(sizes[name].numel() for name in expected)
    assert count(apart.model) - count(pair.model) == saved
    pair.save(tmp_path / "pair")
    again = seq2seq_cli.load(tmp_path / "pair").model
    assert shared(again) == expected
    source, target = torch.tensor([[5, 6, 7]]), torch.tensor([[1, 8, 9]])
    optimizer = torch.optim.AdamW(again.parameters(), lr=1e-2)
    again(source, None, target).square().mean().backward()
    optimizer.step()
    assert shared(again) == expected
    other = tiny.scramble(apart.model)
    assert not torch.equal(other(source, None, target), again(source, None, target))


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_two_languages_share_one_model(tmp_path: Path) -> None:
    """An XLM that reads English and writes French: all parameters shared, another language row each."""
    folder = tmp_path / "xlm"
    spec("xlm").publish("first-language", "decoder", folder)
    pair = seq2seq_cli.combine(folder, share="all", encoder_language=0, decoder_language=2, **IDS)
    model = pair.model
    assert isinstance(model, EncoderDecoder)
    assert len(shared(model)) == len(list(model.encoder.parameters()))
    assert (model.encoder.config.embedding.language, model.decoder.config.embedding.language) == (0, 2)
    source, target = torch.tensor([[5, 6, 7]]), torch.tensor([[1, 8, 9]])
    with torch.no_grad():
        table = model.encoder.language_embedding
        assert table is not None
        first = model(source, None, target)
        table.weight[2] += 1.0
        assert not torch.equal(model(source, None, target), first)
        encoded = model.encode(source).states
        table.weight[2] += 1.0
        assert torch.equal(model.encode(source).states, encoded), "French is not read"
    pair.save(tmp_path / "pair")
    again = seq2seq_cli.load(tmp_path / "pair").model
    assert torch.equal(again(source, None, target), model(source, None, target))


def test_shared_sides_stay_shared_in_two_processes(tmp_path: Path) -> None:
    write_data(tmp_path)
    one_side = RECIPE[: RECIPE.index("  decoder:")] + "  share: all\n" + RECIPE[RECIPE.index("data:") :]
    (tmp_path / "recipe.yaml").write_text(one_side)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "seq2seq_cli", "finetune", "recipe.yaml", "--num-processes", "2"),
            *("--set", "training.max_steps=4", "--set", "training.num_train_epochs=1"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    model = seq2seq_cli.load(tmp_path / "runs/tiny").model
    assert isinstance(model, EncoderDecoder)
    assert len(shared(model)) == len(list(model.encoder.parameters()))
