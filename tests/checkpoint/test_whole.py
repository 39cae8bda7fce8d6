"""Published encoder-decoders: whole, as they are, and either side of them alone or in a pair."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from seq2seq_cli.checkpoint.bundle import Bundle, load_bundle, warn_if_untrained
from seq2seq_cli.checkpoint.saving import save_bundle
from seq2seq_cli.combiner import Side, combine, combine_single
from seq2seq_cli.decoding import generate_ids
from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.model import EncoderDecoder, SpecialIds, Stack
from seq2seq_cli.text.training import train_tokenizer
from tests import tiny
from tests.families.spec import spec

CLASSES = {
    "bart": transformers.BartForConditionalGeneration,
    "t5": transformers.T5ForConditionalGeneration,
    "mt5": transformers.MT5ForConditionalGeneration,
}
#: where each keeps its table, and what stands before its sides
SHARED = {"bart": "model.shared.weight", "t5": "shared.weight", "mt5": "shared.weight"}
PREFIX = {"bart": "model.", "t5": "", "mt5": ""}
ROWS = [[5, 6, 7, 8], [9, 10, 11, 12, 13, 14, 15], [20, 21]]
CASES = [
    (family, case)
    for family in CLASSES
    for case in ("", *spec(family).cases)
    if not case.startswith("own-head")
]


def published(family: str, case: str = "", **changes: Any) -> Any:
    """transformers' whole model, scrambled; its generation settings are its config's."""
    config = {**spec(family).config(case), **changes}
    made = transformers.AutoConfig.for_model(config.pop("model_type"), **config)
    model = tiny.scramble(CLASSES[family](made), std=spec(family).spread)
    settings = model.generation_config
    settings.decoder_start_token_id, settings.eos_token_id, settings.pad_token_id = 1, 2, 0
    return model


def logits(model: Any) -> tuple[Tensor, Tensor]:
    """Of a padded source and a padded target, ours or the reference's, and the mask of the target."""
    source, mask = tiny.padded(ROWS)
    target, target_mask = tiny.padded([[1, 30, 31, 32, 33], [1, 34, 35], [1, 36, 37, 38]])
    with torch.no_grad():
        if isinstance(model, EncoderDecoder):
            return model(source, mask, target, target_mask), target_mask
        found = model(
            input_ids=source,
            attention_mask=mask,
            decoder_input_ids=target,
            decoder_attention_mask=target_mask,
            use_cache=False,
        )
    return found.logits, target_mask


def same(ours: Any, theirs: Any) -> None:
    expected, mask = logits(theirs)
    assert tiny.relative_error(logits(ours)[0], expected, mask) < 1e-5


def loaded(folder: Path) -> tuple[Bundle, EncoderDecoder]:
    bundle = load_bundle(str(folder))
    assert isinstance(bundle.model, EncoderDecoder)
    return bundle, bundle.model


def rewrite(folder: Path, weights: dict[str, Tensor] | None = None, **changes: Any) -> None:
    """Another model.safetensors, or other keys in config.json ("REMOVE" takes one out)."""
    if weights is not None:
        tensors = {name: tensor.clone() for name, tensor in weights.items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value != "REMOVE"}))


# -- whole ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "case"), CASES)
def test_there_and_back(family: str, case: str, tmp_path: Path) -> None:
    """Equal logits from the published folder, and from the one that is saved, in either program."""
    theirs = published(family, case)
    theirs.save_pretrained(tmp_path / "theirs")
    bundle, model = loaded(tmp_path / "theirs")
    same(model, theirs)
    assert not bundle.report.fresh
    assert not [name for name in bundle.report.unused if "head.bias" not in name]
    save_bundle(bundle, tmp_path / "ours")
    before, after = (load_file(tmp_path / side / "model.safetensors") for side in ("theirs", "ours"))
    assert set(before) <= set(after)
    repeated = {PREFIX[family] + SHARED["t5"], "lm_head.weight"}  # where the config says that they differ
    assert set(after) - set(before) <= (repeated if case in ("untied", "unscaled") else set())
    assert all(torch.equal(after[name], before[name]) for name in before if name != SHARED[family])
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert config["model_type"] == family
    assert config["architectures"] == [CLASSES[family].__name__]
    again, info = CLASSES[family].from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    same(loaded(tmp_path / "ours")[1], theirs)
    same(model, again.eval())


