"""Decoding options on the command line, in recipes and in Python: they reach the search, under every name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import seq2seq_cli
from seq2seq_cli.api import Pair
from seq2seq_cli.errors import DataError, UsageError
from seq2seq_cli.text.lines import one_line
from tests.cli.conftest import TEXTS, Run

COMMON = ("--max-new-tokens", "12")


def lines(s2s: Run, folder: Path, *flags: str) -> list[str]:
    done = s2s("generate", "-m", folder, *COMMON, *flags, stdin="".join(f"{t}\n" for t in TEXTS).encode())
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().split("\n")[:-1]


def test_prefix_bad_words_and_stop(s2s: Run, pair_folder: Path) -> None:
    drawn = ("--do-sample", "--seed", "1", "--min-new-tokens", "12")
    free = lines(s2s, pair_folder, *drawn)
    letters = [*"abcdefghijklmnopqrstuvwxyz"]
    used = {letter for line in free for letter in letters if letter in line}
    assert len(used) > 5
    flags = [word for letter in used for word in ("--bad-words", letter)]
    without = lines(s2s, pair_folder, *drawn, *flags)
    assert without != free
    for search in (("--num-beams", "1"), ("--num-beams", "3"), drawn):
        started = lines(s2s, pair_folder, "--prefix", "who works", *search)
        assert all(line.startswith("who works") for line in started)
    stops = [word for letter in letters for word in ("--stop", letter)]
    stopped = lines(s2s, pair_folder, "--prefix", "who works", *stops)
    assert all("who works".startswith(line) and len(line) < 4 for line in stopped), "its own prefix stops it"
    only = lines(s2s, pair_folder, "--sequence-bias", "tea=1000", "--stop", "teatea")
    assert set(only) == {"teatea"}


def test_every_option_has_its_place(s2s: Run, pair_folder: Path, tmp_path: Path) -> None:
    """The same options as flags, in a recipe, as a preset's keys and in Python give the same text."""
    options = {
        "do_sample": True,
        "seed": 3,
        "typical_p": 0.9,
        "min_p": 0.01,
        "epsilon_cutoff": 0.001,
        "eta_cutoff": 0.001,
        "encoder_repetition_penalty": 1.5,
        "encoder_no_repeat_ngram_size": 3,
        "exponential_decay_length_penalty": [4, 1.1],
        "suppress_tokens": [4, 5],
        "begin_suppress_tokens": [6],
        "forced_bos_token_id": 9,
        "forced_eos_token_id": 2,
        "bad_words": ["cake", "of"],
        "sequence_bias": {"tea": 2.0, "may": -1.5},
        "stop": ["zz"],
        "prefix": "list",
        "remove_invalid_values": True,
        "renormalize_logits": True,
        "max_new_tokens": 12,
    }
    flags = ["--do-sample", "--remove-invalid-values", "--renormalize-logits"]
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if name == "exponential_decay_length_penalty":
            flags += [flag, "4", "1.1"]
        elif isinstance(value, dict):
            flags += [word for text, bias in value.items() for word in (flag, f"{text}={bias}")]
        elif isinstance(value, list):
            flags += [word for each in value for word in (flag, str(each))]
        elif value is not True:
            flags += [flag, str(value)]
    written = lines(s2s, pair_folder, *flags)
    recipe = {"model": {"encoder": str(pair_folder)}, "generation": options}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    assert lines(s2s, pair_folder, "--recipe", "recipe.yaml") == written
    python = seq2seq_cli.load(pair_folder).generate(TEXTS, **options)
    assert [one_line(row[0]) for row in python] == written
    assert len(set(written)) > 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--sequence-bias", "tea"], "'tea' is not TEXT=X · --sequence-bias · write --sequence-bias tea=2.5"),
        (["--sequence-bias", "tea=nan"], "sequence_bias.tea must be a finite number, not nan"),
        (["--typical-p", "0"], "typical_p must be above 0, not 0.0 · --typical-p"),
        (["--min-p", "2"], "min_p must be at most 1, not 2.0 · --min-p"),
        (["--exponential-decay-length-penalty", "3", "0"], "must be above 0, not 0.0"),
        (["--stop", ""], "stop.0 must not be empty · --stop"),
        (["--suppress-tokens", "-1"], "suppress_tokens.0 must be at least 0, not -1 · --suppress-tokens"),
        (["--no-do-sample", "--eta-cutoff", "0.1"], "eta_cutoff has no effect when do_sample is false"),
    ],
)
def test_c2_refused_before_the_model_loads(s2s: Run, flags: list[str], said: str) -> None:
    done = s2s("generate", "-m", "nowhere", *flags, "x")
    assert done.returncode == 2
    assert said in done.stderr.decode()
    assert "nowhere" not in done.stderr.decode()


