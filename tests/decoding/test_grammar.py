"""Outputs under a grammar: models that never learnt anything write nothing else."""

from __future__ import annotations

import itertools
import json
import re
import sys
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from seq2seq_cli.decoding import resolve_options
from seq2seq_cli.decoding.engine import TextGenerator
from seq2seq_cli.decoding.grammar import Language
from seq2seq_cli.errors import UsageError
from seq2seq_cli.model import SpecialIds
from seq2seq_cli.recipe.grammar import check_grammar, read_grammar
from seq2seq_cli.tasks.boss2sql import execution, files, pairs, statements
from seq2seq_cli.text.tokenizer import Tokenizer
from seq2seq_cli.text.training import train_tokenizer
from tests import tiny

pytest.importorskip("llguidance", reason="the extra grammar is not installed")

TEXTS = ["who sells tea", "tea and cake 0123456789", '{"name": "tea", "price": 12, "sold": true, []}: -.e+"']
SOURCES = ["tea", "who sells", "and", "cake", "tea and cake", "a", "price"]


@cache
def sql(count: int = 1500) -> list[str]:
    """Statements of the demo: of each kind of question, and on their own."""
    random = Random(0)
    asked = [
        intent.fill(values)
        for intent in pairs.load_intents()
        for values in random.sample(intent.all_values(), min(4, len(intent.all_values())))
    ]
    return [*asked, *itertools.islice(statements.statements(random), count)]


@cache
def stack(vocab_size: int, seed: int = 0) -> Any:
    """A language model that never learnt anything, not even to repeat itself."""
    from seq2seq_cli.checkpoint.loading import build_stack, stack_config
    from seq2seq_cli.families import FAMILIES

    config = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": vocab_size, "n_positions": 600}
    family = FAMILIES["gpt2"]
    built, _ = build_stack(
        family, stack_config(family, config, "decoder", where=""), None, published={}, where=""
    )
    return tiny.scramble(built, seed, std=0.2)


def generator(tokenizer: Tokenizer, *, token_scores: bool = False, **options: Any) -> TextGenerator:
    eos = tokenizer.eos_id if tokenizer.eos_id is not None else tokenizer.sep_id
    assert eos is not None
    decoding = resolve_options(options, {}, SpecialIds(start=None, eos=(eos,)))
    # rows beyond the vocabulary: embeddings are often padded
    model = stack(tokenizer.vocab_size + 5)
    return TextGenerator(
        model,
        source_tokenizer=tokenizer,
        target_tokenizer=tokenizer,
        decoding=decoding,
        token_scores=token_scores,
    )


@pytest.mark.parametrize("search", [{}, {"do_sample": True, "seed": 2}, {"num_beams": 3}], ids=str)
@pytest.mark.parametrize("algorithm", ["bpe", "wordpiece", "unigram"])
def test_a_regular_expression(algorithm: Any, search: dict[str, Any]) -> None:
    tokenizer = train_tokenizer(algorithm, 290 if algorithm == "bpe" else 75, TEXTS)
    pattern = r"(tea|who sells( tea){1,3}|and)"
    writer = generator(tokenizer, grammar=f"regex:{pattern}", max_new_tokens=40, **search)
    together = writer.texts(SOURCES)
    for output in together:
        assert re.fullmatch(pattern, output.texts[0].strip()), output
    assert writer.counts.incomplete == 0
    if "do_sample" not in search:
        alone = [writer.texts([source])[0].texts for source in SOURCES]
        assert alone == [output.texts for output in together]


def test_slashes_and_characters_of_several_bytes() -> None:
    tokenizer = train_tokenizer("bpe", 262, TEXTS)
    for pattern in (r"a/b\/c\\/", "茶{3}–(é|ü)"):
        writer = generator(tokenizer, grammar=f"regex:{pattern}", max_new_tokens=40)
        (output,) = writer.texts(["tea"])
        assert re.fullmatch(pattern, output.texts[0]), output


