"""Every recipe that comes with s2s trains: three steps on rows of its own format, with tiny checkpoints of
the same families under the names that it gives."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from seq2seq_cli import resources
from seq2seq_cli.checkpoint.saving import save_bundle
from seq2seq_cli.combiner import Side
from seq2seq_cli.recipe import Recipe, Turns, load, load_recipe
from seq2seq_cli.recipe.sections import SourceTarget
from seq2seq_cli.tasks import recipe_data
from seq2seq_cli.text.training import train_tokenizer
from seq2seq_cli.training.models import single_stack
from seq2seq_cli.training.run import finetune

RECIPES = {path.stem: path for path in sorted(resources.folder("recipes").glob("*.yaml"))}
ROWS = 20
SOURCES = ("show all customers", "list the orders of a customer", "count products by department")
TARGETS = ("select a from b", "select c from d where e", "select count f from g <::::> and more")
#: what is too much for a test, and what a machine without a GPU refuses
SMALLER = (
    *("training.max_steps=3", "training.mixed_precision=no", "training.logging_steps=1"),
    *("training.per_device_train_batch_size=2", "training.tokens_per_batch=null", "training.save_steps=3"),
)
#: the same of recipes that validate
SELDOM = ("training.eval_samples=0", "training.metric_for_best_model=loss", "training.eval_steps=3")

_BERT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
_SHAPES: dict[str, tuple[str, dict[str, Any], str]] = {
    "bert": ("bert", _BERT, "wordpiece"),
    "roberta": ("roberta", {**_BERT, "max_position_embeddings": 514}, "bpe"),
    "camembert": ("camembert", {**_BERT, "max_position_embeddings": 514}, "bpe"),
}
#: reference in a recipe -> what a checkpoint of that name is made of
STANDS_FOR = {
    "minilm": "bert",
    "bert": "bert",
    "google-bert/bert-base-cased": "bert",
    "google-bert/bert-base-multilingual-cased": "bert",
    "roberta": "roberta",
    "camembert": "camembert",
}


def smaller(name: str, *more: str) -> Recipe:
    """A shipped recipe, three steps of it."""
    validates = load_recipe(RECIPES[name]).data.validation is not None
    return load_recipe(RECIPES[name], [*SMALLER, *(SELDOM if validates else ()), *more])


def names_of(recipe: Recipe) -> set[str]:
    """The checkpoints that the model section names."""
    sides = (recipe.model.encoder, recipe.model.decoder)
    return {side.checkpoint for side in sides if side is not None and side.checkpoint is not None}


def write_checkpoint(name: str, shape: str) -> None:
    """A tiny masked language model, as the published ones are, in a folder of that name."""
    family, config, kind = _SHAPES[shape]
    tokenizer = train_tokenizer(kind, 300, [*SOURCES, *TARGETS])
    side = Side(family=family, config=config, tokenizer=tokenizer)
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    save_bundle(single_stack(side, "masked_lm", seed=0), Path(name))


def pairs() -> Iterator[tuple[str, str]]:
    for number in range(ROWS):
        yield f"{SOURCES[number % 3]} {number}", f"{TARGETS[number % 3]} {number}"


def write_text(path: Path, lines: Iterator[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(line + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


def is_on_hub(spec: Any) -> bool:
    return isinstance(spec, str) and ":" in spec


def write_rows(spec: Any, recipe: Recipe) -> None:
    """Rows in the format of ``spec``; one that is on the hub is left to ``hub``."""
    data = recipe.data
    if isinstance(spec, SourceTarget):
        for number, file in enumerate((spec.source, spec.target)):
            write_text(Path(file), (pair[number] for pair in pairs()))
    elif spec.endswith(".tsv"):
        write_text(Path(spec), (f"{source}\t{target}" for source, target in pairs()))
    elif spec.endswith(".jsonl"):
        more = data.references or "references"
        rows = ({data.source: s, data.target: t, more: [t, s]} for s, t in pairs())
        write_text(Path(spec), (json.dumps(row) for row in rows))
    elif spec.endswith(".txt"):
        write_text(Path(spec), (target for _, target in pairs()))
    else:
        assert is_on_hub(spec), f"what is {spec}?"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None, str]]:
    """What was asked of the hub; it has every data set, with the fields of CNN/DailyMail."""
    asked: list[tuple[str, str | None, str]] = []

    def load_dataset(name: str, config: str | None, *, split: str, revision: str | None) -> datasets.Dataset:
        asked.append((name, config, split))
        return datasets.Dataset.from_list([{"article": s, "highlights": t, "id": "1"} for s, t in pairs()])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: list[tuple[str, str | None, str]]
) -> None:
    monkeypatch.chdir(tmp_path)
    if isinstance(load(RECIPES[name]), Turns):
        pytest.skip("turns train nothing; tests/cli/test_exquisite_corpse.py lets them speak")
    recipe = smaller(name)
    for reference in names_of(recipe):
        write_checkpoint(reference, STANDS_FOR[reference])
    for spec in filter(None, (recipe.data.train, recipe.data.validation)):
        write_rows(spec, recipe)
    results = finetune(recipe)
    assert (results["steps"], results["stopped_by"]) == (3, "steps")
    assert recipe.output is not None
    assert (recipe.output / "model.safetensors").is_file()
    on_hub = [spec for spec in (recipe.data.train, recipe.data.validation) if is_on_hub(spec)]
    assert len(hub) == len(on_hub)


def test_data_that_cp_makes_is_what_the_recipe_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = set()
    for name in RECIPES:
        maker = recipe_data(name)
        if maker is not None:
            recipe = load_recipe(RECIPES[name])
            assert isinstance(recipe.data.train, str)
            folder = Path(recipe.data.train).parent
            folder.mkdir(exist_ok=True)
            maker(folder)
            assert Path(recipe.data.train).is_file()
            made.add(name)
    assert made == {"boss2sql", "boss2sql-bert", "boss2sql-decoder"}


def test_the_published_recipes_share_and_are_fresh_where_they_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: list[tuple[str, str | None, str]]
) -> None:
    """RoBERTaShare is one set of parameters; BERT2RND takes nothing of its decoder's checkpoint."""
    from seq2seq_cli.training.models import build_model

    monkeypatch.chdir(tmp_path)
    for reference, shape in STANDS_FOR.items():
        write_checkpoint(reference, shape)
    for name in (
        "roberta-share-cnn",
        "roberta-share-xsum",
        "roberta-share-gigaword",
        "roberta-share-wikisplit",
    ):
        model: Any = build_model(load_recipe(RECIPES[name]), []).model
        ours = {p.data_ptr() for p in model.encoder.parameters()}
        assert ours <= {p.data_ptr() for p in model.decoder.parameters()}, name
    pair: Any = build_model(load_recipe(RECIPES["bert2rnd-wmt14-en-de"]), [])
    fresh = set(pair.report.fresh)
    decoder = [n for n, _ in pair.model.named_parameters() if n.startswith("decoder.")]
    assert not any(n.startswith("encoder.") for n in fresh)
    assert all(n in fresh for n in decoder), sorted(set(decoder) - fresh)
    both: Any = build_model(load_recipe(RECIPES["bert2bert-cnn"]), []).model
    tables = [side.embedding.weight for side in (both.encoder, both.decoder)]
    assert torch.equal(*tables)
    assert tables[0].data_ptr() != tables[1].data_ptr()


def test_a_side_trained_alone_becomes_a_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The header of boss2sql-bert: what it made goes into boss2sql as the side that writes."""
    monkeypatch.chdir(tmp_path)
    write_checkpoint("minilm", "bert")
    alone = smaller("boss2sql-bert")
    write_rows(alone.data.train, alone)
    finetune(alone)
    joined = smaller("boss2sql", "model.decoder=runs/boss2sql-bert")
    for spec in (joined.data.train, joined.data.validation):
        write_rows(spec, joined)
    assert finetune(joined)["steps"] == 3


def test_headers_name_their_own_recipe() -> None:
    for name, path in RECIPES.items():
        comments = [
            line for line in islice(path.read_text(encoding="utf-8").splitlines(), 12) if line[:1] == "#"
        ]
        assert any(f"{name}.yaml" in line for line in comments), f"{name} does not say how it is run"
