"""report.html: what it says, that it is whole and hostile texts stay texts; and how a browser sees it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from seq2seq_cli.recipe import Recipe
from seq2seq_cli.training import report, validation
from seq2seq_cli.training.report_data import histogram
from seq2seq_cli.training.report_page import text
from seq2seq_cli.training.run import finetune
from tests.training.helpers import GPT2, ONE_SIDED, log_of

Make = Callable[..., Recipe]
RUN = Path("runs/tiny")
HOSTILE = (
    "</td><script>document.title='owned'</script><img src=http://example.com/x onerror=alert(1)> "
    "\u202e\x00\x1b"
)
SECTIONS = ["Curves", "Samples", "Data", "Parameters", "Environment", "Recipe"]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
#: elements that HTML does not close
_VOID = {"meta", "img", "br", "link"}


class Reader(HTMLParser):
    """The page's elements and texts; an element closed out of turn is an error."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def said(self) -> str:
        return "\n".join(self.texts)


@pytest.fixture
def page(recipe: Make) -> str:
    """The report of a short run."""
    finetune(recipe("training.num_train_epochs=3", "training.groups.encoder.learning_rate=1e-4"))
    return (RUN / "report.html").read_text(encoding="utf-8")


def test_everything_is_in_the_report(page: str) -> None:
    read = Reader(page)
    titles = [
        t for t in read.texts if t in {"Curves", "Samples", "Data", "Parameters", "Environment", "Recipe"}
    ]
    assert titles == ["Curves", "Samples", "Data", "Parameters", "Environment", "Recipe"]
    for word in (
        *(
            "Loss",
            "Learning rates",
            "Gradient norms before clipping",
            "Source sensitivity",
            "Chrf",
            "Perplexity",
        ),
        *("Source lengths, training", "Target lengths, validation", "padding, share of all positions"),
        *("cross_attention", "torch", "finished", "num_train_epochs: 3", "hardly listens"),
    ):
        assert word in read.said, word
    log = log_of(RUN)
    last = [line for line in log if "samples" in line][-1]
    for sample in last["samples"]:
        assert all(not value or value in read.texts for value in sample.values())
    losses = [line["loss"] for line in log if "loss" in line]
    assert f"training: {losses[0]:.6g} at 2" in read.texts, "a point tells its value"
    assert sum(tag == "polyline" for tag, _ in read.elements) >= 10