def test_a_json_schema(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"enum": ["tea", "cake"]},
            "price": {"type": "integer", "minimum": 1, "maximum": 99},
        },
        "required": ["name", "price"],
        "additionalProperties": False,
    }
    tokenizer = train_tokenizer("bpe", 290, TEXTS)
    (tmp_path / "dish.json").write_text(json.dumps(schema))
    for grammar in (f"json:{json.dumps(schema)}", str(tmp_path / "dish.json")):
        writer = generator(
            tokenizer, grammar=grammar, max_new_tokens=60, do_sample=True, num_return_sequences=3
        )
        for output in writer.texts(SOURCES):
            for text in output.texts:
                dish = json.loads(text)
                assert dish["name"] in ("tea", "cake")
                assert 1 <= dish["price"] <= 99
                assert text == json.dumps(dish), "white space as Python writes it"


def test_the_demo_s_sql_is_in_its_grammar() -> None:
    tokenizer = train_tokenizer("bpe", 1000, sql())
    language = Language("boss2sql", tokenizer, (tokenizer.eos_id or 0,))
    for text, ids in zip(sql(), tokenizer.encode(sql(), special=False), strict=True):
        assert language.accepts(ids), text
    for text in (
        "SELECT name FROM employees WHERE",
        "SELECT nothing FROM employees",
        "DROP TABLE employees",
        "",
    ):
        (ids,) = tokenizer.encode([text], special=False)
        assert not language.accepts(ids)


@pytest.mark.parametrize(
    "search", [{"do_sample": True, "seed": 1}, {"do_sample": True, "top_k": 3}, {}], ids=str
)
def test_an_untrained_model_writes_valid_sql(search: dict[str, Any], tmp_path: Path) -> None:
    """Every output runs on the company's database."""
    files.write_data(tmp_path, seed=0, train=1, dev=1, test=1)
    tokenizer = train_tokenizer("bpe", 600, sql())
    writer = generator(tokenizer, grammar="boss2sql", max_new_tokens=500, **search)
    sources = [f"{word} {number}" for word in SOURCES for number in range(12)]
    outputs = [output.texts[0] for output in writer.texts(sources)]
    assert writer.counts.incomplete == 0
    with execution.open_database(tmp_path / "company.sqlite") as connection:
        for text in outputs:
            execution.run_sql(text, connection)
    if search.get("do_sample"):
        assert len(set(outputs)) > 60


def test_what_is_not_complete_is_left_empty() -> None:
    tokenizer = train_tokenizer("bpe", 290, TEXTS)
    writer = generator(tokenizer, grammar="regex:(tea ){40}", max_new_tokens=10, token_scores=True)
    outputs = writer.texts(["a", "b"])
    assert [output.texts for output in outputs] == [("",), ("",)]
    assert writer.counts.incomplete == 2
    assert [output.tokens for output in outputs] == [([],), ([],)]


