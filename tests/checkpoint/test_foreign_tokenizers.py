"""A tokenizer that the model beside it was not made for (faults.md M5): refused when the folder is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, models, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

import seq2seq_cli
from seq2seq_cli.combiner import Side, combine
from seq2seq_cli.errors import CheckpointError
from tests import tiny
from tests.checkpoint.test_whole import published

WORDS = {f"w{number}": number for number in range(50)}


def backend(**words: int) -> Backend:
    made = Backend(models.WordLevel({**WORDS, **words}, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def with_template(kind: str) -> Backend:
    made = backend()
    single = processors.TemplateProcessing(single="$A w1", special_tokens=[("w1", 9_999_999)])
    made.post_processor = {
        "template": single,
        "bert": processors.BertProcessing(("w1", 60), ("w2", 1)),
        "roberta": processors.RobertaProcessing(("w1", 1), ("w2", 60)),
        "nested": processors.Sequence([processors.ByteLevel(), single]),
    }[kind]
    return made


def with_added() -> Backend:
    made = backend(last=58)
    made.add_tokens([AddedToken(f"new{number}", special=True) for number in range(3)])
    return made


HOSTILE: dict[str, tuple[Backend, int]] = {
    "vocabulary": (backend(far=5_000_000), 5_000_000),
    "just beyond": (backend(far=60), 60),
    "added": (with_added(), 54),
    "template": (with_template("template"), 9_999_999),
    "bert": (with_template("bert"), 60),
    "roberta": (with_template("roberta"), 60),
    "nested": (with_template("nested"), 9_999_999),
}


def publish(folder: Path, tokenizer: Backend, **changes: Any) -> Path:
    tiny.save_language_model("gpt2", folder, **changes)
    folder.joinpath("tokenizer.json").write_text(tokenizer.to_str())
    folder.joinpath("tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    return folder


@pytest.mark.parametrize("name", HOSTILE)
def test_m5_ids_that_the_model_lacks_are_refused_when_the_folder_is_loaded(name: str, tmp_path: Path) -> None:
    tokenizer, number = HOSTILE[name]
    rows = 54 if name == "added" else 60
    folder = publish(tmp_path, tokenizer, vocab_size=rows, bos_token_id=1, eos_token_id=1)
    what = rf"the tokenizer has the id {number} \(.*\), and the model has {rows} tokens · .*tokenizer\.json"
    if name == "added":
        what = r"the tokenizer has the id \d+ \(\w+\), and the model has 54 tokens · .*tokenizer\.json"
    for role in (None, "encoder", "decoder"):
        with pytest.raises(CheckpointError, match=what):
            seq2seq_cli.load(folder, role=role)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=what):
        combine(Side(reference=str(folder)), Side(reference=str(folder)))
    publish(tmp_path, backend(last=rows - 1), vocab_size=rows, bos_token_id=1, eos_token_id=1)
    assert seq2seq_cli.load(tmp_path).source_tokenizer is not None


def test_m5_added_tokens_are_named_with_the_file_that_adds_them(tmp_path: Path) -> None:
    folder = publish(tmp_path, backend(), vocab_size=51, bos_token_id=1, eos_token_id=1)
    added = {str(50 + n): {"content": f"<new{n}>", "special": True} for n in range(2)}
    folder.joinpath("tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    with pytest.raises(CheckpointError, match=r"id 51 \(<new1>\).*tokenizer_config\.json"):
        seq2seq_cli.load(folder)


def test_m5_each_side_of_a_pair_has_its_own_limit(tmp_path: Path) -> None:
    tiny.pair("bert", "gpt2", decoder_changes={"vocab_size": 55}).save_pretrained(tmp_path)
    tmp_path.joinpath("tokenizer.json").write_text(backend(last=59).to_str())
    with pytest.raises(CheckpointError, match="the model has 55 tokens"):
        seq2seq_cli.load(tmp_path)  # both sides read with it
    tmp_path.joinpath("decoder_tokenizer").mkdir()
    tmp_path.joinpath("decoder_tokenizer/tokenizer.json").write_text(backend(last=54).to_str())
    seq2seq_cli.load(tmp_path)
    seq2seq_cli.load(tmp_path, role="decoder")
    tmp_path.joinpath("decoder_tokenizer/tokenizer.json").write_text(backend(last=55).to_str())
    with pytest.raises(CheckpointError, match=r"id 55 .*decoder_tokenizer/tokenizer\.json"):
        seq2seq_cli.load(tmp_path)
    seq2seq_cli.load(tmp_path, role="encoder")


def test_m5_published_encoder_decoders_are_looked_at_as_well(tmp_path: Path) -> None:
    published("t5").save_pretrained(tmp_path)
    tmp_path.joinpath("tokenizer.json").write_text(backend(far=99_999).to_str())
    with pytest.raises(CheckpointError, match="id 99999"):
        seq2seq_cli.load(tmp_path)