@pytest.mark.parametrize("family", CLASSES)
def test_one_storage(family: str, tmp_path: Path) -> None:
    published(family).save_pretrained(tmp_path)
    model = loaded(tmp_path)[1]
    assert model.decoder.head is not None
    places = [model.encoder.embedding.weight, model.decoder.embedding.weight, model.decoder.head.weight]
    assert len({weight.data_ptr() for weight in places}) == 1
    assert len({id(weight) for weight in places}) == 1
    assert sum(p.numel() for p in model.parameters()) == published(family).num_parameters()


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize(("family", "case"), [("bart", ""), ("bart", "scaled"), ("t5", ""), ("mt5", "")])
def test_the_same_is_written(family: str, case: str, beams: int, tmp_path: Path) -> None:
    theirs = published(family, case)
    theirs.generation_config.forced_bos_token_id = 7
    theirs.generation_config.forced_eos_token_id = 2
    theirs.generation_config.num_beams = beams
    theirs.save_pretrained(tmp_path / "theirs")
    bundle, model = loaded(tmp_path / "theirs")
    source, mask = tiny.padded(ROWS)
    expected = theirs.generate(
        source, attention_mask=mask, max_new_tokens=8, return_dict_in_generate=True, output_scores=True
    )
    ours = generate_ids(model, source, mask, max_new_tokens=8)
    assert {row[0].ids[0] for row in ours} == {7}
    tiny.same_hypotheses(ours, expected)
    save_bundle(bundle, tmp_path / "ours")
    again = CLASSES[family].from_pretrained(tmp_path / "ours").eval()
    assert torch.equal(again.generate(source, attention_mask=mask, max_new_tokens=8), expected.sequences)


def test_the_bias_on_barts_logits(tmp_path: Path) -> None:
    """It is the whole's alone: transformers' BartForCausalLM has none. It is not trained."""
    theirs = published("bart")
    theirs.final_logits_bias.copy_(torch.linspace(-3, 3, 60)[None])
    theirs.save_pretrained(tmp_path / "theirs")
    bundle, model = loaded(tmp_path / "theirs")
    same(model, theirs)
    assert model.decoder.head is not None
    assert model.decoder.head.bias is not None
    assert not model.decoder.head.bias.requires_grad
    save_bundle(bundle, tmp_path / "ours")
    same(loaded(tmp_path / "ours")[1], theirs)
    same(model, CLASSES["bart"].from_pretrained(tmp_path / "ours").eval())
    half = load_bundle(str(tmp_path / "ours"), role="decoder")
    with torch.no_grad():
        ids = torch.tensor([ROWS[1]])
        expected = theirs.lm_head(theirs.model.decoder(ids)[0])
        assert tiny.relative_error(half.model(ids), expected) < 1e-5
    assert "head.bias" in half.report.unused


# -- what the file says and what config.json says ------------------------------------------------------------


@pytest.mark.parametrize("family", ["t5", "mt5"])
@pytest.mark.parametrize("said", [True, False])
def test_a_head_of_its_own(family: str, said: bool, tmp_path: Path) -> None:
    """T5 1.1, as published (tie_word_embeddings false) and as transformers 5 writes it again (true)."""
    theirs = published(family, tie_word_embeddings=False)
    theirs.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["lm_head.weight"] = torch.randn(60, 32, generator=torch.Generator().manual_seed(5))
    rewrite(tmp_path, weights, tie_word_embeddings=said)
    theirs = CLASSES[family].from_pretrained(tmp_path).eval()
    assert theirs.lm_head.weight is not theirs.shared.weight
    bundle, model = loaded(tmp_path)
    same(model, theirs)
    assert model.encoder.embedding.weight is model.decoder.embedding.weight
    assert model.decoder.head is not None
    assert model.decoder.head.weight is not model.decoder.embedding.weight
    save_bundle(bundle, tmp_path / "ours")
    same(CLASSES[family].from_pretrained(tmp_path / "ours").eval(), theirs)


