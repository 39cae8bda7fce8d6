"""The folder of a run: who works in it, what an earlier start left there, what it looks like at the end."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from seq2seq_cli import console
from seq2seq_cli.checkpoint.bundle import ADAPTER
from seq2seq_cli.checkpoint.files import checkpoints
from seq2seq_cli.checkpoint.folder import MANIFEST
from seq2seq_cli.errors import CheckpointError, Finding, ResourceError, UsageError
from seq2seq_cli.recipe import Recipe, where_of
from seq2seq_cli.training.state import Checkpoint, model_files, read_checkpoint
from seq2seq_cli.training.steps import BATCHES, ORDER

RECIPE_FILE = "recipe.yaml"
RESULTS_FILE = "all_results.json"
LOCK_FILE = "run.lock"
LOG_FILE = "train_log.jsonl"
REPORT_FILE = "report.html"
#: Everything that a run writes into its folder, and nothing else, is what --overwrite takes away.
_OWN_FILES = (
    *(RECIPE_FILE, RESULTS_FILE, LOG_FILE, "config.json", "generation_config.json", "README.md"),
    *("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json", "decoder_tokenizer"),
    ADAPTER,
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generated_predictions.jsonl"),
    *("vocab.json", "merges.txt", "vocab.txt", REPORT_FILE, "tensorboard", "wandb"),
    *("checkpoint-*", ".checkpoint-*.stage-*", ".checkpoint-*.replaced", ".final.stage-*"),
)
#: keys of a recipe that may name a folder or a file
_READ = re.compile(r"checkpoint$|tokenizer|^data\.(train|validation|test)")


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run for this process; UsageError naming the process that has it. A dead process's lock is
    taken over: the kernel gives it up with the process."""
    made = not run.exists()
    try:
        run.mkdir(parents=True, exist_ok=True)
        file = (run / LOCK_FILE).open("a+", encoding="utf-8")
    except (FileExistsError, NotADirectoryError) as error:
        remedy = "name another --output"
        raise UsageError("a file is in the way of the run's folder", where=str(run), remedy=remedy) from error
    except OSError as error:
        remedy = "name another --output, or see to its rights"
        raise ResourceError(f"cannot write: {error.strerror}", where=str(run), remedy=remedy) from error
    with file:
        file.seek(0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(file.fileno()), (run / LOCK_FILE).stat()):
                raise BlockingIOError  # the file was taken away and made anew between the two calls
        except (BlockingIOError, FileNotFoundError):
            raise UsageError(
                f"another s2s finetune works in this folder ({file.read().strip() or 'unknown process'})",
                where=str(run),
                remedy="wait for it, stop it, or name another --output",
            ) from None
        before = file.read().strip()
        if before:
            console.say(f"taking over {run}: the run that held it ({before}) is gone")
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        try:
            yield
        finally:
            with suppress(OSError):
                (run / LOCK_FILE).unlink()
                if made:  # and nothing came of it
                    run.rmdir()


def find_checkpoint(run: Path, *, resume: str, overwrite: bool) -> Checkpoint | None:
    """The checkpoint to go on from, or None to start at the beginning; deletes nothing.

    resume: ``auto`` takes the newest whole one and names the damaged ones that it passes over; ``never``
    and a folder that is no run's need an empty folder or ``overwrite``; else a checkpoint folder, which must
    be whole. UsageError and CheckpointError accordingly.
    """
    if resume not in ("auto", "never"):
        return _explicit(run, Path(resume), overwrite=overwrite)
    if overwrite or not run.is_dir():
        return None
    inside = [path for path in run.iterdir() if path.name != LOCK_FILE]
    is_run = any(path.name == LOG_FILE for path in inside)
    is_run = is_run or any((folder / MANIFEST).is_file() for _, folder in checkpoints(run))
    if inside and (resume == "never" or not is_run):
        what = "the run's folder is not empty" if is_run else "the folder is not empty and holds no run"
        raise UsageError(what, where=str(run), remedy="name another --output, or replace it with --overwrite")
    findings: list[Finding] = []
    for _, folder in reversed(checkpoints(run)):
        try:
            return read_checkpoint(folder)
        except CheckpointError as error:
            findings += error.findings
            console.warn(f"{folder.name} is damaged and is passed over: {error.findings[0]}")
    if findings:
        more = Finding("no checkpoint of this run is whole", str(run), "start again with --overwrite")
        raise CheckpointError(findings=[*findings, more])
    return None


