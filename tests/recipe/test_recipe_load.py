"""Recipes as files: what is read, and row C1 of the fault table, case by case."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from seq2seq_cli.errors import UsageError
from seq2seq_cli.recipe import TrainTokenizer, json_schema, load_recipe, require, where_of
from seq2seq_cli.recipe.sections import TrainingSection
from seq2seq_cli.recipe.validation import _OTHER_NAMES, _SAID_ELSEWHERE

Write = Callable[[str | bytes], Path]


def findings(path: Path, overrides: Sequence[str] = ()) -> list[str]:
    with pytest.raises(UsageError) as caught:
        load_recipe(path, overrides)
    assert caught.value.exit_code == 2
    lines = str(caught.value).split("\n")
    assert len(lines) == len(caught.value.findings)
    return lines


def test_contract_example(write: Write, good: str) -> None:
    recipe = load_recipe(write(good))
    assert recipe.model.encoder is not None
    assert recipe.model.encoder.checkpoint == "minilm"
    assert recipe.model.decoder is not None
    assert recipe.model.decoder.tokenizer == TrainTokenizer(train="bpe", vocab_size=1000)
    assert recipe.training.learning_rate == 5e-4
    assert recipe.training.groups.encoder is not None
    assert recipe.training.groups.encoder.freeze_steps == 200
    assert recipe.generation.num_beams == 4
    assert recipe.output == Path("runs/boss2sql")
    assert recipe.training.load_best_model_at_end is True
    assert recipe.training.greater_is_better is False
    assert where_of(recipe, "training.learning_rate") == "r.yaml:12:18"
    assert where_of(recipe, "training.seed") == "r.yaml:9:3"


def test_defaults_that_depend(write: Write) -> None:
    recipe = load_recipe(write("model: {encoder: a}\ntraining: {metric_for_best_model: bleu}\n"
                               "data: {train: t, validation: v}"))  # fmt: skip
    assert recipe.training.tokens_per_batch == 4096
    assert recipe.training.greater_is_better is True
    rows = load_recipe(
        write("model: {encoder: a}\ntraining: {per_device_train_batch_size: 8}\ndata: {train: t}")
    )
    assert rows.training.tokens_per_batch is None
    assert rows.training.load_best_model_at_end is False


@pytest.mark.parametrize(
    "text",
    [
        "model: {encoder: a}",
        "model: {encoder: '5e-5', set: {encoder_x: 1.5, y: [1, {z: null}]}}\n"
        "data: {train: [a, b]}\ntraining:\n",
        "model: {encoder: a}\ntraining: {max_steps: 5, lr_scheduler_type: cosine, warmup_steps: 0.1}\n"
        "data: {train: t}",
        "model: {decoder: a, random: decoder}\n"
        "data: {train: t, target: 'no'}\ntraining: {objective: causal_lm}",
        "model: {encoder: a, freeze: [encoder]}\n"
        "generation: {preset: sample, do_sample: false}\noutput: '1e5'",
        "model: {encoder: a}\ngeneration: {preset: summarize, top_p: 0.5}",
        "model: {encoder: a}\ndata: {train: {source: a.txt, target: b.txt}}\n"
        "training: {groups: {encoder: {freeze: true}, fresh: {warmup_steps: 3}}}",
    ],
)
def test_resolved_recipe_round_trips(write: Write, text: str) -> None:
    recipe = load_recipe(write(text))
    dumped = recipe.dump_yaml()
    again = load_recipe(write(dumped))
    assert again.dump_yaml() == dumped
    for section in ("model", "data", "training", "generation", "output"):
        assert getattr(again, section) == getattr(recipe, section)


def test_sections_are_frozen(write: Write, good: str) -> None:
    recipe = load_recipe(write(good))
    with pytest.raises(ValueError, match="frozen"):
        recipe.training.seed = 3


def test_preset_gives_way_to_what_is_written(write: Write) -> None:
    recipe = load_recipe(write("model: {encoder: a}\ngeneration: {preset: summarize, num_beams: 2}"))
    assert (recipe.generation.num_beams, recipe.generation.no_repeat_ngram_size) == (2, 3)
    assert recipe.generation.preset == "summarize"


def test_sampling_option_turns_sampling_on(write: Write) -> None:
    assert load_recipe(write("model: {encoder: a}\ngeneration: {top_p: 0.9}")).generation.do_sample is True


def test_unknown_preset_names_the_nearest(write: Write) -> None:
    path = write("model: {encoder: a}\ngeneration: {preset: sumarize, top_p: 2}")
    assert findings(path) == [
        "no preset named 'sumarize' · r.yaml:2:22 · did you mean 'summarize'?",
        "generation.top_p must be at most 1, not 2 · r.yaml:2:39 · change it, or leave it out",
    ]


def test_stdin_is_a_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"model: {encoder: a, x: 1}")))
    assert findings(Path("-"))[0].startswith("unknown key 'model.x' · <stdin>:1:21")


def test_bom_is_no_part_of_the_first_key(write: Write) -> None:
    assert load_recipe(write(b"\xef\xbb\xbfmodel: {encoder: a}")).model.encoder is not None


# --- C1 ---------------------------------------------------------------------------------------------------


def test_c1_typo_names_the_nearest_key(write: Write, good: str) -> None:
    path = write(good.replace("learning_rate: 5e-4", "lerning_rate: 5e-4"))
    assert findings(path) == [
        "unknown key 'training.lerning_rate' · r.yaml:12:3 · did you mean 'learning_rate'?"
    ]


def test_names_of_other_programs_lead_to_ours(write: Write) -> None:
    named = {**_OTHER_NAMES, "warmup_ratio": "warmup_steps", "optimizer": "optim"}
    assert named["lr"] == "learning_rate"
    keys = ", ".join(f"{key}: 1" for key in [*named, *_SAID_ELSEWHERE])
    path = write(f"model: {{encoder: a}}\ntraining: {{{keys}}}")
    assert [line.split(" · ", 2)[2] for line in findings(path)] == [
        *(f"did you mean {ours!r}?" for ours in named.values()),
        *_SAID_ELSEWHERE.values(),
    ]
    assert set(named.values()) <= set(TrainingSection.model_fields)


def test_c1_a_key_that_was_written_is_checked_beside_one_that_it_may_mean(write: Write) -> None:
    path = write("model: {encoder: a}\ntraining: {lr: 1, learning_rate: abc, seeds: 3, seed: -1}")
    assert [line.split(" · ")[0] for line in findings(path)] == [
        "unknown key 'training.lr'",
        "training.learning_rate must be a number, not 'abc'",
        "unknown key 'training.seeds'",
        "training.seed must be at least 0, not -1",
    ]


@pytest.mark.parametrize("which", ["encoder", "decoder", "both"])
def test_sides_from_scratch_are_fresh_unasked(write: Write, which: str) -> None:
    side = "{family: bert, tokenizer: {train: bpe, vocab_size: 300}}"
    path = write(f"model: {{encoder: {side}, decoder: {side}, random: {which}}}")
    (line,) = findings(path)
    assert line.startswith("random has no effect: what has a family is always fresh · r.yaml:1:")
    for loaded in {"encoder", "decoder"} if which == "both" else {which}:
        load_recipe(write(path.read_text().replace(f"{loaded}: {side}", f"{loaded}: a")))


def test_c1_typo_below_a_side(write: Write) -> None:
    path = write("model: {encoder: {checkpoint: a, tokenzier: b}}")
    assert findings(path) == [
        "unknown key 'model.encoder.tokenzier' · r.yaml:1:34 · did you mean 'tokenizer'?"
    ]


def test_c1_typo_is_not_reported_as_missing_too(write: Write) -> None:
    path = write(
        "model: {encodr: {family: bert}, decoder: {family: gpt2, tokenizer: {train: bpe, vocab_sze: 9}}}"
    )
    assert [line.split(" · ")[0] for line in findings(path)] == [
        "unknown key 'model.encodr'",
        "unknown key 'model.decoder.tokenizer.vocab_sze'",
    ]


def test_c1_key_of_another_section(write: Write) -> None:
    path = write("model: {encoder: a}\nlearning_rate: 1e-3\n")
    assert findings(path) == [
        "unknown key 'learning_rate' · r.yaml:2:1 · it belongs to the section training:"
    ]


def test_c1_options_of_later_versions_are_unknown(write: Write) -> None:
    path = write("model: {encoder: a, quantized: true}\ndata: {train: t, shards: 4}\n"
                 "training: {world: x}")  # fmt: skip
    assert [line.split(" · ")[0] for line in findings(path)] == [
        "unknown key 'model.quantized'",
        "unknown key 'data.shards'",
        "unknown key 'training.world'",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("learning_rate: fast", "must be a number, not 'fast' · r.yaml:3:18 · write a number"),
        ('learning_rate: "5e-5"', "must be a number, not '5e-5' · r.yaml:3:18 · write it without quotes"),
        ("learning_rate: true", "must be a number, not true · r.yaml:3:18"),
        ("learning_rate: .nan", "must be a finite number, not nan · r.yaml:3:18"),
        ("learning_rate: 1e999", "must be a finite number, not inf · r.yaml:3:18"),
        ("learning_rate: 0", "must be above 0, not 0 · r.yaml:3:18"),
        ("learning_rate:", "must be a number, not null · r.yaml:3:17 · write a value, or remove the key"),
        ("max_steps: 1e3", "must be a whole number, not 1000.0 · r.yaml:3:14 · write 1000"),
        ("max_steps: -1", "must be at least 1, not -1 · r.yaml:3:14"),
        ("seed: 4294967296", "must be at most 4294967295, not 4294967296 · r.yaml:3:9"),
        ("warmup_steps: 1.5", "a share of all steps from 0 up to 1, not 1.5"),
        ("mixed_precision: false", "must be one of no, bf16, fp16, not false · r.yaml:3:20"),
        ("load_best_model_at_end: yes", "must be true or false, not 'yes' · r.yaml:3:27 · write true"),
        ("groups: {encoder: 3}", "must be a mapping, not 3 · r.yaml:3:21"),
        ("lr_scheduler_type: linera", "not 'linera' · r.yaml:3:22 · did you mean 'linear'?"),
    ],
)  # fmt: skip
def test_c1_wrong_type_or_range(write: Write, line: str, message: str) -> None:
    (found,) = findings(
        write(f"model: {{encoder: a}}\ntraining:\n  {line}\ndata: {{train: t, validation: v}}")
    )
    assert message in found


def test_c1_5e_5_is_a_number(write: Write) -> None:
    recipe = load_recipe(write("model: {encoder: a}\ntraining: {learning_rate: 5e-5}\ndata: {train: t}"))
    assert recipe.training.learning_rate == 5e-5


def test_c1_no_is_a_text(write: Write) -> None:
    recipe = load_recipe(write("model: {encoder: a}\ndata: {source: no, target: on}"))
    assert (recipe.data.source, recipe.data.target) == ("no", "on")


def test_c1_lang_no_is_an_unknown_key(write: Write) -> None:
    (found,) = findings(write("model: {encoder: a}\ndata:\n  lang: no\n"))
    assert found.startswith("unknown key 'data.lang' · r.yaml:3:3 · known: ")


def test_c1_duplicate_key(write: Write) -> None:
    path = write("model: {encoder: a}\ntraining:\n  seed: 1\n  seed: 2\ndata: {train: t}")
    assert findings(path) == ["duplicate key 'seed' · r.yaml:4:3 · keep one, the first is at 3:3"]


def test_c1_tab(write: Write) -> None:
    path = write("model:\n\tencoder: a\n")
    assert findings(path) == ["a tab where YAML allows only spaces · r.yaml:2:1 · indent with spaces"]


def test_c1_alias_bomb(write: Write) -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for new, old in zip("bcdefghi", "abcdefgh", strict=True):
        bomb += f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    found = findings(write(bomb + "model: {encoder: *i}\n"))
    assert found[0] == "anchor '&a' · r.yaml:1:4 · remove it: anchors are not allowed"
    assert sum(line.startswith("alias") for line in found) == 8 * 9 + 1


def test_c1_alias_of_itself(write: Write) -> None:
    assert len(findings(write("model: &m\n  encoder: *m\n"))) == 2


def test_c1_python_object_is_not_made(write: Write, tmp_path: Path) -> None:
    path = write("model: {encoder: a}\noutput: !!python/object/apply:os.system ['touch owned']\n")
    (found,) = findings(path)
    assert found.startswith("tag '!!python/object/apply:os.system' · r.yaml:2:9 · remove it")
    assert [file.name for file in tmp_path.iterdir()] == ["r.yaml"]


@pytest.mark.parametrize("tag", ["!!str", "!", "!local", "!<tag:example.com,2000:x>"])
def test_c1_no_tag_at_all(write: Write, tag: str) -> None:
    (found,) = findings(write(f"model: {{encoder: a}}\noutput: {tag} runs\n"))
    assert found.startswith("tag ")
    assert "r.yaml:2:9" in found


@pytest.mark.parametrize("text", ["- model\n", "model", "3", "'text'"])
def test_c1_not_a_mapping(write: Write, text: str) -> None:
    assert findings(write(text)) == ["a recipe is a mapping of sections · r.yaml:1:1 · start with `model:`"]


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "null"])
def test_c1_empty(write: Write, text: str) -> None:
    assert findings(write(text)) == [
        "the recipe is empty · r.yaml · `s2s recipes ls` lists recipes to start from"
    ]


def test_c1_two_errors_at_once(write: Write) -> None:
    path = write("model: {encoder: a, shar: all}\ndata: {train: t}\ntraining:\n  learning_rate: fast\n")
    assert findings(path) == [
        "unknown key 'model.shar' · r.yaml:1:21 · did you mean 'share'?",
        "training.learning_rate must be a number, not 'fast' · r.yaml:4:18 · write a number",
    ]


def test_known_values_are_listed_once(write: Write) -> None:
    (found,) = findings(write("model: {encoder: a}\ndata: {train: t}\ntraining: {optim: qqq}\n"))
    assert found.count("adamw_torch_fused") == 1


def test_c1_all_kinds_at_once(write: Write) -> None:
    """Faults of YAML, keys, values and combinations are all reported, in the order of the file."""
    path = write(
        "model: {encoder: !!str a, encoder: b, share: al}\n"
        "data: {train: t, trian: u}\n"
        "training: {early_stopping_patience: 2, adam_beta1: 1,"
        " tokens_per_batch: 1, per_device_train_batch_size: 1}\n"
    )
    assert [line.split(" · ")[0] for line in findings(path)] == [
        "tag '!!str'",
        "duplicate key 'encoder'",
        "model.share must be one of none, embeddings, all, not 'al'",
        "unknown key 'data.trian'",
        "early_stopping_patience needs validation rows",
        "training.adam_beta1 must be below 1, not 1",
        "tokens_per_batch and per_device_train_batch_size exclude each other",
    ]


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_c1_deep_nesting(write: Write, opening: str) -> None:
    (found,) = findings(write("model: {encoder: a}\nx:\n  " + opening * 20_000))
    assert found.startswith("nested more than 50 deep · r.yaml:3:")


def test_c1_nul_and_control_characters(write: Write) -> None:
    (found,) = findings(write(b"model:\n  encoder: a\x00b\n"))
    assert found.startswith("character U+0000 is not allowed in YAML · r.yaml:2:13")


def test_c1_invalid_utf8(write: Write) -> None:
    (found,) = findings(write(b"model:\n  encoder: \xff\n"))
    assert found == "not UTF-8 text · r.yaml:2:12 · save the recipe as UTF-8"


def test_c1_half_a_surrogate(write: Write) -> None:
    (found,) = findings(write('model: {encoder: "\\ud800"}'))
    assert found.startswith("half of a surrogate pair · r.yaml:1:18")


def test_c1_second_document(write: Write) -> None:
    (found,) = findings(write("model: {encoder: a}\n---\nmodel: {encoder: b}\n"))
    assert found.startswith("a second YAML document · r.yaml:2:1")


def test_c1_key_that_is_not_text(write: Write) -> None:
    (found,) = findings(write("model: {encoder: a}\n? [a, b]\n: c\n"))
    assert found.startswith("a key that is not text · r.yaml:2:3")


def test_c1_syntax(write: Write) -> None:
    (found,) = findings(write("model:\n  encoder: [a\ntraining: 3\n"))
    assert found.startswith("not valid YAML: ")
    assert "r.yaml:3:9" in found


@pytest.mark.parametrize("name", ["missing.yaml", ".", "r.yaml/x"])
def test_c1_no_such_file(write: Write, good: str, name: str) -> None:
    write(good)
    (found,) = findings(Path(name))
    assert found.startswith("cannot read the recipe: ")
    assert name in found


def test_c1_endless_file(write: Write) -> None:
    write("")
    assert findings(Path("/dev/zero")) == [
        "larger than 256 KiB: not a recipe · /dev/zero · is it the right file?"
    ]


# --- overrides --------------------------------------------------------------------------------------------


def test_override_is_read_as_yaml(write: Write, good: str) -> None:
    overrides = [
        "training.learning_rate=5e-5",
        "data.source=no",
        "model.encoder.random=true",
        "model.decoder.config={n_embd: 8}",
        "generation.preset=beam",
        "training.num_train_epochs=1",
        "training.num_train_epochs=2",
        "output=",
        "training.groups.fresh.learning_rate=1e-3",
    ]
    recipe = load_recipe(write(good), overrides)
    assert recipe.training.learning_rate == 5e-5
    assert recipe.data.source == "no"
    assert recipe.model.encoder is not None
    assert (recipe.model.encoder.checkpoint, recipe.model.encoder.random) == ("minilm", True)
    assert recipe.model.decoder is not None
    assert recipe.model.decoder.config == {"n_embd": 8}
    assert recipe.training.num_train_epochs == 2
    assert recipe.output is None
    assert recipe.training.groups.fresh is not None
    assert where_of(recipe, "training.learning_rate") == "--set training.learning_rate=5e-5"
    assert where_of(recipe, "training.seed") == "r.yaml:9:3"


def test_override_repairs_what_the_file_gets_wrong(write: Write, good: str) -> None:
    path = write(good.replace("5e-4", "!!float 5e-4").replace("num_beams: 4", "num_beams: many"))
    found = findings(path, ["training.learning_rate=1e-4", "generation.num_beams=2"])
    assert [line.split(" · ")[0] for line in found] == ["tag '!!float'"]  # the file itself stays refused


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "training.lerning_rate=1",
            "unknown key 'training.lerning_rate' · --set training.lerning_rate=1 · did you",
        ),
        ("trainin.seed=1", "unknown key 'trainin' · --set trainin.seed=1 · did you mean 'training'?"),
        ("training.seed=x", "training.seed must be a whole number, not 'x' · --set training.seed=x"),
        ("training.seed", "not section.key=value · --set training.seed · write"),
        ("=3", "not section.key=value · --set =3"),
        ("training..seed=3", "not section.key=value · --set training..seed=3"),
        ("training.seed=[", "not valid YAML: "),
        (
            "output=!!python/name:os.system",
            "tag '!!python/name:os.system' · --set output=!!python/name:os.system",
        ),
        ("training.seed=&a 3", "anchor '&a' · --set training.seed=&a 3"),
        ("output.x=3", "output has no keys · --set output.x=3"),
        (
            "training={seed: 1, seed: 2}",
            "duplicate key 'seed' · --set training={seed: 1, seed: 2} · keep one",
        ),
        (
            "generation.num_return_sequences=9",
            "num_return_sequences 9 is more than num_beams 4 · --set generation.",
        ),
    ],
)
def test_override_errors_name_the_override(write: Write, good: str, override: str, message: str) -> None:
    found = findings(write(good), [override])
    assert found[0].startswith(message), found
    assert f"--set {override}" in found[0]


def test_overrides_and_file_report_together(write: Write, good: str) -> None:
    found = findings(write(good.replace("seq2seq", "seq2sex")), ["training.seed=x", "data.trian=1"])
    assert len(found) == 3
    assert "r.yaml:9:14" in found[0]


# --- the rest ---------------------------------------------------------------------------------------------


def test_require_names_what_is_missing(write: Write) -> None:
    recipe = load_recipe(write("model: {encoder: a}\ndata: {validation: v}"))
    require(recipe, "data.validation", purpose="evaluate")
    with pytest.raises(UsageError) as caught:
        require(recipe, "data.train", "output", purpose="finetune")
    assert [finding.what for finding in caught.value.findings] == [
        "finetune needs data.train",
        "finetune needs output",
    ]
    assert caught.value.findings[0].where == "r.yaml:2:7"


def test_schema_is_json_and_knows_every_section() -> None:
    schema = json.loads(json.dumps(json_schema()))
    recipe, turns = (schema["$defs"][each["$ref"].split("/")[-1]] for each in schema["anyOf"])
    assert set(recipe["properties"]) == {"model", "data", "training", "generation", "output"}
    assert set(turns["properties"]) == {"turns", "rounds", "generation"}
    assert recipe["additionalProperties"] is turns["additionalProperties"] is False
    encoder = schema["$defs"]["ModelSection"]["properties"]["encoder"]
    assert {"type": "string"} in encoder["anyOf"]
    described = schema["$defs"]["TrainingSection"]["properties"]
    assert all("description" in field for field in described.values())
