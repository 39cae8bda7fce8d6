"""CTRL continues texts that begin with one of its control codes; prompts without one are counted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from transformers.models.ctrl.tokenization_ctrl import CONTROL_CODES as PUBLISHED

import seq2seq_cli
from seq2seq_cli.families import family_of
from tests import tiny
from tests.cli.conftest import Run

WORDS = ("Links", "Books", "News", "tea", "and", "cake")
SAYS = (
    "{} prompt(s) begin with none of the control codes that the model was trained with; begin each with one"
)


@pytest.fixture(scope="module")
def ctrl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CTRL of two layers whose vocabulary has three of the codes."""
    folder = tmp_path_factory.mktemp("ctrl")
    tiny.save_language_model("ctrl", folder)
    letters = sorted(set("".join(WORDS)))
    merges = dict.fromkeys(
        f"{word[:end]} {word[end]}{'</w>' if end + 1 == len(word) else ''}"
        for word in WORDS
        for end in range(1, len(word))
    )
    names = ["<unk>", *WORDS, *letters, *(f"{letter}@@" for letter in letters)]
    (folder / "vocab.json").write_text(json.dumps({name: place for place, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return folder


def test_the_codes_are_the_published_ones() -> None:
    codes = family_of({"model_type": "ctrl"}).control_codes
    assert sorted(codes) == sorted(PUBLISHED)


def test_prompts_without_a_code_are_counted(s2s: Run, ctrl_folder: Path) -> None:
    asked = ("generate", "-m", ctrl_folder, "--max-new-tokens", "3")
    lines = b"Links tea\ntea and cake\n\nNews\nWikipedia tea\ncake Links\n"
    done = s2s(*asked, stdin=lines)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"\n") == 6
    assert done.stderr.decode().count("control codes") == 1
    # "Wikipedia" is no token of this vocabulary
    assert SAYS.format(3) in done.stderr.decode()
    two = s2s(*asked, "--num-processes", "2", stdin=lines)
    assert two.stdout == done.stdout
    assert SAYS.format(3) in two.stderr.decode()
    assert b"control code" not in s2s(*asked, "Links tea", "Books").stderr


def test_a_long_prompt_keeps_its_code(ctrl_folder: Path) -> None:
    """40 positions, 20 of them for what is written."""
    pair = seq2seq_cli.load(ctrl_folder)
    options = {"max_new_tokens": 20}
    short = ["Links" + " tea cake" * 9 + " and", "tea" + " tea cake" * 9 + " and"]
    long = ["Links" + " tea cake" * 30 + " and", "tea cake" * 30 + " tea" + " tea cake" * 9 + " and"]
    assert pair.generate(long, **options) == pair.generate(short, **options)
    assert pair.generate(short[:1], **options) != pair.generate(short[1:], **options)


def test_who_knows_of_no_codes_hears_of_none(ctrl_folder: Path, stack_folder: Path) -> None:
    bundle = seq2seq_cli.load(ctrl_folder).bundle
    tokenizer = bundle.source_tokenizer
    assert tokenizer is not None
    assert bundle.control_ids == {ids[0] for ids in tokenizer.encode(["Links", "Books", "News"])}
    assert not seq2seq_cli.load(stack_folder).bundle.control_ids
    made_here = replace(bundle, config={**bundle.config, "s2s": {"trained": True}})
    assert not made_here.control_ids
    assert not seq2seq_cli.combine(ctrl_folder).bundle.control_ids
