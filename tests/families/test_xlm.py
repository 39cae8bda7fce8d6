"""XLM: languages, names of old files, and what only config.json tells the published code."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import seq2seq_cli
from seq2seq_cli.checkpoint.bundle import load_bundle
from seq2seq_cli.checkpoint.loading import build_stack, stack_config
from seq2seq_cli.checkpoint.saving import save_bundle
from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.families import FAMILIES
from seq2seq_cli.model import EncoderDecoder, Stack, StackConfig
from seq2seq_cli.training.module import reached_parameters
from tests import tiny
from tests.families.specs.xlm import LANGUAGES

XLM = FAMILIES["xlm"]
IDS = torch.tensor([[5, 6, 7, 8, 9], [11, 12, 13, 14, 15]])
MANY = {"n_langs": 3, "lang2id": LANGUAGES}
PAIR_IDS = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def translated(role: str = "encoder", **changes: Any) -> StackConfig:
    return stack_config(XLM, {**tiny.base("xlm"), **changes}, role, where="c")  # type: ignore[arg-type]


def change(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("role", ["encoder", "masked_lm"])
def test_each_language_is_the_published_langs(role: str, tmp_path: Path) -> None:
    """One folder; every language by name and by id, and none, against the ``langs`` argument."""
    make = tiny.save_encoder if role == "encoder" else tiny.save_language_model
    theirs = make("xlm", tmp_path, **MANY)
    if role == "masked_lm":
        theirs.transformer.causal = False
        change(tmp_path, causal=False)
    found = {}
    for language in (None, *LANGUAGES, *LANGUAGES.values()):
        change(tmp_path, language=language)
        ours = load_bundle(str(tmp_path), role=role).model  # type: ignore[arg-type]
        number = LANGUAGES[language] if isinstance(language, str) else language
        langs = None if number is None else torch.full_like(IDS, number)
        with torch.no_grad():
            found[language] = ours(IDS)
            assert tiny.relative_error(found[language], theirs(input_ids=IDS, langs=langs)[0]) < 1e-5
    for one, other in ((None, 0), (0, 1), (1, 2)):
        assert tiny.relative_error(found[one], found[other]) > 1e-2
    assert torch.equal(found["fr"], found[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({**MANY, "language": "frr"}, r"language='frr' is not in lang2id.*did you mean 'fr'\?"),
        ({"n_langs": 3, "language": "fr"}, "language='fr' is not in lang2id.*give the language's id"),
        ({**MANY, "language": 3}, "language=3 is none of the 3 languages.*from 0 to 2"),
        ({**MANY, "language": -1}, "language=-1"),
        ({**MANY, "language": True}, "language=True"),
        ({**MANY, "language": [1]}, r"language=\[1\]"),
        ({"n_langs": 3, "lang2id": {"fr": 3}, "language": "fr"}, "language='fr' is none of the 3"),
        ({"language": 0}, "language=0: this model has no language embeddings"),
        ({**MANY, "use_lang_emb": False, "language": "fr"}, "language='fr': this model has no language"),
        ({"lang2id": ["en"]}, "lang2id"),
        ({"is_encoder": False}, "is_encoder=False"),
    ],
)
def test_languages_that_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        translated(**changes)


def test_two_sides_speak_two_languages(tmp_path: Path) -> None:
    """From one checkpoint, English into French; kept in the folder; only those rows of the tables learn."""
    tiny.save_language_model("xlm", tmp_path / "xlm", sinusoidal_embeddings=True, **MANY)
    source = torch.tensor([[5, 6, 7, 8]])
    target = torch.tensor([[1, 20, 21, 22]])

    def pair(**languages: Any) -> Any:
        return seq2seq_cli.combine(tmp_path / "xlm", **PAIR_IDS, **languages)

    def logits(made: Any) -> torch.Tensor:
        with torch.no_grad():
            scores: torch.Tensor = made.model(source, None, target)
        return scores

    spoken = pair(encoder_language="en", decoder_language="fr")
    for other in (
        {"encoder_language": "de", "decoder_language": "fr"},
        {"encoder_language": "en", "decoder_language": "de"},
        {},
    ):
        assert tiny.relative_error(logits(spoken), logits(pair(**other))) > 1e-4
    assert torch.equal(logits(spoken), logits(pair(encoder_language=0, decoder_language=1)))
    spoken.save(tmp_path / "saved")
    again = seq2seq_cli.load(tmp_path / "saved")
    assert torch.equal(logits(spoken), logits(again))
    model = again.model
    assert isinstance(model, EncoderDecoder)
    loss = model(source, None, target).square().sum()
    reached = reached_parameters(loss)
    left_out = {name for name, parameter in model.named_parameters() if id(parameter) not in reached}
    assert left_out == {"encoder.position_embedding.weight", "decoder.position_embedding.weight"}
    loss.backward()
    for stack, row in ((model.encoder, 0), (model.decoder, 1)):
        grad = stack.language_embedding.weight.grad  # type: ignore[union-attr]
        assert isinstance(grad, torch.Tensor)
        assert grad.abs().sum(1).nonzero().flatten().tolist() == [row]


def test_a_table_that_is_not_used_is_kept_but_does_not_learn(tmp_path: Path) -> None:
    tiny.save_encoder("xlm", tmp_path / "theirs", **MANY)
    bundle = load_bundle(str(tmp_path / "theirs"), role="encoder")
    assert isinstance(bundle.model, Stack)
    assert not bundle.model.language_embedding.weight.requires_grad  # type: ignore[union-attr]
    save_bundle(bundle, tmp_path / "ours")
    theirs, ours = (load_file(tmp_path / side / "model.safetensors") for side in ("theirs", "ours"))
    assert torch.equal(ours["lang_embeddings.weight"], theirs["lang_embeddings.weight"])


def test_a_saved_decoder_is_causal_in_transformers_too(tmp_path: Path) -> None:
    """The file was published as a masked model; only ``causal`` tells the published code otherwise."""
    tiny.save_language_model("xlm", tmp_path / "theirs")
    change(tmp_path / "theirs", causal=False)
    bundle = load_bundle(str(tmp_path / "theirs"), role="decoder")
    save_bundle(bundle, tmp_path / "ours")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        assert tiny.relative_error(bundle.model(IDS), theirs(input_ids=IDS)[0]) < 1e-5


@pytest.mark.parametrize("role", ["encoder", "masked_lm", "decoder", "cross_decoder"])
def test_who_is_causal(role: str) -> None:
    assert translated(role).causal is (role in ("decoder", "cross_decoder"))
    assert translated(role, causal=True).causal
    if "decoder" in role:
        assert translated(role, is_encoder=False).causal


def test_names_of_old_files(tmp_path: Path) -> None:
    """The authors' own names for sizes and ids mean the same, and win over today's, as in transformers."""
    theirs = tiny.save_language_model("xlm", tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    old = {"n_words": "vocab_size", "bos_index": "bos_token_id", "eos_index": "eos_token_id"}
    old |= {"pad_index": "pad_token_id", "hidden_size": "emb_dim", "num_hidden_layers": "n_layers"}
    for name, today in old.items():
        config[name] = config.pop(today)
    path.write_text(json.dumps({**config, "emb_dim": 64}))
    (tmp_path / "generation_config.json").unlink()
    assert transformers.AutoConfig.from_pretrained(tmp_path).emb_dim == 32
    bundle = load_bundle(str(tmp_path), role="decoder")
    ids = bundle.model.special_ids
    assert (ids.bos, ids.eos, ids.pad) == (1, (2,), 0)
    assert bundle.config["emb_dim"] == 32
    assert not set(old) & set(bundle.config)
    with torch.no_grad():
        assert tiny.relative_error(bundle.model(IDS), theirs(input_ids=IDS)[0]) < 1e-5


def test_old_buffers_and_heads_of_other_tasks(tmp_path: Path) -> None:
    tiny.save_language_model("xlm", tmp_path)
    path = tmp_path / "model.safetensors"
    extra = {
        "transformer.position_ids": torch.arange(40)[None],
        "sequence_summary.summary.weight": torch.ones(2, 32),
        "qa_outputs.start_logits.dense.weight": torch.ones(1, 32),
    }
    save_file({**load_file(path), **extra}, path, metadata={"format": "pt"})
    report = load_bundle(str(tmp_path), role="decoder").report
    assert set(report.unused) == set(extra)
    assert not report.fresh


def test_starting_values() -> None:
    """Tables with embed_init_std, matrices with init_std, sinusoids by the published formula."""
    for sinusoidal in (False, True):
        changes = {
            "embed_init_std": 0.1,
            "init_std": 0.01,
            "emb_dim": 64,
            "n_langs": 40,
            "tie_word_embeddings": False,
            "sinusoidal_embeddings": sinusoidal,
            "language": 3,
        }
        config = translated("cross_decoder", **changes)
        stack, _ = build_stack(
            XLM, config, None, published={}, where="", generator=torch.Generator().manual_seed(0)
        )
        for name, parameter in stack.named_parameters():
            if parameter.ndim == 2 and not (sinusoidal and name == "position_embedding.weight"):
                expected = 0.1 if name.partition(".")[0].endswith("embedding") else 0.01
                error = 4 * expected / math.sqrt(2 * parameter.numel())
                assert float(parameter.detach().std()) == pytest.approx(expected, abs=error), name
        table = stack.position_embedding
        assert table is not None
        assert table.weight.requires_grad is not sinusoidal
        if sinusoidal:
            made = transformers.AutoModel.from_config(
                tiny.config("xlm", emb_dim=64, sinusoidal_embeddings=True)
            )
            torch.testing.assert_close(table.weight, made.position_embeddings.weight, rtol=0, atol=1e-6)


def test_a_published_config_is_accepted() -> None:
    """xlm-mlm-enfr-1024, with keys that only old files carry."""
    config = {
        "architectures": ["XLMWithLMHeadModel"],
        "asm": False,
        "attention_dropout": 0.1,
        "bos_index": 0,
        "causal": False,
        "dropout": 0.1,
        "emb_dim": 1024,
        "embed_init_std": 0.02209708691207961,
        "end_n_top": 5,
        "eos_index": 1,
        "gelu_activation": True,
        "id2lang": {"0": "en", "1": "fr"},
        "init_std": 0.02,
        "is_encoder": True,
        "lang2id": {"en": 0, "fr": 1},
        "layer_norm_eps": 1e-12,
        "mask_index": 5,
        "max_position_embeddings": 512,
        "max_vocab": -1,
        "min_count": 0,
        "model_type": "xlm",
        "n_heads": 8,
        "n_langs": 2,
        "n_layers": 6,
        "n_words": 64139,
        "pad_index": 2,
        "same_enc_dec": True,
        "share_inout_emb": True,
        "sinusoidal_embeddings": False,
        "start_n_top": 5,
        "summary_activation": None,
        "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True,
        "summary_type": "first",
        "summary_use_proj": True,
        "unk_index": 3,
        "use_lang_emb": True,
    }
    for role in ("encoder", "masked_lm", "decoder", "cross_decoder"):
        stack = stack_config(XLM, XLM.respelled({**config, "language": "fr"}), role, where="")  # type: ignore[arg-type]
        assert (stack.vocab_size, stack.hidden_size, stack.feedforward_size) == (64139, 1024, 4096)
        assert (stack.num_layers, stack.num_heads, stack.activation) == (6, 8, "gelu")
        assert (stack.embedding.languages, stack.embedding.language) == (2, 1)
