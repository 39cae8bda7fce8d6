"""Folders are written whole or not at all (faults.md R2, R6, R7, R9)."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from seq2seq_cli.checkpoint import failpoints, folder
from seq2seq_cli.checkpoint.folder import MANIFEST, stage_folder, verify_manifest, write_folder
from seq2seq_cli.errors import ResourceError, UsageError


@pytest.fixture(autouse=True)
def no_failpoint_stays() -> Iterator[None]:
    yield
    failpoints._read("")


def write(stage: Path, text: str = "new") -> None:
    (stage / "model.safetensors").write_text(text)
    (stage / "decoder_tokenizer").mkdir()
    (stage / "decoder_tokenizer" / "tokenizer.json").write_text(text)


def save(target: Path, text: str = "new", **options: bool) -> None:
    with stage_folder(target, **options) as stage:
        write(stage, text)


def save_and_then(target: Path, action: Callable[[], None], *, overwrite: bool = False) -> None:
    with stage_folder(target, overwrite=overwrite) as stage:
        write(stage)
        action()


def raise_(error: type[BaseException]) -> None:
    raise error


def content(target: Path) -> str:
    assert (target / "decoder_tokenizer" / "tokenizer.json").read_text() == (
        target / "model.safetensors"
    ).read_text()
    return (target / "model.safetensors").read_text()


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_a_new_folder_with_parents(tmp_path: Path) -> None:
    save(tmp_path / "a" / "b")
    assert content(tmp_path / "a" / "b") == "new"
    assert names(tmp_path / "a") == ["b"]
    assert names(tmp_path / "a" / "b") == ["decoder_tokenizer", "model.safetensors"]
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "a" / "b").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_empty_folder_is_filled_and_a_full_one_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    save(target, "old")
    with pytest.raises(UsageError, match=r"not empty.*--overwrite"):
        save(target)
    assert content(target) == "old"
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
def test_overwrite_replaces_as_a_whole(
    tmp_path: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:
        monkeypatch.setattr(folder, "_exchange", lambda first, second: False)
    target = tmp_path / "model"
    save(target, "old")
    (target / "shard-2.safetensors").write_text("would be read with the new ones")
    save(target, overwrite=True)
    assert content(target) == "new"
    assert names(target) == ["decoder_tokenizer", "model.safetensors"]
    assert names(tmp_path) == ["model"]


def test_through_a_link_the_folder_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    save(tmp_path / "model", "old")
    (tmp_path / "latest").symlink_to("model")
    save(tmp_path / "latest", overwrite=True)
    assert (tmp_path / "latest").is_symlink()
    assert content(tmp_path / "model") == "new"


def test_targets_that_are_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work" / "here").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    (tmp_path / "file").write_text("x")
    monkeypatch.chdir(tmp_path / "work" / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in (".", "..", str(tmp_path / "home"), "/"):
        with pytest.raises(UsageError, match="never replaced"):
            save(Path(name), overwrite=True)
    for name, message in {"file": "a file of this name", "file/model": "above it is a file"}.items():
        with pytest.raises(UsageError, match=message):
            save(tmp_path / name, overwrite=True)
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_in_the_block_changes_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "model"
    save(target, "old")
    with pytest.raises(error):
        save_and_then(target, lambda: raise_(error), overwrite=True)
    assert content(target) == "old"
    assert names(tmp_path) == ["model"]


def test_somebody_else_filling_the_folder_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "model"

    def fill() -> None:
        target.mkdir()
        write(target, "theirs")

    with pytest.raises(UsageError, match="not empty"):
        save_and_then(target, fill)
    assert content(target) == "theirs"
    assert names(tmp_path) == ["model"]


def test_order_is_files_manifest_rename_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL does not show a missing fsync, so the calls themselves are recorded."""
    events: list[str] = []
    fsync, rename, exchange, rmtree = os.fsync, Path.rename, folder._exchange, shutil.rmtree

    def name(path: str | Path) -> str:
        return "STAGE" if ".stage-" in Path(path).name else Path(path).name

    def record_fsync(descriptor: int) -> None:
        events.append("fsync " + name(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def record_rename(path: Path, target: Path) -> Path:
        events.append(f"rename {name(path)} {name(target)}")
        return rename(path, target)

    def record_exchange(first: Path, second: Path) -> bool:
        events.append(f"exchange {name(first)} {name(second)}")
        return exchange(first, second)

    def record_rmtree(path: Path, ignore_errors: bool = False) -> None:
        if path.exists():
            events.append(f"delete {name(path)}")
        rmtree(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "rename", record_rename)
    monkeypatch.setattr(folder, "_exchange", record_exchange)
    monkeypatch.setattr(shutil, "rmtree", record_rmtree)
    written = [
        "fsync tokenizer.json",
        "fsync model.safetensors",
        "fsync manifest.json",
        "fsync decoder_tokenizer",
        "fsync STAGE",
    ]
    save(tmp_path / "model", manifest=True)
    assert events == [*written, "rename STAGE model", f"fsync {tmp_path.name}"]
    events.clear()
    save(tmp_path / "model", manifest=True, overwrite=True)
    assert events == [*written, "exchange STAGE model", f"fsync {tmp_path.name}", "delete STAGE"]


# --- manifest (R9) --------------------------------------------------------------------------------------


def test_r9_every_damage_is_found_and_named(tmp_path: Path) -> None:
    save(tmp_path / "m", "some text", manifest=True)
    assert verify_manifest(tmp_path / "m") == []
    for name in ("model.safetensors", "decoder_tokenizer/tokenizer.json"):
        path = tmp_path / "m" / name
        for damage, message in {
            b"": "0 bytes instead of 9",
            b"some": "4 bytes instead of 9",
            b"some tfxt": "sha256 differs",
            None: "missing",
        }.items():
            path.unlink() if damage is None else path.write_bytes(damage)
            (finding,) = verify_manifest(tmp_path / "m")
            assert message in finding.what
            assert finding.where == str(path)
        path.write_text("some text")
    assert verify_manifest(tmp_path / "m") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no readable manifest"),
        ("[]", "not a JSON object"),
        ("{", "not valid JSON"),
        ('{"../x": {"size": 0}}', "no usable entry '../x'"),
        ('{"/etc/passwd": {}}', "no usable entry"),
        ('{"model.safetensors": 3}', "no usable entry"),
        ('{"": {}}', "no usable entry"),
    ],
)
def test_r9_damaged_manifest(tmp_path: Path, text: str | None, message: str) -> None:
    (tmp_path / "model.safetensors").write_text("x")
    if text is not None:
        (tmp_path / MANIFEST).write_text(text)
    (finding,) = verify_manifest(tmp_path)
    assert message in finding.what