def _explicit(run: Path, folder: Path, *, overwrite: bool) -> Checkpoint:
    if not folder.is_dir():
        remedy = "take auto, never, or a folder checkpoint-STEP of a run"
        raise UsageError("no such checkpoint folder", where=f"--resume {folder}", remedy=remedy)
    found = read_checkpoint(folder)
    inside = folder.resolve().parent == run.resolve()
    if not inside and run.is_dir() and any(p.name != LOCK_FILE for p in run.iterdir()) and not overwrite:
        raise UsageError(
            f"{folder} belongs to another run, and this run's folder is not empty",
            where=str(run),
            remedy="name another --output, or replace it with --overwrite",
        )
    later = [path.name for step, path in checkpoints(run) if step > found.state.step]
    if inside and later and not overwrite:
        raise UsageError(
            f"later checkpoints would be replaced: {', '.join(later)}",
            where=str(run),
            remedy="take --resume auto, or replace them with --overwrite",
        )
    return found


def refuse_own_input(recipe: Recipe, run: Path) -> None:
    """UsageError where ``clear`` would take away what the recipe starts from or reads."""
    sections = {"model": recipe.model, "data": recipe.data}
    named = {name: section.model_dump(exclude_defaults=True) for name, section in sections.items()}
    goes = {path.resolve() for pattern in _OWN_FILES for path in run.glob(pattern)}
    findings = []
    for key, value in _flat(named):
        path = Path(value).resolve() if _READ.search(key) and isinstance(value, (str, Path)) else None
        if path is not None and (path == run.resolve() or goes & {path, *path.parents}):
            what = f"{key} lies in the folder that --overwrite empties"
            findings.append(Finding(f"{what}: {value}", where_of(recipe, key), "name another --output"))
    if findings:
        raise UsageError(findings=findings)


def clear(run: Path, *, keep_until: int | None = None) -> None:
    """Take away what an earlier run wrote; with ``keep_until`` only its checkpoints after that step."""
    if keep_until is not None:
        for step, folder in checkpoints(run):
            if step > keep_until:
                shutil.rmtree(folder)
        return
    for pattern in _OWN_FILES:
        for path in run.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def refuse_differences(
    before: Mapping[str, Any], now: Mapping[str, Any], *, what: str, where: Path, remedy: str
) -> None:
    """UsageError with a table of what is not as it was before, and ``what`` that means."""
    before, now = dict(_flat(before)), dict(_flat(now))
    changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if len(changed) > 1:  # what follows from the others says nothing of its own
        changed = [key for key in changed if key != ORDER]
    findings = [Finding(_difference(key, before.get(key), now.get(key)), remedy=_way(key)) for key in changed]
    if findings:
        raise UsageError(findings=[*findings, Finding(what, str(where), remedy)])


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Each value within ``values`` under its full name."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield above + key, value


def _difference(key: str, then: Any, now: Any) -> str:
    name, hashed, of = key.partition(" (sha256")
    if hashed and then and now:
        why = ": texts, tokenizer, lengths or window changed" if "tokens" in of else ""
        return f"{name}: no longer the same{why}"
    return f"{key}: {_shown(then)} then, {_shown(now)} now"


def _way(key: str) -> str:
    """How a difference is set back, where it is no key of the recipe."""
    if key != BATCHES:
        return ""
    return "change the number of processes, or training.gradient_accumulation_steps against it"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def write_file(path: Path, text: str) -> None:
    """Replace a file as a whole, on the disk."""
    partial = path.with_name(f".{path.name}.part")
    with partial.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def publish(run: Path, checkpoint: Path) -> None:
    """Put the model of ``checkpoint`` into the run's folder itself, file by file, config.json last: its
    absence shows a copy that was broken off, and the next start does it again."""
    stage = run / ".final.stage-copy"
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir()
    files = model_files(checkpoint)
    for path in files:
        if path.is_dir():
            shutil.copytree(path, stage / path.name)
        else:
            _copy(path, stage / path.name)
    (run / "config.json").unlink(missing_ok=True)
    for name in ("decoder_tokenizer", ADAPTER):
        shutil.rmtree(run / name, ignore_errors=True)
    for path in sorted(files, key=lambda p: p.name == "config.json"):
        (stage / path.name).replace(run / path.name)
    # two names of one file are not renamed over each other: after a broken-off copy some are left here
    shutil.rmtree(stage)


def _copy(source: Path, target: Path) -> None:
    """A copy; of weights, which nobody changes in place, a second name for the same data where the file
    system can. A checkpoint that is deleted later leaves the other name intact."""
    if source.suffix == ".safetensors":
        with suppress(OSError):
            os.link(source, target)
            return
    shutil.copyfile(source, target)


def point_latest(run: Path) -> None:
    """Make ``runs/latest`` lead to this run when it lies in a folder ``runs``."""
    run = run.absolute()
    if run.parent.name != "runs" or run.name == "latest":
        return
    link = run.parent / "latest"
    partial = run.parent / f".latest-{os.getpid()}"
    try:
        if link.exists() and not link.is_symlink():
            console.say(f"{link} is not a link and is left alone")
            return
        partial.symlink_to(run.name)
        partial.replace(link)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        console.say(f"no link {link}: {error.strerror}")
