"""scripts/common in a small repository whose .venv holds a Python that only notes what pip gets."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"

#: runs code with the real Python; pip only notes its arguments, and fails while a file "pip-fails" exists
PYTHON = """#!/usr/bin/env bash
if [[ $1 == -m && $2 == pip ]]; then
    [[ $* == *--version* ]] && exit 0
    echo "$*" >>pip-calls
    [[ ! -e pip-fails ]]
elif [[ $1 == -m ]]; then
    echo "ran ${*:2}"
else
    exec "$REAL_PYTHON" "$@"
fi
"""


class Repository:
    """A folder with the scripts, a pyproject.toml, and (on request) a .venv."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "scripts").mkdir(parents=True)
        for name in ("common", "test", "demo", "bench"):
            shutil.copy(SCRIPTS / name, root / "scripts" / name)
        (root / "scripts" / "constraints.txt").write_text("numpy==2.0\ntorch==2.13.0\n")
        (root / "pyproject.toml").write_text("[project]\n")

    def make_venv(self) -> None:
        """A .venv as an interrupted installation leaves it: an interpreter and no stamp."""
        python = self.root / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(PYTHON)
        python.chmod(0o755)

    def run(
        self, *arguments: str, script: str = "test", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """A script (scripts/test) from another folder."""
        clean = {name: value for name, value in os.environ.items() if name != "PYTHON"}
        return subprocess.run(
            [str(self.root / "scripts" / script), *arguments],
            cwd=self.root.parent,
            env={**clean, "REAL_PYTHON": sys.executable, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def pip_calls(self) -> list[str]:
        """The arguments of every installation so far."""
        calls = self.root / "pip-calls"
        return calls.read_text().splitlines() if calls.exists() else []


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "a clone")


def test_installs_torch_first_and_everything_with_constraints(repository: Repository) -> None:
    repository.make_venv()
    done = repository.run("-k", "beam")
    assert done.returncode == 0, done.stderr
    first, second = repository.pip_calls()
    assert first.endswith("-c scripts/constraints.txt torch==2.13.0")
    assert second.endswith("-c scripts/constraints.txt -e .[dev,demo]")
    assert done.stdout == "ran pytest -m not slow -k beam\n"


def test_a_second_run_does_not_install(repository: Repository) -> None:
    repository.make_venv()
    repository.run()
    assert repository.run().stderr == ""
    assert len(repository.pip_calls()) == 2


@pytest.mark.parametrize("name", ["pyproject.toml", "scripts/constraints.txt"])
def test_changed_requirements_are_installed(repository: Repository, name: str) -> None:
    repository.make_venv()
    repository.run()
    with (repository.root / name).open("a") as file:
        file.write("# changed\n")
    repository.run()
    assert len(repository.pip_calls()) == 4


@pytest.mark.parametrize("there", [True, False])
def test_a_peer_is_installed_when_it_is_asked_for(repository: Repository, there: bool) -> None:
    repository.make_venv()
    modules = repository.root / "modules"
    modules.mkdir()
    (modules / "ctranslate2.py").write_text("" if there else "raise ImportError\n")
    given = {"script": "bench", "PYTHONPATH": str(modules)}
    assert repository.run("decode", **given).stdout == "ran benchmarks decode\n"
    assert len(repository.pip_calls()) == 2
    done = repository.run("decode", "--peer=ctranslate2", **given)
    assert done.stdout == "ran benchmarks decode --peer=ctranslate2\n", done.stderr
    assert repository.pip_calls()[2:] == [] if there else repository.pip_calls()[2].endswith("-e .[bench]")


def test_a_failed_installation_is_reported_and_repaired(repository: Repository) -> None:
    repository.make_venv()
    (repository.root / "pip-fails").touch()
    failed = repository.run()
    assert failed.returncode == 2
    assert "the installation failed" in failed.stderr
    assert failed.stdout == ""
    (repository.root / "pip-fails").unlink()
    assert repository.run().returncode == 0
    assert len(repository.pip_calls()) == 3


def test_a_moved_clone_is_installed_again(repository: Repository) -> None:
    repository.make_venv()
    repository.run()
    moved = repository.root.rename(repository.root.parent / "moved")
    repository.root = moved
    repository.run()
    assert len(repository.pip_calls()) == 4


@pytest.mark.parametrize(
    ("prints", "said"), [("3.9", "/python is 3.9 ·"), ("", "/python is not there ·")], ids=["old", "broken"]
)
def test_an_unusable_python_is_refused_in_one_line(repository: Repository, prints: str, said: str) -> None:
    python = repository.root / "python"
    python.write_text(f"#!/usr/bin/env bash\necho {prints}\nexit 1\n" if prints else "#!/bin/false\n")
    python.chmod(0o755)
    done = repository.run(PYTHON=str(python))
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (repository.root / ".venv").exists()


def test_another_python_does_not_replace_a_venv(repository: Repository) -> None:
    repository.make_venv()
    python = repository.root / "python"
    python.write_text("#!/usr/bin/env bash\necho 3.99\n")
    python.chmod(0o755)
    done = repository.run(PYTHON=str(python))
    assert done.returncode == 2
    assert "remove .venv, or unset PYTHON" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        ([], "demo"),
        (["--short"], "demo-short"),
        (["--random-encoder"], "demo-random"),
        (["--short", "--random-encoder"], "demo-random-short"),
    ],
)
def test_every_kind_of_demo_has_a_folder_of_its_own(
    repository: Repository, arguments: list[str], folder: str
) -> None:
    """A short one must not replace what a full one took minutes for."""
    repository.make_venv()
    program = repository.root / ".venv" / "bin" / "s2s"
    program.write_text("#!/usr/bin/env bash\nmkdir -p boss2sql-data; touch boss2sql-data/test.jsonl\n")
    program.chmod(0o755)
    done = repository.run(*arguments, script="demo")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (repository.root / "runs").iterdir()] == [folder]
    assert f"runs/{folder}/runs/boss2sql." in done.stdout
