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

from benchmarks import learning, products, shown
from benchmarks.ctranslate import convert
from benchmarks.data import data_rows
from benchmarks.decoding import decode_rows
from benchmarks.epoch import epoch_rows
from benchmarks.families import FAMILIES, OLD, family_rows
from benchmarks.loading import load_rows
from benchmarks.measure import Row, machine_limits, startup_rows, train_rows
from benchmarks.passes import pass_rows
from benchmarks.sampling import sampling_rows
from benchmarks.scale import decode_points, line_points
from benchmarks.scale_train import train_points
from benchmarks.worker import Worker
from benchmarks.workload import FULL, MODES, QUICK, Size, parts_of, write_bart, write_pair

#: what of training is measured: W2 and W2b
_TRAINING = ("step", "epoch")
#: what is varied of: W6, and training steps
_SCALED = ("decoding", "lines", "training")
_PEERS = ("transformers", "ctranslate2")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one kind of benchmark; 0 when it ran, whatever it found."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] in (["quality"], ["warm-start"]):
        return learning.main(given)
    options = _options(given)
    size = QUICK if options.quick else FULL
    measure = {"products": _products, "scale": _scale}.get(options.kind, _beside)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        limits = machine_limits(folder, size, options.threads)
        found, text = measure(options, folder, size, limits)
    machine = _machine(options, limits)
    if options.json:
        print(json.dumps({"machine": machine, **found}, indent=2))
    else:
        print(f"{text}\n\n{' · '.join(f'{name} {value}' for name, value in machine.items())}")
    return 0


def _beside(
    options: argparse.Namespace, folder: Path, size: Size, limits: dict[str, float]
) -> tuple[dict[str, Any], str]:
    """Rows of s2s beside its peer, as JSON and as text."""
    pairs = options.pairs or (1 if options.quick else 5)
    _say(f"{options.kind}: {pairs} pairs, s2s and {options.peer} in turn, {options.threads} threads")
    modes = options.only or MODES.get(options.peer, ())
    if options.peer == "ctranslate2":
        write_bart(folder, size)
        convert(folder, size, {parts_of(mode)[1] for mode in modes})
    else:
        # one needs a tokenizer, the other no model at all
        small = options.kind in ("startup", "sampling", "passes", "data")
        write_pair(folder, QUICK if small else size, tokenizer=options.kind == "startup")
    kinds: dict[str, Callable[..., Iterator[Row]]] = {
        "decode": partial(decode_rows, modes=modes),
        "train": partial(_training, parts=options.only or _TRAINING, count=options.texts or size.pairs),
        "startup": startup_rows,
        "load": load_rows,
        "data": data_rows,
        "sampling": sampling_rows,
        "passes": pass_rows,
        "families": partial(
            family_rows, families=options.only or FAMILIES, old_python=options.old_transformers
        ),
    }
    measure, rows = kinds[options.kind], []
    for row in measure(folder, size, peer=options.peer, pairs=pairs, threads=options.threads, limits=limits):
        _say(f"  {row.name}: {row.s2s:.4g} and {row.peer:.4g} {row.unit}")
        rows.append(row)
    return {"pairs": pairs, "rows": [row.as_json() for row in rows]}, shown.rows(rows, options.peer)


def _training(folder: Path, size: Size, *, parts: Sequence[str], count: int, **given: Any) -> Iterator[Row]:
    if "step" in parts:
        yield from train_rows(folder, size, **given)
    if "epoch" in parts:
        yield from epoch_rows(folder, size, count=count, **given)


def _scale(
    options: argparse.Namespace, folder: Path, size: Size, limits: dict[str, float]
) -> tuple[dict[str, Any], str]:
    """Curves of time and memory."""
    pairs = options.pairs or (1 if options.quick else 3)
    _say(f"scale: {pairs} pairs, s2s and {options.peer} in turn, {options.threads} threads")
    given: dict[str, Any] = {"quick": options.quick, "peer": options.peer, "pairs": pairs}
    given |= {"threads": options.threads, "limits": limits}
    counts = (10, 100) if options.quick else tuple(10**power for power in range(2, 7))
    parts = {
        "decoding": decode_points(folder, size, **given),
        "lines": line_points(folder.with_name("tiny"), counts, options.threads),
        "training": train_points(folder, size, **given),
    }
    points = []
    for name in options.only or _SCALED:
        for point in parts[name]:
            _say(f"  {point.curve} {point.value}: {point.s2s.seconds:.3g} s, {point.s2s.peak_mb:.0f} MB")
            points.append(point)
    if options.plot:
        note = f"{options.threads} threads, {platform.machine()}; arithmetic: at the machine's best rate"
        Path(options.plot).write_text(shown.plot(points, options.peer, note), encoding="utf-8")
    found = {"points": [point.as_json() for point in points], "growth": shown.growths(points)}
    return {"pairs": pairs, **found}, shown.curves(points, options.peer)


