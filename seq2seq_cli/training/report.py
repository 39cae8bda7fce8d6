"""report.html: what a run has come to so far, as one file that needs nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seq2seq_cli import console
from seq2seq_cli.charts import Line, Panel
from seq2seq_cli.environment import describe
from seq2seq_cli.training.report_data import Histogram, data_facts
from seq2seq_cli.training.report_page import Chart, Page, Table, html_of
from seq2seq_cli.training.runfolder import LOG_FILE, REPORT_FILE, write_file
from seq2seq_cli.training.sensitivity import LITTLE

if TYPE_CHECKING:
    from seq2seq_cli.training.setup import Prepared
    from seq2seq_cli.training.state import RunState

Record = Mapping[str, Any]

#: evaluations whose samples are shown, the newest first
_SHOWN_EVALUATIONS = 5


def write_report(run: Path, prepared: Prepared, state: RunState) -> None:
    """Write the report of ``run`` from its log, replacing an earlier one as a whole. A disk that refuses
    costs a warning: nothing depends on this file."""
    try:
        page = _page(run, prepared, state, read_log(run / LOG_FILE))
        write_file(run / REPORT_FILE, html_of(page))
    except OSError as error:
        console.warn(f"{run / REPORT_FILE} could not be written: {error.strerror}")


def read_log(path: Path) -> list[Record]:
    """The lines of a log; [] where there is none yet."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def _page(run: Path, prepared: Prepared, state: RunState, log: Sequence[Record]) -> Page:
    facts, histograms = data_facts(prepared)
    evaluations = [record for record in log if "evaluation" in record]
    samples = [record for record in evaluations if record.get("samples")][-_SHOWN_EVALUATIONS:]
    return Page(
        title=run.name,
        status=_status(prepared, state),
        warnings=_warnings(state, evaluations),
        figures=_figures(state, log),
        charts=[*_loss_charts(log), *_metric_charts(evaluations), *_step_charts(log)],
        samples=[
            Table(
                title=f"Step {record['step']}",
                head=("source", "prediction", "reference"),
                rows=[tuple(s[k] for k in ("source", "prediction", "reference")) for s in record["samples"]],
            )
            for record in reversed(samples)
        ],
        data=Table(title="", head=("", "training", "validation"), rows=facts),
        histograms=[_histogram(each) for each in histograms],
        parts=_parts(prepared),
        environment=Table(
            title="", head=("", ""), rows=[(name, _plain(value)) for name, value in describe().items()]
        ),
        recipe=prepared.recipe.dump_yaml(),
    )


def _status(prepared: Prepared, state: RunState) -> str:
    reasons = {
        "steps": "finished",
        "early_stopping": "finished: no better evaluation for a while",
        "max_minutes": "finished: the time was up",
    }
    told = reasons.get(state.finished, "in progress")
    best = f" · best step {state.best_step}" if state.best_step is not None else ""
    return f"{prepared.recipe.training.objective} · step {state.step} of {prepared.plan.total} · {told}{best}"


def _warnings(state: RunState, evaluations: Sequence[Record]) -> list[str]:
    found = []
    values = evaluations[-1]["evaluation"] if evaluations else {}
    if values.get("source_sensitivity", LITTLE) < LITTLE:
        found.append("The output hardly depends on the source: see source sensitivity.")
    if state.skipped:
        found.append(f"Steps skipped because their numbers were not finite: {state.skipped}.")
    return found


def _figures(state: RunState, log: Sequence[Record]) -> list[tuple[str, str]]:
    losses = [record["loss"] for record in log if "loss" in record]
    found = [("training loss", _plain(losses[-1]))] if losses else []
    evaluations = [record["evaluation"] for record in log if "evaluation" in record]
    last = evaluations[-1] if evaluations else {}
    found += [(f"validation {name.replace('_', ' ')}", _plain(value)) for name, value in last.items()]
    seconds = max(1e-9, state.seconds)
    return [
        *found,
        ("target tokens", f"{state.tokens_seen:,}"),
        ("target tokens/s", f"{state.tokens_seen / seconds:,.0f}"),
        ("hours in training", f"{state.seconds / 3600:.2f}"),
    ]


def _parts(prepared: Prepared) -> Table:
    rows = []
    for part in prepared.parts.parts:
        total = sum(p.numel() for _, p in part.parameters)
        fresh = sum(p.numel() for name, p in part.parameters if name in prepared.fresh)
        rate = "frozen" if part.frozen else f"{part.peak:g}"
        rows.append((part.name, f"{total:,}", f"{total - fresh:,}", f"{fresh:,}", rate))
    return Table(title="", head=("part", "parameters", "loaded", "fresh", "learning rate"), rows=rows)


def _loss_charts(log: Sequence[Record]) -> list[Chart]:
    learnt = _points([r for r in log if "loss" in r], "loss")
    checked = _points([{"step": r["step"], **r["evaluation"]} for r in log if "evaluation" in r], "loss")
    return _chart("Loss", {"training": learnt, "validation": checked})


def _metric_charts(evaluations: Sequence[Record]) -> list[Chart]:
    records = [{"step": record["step"], **record["evaluation"]} for record in evaluations]
    names = dict.fromkeys(name for record in evaluations for name in record["evaluation"])
    charts = []
    for name in (name for name in names if name != "loss"):
        title = name.replace("_", " ").capitalize()
        lines = {name.replace("_", " "): _points(records, name)}
        if name == "source_sensitivity":
            ends = [(x, LITTLE) for x, _ in lines["source sensitivity"]]
            charts += _chart(title, {**lines, "hardly listens": ends}, note="nats a target token")
        else:
            charts += _chart(title, lines)
    return charts


def _step_charts(log: Sequence[Record]) -> list[Chart]:
    steps = [record for record in log if "tokens_seen" in record]
    speed = {"target tokens/s": _points(steps, "tokens_per_second")}
    return [
        *_chart("Learning rates", _by_part(steps, "learning_rate")),
        *_chart("Gradient norms before clipping", _by_part(steps, "grad_norm"), log_up=True),
        *_chart("Speed", speed),
    ]


def _by_part(records: Sequence[Record], key: str) -> dict[str, list[tuple[float, float]]]:
    names = dict.fromkeys(name for record in records for name in record[key])
    return {name: _points([{"step": r["step"], **r[key]} for r in records], name) for name in names}


def _points(records: Sequence[Record], key: str) -> list[tuple[float, float]]:
    return [(float(r["step"]), float(r[key])) for r in records if key in r and math.isfinite(r[key])]


def _chart(
    title: str,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    *,
    note: str = "",
    log_up: bool = False,
) -> list[Chart]:
    """The chart of the lines that have points; none where there are no points at all."""
    if log_up:
        lines = {name: [point for point in points if point[1] > 0] for name, points in lines.items()}
    shown = [
        Line(name=name, points=points, dashed=name == "hardly listens")
        for name, points in lines.items()
        if points
    ]
    if not shown:
        return []
    below = "step" + (f" · {note}" if note else "")
    return [Chart(title, Panel(title=title, below=below, lines=shown, log_across=False, log_up=log_up))]


def _histogram(found: Histogram) -> Chart:
    line = Line(name="rows", points=found.bars, bars=True)
    panel = Panel(title=found.title, below="tokens", lines=[line], log_across=False, log_up=False)
    return Chart(found.title, panel)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "-" if value is None else str(value)
