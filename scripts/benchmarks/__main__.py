"""scripts/bench: measure s2s and another program in turn, and print both with their ratio."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.families import FAMILIES, family_rows
from benchmarks.loading import load_rows
from benchmarks.measure import Row, decode_rows, machine_limits, startup_rows, train_rows
from benchmarks.workload import DECODING, FULL, QUICK, write_pair


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one kind of benchmark; 0 when it ran, whatever it found."""
    options = _parser().parse_args(arguments)
    size = QUICK if options.quick else FULL
    pairs = options.pairs or (1 if options.quick else 5)
    _say(f"{options.kind}: {pairs} pairs, s2s and {options.peer} in turn, {options.threads} threads")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "pair"
        startup = options.kind == "startup"
        write_pair(folder, QUICK if startup else size, tokenizer=startup)
        limits = machine_limits(folder, size, options.threads)
        kinds: dict[str, Callable[..., Iterator[Row]]] = {
            "decode": partial(decode_rows, modes=options.only or tuple(DECODING)),
            "train": train_rows,
            "startup": startup_rows,
            "load": load_rows,
            "families": partial(family_rows, families=options.only or FAMILIES),
        }
        measure = kinds[options.kind]
        rows = []
        for row in measure(
            folder, size, peer=options.peer, pairs=pairs, threads=options.threads, limits=limits
        ):
            _say(f"  {row.name}: {row.s2s:.4g} and {row.peer:.4g} {row.unit}")
            rows.append(row)
    machine = _machine(options.threads, limits)
    if options.json:
        print(
            json.dumps(
                {"machine": machine, "pairs": pairs, "rows": [row.as_json() for row in rows]}, indent=2
            )
        )
    else:
        print(_table(rows, machine, options.peer))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Speed and memory of s2s beside another program: same weights, same inputs, same number "
        "of tokens, same threads, in turn. Medians; the ratio is the median of the pairs' ratios.",
    )
    parser.add_argument(
        "kind", choices=("decode", "train", "startup", "load", "families"), help="what is measured"
    )
    parser.add_argument(
        "--peer", choices=("transformers",), default="transformers", help="measured beside s2s"
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=(*DECODING, *FAMILIES),
        help="of decode or families: this row (may be repeated)",
    )
    parser.add_argument("--pairs", type=_count, help="measurements of each program (default 5)")
    parser.add_argument("--threads", type=_count, default=2, help="threads of each program (default 2)")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _machine(threads: int, limits: dict[str, float]) -> dict[str, Any]:
    from importlib.metadata import version

    return {
        "cores": os.cpu_count(),
        "threads": threads,
        "load": round(os.getloadavg()[0], 2),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "s2s")},
        **{name: round(value, 1) for name, value in limits.items()},
    }


def _table(rows: Sequence[Row], machine: dict[str, Any], peer: str) -> str:
    heads = ["", "unit", "s2s", peer, "speed-up", "by CPU time", "wanted", "limit"]
    heads += ["memory MB", "ratio", "wanted", "same output"]
    lines = [heads, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    shown = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    shown.append("")
    shown.append(" · ".join(f"{name} {value}" for name, value in machine.items()))
    return "\n".join(shown)


if __name__ == "__main__":
    # an ordinary end, so that the workers stop and the folder of the model goes
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        sys.exit(main())
    except RuntimeError as error:
        sys.exit(f"scripts/bench: {error}")
