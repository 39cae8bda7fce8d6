"""LoRA adapters against PEFT's: its files give its logits, ours are its files, and nothing else is taken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from seq2seq_cli.__main__ import main
from seq2seq_cli.checkpoint.adapter import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    adaptable,
    apply_adapter,
    load_base,
    write_adapter,
)
from seq2seq_cli.checkpoint.bundle import AdapterNotes, Bundle, load_bundle
from seq2seq_cli.checkpoint.saving import save_bundle
from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.model.lora import AdaptedLinear, LoraSettings
from tests import tiny
from tests.checkpoint.peft_cases import CASES, FOLDER, UNIFORM, base, inputs, loaded


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model of every case."""
    folder = tmp_path_factory.mktemp("models")
    for case in CASES:
        base(case).save_pretrained(folder / case)
    return folder


def logits(bundle: Bundle, case: str) -> Tensor:
    given = inputs(case)
    ids = (given["input_ids"], given["attention_mask"].bool())
    with torch.no_grad():
        if "decoder_input_ids" in given:
            return bundle.model(*ids, given["decoder_input_ids"])
        return bundle.model(*ids)


def error_of(ours: Tensor, case: str, theirs: Tensor) -> float:
    mask = inputs(case)["attention_mask"] if case == "gpt2" else None
    return tiny.relative_error(ours, theirs, mask)


@pytest.mark.parametrize("case", CASES)
def test_pefts_adapters_give_pefts_logits(case: str, models: Path, tmp_path: Path) -> None:
    expected = load_file(FOLDER / case / "expected.safetensors")
    assert all(torch.equal(expected[name], tensor) for name, tensor in inputs(case).items())
    bundle = load_base(str(models / case))
    assert error_of(logits(bundle, case), case, expected["logits"]) > 0.1
    done = apply_adapter(bundle, FOLDER / case)
    assert error_of(logits(bundle, case), case, expected["logits"]) < 1e-5
    names = [name for name in load_file(FOLDER / case / WEIGHTS_FILE) if name.endswith("lora_A.weight")]
    assert len(done.updated) == len(names)
    save_bundle(bundle, tmp_path / "merged")
    assert not (tmp_path / "merged/adapter").exists()
    assert error_of(logits(load_bundle(str(tmp_path / "merged")), case), case, expected["logits"]) < 1e-5
    theirs = loaded(case, tmp_path / "merged").eval()
    with torch.no_grad():
        merged = theirs(**inputs(case)).logits
    assert error_of(merged, case, expected["logits"]) < 1e-5


def adapted(case: str, models: Path) -> Bundle:
    """A model with PEFT's adapter as if it had been trained here."""
    bundle = load_base(str(models / case))
    done = apply_adapter(bundle, FOLDER / case)
    made = CASES[case]
    settings = LoraSettings(r=made["r"], alpha=made["lora_alpha"], use_rslora=made.get("use_rslora", False))
    bundle.adapter = AdapterNotes(settings=settings, whole=frozenset(done.replaced))
    return bundle


@pytest.mark.parametrize("case", UNIFORM)
def test_what_we_write_is_what_peft_wrote(case: str, models: Path, tmp_path: Path) -> None:
    write_adapter(adapted(case, models), tmp_path / "ours")
    ours, theirs = (load_file(folder / WEIGHTS_FILE) for folder in (tmp_path / "ours", FOLDER / case))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    config = json.loads((tmp_path / "ours" / CONFIG_FILE).read_text())
    published = json.loads((FOLDER / case / CONFIG_FILE).read_text())
    for key in ("peft_type", "r", "lora_alpha", "use_rslora", "bias"):
        assert config[key] == published[key]
    ends = tuple(published["target_modules"])
    assert config["target_modules"]
    assert all(name.endswith(ends) for name in config["target_modules"])