# --- disk faults (R6, R7) -------------------------------------------------------------------------------


def test_r6_too_little_space_is_said_before_writing(tmp_path: Path) -> None:
    with (
        pytest.raises(ResourceError, match=r"1,000,000,000,000,000,000 bytes needed, [\d,]+ free"),
        stage_folder(tmp_path / "model", needed=10**18),
    ):
        pytest.fail("the block must not run")
    assert names(tmp_path) == []


@pytest.mark.parametrize("point", ["save:after:model.safetensors", "save:before-rename", "save:after-rename"])
@pytest.mark.parametrize("name", ["ENOSPC", "EFBIG", "EROFS", "EIO"])
@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
def test_r7_a_failing_disk_leaves_the_old_content(
    tmp_path: Path, point: str, name: str, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:
        monkeypatch.setattr(folder, "_exchange", lambda first, second: False)
    save(tmp_path / "model", "old")
    failpoints._read(f"{point}:{name}")
    with pytest.raises(ResourceError, match=r"cannot write: .*[\d,]+ bytes free"):
        save(tmp_path / "model", overwrite=True)
    assert content(tmp_path / "model") == "old"
    failpoints._read(f"{point}:{name}")
    with pytest.raises(ResourceError):
        save(tmp_path / "fresh")
    assert names(tmp_path) == ["model"]


def test_r7_an_io_error_is_tried_once_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failpoints._read("save:after:model.safetensors:EIO")
    write_folder(tmp_path / "model", write, manifest=True)
    assert content(tmp_path / "model") == "new"
    assert "once more" in capsys.readouterr().err
    failpoints._read("save:after:model.safetensors:ENOSPC")
    with pytest.raises(ResourceError):
        write_folder(tmp_path / "other", write)
    assert names(tmp_path) == ["model"]


def test_r7_errors_of_rust_libraries_count_as_disk_errors(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="No space left"), stage_folder(tmp_path / "model"):
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    with pytest.raises(RuntimeError), stage_folder(tmp_path / "model"):
        raise RuntimeError("something else")


def run(code: str, *arguments: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_r7_a_file_size_limit_while_safetensors_writes(tmp_path: Path) -> None:
    save(tmp_path / "model", "old")
    code = """
import resource, sys
from pathlib import Path
import numpy
from safetensors.numpy import save_file
from seq2seq_cli.checkpoint.folder import stage_folder
from seq2seq_cli.errors import ResourceError
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    with stage_folder(Path(sys.argv[1]), overwrite=True) as stage:
        save_file({"x": numpy.zeros(100_000)}, stage / "model.safetensors")
except ResourceError as error:
    sys.exit(f"refused: {error}")
"""
    done = run(code, tmp_path / "model")
    assert "refused: cannot write: File too large" in done.stderr
    assert content(tmp_path / "model") == "old"
    assert names(tmp_path) == ["model"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_r6_a_full_disk_while_safetensors_writes(tmp_path: Path) -> None:
    code = """
import subprocess, sys
from pathlib import Path
import numpy
from safetensors.numpy import save_file
from seq2seq_cli.checkpoint.folder import stage_folder
from seq2seq_cli.errors import ResourceError
target = Path(sys.argv[1]) / "model"
with stage_folder(target) as stage:
    (stage / "a").write_text("old")
try:
    with stage_folder(target, overwrite=True) as stage:
        save_file({"x": numpy.zeros(1_000_000)}, stage / "model.safetensors")
except ResourceError as error:
    print(error)
print([str(path.relative_to(target.parent)) for path in sorted(target.parent.rglob("*"))])
"""
    (tmp_path / "disk").mkdir()
    script = 'mount -t tmpfs -o size=1m tmpfs "$2" || exit 77; exec "$0" -c "$1" "$2"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, sys.executable, code, str(tmp_path / "disk")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("mounting is not allowed here")
    assert "No space left on device" in done.stdout
    assert "['model', 'model/a']" in done.stdout


# --- kills (R2) -----------------------------------------------------------------------------------------

SAVE = """
import sys
from pathlib import Path
from seq2seq_cli.checkpoint.folder import stage_folder
with stage_folder(Path(sys.argv[1]), overwrite=True, manifest=True) as stage:
    (stage / "model.safetensors").write_text("new")
    (stage / "decoder_tokenizer").mkdir()
    (stage / "decoder_tokenizer" / "tokenizer.json").write_text("new")
"""


@pytest.mark.parametrize("there", [True, False], ids=["replacing", "fresh"])
@pytest.mark.parametrize(
    "point",
    [
        "save:after:decoder_tokenizer/tokenizer.json",
        "save:after:model.safetensors",
        "save:after:manifest.json",
        "save:before-rename",
        "save:after-rename",
    ],
)
def test_r2_killed_inside_a_save(
    tmp_path: Path, point: str, there: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "model"
    if there:
        save(target, "old", manifest=True)
    done = run(SAVE, target, S2S_FAIL=f"{point}:kill")
    assert done.returncode == -signal.SIGKILL, done.stderr
    if point == "save:after-rename":
        assert content(target) == "new"
    elif there:
        assert content(target) == "old"
    else:
        assert not target.exists()
    assert not target.exists() or verify_manifest(target) == []
    left = [name for name in names(tmp_path) if name != "model"]
    save(target, "newer", overwrite=True)
    assert content(target) == "newer"
    assert names(tmp_path) == ["model"]
    assert ("left behind" in capsys.readouterr().err) == bool(left)


def test_r2_killed_between_two_renames_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "model"
    save(target, "old")
    target.rename(folder._aside(target))
    with pytest.raises(ValueError), stage_folder(target, overwrite=True):
        raise ValueError
    assert content(target) == "old"
    assert "restoring" in capsys.readouterr().err


def test_the_second_pass_can_be_the_one_that_fails(tmp_path: Path) -> None:
    failpoints._read("save:before-rename:EIO:2")
    save(tmp_path / "one")
    with pytest.raises(ResourceError):
        save(tmp_path / "two")
    save(tmp_path / "three")
    assert names(tmp_path) == ["one", "three"]
    for wrong in ("kill", "save:before-rename:boom", ":kill"):
        with pytest.raises(ValueError, match="S2S_FAIL"):
            failpoints._read(wrong)


def test_a_living_run_keeps_its_stage(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with stage_folder(target, overwrite=True) as first:
        write(first, "first")
        done = run(SAVE, target)
        assert done.returncode == 0, done.stderr
        assert first.exists()
        assert content(target) == "new"
    assert content(target) == "first"


def test_errno_of_other_errors() -> None:
    assert folder._error_number(OSError(errno.EIO, "x")) == errno.EIO
    assert folder._error_number(ValueError("nothing")) is None
