"""The exquisite corpse: models that take turns, in a pipe and in one process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from seq2seq_cli import resources
from seq2seq_cli.checkpoint import bundle
from seq2seq_cli.checkpoint.saving import save_bundle
from seq2seq_cli.cli.running import Setup, open_writer
from seq2seq_cli.recipe import load
from tests.cli.conftest import TEXTS, Run

LINES = b"who sells\n\ntea and cake\n"


@pytest.fixture
def models(stack_folder: Path, pair_folder: Path, tmp_path: Path) -> Path:
    """``gpt2``, ``xlnet`` and ``transfo-xl`` in the current folder: small, of that family or not."""
    for name in ("gpt2", "transfo-xl"):
        shutil.copytree(stack_folder, tmp_path / name)
    shutil.copytree(pair_folder, tmp_path / "xlnet")
    return tmp_path


@pytest.fixture
def bert_folder(tmp_path: Path) -> Path:
    """A BERT that was made causal, with words for tokens."""
    from seq2seq_cli.combiner import Side, combine
    from seq2seq_cli.text.training import train_tokenizer

    side = Side(
        family="bert",
        config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 48,
            "max_position_embeddings": 40,
        },
        tokenizer=train_tokenizer("wordpiece", 80, TEXTS),
    )
    save_bundle(combine(side, side, seed=5), tmp_path / "both")
    save_bundle(bundle.load_bundle(str(tmp_path / "both"), role="decoder"), tmp_path / "bert")
    return tmp_path / "bert"


def test_a_recipe_writes_what_a_pipe_writes(s2s: Run, models: Path, bert_folder: Path) -> None:
    short = ("--max-new-tokens", "5", "--min-new-tokens", "3")
    text = LINES
    for model in ("gpt2", bert_folder, "xlnet", "gpt2", bert_folder, "xlnet"):
        done = s2s("generate", "-m", model, "--echo", *short, stdin=text)
        assert done.returncode == 0, done.stderr
        text = done.stdout
    recipe = f"turns: [gpt2, {bert_folder}, xlnet]\nrounds: 2\ngeneration: {{max_new_tokens: 9}}\n"
    (models / "r.yaml").write_text(recipe)
    asked = ("generate", "--recipe", "r.yaml", *short)
    echoed = s2s(*asked, "--echo", stdin=LINES)
    assert echoed.stdout == text
    first, blank, third, end = text.decode().split("\n")
    assert (blank, end) == ("", "")
    plain = s2s(*asked, stdin=LINES).stdout.decode().split("\n")
    assert plain == [first[len("who sells") :], "", third[len("tea and cake") :], ""]


def test_the_shipped_recipe_runs(s2s: Run, models: Path) -> None:
    recipe = resources.folder("recipes") / "exquisite-corpse.yaml"
    rows = [{"id": 1, "source": "who sells"}, {"source": " "}]
    asked = ("generate", "--recipe", recipe, "--jsonl", "--max-new-tokens", "3")
    stdin = "\n".join(map(json.dumps, rows)).encode()
    done = s2s(*asked, stdin=stdin)
    assert done.returncode == 0, done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["id"] == 1
    assert first["prediction"]
    assert second["prediction"] == ""
    assert s2s(*asked, stdin=stdin).stdout == done.stdout
    assert s2s(*asked, "--seed", "2", stdin=stdin).stdout != done.stdout
    # a line's draws depend on its number alone
    alone = s2s(*asked, "--batch-tokens", "1", stdin=stdin)
    assert alone.stdout == done.stdout
    shared = s2s(*asked, "--num-processes", "2", stdin=stdin)
    assert shared.stdout == done.stdout, shared.stderr


def test_weights_are_loaded_once(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(models)
    loaded: list[str] = []
    real = bundle.load_bundle
    monkeypatch.setattr(bundle, "load_bundle", lambda name, **more: loaded.append(name) or real(name))
    (models / "r.yaml").write_text("turns: [gpt2, xlnet, gpt2]\nrounds: 4\n")
    setup = Setup(
        device="cpu",
        dtype="float32",
        quantize=None,
        given={"max_new_tokens": 2},
        batch_tokens=64,
        truncate=True,
        echo=False,
        with_scores=False,
        token_scores=False,
    )
    writer = open_writer(None, load(Path("r.yaml")), setup)
    (output,) = writer.texts(["tea"], numbers=None, places=None)
    assert output.texts[0]
    assert loaded == ["gpt2", "xlnet"]


def test_a_text_that_outgrows_a_model_is_cut_on_the_left_and_counted(s2s: Run, models: Path) -> None:
    (models / "r.yaml").write_text("turns: [gpt2]\nrounds: 6\n")
    asked = ("generate", "--recipe", "r.yaml", "--max-new-tokens", "12", "--min-new-tokens", "12")
    done = s2s(*asked, "--echo", "who sells tea")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"who sells tea"), "nothing is lost of what is put out"
    assert b"input(s) were longer than the model takes" in done.stderr


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("-m", "gpt2"), b"a recipe of turns does not go with --model"),
        (("--stream",), b"a recipe of turns does not go with --stream"),
        (("--attention", "a.svg", "tea"), b"a recipe of turns does not go with --attention"),
        (("--scores",), b"--scores"),
        (("--jsonl", "--num-return-sequences", "2"), b"--num-return-sequences"),
    ],
)
def test_what_does_not_go_with_turns(s2s: Run, tmp_path: Path, flags: tuple[str, ...], says: bytes) -> None:
    (tmp_path / "r.yaml").write_text("turns: [nowhere]")
    done = s2s("generate", "--recipe", "r.yaml", *flags, stdin=b"tea\n")
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_model_that_is_not_there_is_named_with_its_place(s2s: Run, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("rounds: 2\nturns:\n  - ./gone\n")
    done = s2s("generate", "--recipe", "r.yaml", "tea")
    assert done.returncode == 2
    assert b"(named by r.yaml:3:5)" in done.stderr
    trained = s2s("finetune", "r.yaml")
    assert trained.returncode == 2
    assert b"no model of its own \xc2\xb7 r.yaml:3:5" in trained.stderr