def test_scaled_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    """Old files tell it by tie_word_embeddings, new ones by a key of their own."""
    theirs = published("t5")
    theirs.save_pretrained(tmp_path)
    first = logits(loaded(tmp_path)[1])[0]
    for changes, factor in (
        ({"scale_decoder_outputs": False}, 32**0.5),
        ({"scale_decoder_outputs": "REMOVE"}, 1.0),
        ({"tie_word_embeddings": False}, 32**0.5),
        ({"scale_decoder_outputs": True}, 1.0),
        ({"tie_word_embeddings": "REMOVE"}, 1.0),
    ):
        rewrite(tmp_path, **changes)
        model = loaded(tmp_path)[1]
        torch.testing.assert_close(logits(model)[0], first * factor, rtol=1e-4, atol=1e-4)
        same(model, CLASSES["t5"].from_pretrained(tmp_path).eval())
    rewrite(tmp_path, tie_word_embeddings=False)
    save_bundle(loaded(tmp_path)[0], tmp_path / "ours")
    weights = load_file(tmp_path / "ours" / "model.safetensors")
    assert torch.equal(weights["lm_head.weight"], weights["shared.weight"]), (
        "who believes the key looks for it"
    )


@pytest.mark.parametrize("family", ["bart", "t5"])
@pytest.mark.parametrize("changed", ["encoder", "decoder", "lm_head", ""])
def test_copies_in_the_file(family: str, changed: str, tmp_path: Path) -> None:
    """Files with every copy of the table; one that differs is a parameter of its own."""
    theirs = published(family)
    theirs.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    table = weights[SHARED[family]]
    places = {side: f"{PREFIX[family]}{side}.embed_tokens.weight" for side in ("encoder", "decoder")}
    places["lm_head"] = "lm_head.weight"
    weights |= dict.fromkeys(places.values(), table)
    if changed:
        weights[places[changed]] = table.flip(0)
    rewrite(tmp_path, weights)
    theirs = CLASSES[family].from_pretrained(tmp_path).eval()
    bundle, model = loaded(tmp_path)
    same(model, theirs)
    if not changed:
        assert sum(p.numel() for p in model.parameters()) == theirs.num_parameters()
    save_bundle(bundle, tmp_path / "ours")
    same(loaded(tmp_path / "ours")[1], theirs)
    same(CLASSES[family].from_pretrained(tmp_path / "ours").eval(), theirs)
    assert ("lm_head.weight" in load_file(tmp_path / "ours" / "model.safetensors")) is (
        changed in ("decoder", "lm_head")
    )


def test_equal_tables_that_are_not_one(tmp_path: Path) -> None:
    """Every table is written where config.json says that each is a parameter of its own."""
    theirs = published("bart", tie_word_embeddings=False)
    table = theirs.model.shared.weight.detach()
    for module in (theirs.model.encoder.embed_tokens, theirs.model.decoder.embed_tokens, theirs.lm_head):
        module.weight.data.copy_(table)
    theirs.save_pretrained(tmp_path / "theirs")
    bundle, model = loaded(tmp_path / "theirs")
    same(model, theirs)
    assert model.encoder.embedding.weight is not model.decoder.embedding.weight
    save_bundle(bundle, tmp_path / "ours")
    same(CLASSES["bart"].from_pretrained(tmp_path / "ours").eval(), theirs)


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_a_head_that_is_the_shared_table(family: str, tmp_path: Path) -> None:
    """Without a head in the file it is the table that both sides have in common, not a side's own."""
    published(family).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights[f"{PREFIX[family]}decoder.embed_tokens.weight"] = weights[SHARED[family]].flip(0)
    rewrite(tmp_path, weights)
    same(loaded(tmp_path)[1], CLASSES[family].from_pretrained(tmp_path).eval())