@pytest.mark.filterwarnings("ignore")  # PEFT's own: it finds out by itself which matrices lie the other way
@pytest.mark.parametrize("case", UNIFORM)
def test_peft_reads_what_we_write(case: str, models: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip(
        "peft", reason="run in an environment of its own: scripts/make_peft_references.py"
    )
    bundle = adapted(case, models)
    write_adapter(bundle, tmp_path / "ours")
    model = peft.PeftModel.from_pretrained(loaded(case, models / case), str(tmp_path / "ours")).eval()
    with torch.no_grad():
        theirs = model(**inputs(case)).logits
    assert error_of(logits(bundle, case), case, theirs) < 1e-5


@pytest.mark.parametrize("family", ["bert", "gpt2", "xlnet", "xlm", "distilbert", "ctrl", "bart", "albert"])
def test_matrices_have_the_names_of_published_modules(family: str, tmp_path: Path) -> None:
    model = tiny.save_language_model(family, tmp_path / family)
    modules = dict(model.named_modules())
    found = adaptable(load_base(str(tmp_path / family)))
    assert set(found) <= set(modules)
    assert all(modules[name].weight.ndim == 2 for name in found)
    if family == "xlnet":  # its attention is no module there
        assert {name.rpartition(".")[2] for name in found} == {"layer_1", "layer_2"}
    if family == "gpt2":
        parts = [f"layers.1.self_attention.{part}" for part in ("query", "key", "value")]
        assert found["transformer.h.1.attn.c_attn"] == tuple(parts)


def damaged(tmp_path: Path, *, weights: dict[str, Tensor | None] | None = None, **config: object) -> Path:
    """PEFT's adapter of GPT-2 with some tensors replaced (None: taken away) and some settings changed."""
    folder = tmp_path / "damaged"
    shutil.copytree(FOLDER / "gpt2", folder)
    settings = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps({**settings, **config}))
    tensors = {**load_file(folder / WEIGHTS_FILE), **(weights or {})}
    save_file({n: t for n, t in tensors.items() if t is not None}, folder / WEIGHTS_FILE)
    return folder


_ATTENTION = "base_model.model.transformer.h.0.attn.c_attn"


@pytest.mark.parametrize(
    ("weights", "config", "says"),
    [
        ({}, {"use_dora": True}, "use_dora=True is not supported"),
        ({}, {"peft_type": "IA3"}, "peft_type='IA3' is not supported"),
        ({}, {"r": "8"}, "r='8' is not a sensible value"),
        ({}, {"alpha_pattern": {"(a+)+": 2}}, "regular expressions"),
        ({f"{_ATTENTION}.lora_B.weight": None}, {}, "no lora_B"),
        ({f"{_ATTENTION}.lora_B.weight": torch.zeros(5, 4)}, {}, r"shapes are \(4, 32\) and \(5, 4\)"),
        ({f"{_ATTENTION}.lora_A.weight": torch.full((4, 32), torch.nan)}, {}, "NaN"),
        ({"base_model.model.transformer.h.9.ln_1.weight": torch.ones(32)}, {}, "no such parameter"),
        ({"base_model.model.h.lora_embedding_A": torch.ones(3)}, {}, "no such parameter"),
        (
            {f"base_model.model.x.lora_{leaf}.weight": torch.ones(2, 2) for leaf in "AB"},
            {},
            "no such matrix",
        ),
    ],
)
def test_what_fits_nothing_is_refused_by_name(
    weights: dict[str, Tensor | None], config: dict[str, object], says: str, models: Path, tmp_path: Path
) -> None:
    folder = damaged(tmp_path, weights=weights, **config)
    with pytest.raises(CheckpointError, match=says):
        apply_adapter(load_base(str(models / "gpt2")), folder)


def test_merging_on_the_command_line(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    case, adapter = "bert2gpt2", str(FOLDER / "bert2gpt2")
    assert main(["combine", str(models / case), "--merge-lora", adapter, "-o", "out", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert "decoder.transformer.h.1.attn.c_attn" in report["updated"]
    assert "decoder.layers.1.cross_norm.bias" in report["replaced"]
    expected = load_file(FOLDER / case / "expected.safetensors")["logits"]
    assert tiny.relative_error(logits(load_bundle("out"), case), expected) < 1e-5
    assert main(["combine", str(models / "gpt2"), "--merge-lora", adapter, "-o", "no"]) == 4
    assert "no such matrix" in capsys.readouterr().err
    assert not Path("no").exists()
    assert main(["combine", str(models / case), "--merge-lora", adapter, "--share", "all", "-o", "no"]) == 2
    assert "--share" in capsys.readouterr().err
    assert main(["combine", str(models / case), "--merge-lora", "nowhere", "-o", "no"]) == 4


def test_two_checkpoints_are_joined_and_their_adapter_merged(models: Path, tmp_path: Path) -> None:
    """What is fresh in the pair comes from the adapter, whatever it was drawn as."""
    from seq2seq_cli.combiner import Side, combine

    pair = base("bert2gpt2")
    pair.encoder.save_pretrained(tmp_path / "left")
    pair.decoder.save_pretrained(tmp_path / "right")
    bundle = combine(
        Side(reference=str(tmp_path / "left")), Side(reference=str(tmp_path / "right")), settings={}, seed=3
    )
    assert bundle.report.fresh or bundle.report.loaded
    apply_adapter(bundle, FOLDER / "bert2gpt2")
    expected = load_file(FOLDER / "bert2gpt2/expected.safetensors")["logits"]
    assert tiny.relative_error(logits(bundle, "bert2gpt2"), expected) < 1e-5
    assert not bundle.report.fresh
    assert isinstance(bundle.decoder.layers[0].self_attention.query, AdaptedLinear)
