"""Parameter names go to ours and back without loss; whatever a file has too much or too little is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from seq2seq_cli.checkpoint.bundle import load_bundle
from seq2seq_cli.checkpoint.loading import build_stack, stack_config
from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.families import FAMILIES
from seq2seq_cli.families.translate import to_ours, to_published
from tests import tiny
from tests.families.spec import spec

UNTIED = {"tie_word_embeddings": False}


#: families whose decoders with cross-attention are published, to compare their names as well
CROSSED = ("bert", "roberta", "gpt2", "electra", "camembert", "xlm-roberta")


def published(family: str, role: str, **changes: Any) -> tuple[Any, dict[str, Tensor]]:
    """A reference model and what a file of it holds (a tied head's copies are not written)."""
    if role == "cross_decoder":
        changes = {**changes, "add_cross_attention": True}
    model = spec(family).model("decoder" if role == "cross_decoder" else role, **changes)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if "tie_word_embeddings" not in changes:
        weights = {n: t for n, t in weights.items() if n not in FAMILIES[family].tied}
    return model, weights


ROLES = [
    (family, role, changes)
    for family in CROSSED
    for role in (*spec(family).roles, "cross_decoder")
    for changes in ({}, UNTIED)
]
OURS = [
    (family, role, case)
    for family in FAMILIES
    for role in (*spec(family).roles, *(["cross_decoder"] if "decoder" in spec(family).roles else []))
    for case in ("", *spec(family).cases)
]


@pytest.mark.parametrize(("family", "role", "changes"), ROLES, ids=str)
def test_there_and_back(family: str, role: str, changes: dict[str, Any]) -> None:
    _, weights = published(family, role, **changes)
    known, tied = FAMILIES[family], not changes
    translated = to_ours(known, weights, tied=tied)
    assert not translated.unknown
    back = to_published(known, translated.weights, tied=tied, with_head=role != "encoder")
    lost = set(weights) - set(back) - set(translated.ignored)
    assert not lost
    assert set(back) <= set(weights)
    for name, tensor in back.items():
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=0)
    if changes and role != "encoder":  # the bias beside the untied matrix is the one used
        assert {name for name in known.tied if name.endswith(".bias")} <= set(back)
    allowed = ("pooler.", "cls.predictions.bias", "lm_head.bias")
    assert all(name.removeprefix(known.body_prefix).startswith(allowed) for name in translated.ignored)


@pytest.mark.parametrize(("family", "role", "case"), OURS)
def test_every_parameter_of_ours_has_a_published_name(family: str, role: str, case: str) -> None:
    known, published_config = FAMILIES[family], spec(family).config(case)
    config = stack_config(known, published_config, role, where="")  # type: ignore[arg-type]
    stack, report = build_stack(
        known,
        config,
        None,
        published=published_config,
        where="",
        generator=torch.Generator().manual_seed(0),
    )
    assert set(report.fresh) == {name for name, _ in stack.named_parameters()}
    ours = {name: parameter.detach() for name, parameter in stack.named_parameters()}
    names = to_published(
        known, ours, tied=config.ties_head, with_head=role != "encoder", config=published_config
    )
    again = to_ours(known, names, tied=config.ties_head, config=published_config).weights
    assert set(again) == set(ours)
    assert all(torch.equal(again[name], ours[name]) for name in ours)


def test_an_unknown_parameter_of_ours_is_a_bug() -> None:
    with pytest.raises(KeyError, match=r"bert.*layers\.0\.novelty"):
        to_published(FAMILIES["bert"], {"layers.0.novelty": torch.ones(1)}, tied=True, with_head=True)


def test_with_and_without_the_prefix_of_the_body() -> None:
    """A bare model's file and a language model's file give the same stack."""
    for family in CROSSED:
        _, weights = published(family, "decoder")
        prefix = FAMILIES[family].body_prefix
        bare = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
        one, other = (to_ours(FAMILIES[family], w, tied=True).weights for w in (weights, bare))
        assert set(one) == set(other)