def test_nothing_is_fetched_and_nothing_runs(page: str) -> None:
    read = Reader(page)
    tags = {tag for tag, _ in read.elements}
    assert not tags & {
        "script",
        "img",
        "link",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
        "a",
        "image",
        "use",
    }
    names = {name for _, attributes in read.elements for name in attributes}
    assert not {name for name in names if name.startswith("on")} | (
        names & {"src", "href", "xlink:href", "style"}
    )
    assert not re.search(r"url\(|@import|https?:", page)
    policy = next(a["content"] for t, a in read.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def hostile_run(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> str:
    """The report of a run whose texts, name and file names mean harm."""
    folder = "runs/<b onclick=x>&amp;"
    line = {"source": HOSTILE, "target": HOSTILE}
    Path("evil'<i>.jsonl").write_text(
        3 * (json.dumps(line) + "\n" + json.dumps({**line, "source": "a"}) + "\n")
    )
    monkeypatch.setattr(validation, "_predict", lambda trainer, sources: [HOSTILE for _ in sources])
    finetune(recipe('data.validation="evil\'<i>.jsonl"', "training.max_steps=2", f'output="{folder}"'))
    return (Path(folder) / "report.html").read_text(encoding="utf-8")


def test_hostile_texts_stay_texts(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    page = hostile_run(recipe, monkeypatch)
    read = Reader(page)
    assert not {tag for tag, _ in read.elements} & {"script", "img", "b i", "i href"}
    assert "<b onclick=x>&amp;" in read.texts
    shown = HOSTILE.replace("\u202e\x00\x1b", "\\u{202e}\\u{0}\\u{1b}")
    assert read.texts.count(shown) >= 3
    assert not set(page) & {"\u202e", "\x00", "\x1b"}
    assert not any(name.startswith("on") for _, attributes in read.elements for name in attributes)


def test_text_shows_what_cannot_be_seen() -> None:
    assert text("a\tb\n\"<&>'\ud800\u2028") == "a\tb\n&quot;&lt;&amp;&gt;&#x27;\\u{d800}\\u{2028}"


def test_it_is_there_from_the_first_evaluation_on(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([2.0])
    monkeypatch.setattr(validation, "_loss", lambda trainer: next(losses))
    with pytest.raises(StopIteration):
        finetune(recipe("training.eval_steps=1", "training.max_steps=3"))
    said = Reader((RUN / "report.html").read_text()).said
    assert "step 1 of 3 · in progress · best step 1" in said
    assert not list(RUN.glob(".report*")), "written aside, then renamed"


def test_a_disk_that_refuses_the_report_does_not_end_the_run(
    recipe: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "write_file", refuse)
    assert finetune(recipe("training.max_steps=2"))["steps"] == 2
    assert "report.html could not be written: No space left on device" in capsys.readouterr().err


def test_without_validation_and_source_there_is_less_to_say(recipe: Make) -> None:
    made = ONE_SIDED.format(side="decoder", family="gpt2", config=GPT2, objective="causal_lm")
    made = made.replace(", validation: text.txt", "").replace(
        "eval_steps: 10", "max_steps: 4, logging_steps: 1"
    )
    finetune(recipe(text=made))
    said = Reader(Path("runs/one/report.html").read_text()).said
    assert "Target lengths, training" in said
    assert "Source lengths" not in said
    assert "Samples" not in said


def test_warnings_stand_on_top(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "_sensitivity", lambda trainer: {"source_sensitivity": 0.0001})
    finetune(recipe("training.max_steps=2"))
    assert "The output hardly depends on the source" in Reader((RUN / "report.html").read_text()).said


def test_bars_hold_every_row_once() -> None:
    assert histogram(np.array([3, 3, 5])) == [(3, 2), (4, 0), (5, 1)]
    lengths = np.random.default_rng(0).integers(1, 500, 1000)
    bars = histogram(lengths)
    assert sum(count for _, count in bars) == 1000
    assert len(bars) <= 24
    width = bars[1][0] - bars[0][0]
    middle, count = bars[7]
    assert count == ((lengths > middle - width / 2) & (lengths < middle + width / 2)).sum()


# -- a real browser -----------------------------------------------------------------------------------------

browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here (Debian's package of that name)")


def browse(file: Path, *options: str) -> str:
    """What a headless Chromium without network prints."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         f"--user-data-dir={file.parent.resolve() / 'profile'}", "--virtual-time-budget=2000", *options,
         file.resolve().as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@browser
def test_a_browser_shows_it_on_a_phone(page: str, tmp_path: Path) -> None:
    file = tmp_path / "page" / "report.html"
    file.parent.mkdir()
    # the one thing that the page does not do by itself: say how wide it has become
    probe = (
        "<script>addEventListener('load', () => { const svg = [...document.querySelectorAll('svg')];"
        "document.body.dataset.seen = JSON.stringify({wide: document.documentElement.scrollWidth,"
        "window: innerWidth, least: Math.min(...svg.map(s => s.getBoundingClientRect().height)),"
        "pens: [...new Set(svg.flatMap(s => [...s.querySelectorAll('.pen-0')]).map(e => getComputedStyle(e)"
        ".stroke))]}) })</script></body>"
    )
    file.write_text(re.sub("<meta http-equiv[^>]*>", "", page).replace("</body>", probe), encoding="utf-8")
    frame = file.with_name("frame.html")
    frame.write_text(
        "<body style='margin:0'><iframe src=report.html style='width:400px;height:900px;border:0'></iframe>"
        "<script>addEventListener('load', () => setTimeout(() => { document.title ="
        "frames[0].document.body.dataset.seen }, 100))</script>"
    )
    title = re.search("<title>(.*?)</title>", browse(frame, "--dump-dom", "--allow-file-access-from-files"))
    assert title is not None
    seen = json.loads(title[1])
    assert seen["window"] == 400
    assert seen["wide"] <= 400, "nothing sticks out at the side"
    assert seen["least"] > 100, "every chart has its size"
    assert seen["pens"] == ["rgb(11, 97, 164)"]


@browser
def test_a_browser_runs_nothing_of_hostile_texts(
    recipe: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "page").mkdir()
    file = tmp_path / "page" / "report.html"
    file.write_text(hostile_run(recipe, monkeypatch), encoding="utf-8")
    dom = browse(file, "--dump-dom")
    assert "<title>&lt;b onclick=x&gt;&amp;amp; · s2s report</title>" in dom
    assert "<img" not in dom
    assert "<script" not in dom
    assert dom.count("<svg") >= 8


@browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_draws_it(page: str, tmp_path: Path, scheme: str) -> None:
    file = tmp_path / "page" / "report.html"
    file.parent.mkdir()
    file.write_text(page, encoding="utf-8")
    picture = tmp_path / f"{scheme}.png"
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    browse(file, f"--screenshot={picture}", "--window-size=1100,2600", *dark)
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert picture.stat().st_size > 20_000, "an empty page is smaller"
    probe = "<script>document.title = getComputedStyle(document.body).backgroundColor</script></body>"
    file.write_text(re.sub("<meta http-equiv[^>]*>", "", page).replace("</body>", probe), encoding="utf-8")
    ground = {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 27)"}[scheme]
    assert f"<title>{ground}</title>" in browse(file, "--dump-dom", *dark)