@pytest.mark.parametrize("family", ["bart", "t5"])
@pytest.mark.parametrize("kept", ["encoder", "decoder"])
def test_a_side_keeps_the_table(family: str, kept: str, tmp_path: Path) -> None:
    theirs = published(family)
    theirs.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights[f"{PREFIX[family]}{kept}.embed_tokens.weight"] = weights.pop(SHARED[family])
    rewrite(tmp_path, weights)
    same(loaded(tmp_path)[1], theirs)


def test_pytorch_files_and_bodies(tmp_path: Path) -> None:
    """pytorch_model.bin with every copy; BART's body without its head, as some are published."""
    theirs = published("bart")
    theirs.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    same(loaded(tmp_path)[1], theirs)
    for role in ("encoder", "decoder"):
        load_bundle(str(tmp_path), role=role)  # type: ignore[arg-type]
    theirs.model.save_pretrained(tmp_path / "body")
    assert "shared.weight" in load_file(tmp_path / "body" / "model.safetensors")
    bundle, model = loaded(tmp_path / "body")
    same(model, theirs)
    save_bundle(bundle, tmp_path / "ours")  # with the head that the body had not
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert config["architectures"] == ["BartForConditionalGeneration"]
    theirs.model.encoder.save_pretrained(tmp_path / "side")
    half = load_bundle(str(tmp_path / "side"), role="encoder").model
    with torch.no_grad():
        ids = torch.tensor([ROWS[0]])
        assert tiny.relative_error(half(ids), theirs.model.encoder(ids)[0]) < 1e-5


def test_what_is_not_read(tmp_path: Path) -> None:
    """A table of T5's first files that nothing uses, and the heads of other tasks; nothing else."""
    theirs = published("t5")
    theirs.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    extra = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    rewrite(tmp_path, {**weights, extra: torch.ones(8, 4)})
    bundle, model = loaded(tmp_path)
    same(model, theirs)
    assert list(bundle.report.unused) == [f"decoder.{extra.removeprefix('decoder.')}"]
    for stranger in ("novelty.weight", "encoder.block.0.novelty.weight", "relative.weight"):
        rewrite(tmp_path, {**weights, stranger: torch.ones(3)})
        with pytest.raises(CheckpointError, match="unexpected.*" + stranger.split(".")[-2]):
            load_bundle(str(tmp_path))
    rewrite(tmp_path, {name: tensor for name, tensor in weights.items() if "EncDec" not in name})
    with pytest.raises(CheckpointError, match=r"missing.*cross_attention"):
        load_bundle(str(tmp_path))


def test_an_untied_head_is_not_made_up(tmp_path: Path) -> None:
    published("bart", tie_word_embeddings=False).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["lm_head.weight"]
    rewrite(tmp_path, weights)
    with pytest.raises(CheckpointError, match=r"missing: head\.weight"):
        load_bundle(str(tmp_path))


# -- ids, defaults, tokenizers -------------------------------------------------------------------------------


def test_ids_and_defaults(tmp_path: Path) -> None:
    for family, start, generation in (("bart", 2, {"forced_eos_token_id": 2}), ("t5", 0, {})):
        published(family).save_pretrained(tmp_path / family)
        (tmp_path / family / "generation_config.json").unlink()
        rewrite(tmp_path / family, decoder_start_token_id="REMOVE", forced_eos_token_id="REMOVE")
        model = loaded(tmp_path / family)[1]
        bos = 1 if family == "bart" else None
        assert model.special_ids == SpecialIds(start=start, eos=(2,), pad=0, bos=bos)
        assert model.generation == generation
    (tmp_path / "bart" / "generation_config.json").write_text('{"decoder_start_token_id": 9}')
    model = loaded(tmp_path / "bart")[1]
    assert model.special_ids.start == 9
    assert model.generation == {}


