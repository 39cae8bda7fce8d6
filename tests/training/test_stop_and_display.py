"""Signals before and in training, and what a terminal shows."""

from __future__ import annotations

import os
import signal

import pytest

from seq2seq_cli import console
from seq2seq_cli.errors import StoppedError
from seq2seq_cli.training.progress import Display
from seq2seq_cli.training.signals import listening

RECORD = {
    "step": 2,
    "epoch": 0.5,
    "loss": 1.25,
    "learning_rate": {"decoder": 1e-3},
    "tokens_per_second": 99.0,
}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_r4_before_training_a_signal_ends_at_once(number: int, code: int) -> None:
    with listening(), pytest.raises(StoppedError) as error:
        os.kill(os.getpid(), number)
    assert error.value.exit_code == code


def test_r5_the_second_sigint_ends_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with listening() as stop:
        stop.at_once = False
        assert not stop
        os.kill(os.getpid(), signal.SIGINT)
        assert stop
        assert "again" in capsys.readouterr().err
        with pytest.raises(StoppedError, match="at once"):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_off_a_terminal_a_logged_step_is_a_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(total=10, done=0)
    display.step(1)
    display.logged(RECORD)
    display.close()
    said = capsys.readouterr().err
    assert said.startswith("step 2/10 · epoch 0.50 · loss 1.2500 · lr 1.00e-03 · 99 target tokens/s")
    assert "\x1b" not in said
    assert "\r" not in said


def test_on_a_terminal_there_is_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "is_live", lambda: True)
    display = Display(total=10, done=4)
    display.logged({**RECORD, "step": 6})
    display.say("[a] line with brackets")
    display.close()
    said = capsys.readouterr().err
    assert "[a] line with brackets" in said
    assert "6/10" in said
