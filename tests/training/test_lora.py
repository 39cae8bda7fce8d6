"""Low-rank updates in a run: what learns, what stands still, what is left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from seq2seq_cli.__main__ import main
from seq2seq_cli.checkpoint.adapter import apply_adapter
from seq2seq_cli.checkpoint.bundle import load_bundle
from seq2seq_cli.combiner import Side, combine
from seq2seq_cli.errors import UsageError
from seq2seq_cli.model.lora import AdaptedLinear
from seq2seq_cli.recipe import Recipe
from seq2seq_cli.text.training import train_tokenizer
from seq2seq_cli.training.fitting import Cut
from seq2seq_cli.training.run import finetune, make_accelerator, start
from seq2seq_cli.training.setup import prepare
from seq2seq_cli.training.signals import StopRequest
from tests.tiny import save_encoder, save_language_model
from tests.training.helpers import WORDS, same_files

Make = Callable[..., Recipe]
TEXT = """
model: {encoder: bert, decoder: gpt2, lora: {r: 4, alpha: 16, dropout: 0.1}}
data: {train: train.jsonl}
training: {max_steps: 6, tokens_per_batch: 96, save_steps: 3, learning_rate: 1e-2, dropout: 0}
output: runs/tiny
"""
RUN = Path("runs/tiny")


@pytest.fixture
def folders(workplace: Path) -> Path:
    """``bert`` and ``gpt2`` with tokenizers."""
    save_encoder("bert", workplace / "bert")
    save_language_model("gpt2", workplace / "gpt2", bos_token_id=2, eos_token_id=3)
    for name in ("bert", "gpt2"):
        train_tokenizer("wordpiece", 60, WORDS).save(workplace / name)
    return workplace


def test_updates_and_fresh_parameters_learn_and_nothing_else(folders: Path, recipe: Make) -> None:
    made = recipe(text=TEXT)
    prepared = prepare(made)
    parts = {part.name: part for part in prepared.parts.parts}
    assert [name for name, part in parts.items() if part.frozen] == ["base"]
    assert {name.rpartition(".")[2] for name, _ in parts["encoder"].parameters} == {"lora_a", "lora_b"}
    assert all(".cross_" in name for name, _ in parts["cross_attention"].parameters)
    assert not any("lora" in name for name, _ in parts["cross_attention"].parameters), "fresh: whole"
    trainer = start(prepared, accelerator=make_accelerator(made), stop=StopRequest())
    model = prepared.bundle.model
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(2):
        trainer._advance()
    rates = trainer.step(trainer.prepared.plan.step(0, 0)).rates
    assert set(rates) == set(parts) - {"base"}
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    learning = {name for name, part in parts.items() if not part.frozen for name, _ in part.parameters}
    assert moved == learning


def test_an_update_starts_at_nothing_and_query_key_value_of_gpt2_read_as_one(
    folders: Path, recipe: Make
) -> None:
    prepared = prepare(recipe(text=TEXT))
    layer = prepared.bundle.decoder.layers[0].self_attention
    assert isinstance(layer.query, AdaptedLinear)
    assert layer.query.lora_a is layer.key.lora_a is layer.value.lora_a
    assert torch.equal(layer.query.merged(), layer.query.weight)
    assert layer.query.scale == 4.0
    assert layer.query.lora_a.abs().max() <= 32**-0.5


def test_the_run_folder_is_a_whole_model_with_the_adapter_beside_it(
    folders: Path, recipe: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    finetune(recipe(text=TEXT))
    assert main(["generate", "-m", str(RUN), "red cat", "--max-new-tokens", "5"]) == 0
    merged = load_bundle(str(RUN))
    assert not any("lora" in name for name, _ in merged.model.named_parameters())
    # the two checkpoints, freshly joined by another seed, and the adapter are the same model
    pair = combine(Side(reference="bert"), Side(reference="gpt2"), settings={}, seed=9)
    apply_adapter(pair, RUN / "adapter")
    ids, mask = torch.tensor([[5, 6, 7], [8, 9, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]]).bool()
    target = torch.tensor([[2, 10, 11], [2, 12, 13]])
    with torch.no_grad():
        torch.testing.assert_close(
            pair.model(ids, mask, target), merged.model(ids, mask, target), rtol=1e-5, atol=1e-5
        )
    capsys.readouterr()
    shutil.rmtree("runs/merged", ignore_errors=True)
    assert main(["combine", "bert", "gpt2", "--merge-lora", str(RUN / "adapter"), "-o", "runs/merged"]) == 0
    ours, theirs = load_file(RUN / "model.safetensors"), load_file("runs/merged/model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert load_bundle("runs/merged").is_trained


@pytest.mark.parametrize("changes", [[], ["training.ema_decay=0.8", "model.lora.use_rslora=true"]])
def test_a_run_with_updates_resumes_to_the_bit(folders: Path, recipe: Make, changes: list[str]) -> None:
    finetune(recipe(*changes, text=TEXT))
    finetune(recipe(*changes, "output=runs/again", text=TEXT), resume="runs/tiny/checkpoint-3")
    same_files(RUN / "checkpoint-6", Path("runs/again/checkpoint-6"))
    weights = load_file(RUN / "checkpoint-6/training_weights.safetensors")
    assert "raw.decoder.layers.0.self_attention.query.lora_b" in weights
    assert not (RUN / "training_weights.safetensors").exists()


def test_another_base_is_refused_on_resume(folders: Path, recipe: Make) -> None:
    finetune(recipe("training.max_minutes=0.000001", text=TEXT))
    save_encoder("bert", folders / "bert", seed=7)
    with pytest.raises(UsageError, match="weights that stand still"):
        finetune(recipe(text=TEXT))


def test_parts_and_modules_choose(folders: Path, recipe: Make) -> None:
    def adapted(*changes: str) -> set[str]:
        model = prepare(recipe(*changes, text=TEXT)).bundle.model
        return {name for name, module in model.named_modules() if isinstance(module, AdaptedLinear)}

    everything = adapted()
    assert {name.partition(".")[0] for name in everything} == {"encoder", "decoder"}
    assert not any("cross_attention" in name for name in everything)
    assert adapted("model.lora.parts=[decoder]") == {n for n in everything if n.startswith("decoder.")}
    assert adapted("model.freeze=[encoder]") == {n for n in everything if n.startswith("decoder.")}
    chosen = adapted("model.lora.target_modules=[attention.self.query, mlp.c_fc]")
    assert {name.split(".", 3)[3] for name in chosen} == {"self_attention.query", "feedforward.inner"}
    # what has been trained is loaded, cross-attention too
    finetune(recipe("training.max_steps=1", text=TEXT))
    again = adapted("model={encoder: runs/tiny, lora: {parts: [cross_attention]}}")
    assert again
    assert all(".cross_attention." in name for name in again)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["model.lora.target_modules=[c_atn]"], "finds no loaded matrix.*did you mean 'c_attn'"),
        (["model.lora.parts=[cross_attention]"], "finds no loaded matrix"),
        (["model.decoder=bert", "model.share=all"], "lora would part sides that share"),
        (["model.random=both"], "lora updates what was loaded, and nothing is"),
        (["model.freeze=[encoder]", "model.lora.parts=[encoder]"], "lora is to update the encoder"),
    ],
)
def test_what_lora_cannot_do_is_refused(folders: Path, recipe: Make, changes: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        prepare(recipe(*changes, text=TEXT))


def test_language_models_take_updates(folders: Path, recipe: Make) -> None:
    changes = [
        "model={decoder: gpt2, lora: {r: 2}}",
        "data={train: text.txt}",
        "training.objective=causal_lm",
    ]
    results = finetune(recipe(*changes, text=TEXT))
    assert results["steps"] == 6
    assert load_bundle(str(RUN)).is_trained
    names = load_file(RUN / "adapter/adapter_model.safetensors")
    assert "base_model.model.transformer.h.1.mlp.c_proj.lora_B.weight" in names


def test_two_processes_with_updates_and_an_average_are_killed_and_go_on(folders: Path, recipe: Make) -> None:
    """The same bits as without the kill, and what one process learns from twice as many batches a step."""
    changes = ["training.ema_decay=0.8", "model.lora.dropout=0", "training.save_steps=2"]
    (folders / "recipe.yaml").write_text(TEXT)

    def two(output: str, fail: str = "") -> int:
        sets = [part for change in (*changes, f"output={output}") for part in ("--set", change)]
        command = [
            sys.executable,
            "-m",
            "seq2seq_cli",
            "finetune",
            "recipe.yaml",
            "--num-processes",
            "2",
            *sets,
        ]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("S2S_FAIL")}
        environment = {**kept, "OMP_NUM_THREADS": "1", **({"S2S_FAIL": fail} if fail else {})}
        return subprocess.run(
            command, env=environment, capture_output=True, timeout=180, check=False
        ).returncode

    assert two("runs/whole") == 0
    assert two("runs/killed", fail="step:3:kill") != 0
    assert not Path("runs/killed/checkpoint-4").exists()
    assert two("runs/killed") == 0
    same_files(Path("runs/whole/checkpoint-6"), Path("runs/killed/checkpoint-6"))
    finetune(recipe(*changes, "training.gradient_accumulation_steps=2", "output=runs/one", text=TEXT))
    weights = [
        load_file(f"runs/{name}/checkpoint-6/training_weights.safetensors") for name in ("whole", "one")
    ]
    assert any(name.startswith("average.") for name in weights[0])
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-3, atol=1e-4)


def test_a_run_that_looked_for_its_batches_goes_on(
    folders: Path, recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Cut(tokens=48, rows=None, accumulation=2)
    monkeypatch.setattr("seq2seq_cli.training.run.find_cut", lambda *_: small)
    asked = ("training.auto_find_batch_size=true",)
    finetune(recipe(*asked, "training.max_minutes=0.000001", text=TEXT))
    assert finetune(recipe(*asked, text=TEXT))["steps"] == 6


def test_an_adapter_in_the_wrong_place_is_told(
    folders: Path, recipe: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    finetune(recipe("training.max_steps=1", text=TEXT))
    finetune(
        recipe(
            "training.max_steps=1", "model={encoder: runs/tiny, lora: {r: 2}}", "output=runs/two", text=TEXT
        )
    )
    capsys.readouterr()
    merge = ["combine", "runs/tiny", "-o", "runs/merged", "--merge-lora"]
    assert main([*merge, "runs/two/adapter"]) == 0
    assert "was made for" not in capsys.readouterr().err
    merge[1] = "runs/two"
    assert main([*merge, "runs/two/adapter", "--overwrite"]) == 0
    assert "says that it was made for runs/tiny, and is worked into runs/two" in capsys.readouterr().err
    assert main([*merge, "runs/two", "--overwrite"]) == 4
    assert "did you mean runs/two/adapter?" in capsys.readouterr().err
    assert main([*merge, "runs/nowhere", "--overwrite"]) == 4
    assert "no such folder · runs/nowhere" in capsys.readouterr().err