def test_legacy_names_and_old_buffers(tmp_path: Path) -> None:
    """gamma/beta of TensorFlow conversions; position_ids and attention masks that were once saved."""
    for family, extra in (
        ("bert", {"bert.embeddings.position_ids": torch.arange(40)[None]}),
        (
            "gpt2",
            {
                "transformer.h.0.attn.bias": torch.ones(1, 1, 40, 40),
                "transformer.h.1.attn.masked_bias": torch.tensor(-1e4),
            },
        ),
    ):
        model = tiny.save_language_model(family, tmp_path / family)
        path = tmp_path / family / "model.safetensors"
        weights = load_file(path)
        old = {}
        for name, tensor in weights.items():
            if "LayerNorm" in name:
                name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
                name = name.replace("LayerNorm.bias", "LayerNorm.beta")
            old[name] = tensor
        save_file({**old, **extra}, path, metadata={"format": "pt"})
        bundle = load_bundle(str(tmp_path / family))
        assert set(extra) <= set(bundle.report.unused)
        ids = torch.randint(3, 60, (2, 7), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            assert tiny.relative_error(bundle.model(ids), model(ids).logits) < 1e-5


DAMAGE = {
    "missing": ("missing: .*{ours}", lambda w, n: w.pop(n)),
    "unexpected": (
        r"unexpected parameters: .*novelty\.weight",
        lambda w, n: w.update({"novelty.weight": torch.zeros(3)}),
    ),
    "shape": (r"another shape .*{ours} \(7,", lambda w, n: w.update({n: torch.zeros(7, *w[n].shape[1:])})),
    "nan": ("NaN or infinity: .*{ours}", lambda w, n: w[n].view(-1)[3].fill_(float("nan"))),
    "infinity": ("NaN or infinity: .*{ours}", lambda w, n: w[n].view(-1)[3].fill_(float("-inf"))),
}
VICTIMS = {
    "bert": ("bert.encoder.layer.1.output.dense.weight", r"layers\.1\.feedforward\.outer\.weight"),
    "roberta": ("lm_head.dense.bias", r"head\.dense\.bias"),
    "gpt2": ("transformer.h.1.mlp.c_fc.bias", r"layers\.1\.feedforward\.inner\.bias"),
}


@pytest.mark.parametrize("family", VICTIMS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_m7_damage_is_named(family: str, damage: str, tmp_path: Path) -> None:
    """Fault M7: never a silent random parameter."""
    tiny.save_language_model(family, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    theirs, ours = VICTIMS[family]
    pattern, harm = DAMAGE[damage]
    harm(weights, theirs)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=pattern.format(ours=ours)) as caught:
        load_bundle(str(tmp_path))
    assert "1 " in caught.value.findings[0].what
    assert str(tmp_path) in caught.value.findings[0].where


def test_all_damage_at_once_with_counts(tmp_path: Path) -> None:
    tiny.save_language_model("bert", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    for name in [name for name in weights if ".layer.1." in name]:
        weights.pop(name)
    weights["classifier.weight"] = torch.zeros(2, 32)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError) as caught:
        load_bundle(str(tmp_path))
    missing, unexpected = caught.value.findings
    assert missing.what.startswith("16 parameters are missing")
    assert "and 11 more" in missing.what
    assert "classifier.weight" in unexpected.what


def test_an_encoder_without_a_head_is_no_language_model(tmp_path: Path) -> None:
    tiny.save_encoder("bert", tmp_path)
    load_bundle(str(tmp_path), role="encoder")
    with pytest.raises(CheckpointError, match=r"head\.dense\.weight"):
        load_bundle(str(tmp_path), role="decoder")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((32, 2), r"self_attention\.query\.weight \(1, 32\)"),
        ((96,), r"c_attn.*\(96,\)"),
        ((), r"c_attn.*\(\)"),
    ],
)
def test_fused_matrices_that_do_not_divide(shape: tuple[int, ...], message: str, tmp_path: Path) -> None:
    tiny.save_language_model("gpt2", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["transformer.h.1.attn.c_attn.weight"] = torch.zeros(shape)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=message) as caught:
        load_bundle(str(tmp_path))
    assert "config.json" in str(caught.value)


def test_half_precision_files_are_read_as_float32(tmp_path: Path) -> None:
    model = tiny.save_language_model("gpt2", tmp_path).half()
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float16"
    ours = load_bundle(str(tmp_path)).model
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert tiny.relative_error(ours(ids), model.float()(ids).logits) < 1e-5


TWO_BIASES = [name for name, known in FAMILIES.items() if any(n.endswith(".bias") for n in known.tied)]


@pytest.mark.parametrize("family", TWO_BIASES)
def test_an_untied_head_of_4x_has_its_bias_under_the_other_name(family: str, tmp_path: Path) -> None:
    """transformers 4 made the two biases one, and wrote it where the tied head's is."""
    theirs = spec(family).model("masked_lm", **UNTIED)
    theirs.save_pretrained(tmp_path)
    (its,) = (name for name in FAMILIES[family].tied if name.endswith(".bias"))
    weights = load_file(tmp_path / "model.safetensors")
    weights[its.replace("decoder.bias", "bias")] = bias = weights.pop(its)
    save_file(weights, tmp_path / "model.safetensors")
    bundle = load_bundle(str(tmp_path), role="masked_lm")
    ids = torch.arange(5, 14)[None]
    with torch.no_grad():
        assert tiny.relative_error(bundle.model(ids), theirs(ids).logits) < 1e-5
    weights = {f"decoder.{name}": tensor for name, tensor in weights.items()}
    weights |= {f"encoder.{name}": t for name, t in theirs.base_model.state_dict().items()}
    config = json.loads((tmp_path / "config.json").read_text())
    both = {"model_type": "encoder-decoder", "encoder": config, "decoder": config}
    (tmp_path / "config.json").write_text(json.dumps(both))
    save_file(weights, tmp_path / "model.safetensors")
    side = load_bundle(str(tmp_path), role="decoder").model
    assert torch.equal(dict(side.named_parameters())["head.bias"], bias)


def test_a_head_that_lacks_its_bias_is_not_called_a_bare_encoder(tmp_path: Path) -> None:
    model = spec("bert").model("decoder", **UNTIED)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.endswith("predictions.decoder.bias")}
    save_file({n: t for n, t in kept.items() if n != "cls.predictions.bias"}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 parameters are missing: head\.bias") as caught:
        load_bundle(str(tmp_path))
    assert "bare encoder" not in str(caught.value)
