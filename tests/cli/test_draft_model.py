"""A draft model from the command line, a recipe and Python: the same lines, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import seq2seq_cli
from seq2seq_cli.model import Stack
from tests.cli.conftest import TEXTS, Run

LINES = ["who sells tea", "", "list all the orders of may", "cake"]


@pytest.fixture(scope="module")
def small_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT → GPT-2 with the target tokenizer of ``pair_folder``, another one for sources, and other sizes."""
    from seq2seq_cli.checkpoint.saving import save_bundle
    from seq2seq_cli.combiner import Side, combine
    from seq2seq_cli.text.training import train_tokenizer

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    encoder = Side(
        family="bert",
        config={**sizes, "max_position_embeddings": 12},
        tokenizer=train_tokenizer("wordpiece", 60, TEXTS),
    )
    decoder = Side(
        family="gpt2",
        config={"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 14},
        tokenizer=train_tokenizer("bpe", 270, TEXTS),
    )
    folder = tmp_path_factory.mktemp("models") / "small"
    save_bundle(combine(encoder, decoder, seed=4), folder)
    return folder


def flags(folder: Path, *more: object) -> list[object]:
    return ["-m", folder, "-i", "in.txt", "--max-new-tokens", "16", *more]


@pytest.mark.parametrize("sampling", [[], ["--top-p", "0.9", "--seed", "3"]], ids=str)
@pytest.mark.parametrize("kind", ["pair", "stack"])
def test_the_same_lines_from_everywhere(
    kind: str,
    sampling: list[str],
    s2s: Run,
    request: pytest.FixtureRequest,
    small_pair: Path,
    tmp_path: Path,
    passes: list[tuple[Stack, int]],
) -> None:
    folder = request.getfixturevalue(f"{kind}_folder")
    draft = small_pair if kind == "pair" else folder
    (tmp_path / "in.txt").write_text("\n".join(LINES) + "\n")
    plain = s2s("generate", *flags(folder, *sampling))
    assert plain.returncode == 0, plain.stderr
    rounded = s2s("generate", *flags(folder, *sampling, "--quantize", "int8"))
    for more, expected in (
        ([], plain),
        (["--draft-tokens", "2"], plain),
        (["--quantize", "int8"], rounded),
    ):
        passes.clear()
        done = s2s("generate", *flags(folder, *sampling, "--draft-model", draft, *more))
        assert done.stdout == expected.stdout, done.stderr
        assert len({id(stack) for stack, _ in passes}) == 2
    shared = s2s("generate", *flags(folder, *sampling, "--draft-model", draft, "--num-processes", "2"))
    assert shared.stdout == plain.stdout, shared.stderr
    recipe = {"model": {"encoder": str(folder)}, "generation": {"draft_model": str(draft), "draft_tokens": 3}}
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    again = s2s("generate", *flags(folder, *sampling, "--recipe", "r.yaml"))
    assert again.stdout == plain.stdout, again.stderr
    options = {"max_new_tokens": 16, **({"top_p": 0.9, "seed": 3} if sampling else {})}
    pair = seq2seq_cli.load(folder)
    assert pair.generate(LINES, draft=seq2seq_cli.load(draft), **options) == pair.generate(LINES, **options)


def test_summaries_and_scores(s2s: Run, pair_folder: Path, small_pair: Path, tmp_path: Path) -> None:
    """Where the default preset has beams, they give way."""
    (tmp_path / "in.txt").write_text("who sells tea\n")
    options = ["--max-new-tokens", "12", "--min-new-tokens", "0"]
    plain = s2s("summarize", "-m", pair_folder, "in.txt", *options, "--num-beams", "1")
    done = s2s("summarize", "-m", pair_folder, "in.txt", *options, "--draft-model", small_pair)
    assert done.returncode == 0, done.stderr
    assert done.stdout == plain.stdout
    (tmp_path / "rows.jsonl").write_text(json.dumps({"source": "who sells tea", "target": "tea"}) + "\n")
    scored = [
        "evaluate",
        "-m",
        pair_folder,
        "--data",
        "rows.jsonl",
        "--max-new-tokens",
        "8",
        "--metrics",
        "chrf",
    ]
    plain = s2s(*scored, "-o", "a.jsonl")
    done = s2s(*scored, "-o", "b.jsonl", "--draft-model", small_pair)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_turns_share_a_draft(
    s2s: Run, stack_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seq2seq_cli.checkpoint import bundle

    loaded: list[str] = []
    load = bundle.load_bundle

    def count(reference: str, **options: object) -> object:
        loaded.append(reference)
        return load(reference, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(bundle, "load_bundle", count)
    folder = str(stack_folder)
    recipe = {"turns": [folder, folder], "generation": {"max_new_tokens": 6}}
    (tmp_path / "t.yaml").write_text(json.dumps(recipe))
    plain = s2s("generate", "--recipe", "t.yaml", "who")
    assert plain.returncode == 0, plain.stderr
    loaded.clear()
    done = s2s("generate", "--recipe", "t.yaml", "--draft-model", folder, "who")
    assert done.stdout == plain.stdout, done.stderr
    assert loaded == [folder]


def test_what_does_not_go_is_refused_before_weights_are_read(
    s2s: Run,
    pair_folder: Path,
    stack_folder: Path,
    small_pair: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from seq2seq_cli.checkpoint import bundle
    from seq2seq_cli.text.training import train_tokenizer

    def refuse(*anything: object, **options: object) -> None:
        raise AssertionError("weights are read")

    for name in ("_load_pair", "_load_single", "_load_prefix", "_load_whole"):
        monkeypatch.setattr(bundle, name, refuse)
    strange = tmp_path / "strange"
    strange.mkdir()
    for file in stack_folder.iterdir():
        (strange / file.name).write_bytes(file.read_bytes())
    train_tokenizer("bpe", 265, TEXTS[1:]).save(strange)
    for folder, more, message in (
        (
            pair_folder,
            ["--draft-model", stack_folder],
            "the draft model is a language model, the model an enc",
        ),
        (
            stack_folder,
            ["--draft-model", small_pair],
            "the draft model is an encoder-decoder, the model a lang",
        ),
        (
            stack_folder,
            ["--draft-model", strange],
            "the draft model has another target tokenizer than the model",
        ),
        (
            pair_folder,
            ["--draft-model", small_pair, "--prompt-lookup", "3"],
            "prompt_lookup 3 does not go with",
        ),
        (pair_folder, ["--draft-model", small_pair, "--num-beams", "3"], "does not go with num_beams 3"),
        (pair_folder, ["--draft-tokens", "3"], "draft_tokens has no effect without a draft model"),
        (pair_folder, ["--draft-model", "no/such/folder"], "no/such/folder"),
    ):
        done = s2s("generate", "-m", folder, *more, "who sells tea")
        assert done.returncode == 2, done.stderr
        assert message in done.stderr.decode()
        assert done.stdout == b""


def test_a_checkpoint_names_no_draft(
    s2s: Run, stack_folder: Path, tmp_path: Path, passes: list[tuple[Stack, int]]
) -> None:
    """A folder from elsewhere has no say in what else is loaded; it may wish for prompt lookup."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in stack_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    path, wishes = folder / "generation_config.json", {"draft_model": "gpt2", "draft_tokens": 3}
    path.write_text(json.dumps({**json.loads(path.read_text()), **wishes, "num_assistant_tokens": 20}))
    done = s2s("generate", "-m", folder, "--max-new-tokens", "20", "who sells tea")
    assert done.returncode == 0, done.stderr
    slow = len(passes)
    passes.clear()
    path.write_text(json.dumps({**json.loads(path.read_text()), "prompt_lookup_num_tokens": 8}))
    again = s2s("generate", "-m", folder, "--max-new-tokens", "20", "who sells tea")
    assert again.stdout == done.stdout
    assert len(passes) < slow