def test_behind_a_forced_bos_and_a_prefix(tmp_path: Path) -> None:
    """The grammar begins behind the forced token of a pair, which is no text; a prefix is text of it."""
    from seq2seq_cli.checkpoint.bundle import load_bundle

    tokenizer = train_tokenizer("bpe", 290, TEXTS)
    size = {"vocab_size": tokenizer.vocab_size, "tie_word_embeddings": False}
    tiny.pair(
        "bert", "gpt2", encoder_changes={"hidden_size": 48, "vocab_size": 300}, decoder_changes=size
    ).save_pretrained(tmp_path)
    model = load_bundle(str(tmp_path)).model
    for beams in (1, 3):
        options = {"grammar": "regex:(tea|cake)( and (tea|cake)){2}", "prefix": "tea and", "num_beams": beams}
        options |= {"forced_bos_token_id": tokenizer.bos_id, "max_new_tokens": 30}
        writer = TextGenerator(
            model,
            source_tokenizer=tokenizer,
            target_tokenizer=tokenizer,
            decoding=resolve_options(options, {}, SpecialIds(start=1, eos=(2,), pad=0)),
        )
        for output in writer.texts(SOURCES):
            assert re.fullmatch("tea( and (tea|cake)){2}", output.texts[0])


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ("boss2sq", "no file and no grammar named 'boss2sq' · did you mean 'boss2sql'"),
        ("yaml:x", "no file and no grammar named 'yaml:x' · regex:PATTERN"),
        ("regex:(", "grammar: .*· a regex grammar"),
        ("lark:start: foo", 'unknown name: "foo".*· a lark grammar'),
        ("json:{", "the schema is not JSON"),
        ("json:[]", "the schema is not a JSON object"),
        ('json:{"type": "tea"}', "grammar: .*tea"),
        ("json:" + "[" * 100_000, "the schema is not JSON"),
    ],
)
def test_refused_by_name(grammar: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        resolve_options({"grammar": grammar}, {}, SpecialIds())
    assert len(caught.value.findings) == 1
    assert "\n" not in str(caught.value)


def test_files_that_are_no_grammar(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("tea")
    (tmp_path / "x.lark").write_bytes(b"start: \xff")
    (tmp_path / "y.lark").write_text("x" * (1 << 20) + "y")
    for name, message in (
        ("x.txt", "cannot be seen"),
        ("x.lark", "not UTF-8"),
        ("y.lark", "larger than 1 MiB"),
    ):
        with pytest.raises(UsageError, match=message):
            read_grammar(str(tmp_path / name))
    (tmp_path / "z.regex").write_text("tea\n")
    assert read_grammar(str(tmp_path / "z.regex")).text == "tea"


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(UsageError, match=r"needs the package llguidance · pip install 's2s\[grammar\]'"):
        check_grammar("regex:a")


def test_what_the_vocabulary_cannot_spell() -> None:
    tokenizer = train_tokenizer("wordpiece", 75, TEXTS)
    with pytest.raises(UsageError, match="vocabulary cannot go on with it"):
        generator(tokenizer, grammar="regex:tea ẞ", max_new_tokens=9).texts(["tea"])


def test_a_model_that_cannot_end() -> None:
    tokenizer = train_tokenizer("bpe", 290, TEXTS)
    decoding = resolve_options({"grammar": "regex:tea"}, {}, SpecialIds())
    with pytest.raises(UsageError, match="no eos token to end a text with"):
        TextGenerator(stack(300), source_tokenizer=tokenizer, target_tokenizer=tokenizer, decoding=decoding)


def test_options_that_leave_nothing_end_the_row() -> None:
    """Everything that the grammar asks for is forbidden: eos, and the output is not complete."""
    tokenizer = train_tokenizer("bpe", 290, TEXTS)
    tea = [[number] for number, text in enumerate(tokenizer.spellings) if b"t" in text]
    writer = generator(tokenizer, grammar="regex:tea", bad_words_ids=tea, max_new_tokens=9)
    (output,) = writer.texts(["a"])
    assert output.texts == ("",)
    assert writer.counts.incomplete == 1
    more = generator(tokenizer, grammar="regex:tea", min_new_tokens=9, max_new_tokens=20)
    assert more.texts(["a"])[0].texts == ("tea",), "nothing can be written behind a complete text"


def test_torch_is_not_needed_to_check() -> None:
    import subprocess

    code = "import sys; from seq2seq_cli.recipe.grammar import check_grammar; check_grammar('regex:a'); "
    code += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_many_rows_follow_their_own_path() -> None:
    """Rows of all states in one batch, some finished: each as if alone."""
    tokenizer = train_tokenizer("bpe", 290, TEXTS)
    writer = generator(tokenizer, grammar="regex:(t(ea){1,5}( and)?){1,4}", do_sample=True, max_new_tokens=60)
    together = writer.texts(SOURCES * 3)
    assert len({len(output.texts[0]) for output in together}) > 4
    for number, source in enumerate(SOURCES * 3):
        fresh = generator(
            tokenizer, grammar="regex:(t(ea){1,5}( and)?){1,4}", do_sample=True, max_new_tokens=60
        )
        assert fresh.texts([source], numbers=[number])[0].texts == together[number].texts
    assert torch.is_inference_mode_enabled() is False
