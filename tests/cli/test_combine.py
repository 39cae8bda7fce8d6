"""combine, summarize, evaluate and models from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from seq2seq_cli.checkpoint.bundle import load_bundle
from tests import tiny
from tests.cli.conftest import Run
from tests.families.spec import spec


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("halves")
    tiny.save_encoder("bert", folder / "bert")
    tiny.save_language_model("gpt2", folder / "gpt2")
    return folder / "bert", folder / "gpt2"


def test_the_report_counts_every_parameter(s2s: Run, halves: tuple[Path, Path], tmp_path: Path) -> None:
    done = s2s("combine", *halves, "-o", "pair", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    model = load_bundle(str(tmp_path / "pair")).model
    assert report["parameters"] == sum(p.numel() for p in model.parameters())
    counted = sum(row["loaded"] + row["fresh"] for row in report["parts"].values())
    assert counted == report["parameters"]
    assert report["parts"]["encoder"]["fresh"] == 0
    assert report["parts"]["cross_attention"]["loaded"] == 0
    assert report["parts"]["cross_attention"]["fresh"] > 0
    ids = {"decoder_start_token_id": 1, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    assert report["special_ids"] == ids
    plain = s2s("combine", *halves, "--overwrite", "-o", "pair")
    assert plain.stdout == b""
    assert b"cross_attention" in plain.stderr


def test_settings_reach_the_side_they_name(s2s: Run, halves: tuple[Path, Path], tmp_path: Path) -> None:
    settings = (
        "--set",
        "decoder_n_layer=3",
        "--set",
        "encoder-layer-norm-eps=1e-3",
        "--set",
        "pad_token_id=0",
    )
    done = s2s("combine", *halves, "-o", "pair", "--random-decoder", *settings)
    assert done.returncode == 0, done.stderr
    bundle = load_bundle(str(tmp_path / "pair"))
    assert bundle.config["decoder"]["n_layer"] == 3
    assert bundle.model.encoder.config.norm_eps == 1e-3
    assert bundle.model.special_ids.pad == 0
    assert not bundle.is_trained


def test_settings_may_be_lists_and_mappings(s2s: Run, halves: tuple[Path, Path], tmp_path: Path) -> None:
    spec("transfo-xl").publish("", "decoder", tmp_path / "txl")
    tiny.save_language_model("xlm", tmp_path / "xlm")
    ids = ("--set", "decoder_start_token_id=1", "--set", "eos_token_id=2", "--set", "pad_token_id=0")
    fresh = (*ids, "--random-decoder", "-o", "pair", "--overwrite")
    for written, cutoffs in (("[10, 30]", [10, 30]), ("[]", []), ("[7]", [7])):
        clusters = ("--set", f"decoder_cutoffs={written}", "--set", "decoder_tie_projs=[]")
        done = s2s("combine", halves[0], "txl", *fresh, *clusters)
        assert done.returncode == 0, done.stderr
        decoder = load_bundle(str(tmp_path / "pair")).decoder.config
        assert decoder.embedding.adaptive is not None
        assert decoder.embedding.adaptive.cutoffs == tuple(cutoffs)
    languages = ("--set", "decoder_lang2id={en: 0, fr: 1}", "--set", "decoder_n_langs=2")
    done = s2s("combine", halves[0], "xlm", *fresh, *languages, "--set", "decoder_language=fr")
    assert done.returncode == 0, done.stderr
    assert load_bundle(str(tmp_path / "pair")).decoder.config.embedding.language == 1
    done = s2s("combine", *halves, "-o", "other", "--set", "decoder_n_head=[1")
    assert done.returncode == 2
    assert b"--set decoder_n_head=[1" in done.stderr


def test_nothing_is_overwritten_unasked(s2s: Run, halves: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "pair").mkdir()
    (tmp_path / "pair/notes.txt").write_text("mine")
    done = s2s("combine", *halves, "-o", "pair")
    assert done.returncode == 2
    assert b"--overwrite" in done.stderr
    assert (tmp_path / "pair/notes.txt").read_text() == "mine"
    assert s2s("combine", halves[0], halves[1], "--set", "pad_token_id=0").returncode == 0
    assert (tmp_path / "bert2gpt2/config.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--set", "decoder_n_layers=3"), 2, b"decoder_n_layer"),
        (("--set", "n_layer=3"), 2, b"decoder_n_layer"),
        (("--set", "decoder_n_layer"), 2, b"KEY=VALUE"),
        (("--set", "decoder_start_token_id=999"), 2, b"decoder_start_token_id"),
        (("--set", "decoder_n_layer=3"), 4, b"missing"),
        (("--set", "encoder_num_attention_heads=5"), 2, "· encoder_num_attention_heads=5\n".encode()),
        (("--share", "all"), 2, b"--share"),
        (("--share", "some"), 2, b"--share"),
        (("--recipe", "missing.yaml"), 2, b"--recipe"),
    ],
)
def test_wrong_combinations_get_one_line_each(
    s2s: Run, halves: tuple[Path, Path], tmp_path: Path, arguments: tuple[str, ...], code: int, says: bytes
) -> None:
    done = s2s("combine", *halves, "-o", "pair", *arguments)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert b"Traceback" not in done.stderr
    assert not (tmp_path / "pair").exists()


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("decoder_attn_pdrop=2", "decoder_attn_pdrop=2"),
        ("decoder_n_layer=0", "decoder_n_layer=0"),
        ("decoder-activation-function=foo", "decoder_activation_function='foo'"),
        ("decoder_n_head=3", "decoder_n_head=3"),
        ("decoder_bidirectional=true", "decoder_bidirectional=True"),
        ("decoder_n_head={a: 1}", "decoder_n_head={'a': 1}"),
        ("encoder_layer_norm_eps=-1", "encoder_layer_norm_eps=-1"),
        ("vocab_size=[5]", "vocab_size=[5]"),
    ],
)
@pytest.mark.parametrize("random", [(), ("--random-encoder", "--random-decoder")])
def test_a_bad_setting_is_blamed_under_the_name_it_was_given(
    s2s: Run, halves: tuple[Path, Path], setting: str, named: str, random: tuple[str, ...]
) -> None:
    done = s2s("combine", *halves, "-o", "pair", "--set", setting, *random)
    assert done.returncode == 2, done.stderr
    assert named in done.stderr.decode()
    assert "config.json" not in done.stderr.decode()


def test_a_folder_that_is_wrong_itself_is_blamed_beside_settings(
    s2s: Run, halves: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "wrong"
    shutil.copytree(halves[1], folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "n_head": 5}))
    done = s2s("combine", halves[0], folder, "-o", "pair", "--set", "decoder_attn_pdrop=0.2")
    assert done.returncode == 4
    assert b"wrong/config.json" in done.stderr
    mended = ("--set", "decoder_n_head=4", "--set", "decoder_attn_pdrop=0.2")
    assert s2s("combine", halves[0], folder, "-o", "pair", *mended).returncode == 0


def test_a_decoder_without_ids_is_refused_by_name(s2s: Run, halves: tuple[Path, Path]) -> None:
    done = s2s("combine", halves[0], "-o", "pair")
    assert done.returncode == 2
    assert b"decoder_start_token_id" in done.stderr
    assert b"eos_token_id" in done.stderr
    ids = ("--set", "decoder_start_token_id=1", "--set", "eos_token_id=2")
    assert s2s("combine", halves[0], "-o", "pair", *ids).returncode == 0


def test_models_lists_families_and_aliases(s2s: Run) -> None:
    table = json.loads(s2s("models", "--json").stdout)
    assert {row["family"] for row in table["families"]} >= {"bert", "gpt2", "roberta"}
    assert table["aliases"]["minilm"].endswith("all-MiniLM-L6-v2")
    assert b"byte-level bpe" in s2s("models").stdout


def test_models_draws_the_masks(s2s: Run) -> None:
    table = json.loads(s2s("models", "--masks", "--json").stdout)
    size, source = 8, 4
    places = range(size)
    assert {each["mask"]: each["visible"] for each in table} == {
        "bidirectional": [[1] * 4] * 4,
        "causal": [[int(key <= query) for key in range(4)] for query in range(4)],
        "prefix": [[int(key <= query or key < source) for key in places] for query in places],
    }
    drawn = s2s("models", "--masks").stdout.decode()
    assert "  sells ███ █████ ··· ·\n" in drawn
    assert "  name   ███ █████ ███ █ ██████ ████ ···· ·····\n" in drawn
    assert "\x1b" not in drawn
    both = s2s("models", "--masks", "--keys", "bert")
    assert both.returncode == 2
    assert b"--keys" in both.stderr


def test_models_prints_the_names_of_a_family(s2s: Run) -> None:
    """The table is what a pair's folder really holds: see tests/test_pairs.py for the folders."""
    from seq2seq_cli.families import FAMILIES

    for family in FAMILIES:
        table = json.loads(s2s("models", "--keys", family, "--json").stdout)
        crossing = [row["name"] for row in table if row["what"] == "cross-attention"]
        assert crossing
        assert all(name.startswith("decoder.") for name in crossing)
        assert {row["side"] for row in table} == {"encoder", "decoder"}
        assert all(min(row["shape"]) > 0 for row in table)
    names = s2s("models", "--keys", "gpt2").stdout.decode()
    assert "decoder.transformer.h.{layer}.crossattention.c_attn.weight  [768, 1536]" in names
    wrong = s2s("models", "--keys", "gpt3")
    assert wrong.returncode == 2
    assert b"gpt2" in wrong.stderr
