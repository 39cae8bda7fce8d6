"""``s2s env``: complete enough for a bug report, and without secrets."""

from __future__ import annotations

import json
import platform

import pytest

from seq2seq_cli import __version__, cli, environment
from seq2seq_cli.cli import env


def test_json_names_versions_and_devices(capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["env", "--json"])
    facts = json.loads(capsys.readouterr().out)
    import torch

    assert facts["s2s"] == __version__
    assert facts["python"] == platform.python_version()
    assert facts["torch"] == torch.__version__
    assert facts["devices"][0] == "cpu"
    assert facts["threads"] == torch.get_num_threads()
    assert facts["cpu_count"] >= facts["cpus_usable"] >= 1
    assert all(facts[name] for name in ("tokenizers", "accelerate", "datasets", "safetensors"))


def test_plain_is_one_line_a_fact(capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["env"])
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["s2s"] == __version__
    assert set(rows) == set(environment.describe())


def test_missing_package_is_a_dash(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = environment._version("no-such-package-here")
    monkeypatch.setattr(env, "describe", lambda: {"no-such-package-here": missing, "torch": None})
    cli.run(["env"])
    assert capsys.readouterr().out.split() == ["no-such-package-here", "-", "torch", "-"]


def test_no_secrets(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "HTTPS_PROXY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "https://user:hush@example.com")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for arguments in (["env"], ["env", "--json"]):
        cli.run(arguments)
        out = capsys.readouterr().out
        assert "hush" not in out
        assert "HF_HUB_OFFLINE" in out
