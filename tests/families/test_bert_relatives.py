"""DistilBERT, ALBERT and ELECTRA: what equal numbers alone do not show."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

import seq2seq_cli
from seq2seq_cli.checkpoint.bundle import load_bundle
from seq2seq_cli.checkpoint.loading import build_stack, stack_config
from seq2seq_cli.combiner import Side, combine
from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.families import FAMILIES
from seq2seq_cli.families.translate import to_ours
from seq2seq_cli.model import Stack
from tests import tiny
from tests.families.spec import spec

IDS = torch.tensor([[5, 6, 7, 8, 9]])


def test_the_table_of_waves_is_published_and_not_trained() -> None:
    """A fresh one equals the reference's own fresh one."""
    config = spec("distilbert").config("sinusoids")
    translated = stack_config(FAMILIES["distilbert"], config, "encoder", where="")
    stack, _ = build_stack(FAMILIES["distilbert"], translated, None, published=config, where="")
    theirs = transformers.DistilBertModel(transformers.DistilBertConfig(**config))
    assert stack.position_embedding is not None
    expected = theirs.embeddings.position_embeddings.weight
    torch.testing.assert_close(stack.position_embedding.weight.detach(), expected.detach(), rtol=0, atol=1e-6)
    frozen = [name for name, parameter in stack.named_parameters() if not parameter.requires_grad]
    assert frozen == ["position_embedding.weight"]


def test_dropout_of_narrow_embeddings_stands_before_their_projection() -> None:
    """Behind it, whole states would hold zeros; before it, none does."""
    for family in ("albert", "electra"):
        config = {**spec(family).base, "hidden_dropout_prob": 0.5}
        translated = stack_config(FAMILIES[family], config, "encoder", where="")
        stack, _ = build_stack(FAMILIES[family], translated, None, published=config, where="")
        stack.train()
        assert bool((stack.embed(IDS, None, 0) != 0).all())
        assert not torch.equal(stack.embed(IDS, None, 0), stack.embed(IDS, None, 0))


def test_albert_shares_its_layers() -> None:
    config = spec("albert").config("inner")
    translated = stack_config(FAMILIES["albert"], config, "cross_decoder", where="")
    assert translated.layer_order == (0, 1, 0, 1, 2, 3)
    stack = Stack(translated)
    assert len(stack.layers) == 4
    assert len({id(layer.cross_attention) for layer in stack.layers}) == 4  # type: ignore[union-attr]


def test_a_layer_beyond_its_group_is_unknown() -> None:
    """It must not pass for a layer of the next group."""
    name = "encoder.albert_layer_groups.0.albert_layers.{}.ffn.bias"
    weights = {name.format(layer): torch.ones(48) for layer in (0, 1, 2, "01")}
    config = spec("albert").config("inner")
    translated = to_ours(FAMILIES["albert"], weights, tied=True, config=config)
    assert set(translated.weights) == {f"layers.{n}.feedforward.inner.bias" for n in (0, 1)}
    assert set(translated.unknown) == {name.format(2), name.format("01")}


@pytest.mark.parametrize(
    ("family", "what"), [("albert", "AlbertForPreTraining"), ("electra", "ElectraForPreTraining")]
)
def test_files_of_pretraining(family: str, what: str, tmp_path: Path) -> None:
    """ALBERT's hold its language model; those of an ELECTRA discriminator hold none."""
    model = tiny.scramble(getattr(transformers, what)(tiny.config(family)))
    model.save_pretrained(tmp_path)
    base = model.base_model
    encoder = load_bundle(str(tmp_path), role="encoder")
    with torch.no_grad():
        assert tiny.relative_error(encoder.model(IDS), base(IDS)[0]) < 1e-5
    unused = {name.removeprefix(f"{family}.").split(".")[0] for name in encoder.report.unused}
    if family == "albert":
        assert unused == {"pooler", "head", "sop_classifier"}
        head = load_bundle(str(tmp_path), role="masked_lm").model
        with torch.no_grad():
            assert tiny.relative_error(head(IDS), model(IDS).prediction_logits) < 1e-5
    else:
        assert unused == {"discriminator_predictions"}
        with pytest.raises(CheckpointError, match=r"6 parameters|head\.dense"):
            load_bundle(str(tmp_path), role="masked_lm")


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "camembert", "xlm-roberta"])
def test_the_role_decides_the_mask_and_not_is_decoder(family: str, tmp_path: Path) -> None:
    """The published code makes whatever says is_decoder causal; here an encoder is one in every folder."""
    tiny.save_language_model(family, tmp_path, is_decoder=True)
    theirs = transformers.AutoModel.from_pretrained(tmp_path, is_decoder=False).eval()
    causal = transformers.AutoModel.from_pretrained(tmp_path).eval()
    ids = torch.arange(5, 14)[None]
    starts = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    with torch.no_grad():
        encoder = seq2seq_cli.load(tmp_path, role="encoder").model(ids)
        assert tiny.relative_error(encoder, theirs(ids).last_hidden_state) < 1e-5
        assert tiny.relative_error(encoder, causal(ids).last_hidden_state) > 1e-2
        paired = combine(*[Side(reference=str(tmp_path))] * 2, settings=starts).model
        assert torch.equal(paired.encode(ids).states, encoder)
