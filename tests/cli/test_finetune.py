"""The whole way on the command line: finetune, then generate and evaluate from the same recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.training.helpers import RECIPE, write_data


def test_a_recipe_is_trained_scored_and_asked(s2s: Run, tmp_path: Path) -> None:
    write_data(tmp_path)
    recipe = RECIPE.replace(
        "validation: dev.jsonl}", 'validation: dev.jsonl, test: dev.jsonl, source_prefix: "say "}'
    )
    (tmp_path / "recipe.yaml").write_text(recipe + "generation: {max_new_tokens: 8}\n")
    before = s2s("generate", "--recipe", "recipe.yaml", "red cat")
    assert before.returncode == 0, before.stderr
    assert b"never fine-tuned" in before.stderr
    dry = s2s("finetune", "recipe.yaml", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert b"cross_attention" in dry.stderr
    assert not (tmp_path / "runs").exists()
    trained = s2s("finetune", "recipe.yaml", "--set", "training.num_train_epochs=3")
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout == b""
    config = json.loads((tmp_path / "runs/tiny/config.json").read_text())
    assert config["s2s"]["trained"] is True
    assert config["s2s"]["source_prefix"] == "say "
    asked = s2s("generate", "--recipe", "recipe.yaml", "red cat")
    assert asked.returncode == 0, asked.stderr
    assert b"never fine-tuned" not in asked.stderr
    assert s2s("generate", "--max-new-tokens", "8", "red cat").stdout == asked.stdout, (
        "runs/latest, prefix kept"
    )
    scored = s2s("evaluate", "recipe.yaml", "--metrics", "loss,exact_match")
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["rows"] == 8
    assert (tmp_path / "runs/tiny/generated_predictions.jsonl").read_bytes().count(b"\n") == 8
    again = s2s("finetune", "recipe.yaml", "--set", "training.num_train_epochs=3")
    assert again.returncode == 0
    assert b"nothing to do" in again.stderr


@pytest.mark.parametrize("flags", [("--resume", "never"), ("--resume", "runs/x"), ("--overwrite",)])
def test_a_dry_run_takes_no_flags_of_a_run(s2s: Run, tmp_path: Path, flags: tuple[str, ...]) -> None:
    write_data(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    refused = s2s("finetune", "recipe.yaml", "--dry-run", *flags)
    assert refused.returncode == 2, refused.stderr
    assert f"{' '.join(flags)} has no effect on --dry-run".encode() in refused.stderr


@pytest.mark.parametrize("command", [("finetune", "recipe.yaml"), ("combine", "bert")])
def test_an_output_without_a_name_is_not_the_current_folder(
    s2s: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    write_data(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    before = sorted(tmp_path.iterdir())
    refused = s2s(*command, "--overwrite", "-o", "")
    assert refused.returncode == 2, refused.stderr
    assert b"the name is empty" in refused.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_a_run_of_other_processes_says_what_goes_on(s2s: Run, tmp_path: Path) -> None:
    write_data(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    two = ("--set", "training.gradient_accumulation_steps=2")
    # as of two processes: what counts is how many batches a step has
    assert s2s("finetune", "recipe.yaml", *two, "--set", "training.max_minutes=0.00001").returncode == 0
    refused = s2s("finetune", "recipe.yaml", "--set", "training.max_minutes=9")
    assert refused.returncode == 2
    assert b"2 then, 1 now" in refused.stderr
    assert b"gradient_accumulation_steps" in refused.stderr
