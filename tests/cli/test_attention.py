"""generate --attention: the numbers and the picture of what an output saw of its input."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

import seq2seq_cli
from seq2seq_cli.decoding.engine import TextGenerator
from seq2seq_cli.decoding.options import resolve_options
from seq2seq_cli.errors import CheckpointError, DataError, UsageError
from tests import tiny
from tests.cli.conftest import Run

SHORT = ("--max-new-tokens", "4", "--min-new-tokens", "2")


def test_numbers(s2s: Run, pair_folder: Path, tmp_path: Path) -> None:
    plain = s2s("generate", "-m", pair_folder, *SHORT, "--num-beams", "3", "who sells tea")
    done = s2s(
        *("generate", "-m", pair_folder, *SHORT, "--num-beams", "3", "--attention", "a.npz"), "who sells tea"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == plain.stdout
    with np.load(tmp_path / "a.npz") as file:
        arrays = dict(file)
    pair = seq2seq_cli.load(pair_folder)
    expected = pair.attention("who sells tea", arrays["target_ids"].tolist())
    assert arrays["attention"].shape == (2, 4, len(arrays["target_ids"]), len(arrays["source_ids"]))
    np.testing.assert_array_equal(arrays["attention"], expected.weights.numpy())
    spelled = [token.removeprefix("##") for token in arrays["source_tokens"].tolist()]
    assert "".join(spelled) == "[CLS]whosellstea[SEP]"
    assert arrays["target_tokens"].tolist() == expected.target_tokens
    assert not list(tmp_path.glob("*.part"))


def test_picture(s2s: Run, pair_folder: Path, tmp_path: Path) -> None:
    done = s2s("generate", "-m", pair_folder, *SHORT, "--attention", "a.svg", stdin=b"who sells tea\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"\n") == 1
    svg = ElementTree.parse(tmp_path / "a.svg").getroot()
    texts = [element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")]
    titles = [text for text in texts if text and "darkest" in text]
    assert [title.split(" · ")[0] for title in titles] == ["all layers", "layer 1", "layer 2"]
    assert texts.count("[CLS]") == texts.count("[SEP]") == 3
    assert not re.search(r"(href|src|url)\b", (tmp_path / "a.svg").read_text()), "nothing is fetched"


def test_a_file_is_kept_unless_it_may_be_replaced(s2s: Run, pair_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.svg").write_text("mine")
    arguments = ("generate", "-m", pair_folder, *SHORT, "--attention", "a.svg", "tea")
    refused = s2s(*arguments)
    assert refused.returncode == 2
    assert b"a.svg" in refused.stderr
    assert (tmp_path / "a.svg").read_text() == "mine"
    assert s2s(*arguments, "--overwrite").returncode == 0
    assert (tmp_path / "a.svg").read_text().startswith("<svg")


REFUSED: list[tuple[tuple[str, ...], bytes, int, bytes]] = [
    (("--attention", "a.png", "tea"), b"", 2, b"neither .npz nor .svg"),
    (("--attention", "-", "tea"), b"", 2, b"neither .npz nor .svg"),
    (("--attention", "a.svg", "tea", "cake"), b"", 2, b"several inputs"),
    (("--attention", "a.svg", "--jsonl"), b'{"source": "tea"}\n', 2, b"--jsonl"),
    (("--attention", "a.svg", "--stream", "tea"), b"", 2, b"--stream"),
    (("--attention", "a.svg", "--num-processes", "2", "tea"), b"", 2, b"--num-processes"),
    (("--attention", "a.svg", "--resume", "-o", "out"), b"tea\n", 2, b"--resume"),
    (("--attention", "a.svg", "-o", "a.svg", "tea"), b"", 2, b"file of -o"),
    (("--attention", "a.svg"), b"tea\ncake\n", 2, b"stdin:2"),
    (("--attention", "a.svg"), b"", 3, b"no line"),
    (("--attention", "a.svg"), b"  \n", 3, b"stdin:1"),
]


@pytest.mark.parametrize(("arguments", "stdin", "code", "said"), REFUSED, ids=str)
def test_refused(
    arguments: tuple[str, ...],
    stdin: bytes,
    code: int,
    said: bytes,
    s2s: Run,
    pair_folder: Path,
    tmp_path: Path,
) -> None:
    done = s2s("generate", "-m", pair_folder, *SHORT, *arguments, stdin=stdin)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert done.stdout == b""
    assert not list(tmp_path.iterdir()), "nothing half done is left"


def test_a_language_model_is_refused(s2s: Run, stack_folder: Path, tmp_path: Path) -> None:
    done = s2s("generate", "-m", stack_folder, "--attention", "a.svg", "tea")
    assert done.returncode == 2
    assert b"no source" in done.stderr
    assert str(stack_folder).encode() in done.stderr
    assert not list(tmp_path.iterdir())


STRATEGIES: list[dict[str, Any]] = [
    {},
    {"num_beams": 3},
    {"top_p": 0.9, "seed": 4},
    {"do_sample": True, "num_return_sequences": 3, "seed": 4},
]


@pytest.mark.parametrize("options", STRATEGIES, ids=str)
def test_the_best_hypothesis_is_aligned(options: dict[str, Any], pair_folder: Path) -> None:
    pair = seq2seq_cli.load(pair_folder)
    tiny.scramble(pair.model)
    options = {**options, "max_new_tokens": 6}
    generator = TextGenerator(
        pair.model,
        source_tokenizer=pair.source_tokenizer,
        target_tokenizer=pair.target_tokenizer,
        decoding=resolve_options(options, pair.model.generation, pair.model.special_ids),
    )
    output, alignment = generator.aligned("who sells tea")
    assert pair.source_tokenizer is not None
    ids = torch.tensor(pair.source_tokenizer.encode(["who sells tea"]))
    best = seq2seq_cli.generate_ids(pair.model, ids, **options)[0][0]
    assert alignment.target_ids == best.ids
    assert alignment.source_ids == ids[0].tolist()
    assert output.texts[0] == pair.generate(["who sells tea"], **options)[0][0]
    assert alignment.weights.shape[2:] == (len(best.ids), ids.shape[1])
    assert alignment.source_tokens[0] == "[CLS]"
    again = pair.attention("who sells tea", best.ids)
    assert torch.equal(again.weights, alignment.weights)


def test_a_given_target_is_read_as_in_training(pair_folder: Path) -> None:
    pair = seq2seq_cli.load(pair_folder)
    assert pair.target_tokenizer is not None
    found = pair.attention("who sells tea", "tea and cake")
    ids = pair.target_tokenizer.encode(["tea and cake"], special=False)[0]
    assert found.target_ids == [*ids, pair.model.special_ids.eos[0]]
    assert "".join(found.target_tokens[:-1]) == "tea and cake"
    with pytest.raises(DataError, match="1 to 24"):
        pair.attention("tea " * 30, "tea")
    with pytest.raises(DataError, match="target of 41"):
        pair.attention("tea", [5] * 41)
    with pytest.raises(DataError, match="target of 0"):
        pair.attention("tea", [])


def test_a_language_model_has_no_source(stack_folder: Path) -> None:
    stack = seq2seq_cli.load(stack_folder)
    with pytest.raises(CheckpointError, match="needs an encoder-decoder"):
        stack.attention("tea", "cake")
    generator = TextGenerator(
        stack.model,
        source_tokenizer=stack.source_tokenizer,
        target_tokenizer=stack.target_tokenizer,
        decoding=resolve_options({}, {}, stack.model.special_ids),
    )
    with pytest.raises(UsageError, match="no source"):
        generator.aligned("tea")
