"""The folder of a run: lock, resume, overwrite, publication."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from seq2seq_cli.__main__ import main
from seq2seq_cli.checkpoint.files import checkpoints
from seq2seq_cli.checkpoint.folder import verify_manifest
from seq2seq_cli.errors import CheckpointError, ResourceError, UsageError
from seq2seq_cli.recipe import Recipe
from seq2seq_cli.training import runfolder
from seq2seq_cli.training.progress import append_log, cut_log
from seq2seq_cli.training.run import finetune
from seq2seq_cli.training.state import remove_old
from tests.training.helpers import RECIPE

RUN = Path("runs/tiny")


@pytest.fixture
def trained(recipe) -> Recipe:  # type: ignore[no-untyped-def]
    """A finished run of three steps with three checkpoints."""
    made: Recipe = recipe("training.max_steps=3", "training.save_steps=1", "training.eval_samples=0")
    finetune(made)
    return made


def test_r11_a_second_run_is_refused_and_a_dead_ones_lock_taken_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = (
        "import sys, pathlib\nfrom seq2seq_cli.training.runfolder import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(UsageError, match=f"pid {other.pid} on "), runfolder.locked(tmp_path):
            pass
        other.kill()
    with runfolder.locked(tmp_path):
        assert f"pid {other.pid}" in capsys.readouterr().err
    assert not (tmp_path / runfolder.LOCK_FILE).exists()


def test_a_folder_that_is_no_run_is_left_alone(recipe) -> None:  # type: ignore[no-untyped-def]
    RUN.mkdir(parents=True)
    (RUN / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="holds no run"):
        finetune(recipe("training.max_steps=1"))
    finetune(recipe("training.max_steps=1"), overwrite=True)
    assert (RUN / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    "change",
    [
        "model.encoder=runs/tiny",
        "model.encoder={checkpoint: runs/latest}",
        "model.encoder=runs/tiny/checkpoint-2",
        "model.encoder.tokenizer=runs/tiny",
        "data.validation=runs/tiny/generated_predictions.jsonl",
    ],
)
def test_a_run_that_is_read_is_not_overwritten(
    trained: Recipe, recipe: Callable[..., Recipe], workplace: Path, change: str
) -> None:
    (RUN / "generated_predictions.jsonl").write_bytes((workplace / "dev.jsonl").read_bytes())
    before = {path: path.read_bytes() for path in RUN.rglob("*") if path.is_file()}
    key = change.partition("=")[0]
    alone = "data: {train: train.jsonl}\noutput: runs/tiny\n"
    text = alone if key == "model.encoder" else RECIPE
    with pytest.raises(UsageError) as caught:
        finetune(recipe(change, text=text), overwrite=True)
    (finding,) = caught.value.findings
    assert finding.what.startswith(f"{key}")
    assert "lies in the folder that --overwrite empties" in finding.what
    assert finding.remedy == "name another --output"
    assert {path: path.read_bytes() for path in RUN.rglob("*") if path.is_file()} == before


def test_what_lies_beside_the_files_of_a_run_may_be_read(
    trained: Recipe, recipe: Callable[..., Recipe], workplace: Path
) -> None:
    runfolder.refuse_own_input(recipe(), Path("bert"))  # the name of a family, not of a folder
    (workplace / "train.jsonl").replace(RUN / "mine.jsonl")
    finetune(recipe("training.max_steps=1", f"data.train={RUN / 'mine.jsonl'}"), overwrite=True)


def test_what_is_edited_in_the_result_leaves_its_checkpoint_whole(trained: Recipe) -> None:
    for path in RUN.iterdir():
        if path.suffix in (".json", ".md"):
            with path.open("a") as file:
                file.write(" ")
    assert verify_manifest(RUN / "checkpoint-3") == []
    assert (RUN / "model.safetensors").samefile(RUN / "checkpoint-3/model.safetensors"), "once on the disk"


def test_checkpoints_are_a_run_without_its_log(trained: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    (RUN / "train_log.jsonl").unlink()
    shutil.rmtree(RUN / "checkpoint-3")
    finetune(trained)
    assert "going on after step 2" in capsys.readouterr().err
    shutil.rmtree(RUN)
    (RUN / "checkpoint-2").mkdir(parents=True)  # another program's
    with pytest.raises(UsageError, match="holds no run"):
        finetune(trained)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["training.learning_rate=0.5"], "training.learning_rate: 0.003 then, 0.5 now"),
        (["training.max_steps=5"], "training.max_steps: 3 then, 5 now"),
        (["data.max_target_length=9"], "data.max_target_length: null then, 9 now"),
        (["training.gradient_accumulation_steps=2"], "training.gradient_accumulation_steps: 1 then, 2 now"),
        (["model.share=none", "model.seed=8"], "model.seed"),
    ],
)
def test_r10_a_finished_run_says_what_another_recipe_would_change(
    trained: Recipe,
    recipe: Callable[..., Recipe],
    changes: list[str],
    says: str,
) -> None:
    before = (RUN / "model.safetensors").read_bytes()
    made = recipe("training.max_steps=3", "training.save_steps=1", "training.eval_samples=0", *changes)
    with pytest.raises(UsageError) as caught:
        finetune(made)
    assert says in caught.value.findings[0].what
    last = caught.value.findings[-1]
    assert "finished" in last.what
    assert "--overwrite" in last.remedy
    assert f"model: {{encoder: {RUN}}}" in last.remedy
    assert (RUN / "model.safetensors").read_bytes() == before


def test_r3_what_changes_no_number_of_a_finished_run_is_no_difference(
    trained: Recipe, recipe: Callable[..., Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    made = recipe("training.max_steps=3", "training.save_steps=2", "training.logging_steps=1",
                  "data.test=dev.jsonl", "generation.num_beams=2")  # fmt: skip
    finetune(made)
    assert "nothing to do" in capsys.readouterr().err


def test_a_finished_run_goes_on_from_its_model_as_the_error_says(
    trained: Recipe, recipe: Callable[..., Recipe]
) -> None:
    finetune(recipe(f"model.encoder={RUN}", "model.decoder=null", "training.max_steps=1", "output=runs/more"))
    assert Path("runs/more/model.safetensors").is_file()


@pytest.mark.parametrize(
    ("resume", "kind", "says"),
    [
        ("empty", CheckpointError, "this is no whole checkpoint of a run: manifest.json is missing · empty"),
        ("gone", UsageError, "no such checkpoint folder · --resume gone · take auto, never, or a folder"),
    ],
)
def test_resuming_from_what_is_no_checkpoint(
    recipe: Callable[..., Recipe], resume: str, kind: type[Exception], says: str
) -> None:
    Path("empty").mkdir()
    with pytest.raises(kind, match=says) as caught:
        finetune(recipe(), resume=resume)
    assert "Errno" not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_the_disks_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(Path, "mkdir", refuse)
    says = "cannot write: No such file or directory · runs/x · name another"
    with pytest.raises(ResourceError, match=says), runfolder.locked(Path("runs/x")):
        pass


def test_resume_never_wants_an_empty_folder(trained: Recipe) -> None:
    with pytest.raises(UsageError, match="not empty"):
        finetune(trained, resume="never")


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "delete"])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "trainer_state.json"])
def test_r9_a_damaged_checkpoint_is_named_and_passed_over(
    trained: Recipe, name: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = RUN / "checkpoint-3" / name
    content = path.read_bytes()
    if damage == "delete":
        path.unlink()
    else:
        changed = {"flip": content[:-1] + bytes([content[-1] ^ 1]), "cut": content[:-7], "empty": b""}
        path.unlink()  # the published model may be another name of the same file
        path.write_bytes(changed[damage])
    with pytest.raises(CheckpointError, match=name):
        runfolder.find_checkpoint(RUN, resume=str(RUN / "checkpoint-3"), overwrite=False)
    found = runfolder.find_checkpoint(RUN, resume="auto", overwrite=False)
    assert found is not None
    assert found.state.step == 2
    assert "checkpoint-3 is damaged" in capsys.readouterr().err
    finetune(trained)
    assert runfolder.find_checkpoint(RUN, resume="auto", overwrite=False).state.step == 3  # type: ignore[union-attr]


def test_when_no_checkpoint_is_whole_nothing_is_started_over_silently(trained: Recipe) -> None:
    for _, folder in checkpoints(RUN):
        (folder / "trainer_state.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no checkpoint of this run is whole"):
        finetune(trained)


def test_an_earlier_checkpoint_replaces_later_ones_only_when_asked(trained: Recipe) -> None:
    with pytest.raises(UsageError, match=r"checkpoint-2, checkpoint-3"):
        finetune(trained, resume=str(RUN / "checkpoint-1"))
    finetune(trained, resume=str(RUN / "checkpoint-1"), overwrite=True)
    assert [step for step, _ in checkpoints(RUN)] == [1, 2, 3]


def test_a_checkpoint_of_another_run_starts_a_branch(trained: Recipe, recipe) -> None:  # type: ignore[no-untyped-def]
    branch = recipe(
        *("training.max_steps=3", "training.save_steps=1", "training.eval_samples=0", "output=runs/branch")
    )
    finetune(branch, resume=str(RUN / "checkpoint-2"))
    assert [step for step, _ in checkpoints(Path("runs/branch"))] == [3]
    assert [step for step, _ in checkpoints(RUN)] == [1, 2, 3]


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 20, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
    (tmp_path / "checkpoint-old").mkdir()
    remove_old(tmp_path, limit=2, best_step=5)
    assert [step for step, _ in checkpoints(tmp_path)] == [5, 20, 100]
    remove_old(tmp_path, limit=None, best_step=None)
    assert len(checkpoints(tmp_path)) == 3
    assert (tmp_path / "checkpoint-old").is_dir()


def test_the_log_is_cut_behind_a_step(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for step in (1, 2, 3):
        append_log(path, {"step": step, "text": "a\u2028b"})
    with path.open("a") as file:
        file.write('{"step": 2, "lo')
    cut_log(path, 2)
    assert path.read_text().count("\n") == 2
    assert '"step": 3' not in path.read_text()


def test_latest_follows_the_last_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        runfolder.point_latest(tmp_path / "runs" / name)
        assert (tmp_path / "runs" / "latest").readlink() == Path(name)
    runfolder.point_latest(tmp_path / "elsewhere")
    (tmp_path / "runs" / "latest").unlink()
    (tmp_path / "runs" / "latest").mkdir()
    runfolder.point_latest(tmp_path / "runs" / "a")
    assert "is not a link" in capsys.readouterr().err


def test_a_folder_with_the_users_own_files_is_no_run(recipe: Callable[..., Recipe], workplace: Path) -> None:
    """A recipe.yaml is what users call theirs, too."""
    mine = {"recipe.yaml": None, "README.md": "mine", "config.json": "{}"}
    made = recipe("output=.")
    for name, text in mine.items():
        if text is not None:
            (workplace / name).write_text(text)
    before = {name: (workplace / name).read_text() for name in mine}
    with pytest.raises(UsageError, match="holds no run"):
        finetune(made)
    assert {name: (workplace / name).read_text() for name in mine} == before


def test_a_refused_run_leaves_no_folder(recipe: Callable[..., Recipe], workplace: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        finetune(recipe("model.encoder=nowhere", "output=runs/refused"))
    assert not Path("runs/refused").exists()
    Path("runs/there").mkdir(parents=True)
    with pytest.raises(UsageError, match="nowhere"):
        finetune(recipe("model.encoder=nowhere", "output=runs/there"))
    assert Path("runs/there").is_dir()


@pytest.mark.parametrize("command", [["generate", "hi", "--recipe"], ["evaluate"]])
def test_a_run_that_was_stopped_is_no_untrained_pair(
    trained: Recipe, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("config.json", "model.safetensors", "all_results.json"):
        (RUN / name).unlink()
    assert main([*command, "recipe.yaml", *(["--data", "dev.jsonl"] if "evaluate" in command else [])]) == 4
    said = capsys.readouterr().err
    assert "this run has not come to its end · runs/tiny" in said
    assert "take runs/tiny/checkpoint-3" in said