def test_an_unusable_text_is_named(s2s: Run, pair_folder: Path) -> None:
    done = s2s("generate", "-m", pair_folder, "--suppress-tokens", "99999", "x")
    assert done.returncode == 2
    assert "suppress_tokens: 99999 is not one of the model's" in done.stderr.decode()


def test_the_source_is_respelled_for_the_target(s2s: Run, pair_folder: Path) -> None:
    """WordPiece reads, BPE writes: what the source says counts in the target's tokens."""
    pair = seq2seq_cli.load(pair_folder)
    source, target = pair.source_tokenizer, pair.target_tokenizer
    assert source is not None
    assert target is not None
    assert source.fingerprint != target.fingerprint
    text = "tea and cake"
    (ids,) = target.encode([text], special=False)
    (written,) = pair.generate([text], encoder_repetition_penalty=1e6, max_new_tokens=8)
    assert set(target.encode(written, special=False)[0]) <= set(ids)
    (without,) = pair.generate([text], encoder_no_repeat_ngram_size=1, max_new_tokens=8)
    assert not set(target.encode(without, special=False)[0]) & set(ids)


def test_prefixes_of_each_text(pair_folder: Path) -> None:
    pair = seq2seq_cli.load(pair_folder)
    prefixes = ["tea", "", "who works here", "list all"]
    for search in ({}, {"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}):
        options = {"max_new_tokens": 12, "min_new_tokens": 4, **search}
        found = pair.generate(TEXTS, prefixes=prefixes, **options)
        for prefix, texts in zip(prefixes, found, strict=True):
            assert all(text.startswith(prefix) for text in texts)
        if "do_sample" not in search:
            assert found[1] == pair.generate(TEXTS, **options)[1]
    wordpiece = Pair(replace(pair.bundle, target_tokenizer=pair.source_tokenizer))
    with pytest.raises(DataError, match=r"^the prefix '\\t' gives no token · input 2 · leave it empty$"):
        wordpiece.generate(["tea", "tea"], prefixes=["tea", "\t"])
    with pytest.raises(UsageError, match="2 prefixes for 4 texts"):
        pair.generate(TEXTS, prefixes=["a", "b"])


def test_grammars(s2s: Run, pair_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("llguidance", reason="the extra grammar is not installed")
    wanted = {"one tea", "two tea", "tea"}
    (tmp_path / "tea.lark").write_text('start: ("one " | "two ")? "tea"\n')
    for grammar in ("regex:((one|two) )?tea", "tea.lark"):
        for search in ((), ("--num-beams", "2"), ("--top-p", "0.9")):
            assert set(lines(s2s, pair_folder, "--grammar", grammar, *search)) <= wanted
    done = s2s("generate", "-m", pair_folder, "--grammar", "regex:tea{99}", *COMMON, stdin=b"tea\nand\n")
    assert done.returncode == 0
    assert done.stdout == b"\n\n"
    assert "2 output(s) ended before their grammar was complete" in done.stderr.decode()
    done = s2s("generate", "-m", "nowhere", "--grammar", "lark:start: tee", "x")
    assert done.returncode == 2
    assert 'unknown name: "tee"' in done.stderr.decode()
    (tmp_path / "recipe.yaml").write_text("model: {encoder: nowhere}\ngeneration: {grammar: nothing.lark}\n")
    done = s2s("recipes", "validate", "recipe.yaml")
    assert done.returncode == 2
    said = done.stderr.decode()
    assert "no file and no grammar named 'nothing.lark'" in said
    assert "recipe.yaml:2:23" in said