def test_one_tokenizer_for_both_sides(tmp_path: Path) -> None:
    published("t5").save_pretrained(tmp_path)
    train_tokenizer("wordpiece", 60, ["a b c d e"]).save(tmp_path)
    bundle, _ = loaded(tmp_path)
    assert bundle.source_tokenizer is not None
    assert bundle.target_tokenizer is bundle.source_tokenizer
    save_bundle(bundle, tmp_path / "ours")
    assert not (tmp_path / "ours" / "decoder_tokenizer").exists()
    assert "# t5" in (tmp_path / "ours" / "README.md").read_text()


# -- halves --------------------------------------------------------------------------------------------------


def test_the_sides_alone(tmp_path: Path) -> None:
    """Of a whole folder, and saved again by themselves."""
    ids = torch.tensor([ROWS[1]])
    for family in CLASSES:
        theirs = published(family)
        theirs.save_pretrained(tmp_path / family)
        with torch.no_grad():
            states = theirs.get_encoder()(ids)[0]
            decoder = theirs.get_decoder()(ids, use_cache=False)[0]
            expected = theirs.lm_head(decoder * (32**-0.5 if family == "t5" else 1.0))
        for role, wanted in (("encoder", states), ("decoder", expected)):
            bundle = load_bundle(str(tmp_path / family), role=role)  # type: ignore[arg-type]
            save_bundle(bundle, tmp_path / f"{family}-{role}")
            again = load_bundle(str(tmp_path / f"{family}-{role}"), role=role)  # type: ignore[arg-type]
            for each in (bundle, again):
                with torch.no_grad():
                    assert tiny.relative_error(each.model(ids), wanted) < 1e-5
        assert any(
            "cross" in name for name in load_bundle(str(tmp_path / family), role="decoder").report.unused
        )
    for name, kind in (("t5-encoder", "T5EncoderModel"), ("mt5-encoder", "MT5EncoderModel")):
        again, info = getattr(transformers, kind).from_pretrained(tmp_path / name, output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
    causal, info = transformers.BartForCausalLM.from_pretrained(
        tmp_path / "bart-decoder", output_loading_info=True
    )
    assert {name.split(".")[4] for name in info["missing_keys"]} == {
        "encoder_attn",
        "encoder_attn_layer_norm",
    }
    assert isinstance(load_bundle(str(tmp_path / "bart-decoder")).model, Stack)
    causal.save_pretrained(tmp_path / "causal")
    assert isinstance(load_bundle(str(tmp_path / "causal")).model, Stack)


@pytest.mark.parametrize("role", ["encoder", "decoder"])
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("family", ["bart", "t5"])
def test_a_side_in_a_pair(family: str, binary: bool, role: str, tmp_path: Path) -> None:
    """Nothing of a published side is fresh, its cross-attention neither; the pair comes back as it was."""
    theirs = published(family)
    theirs.save_pretrained(tmp_path / family)
    if binary:
        (tmp_path / family / "model.safetensors").unlink()
        torch.save(theirs.state_dict(), tmp_path / family / "pytorch_model.bin")
    tiny.save_encoder("bert", tmp_path / "bert")
    tiny.save_language_model("gpt2", tmp_path / "gpt2")
    names = (family, "gpt2") if role == "encoder" else ("bert", family)
    bundle = combine(*(Side(reference=str(tmp_path / name)) for name in names))
    model = bundle.model
    assert isinstance(model, EncoderDecoder)
    assert not [name for name in bundle.report.fresh if name.startswith(f"{role}.")]
    if role == "decoder":
        cross = theirs.state_dict()[f"{PREFIX[family]}decoder.{CROSS_QUERY[family]}"]
        layer = model.decoder.layers[1]
        assert torch.equal(layer.get_parameter("cross_attention.query.weight"), cross)
        assert bundle.config["decoder_start_token_id"] == (2 if family == "bart" else 0)
    save_bundle(bundle, tmp_path / "pair")
    assert json.loads((tmp_path / "pair" / "config.json").read_text())["model_type"] == "encoder-decoder"
    again = loaded(tmp_path / "pair")[1]
    assert torch.equal(logits(again)[0], logits(model)[0])
    if role == "decoder" and family == "bart":
        same(model, transformers.EncoderDecoderModel.from_pretrained(tmp_path / "pair").eval())


CROSS_QUERY = {
    "bart": "layers.1.encoder_attn.q_proj.weight",
    "t5": "block.1.layer.1.EncDecAttention.q.weight",
}


@pytest.mark.parametrize(("family", "case"), [("bart", "untied"), ("t5", "gated-gelu"), ("t5", "unscaled")])
def test_both_sides_of_one_folder_as_a_pair(family: str, case: str, tmp_path: Path) -> None:
    """Combined, the two sides compute what the whole computes; head and scale stay what they were."""
    theirs = published(family, case)
    theirs.save_pretrained(tmp_path / "whole")
    side = Side(reference=str(tmp_path / "whole"))
    bundle = combine(side, side)
    same(bundle.model, theirs)
    save_bundle(bundle, tmp_path / "pair")
    same(loaded(tmp_path / "pair")[1], theirs)
    shared = combine(side, side, share="embeddings").model
    assert isinstance(shared, EncoderDecoder)
    assert shared.encoder.embedding.weight is shared.decoder.embedding.weight


def test_settings_of_a_side(tmp_path: Path) -> None:
    """Keys that follow from others do not stand in the way of --set, nor of fresh weights."""
    published("t5", "gated-gelu").save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dense_act_fn"] == "gelu_new"
    side = Side(reference=str(tmp_path), random=True)
    settings = {"feed_forward_proj": "relu", "decoder_num_decoder_layers": 3, "n_positions": 99}
    model = combine(side, side, settings=settings).model
    assert isinstance(model, EncoderDecoder)
    assert (model.encoder.config.activation, model.encoder.config.gated) == ("relu", False)
    assert (model.encoder.config.num_layers, model.decoder.config.num_layers) == (2, 3)
    assert model.encoder.config.max_positions == 99


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_both_sides_put_together_again_are_as_trained_as_they_were(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pair has nothing fresh and computes what the whole did; sides of two folders never met."""
    theirs = published(family)
    for name in ("one", "other"):
        theirs.save_pretrained(tmp_path / name)
    one, other = (Side(reference=str(tmp_path / name)) for name in ("one", "other"))
    bundle = combine(one, one)
    assert not bundle.report.fresh
    assert bundle.is_trained
    same(bundle.model, theirs)
    assert not combine(one, other).is_trained
    assert not combine(replace(one, random=True), one).is_trained
    warn_if_untrained(combine(one, other))
    assert "nothing in it is fresh" in capsys.readouterr().err


def test_a_single_stack_of_a_decoder_is_not_made_to_end(tmp_path: Path) -> None:
    """BART's config.json forces the last token that fits to be eos; a pair with its decoder does not."""
    published("bart").save_pretrained(tmp_path / "whole")
    ids = torch.tensor(ROWS[:1])
    for settings, forced in (({}, False), ({"forced_eos_token_id": 2}, True)):
        bundle = combine_single(Side(reference=str(tmp_path / "whole")), settings=settings)
        save_bundle(bundle, tmp_path / "one", overwrite=True)
        model = load_bundle(str(tmp_path / "one")).model
        assert ("forced_eos_token_id" in model.generation) == forced
        found = generate_ids(model, ids, eos_token_id=[], max_new_tokens=4)[0][0].ids
        target = torch.tensor([[model.special_ids.start]])
        for _ in found:
            with torch.no_grad():
                target = torch.cat([target, model(ids, None, target)[:, -1:].argmax(-1)], dim=1)
        expected = target[0, 1:].tolist()
        assert found == ([*expected[:-1], 2] if forced else expected)
