"""What a model has learnt after the same minutes: s2s beside Seq2SeqTrainer, warm starts beside cold ones.

Each run is a process of its own. Both programs start from one folder with the same weights, see the same rows
in batches of the same number, and are scored on the test rows by one program with one way of decoding, so
that only the training differs. The rate falls to nothing over the minutes, so their steps are counted before:
all ways to train are timed over a few, one after the other at the start, and then each takes as many as fill
the minutes, whatever the machine does beside it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

from benchmarks.shown import columns

#: steps that are timed, once for each way to train; the first two of them do not count
_PROBED = 52


@dataclass(frozen=True, kw_only=True)
class Task:
    """A shipped recipe, the folder of its data, and what its outputs are scored by."""

    recipe: str
    folder: str
    metrics: tuple[str, ...]


TASKS = {
    "sql": Task(recipe="text-to-sql", folder="sql-advising", metrics=("exact_match", "bleu", "loss")),
    "summaries": Task(
        recipe="summaries", folder="summ-scitldr", metrics=("rouge1", "rouge2", "rougeL", "loss")
    ),
}
#: Rothe et al. (2020), table 1, with MiniLM on the sides that are not random
STARTS = {
    "random → random": ("model.random=both",),
    "MiniLM → random": ("model.random=decoder",),
    "MiniLM → MiniLM": (),
    "MiniLM → MiniLM, all shared": ("model.share=all",),
}


def main(arguments: Sequence[str]) -> int:
    """``scripts/bench quality`` and ``scripts/bench warm-start``."""
    options = _options(arguments)
    with tempfile.TemporaryDirectory() as place:
        run = _quality if options.kind == "quality" else _warm_starts
        found = run(options, Path(place))
    print(json.dumps(found, indent=2) if options.json else _table(found))
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("kind", choices=("quality", "warm-start"))
    parser.add_argument("data", type=Path, help="folder with sql-advising/ and summ-scitldr/ in it")
    parser.add_argument(
        "--task", action="append", choices=tuple(TASKS), help="default: both; warm-start: summaries"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, each run (default 10)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="default 1 2 3")
    parser.add_argument("--threads", type=int, default=2, help="of each run (default 2)")
    parser.add_argument("--steps", type=int, help="so many steps instead of minutes")
    parser.add_argument("--limit", type=int, help="score only so many test rows")
    parser.add_argument(
        "--rate",
        type=float,
        nargs="+",
        help="of quality: Seq2SeqTrainer alone, at these rates, not the recipe's",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser.parse_args(arguments)


def _quality(options: argparse.Namespace, place: Path) -> list[dict[str, Any]]:
    """Rows of scores: for each task and seed both programs, in turn."""
    found = []
    for name in options.task or TASKS:
        task = TASKS[name]
        recipe = _recipe(options, task, place)
        start = place / f"{name}-start"
        _child(options, "start", recipe, start)
        extra = [f"model={json.dumps({'encoder': str(start)})}"]
        rates = {
            f"transformers at {rate:g}": [f"training.learning_rate={rate}"] for rate in options.rate or ()
        }
        changes = rates or {"s2s": [], "transformers": []}
        ways = {way: _Way(options, way.split()[0], recipe, [*extra, *some]) for way, some in changes.items()}
        found += _trained(options, name, ways, recipe, place)
    return found


def _warm_starts(options: argparse.Namespace, place: Path) -> list[dict[str, Any]]:
    """Rows of scores: each way to start, trained by s2s for the same minutes."""
    found = []
    for name in options.task or ["summaries"]:
        task = TASKS[name]
        recipe = _recipe(options, task, place)
        ways = {
            start: _Way(options, "s2s", recipe, ["model.share=none", *changes], fresh=True)
            for start, changes in STARTS.items()
        }
        found += _trained(options, name, ways, recipe, place)
    return found


def _trained(
    options: argparse.Namespace, name: str, ways: Mapping[str, _Way], recipe: Path, place: Path
) -> Iterator[dict[str, Any]]:
    """Rows of scores of a task: each seed in all ways, in turn."""
    for number, way in enumerate(ways.values()):
        way.count(place / f"{name}-probe-{number}")
    for seed in options.seeds:
        for number, (run, way) in enumerate(ways.items()):
            out = place / f"{name}-{seed}-{number}"
            made = way.train(out, seed)
            row = {"task": name, "run": run, "seed": seed, **made}
            row |= _scores(options, TASKS[name], recipe, out)
            _say(row)
            yield row


def _recipe(options: argparse.Namespace, task: Task, place: Path) -> Path:
    """The shipped recipe over the task's data, validated at its end alone."""
    from seq2seq_cli.recipe import load_recipe
    from seq2seq_cli.resources import folder

    path = place / f"{task.recipe}.yaml"
    data = options.data / task.folder
    splits = (("train", "train"), ("validation", "dev"), ("test", "test"))
    sets = [f"data.{key}={json.dumps(str((data / f'{file}.jsonl').resolve()))}" for key, file in splits]
    sets += ["training.eval_samples=0", "training.eval_steps=1000000", "training.save_steps=1000000"]
    sets += ["training.logging_steps=20", "training.metric_for_best_model=loss"]
    path.write_text(
        load_recipe(folder("recipes") / f"{task.recipe}.yaml", sets).dump_yaml(), encoding="utf-8"
    )
    return path