def _products(
    options: argparse.Namespace, folder: Path, size: Size, limits: dict[str, float]
) -> tuple[dict[str, Any], str]:
    """Products in every layout, by torch alone."""
    with Worker("machine", "products", "", folder=folder, size=size, threads=options.threads) as worker:
        found = worker.measure()["made"]
    return {"products": found}, shown.columns(products.table(found))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, those that do not go together refused."""
    modes = tuple(dict.fromkeys(mode for of_peer in MODES.values() for mode in of_peer))
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Speed and memory of s2s beside another program: same weights, same inputs, same number "
        "of tokens, same threads, in turn. Medians; the ratio is the median of the pairs' ratios. What is "
        "learnt in the same minutes: scripts/bench quality|warm-start --help.",
    )
    kinds = ("decode", "train", "startup", "load", "data", "families", "scale", "products")
    kinds += ("sampling", "passes")
    parser.add_argument("kind", choices=kinds, help="what is measured")
    parser.add_argument("--peer", choices=_PEERS, default="transformers", help="measured beside s2s")
    parser.add_argument(
        "--only",
        action="append",
        choices=(*modes, *_TRAINING, *_SCALED, *FAMILIES),
        metavar="ROW",
        help=f"of decode ({', '.join(modes)}), train ({', '.join(_TRAINING)}), scale ({', '.join(_SCALED)}) "
        "or families (a family's name): this row (may be repeated)",
    )
    parser.add_argument("--texts", type=_count, help=f"of train: pairs of W2b's epoch (default {FULL.pairs})")
    parser.add_argument("--pairs", type=_count, help="measurements of each program (default 5, of scale 3)")
    parser.add_argument("--threads", type=_count, default=2, help="threads of each program (default 2)")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument(
        "--old-transformers",
        metavar="PYTHON",
        help=f"the interpreter with transformers 4.30.2, which {OLD} is measured beside",
    )
    parser.add_argument("--plot", metavar="FILE", help="of scale: draw the curves into this SVG file")
    options = parser.parse_args(arguments)
    if options.peer == "ctranslate2" and options.kind != "decode":
        parser.error(f"{options.kind} is not measured beside ctranslate2, only decode is")
    if options.plot and options.kind != "scale":
        parser.error(f"--plot draws scale, not {options.kind}")
    if options.texts and options.kind != "train":
        parser.error(f"--texts belongs to train, not to {options.kind}")
    rows = {"decode": MODES[options.peer], "train": _TRAINING, "scale": _SCALED, "families": FAMILIES}
    known = rows.get(options.kind, ())
    for row in options.only or ():
        if row not in known:
            parser.error(f"{options.kind} has no row {row!r} beside {options.peer}")
    if options.kind == "passes":
        options.peer = "torch"
    wanted = options.only or FAMILIES
    if options.kind == "families" and OLD in wanted and not options.old_transformers:
        parser.error(f"{OLD} needs --old-transformers PYTHON, or leave it out with --only")
    return options


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _machine(options: argparse.Namespace, limits: dict[str, float]) -> dict[str, Any]:
    from importlib.metadata import version

    peer = () if options.kind == "products" else (options.peer,)
    return {
        "cores": os.cpu_count(),
        "threads": options.threads,
        "load": round(os.getloadavg()[0], 2),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", *peer, "s2s")},
        **{name: round(value, 1) for name, value in limits.items()},
    }


if __name__ == "__main__":
    # an ordinary end, so that the workers stop and the folder of the model goes
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        sys.exit(main())
    except RuntimeError as error:
        sys.exit(f"scripts/bench: {error}")