class _Way:
    """A program and what it is asked for. ``fresh``: each seed draws its own fresh parameters."""

    def __init__(
        self,
        options: argparse.Namespace,
        program: str,
        recipe: Path,
        changes: Sequence[str],
        *,
        fresh: bool = False,
    ) -> None:
        self._options, self._program, self._recipe, self._changes = options, program, recipe, changes
        self._steps: int = options.steps or 0
        self._fresh = fresh

    def count(self, out: Path) -> None:
        """Find out how many steps fill the minutes, unless it was said."""
        if not self._steps:
            probe = self._run(out, self._options.seeds[0], _PROBED)
            self._steps = max(1, math.floor(60 * self._options.minutes / probe["step"]))

    def train(self, out: Path, seed: int) -> dict[str, Any]:
        """Train into ``out``; the steps taken and the seconds they took."""
        made = self._run(out, seed, self._steps)
        return {"steps": self._steps, "seconds": round(made["seconds"], 1)}

    def _run(self, out: Path, seed: int, steps: int) -> dict[str, Any]:
        changes = [*self._changes, f"training.seed={seed}"]
        changes += [f"model.seed={seed}"] if self._fresh else []
        return _child(self._options, self._program, self._recipe, out, *changes, steps=steps)


def _child(
    options: argparse.Namespace, job: str, recipe: Path, out: Path, *changes: str, steps: int = 0
) -> dict[str, Any]:
    """One job in a process of its own; what it says on its last line."""
    order = {"job": job, "recipe": str(recipe), "out": str(out), "changes": list(changes), "steps": steps}
    return _run(options, [sys.executable, "-m", "benchmarks.learner", json.dumps(order)])


def _scores(options: argparse.Namespace, task: Task, recipe: Path, model: Path) -> dict[str, Any]:
    """s2s evaluate: greedy for both, whatever the recipe's generation says."""
    command = [sys.executable, "-m", "seq2seq_cli", "-q", "evaluate", str(recipe), "-m", str(model)]
    command += ["--metrics", ",".join(task.metrics), "--num-beams", "1"]
    command += ["--limit", str(options.limit)] if options.limit else []
    found = _run(options, command)
    return {name: round(found[name], 3) for name in task.metrics}


def _run(options: argparse.Namespace, command: list[str]) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:6])} failed ({done.returncode}):\n{done.stderr[-2000:]}")
    text = done.stdout.strip()
    found: dict[str, Any] = json.loads(text if text.startswith("{\n") else text.split("\n")[-1])
    return found


def _say(row: dict[str, Any]) -> None:
    print("  " + " · ".join(f"{key} {value}" for key, value in row.items()), file=sys.stderr, flush=True)


def _table(found: list[dict[str, Any]]) -> str:
    """Means over the seeds, and how far they spread."""
    blocks = []
    for task in dict.fromkeys(row["task"] for row in found):
        metrics = TASKS[task].metrics
        lines = [[task, "seeds", "steps", *metrics]]
        for name in dict.fromkeys(row["run"] for row in found if row["task"] == task):
            rows = [row for row in found if (row["task"], row["run"]) == (task, name)]
            cells = [
                f"{mean(row[m] for row in rows):.2f} ± {pstdev([row[m] for row in rows]):.2f}"
                for m in metrics
            ]
            lines.append([name, str(len(rows)), f"{mean(row['steps'] for row in rows):.0f}", *cells])
        blocks.append(columns(lines))
    return "\n\n".join(blocks)
