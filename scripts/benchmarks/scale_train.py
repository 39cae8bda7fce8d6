"""How the time and the memory of a training step grow with width, depth, source length and batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.measure import beside
from benchmarks.scale import Point, doubled, reading
from benchmarks.workload import Size, step_work, write_pair


def train_points(
    folder: Path, size: Size, *, quick: bool, peer: str, pairs: int, threads: int, limits: dict[str, float]
) -> Iterator[Point]:
    """Every point of every curve, s2s and the peer in turn, each point in processes of its own."""
    for name, sizes in train_curves(size, quick=quick).items():
        for value, sized in sizes.items():
            place = folder.with_name(f"{name}-{value}".replace(" ", "-"))
            write_pair(place, sized)
            both = beside("train", "", place, sized, peer=peer, pairs=pairs, threads=threads)
            work = step_work(sized)
            yield Point(
                curve=f"training: {name}",
                value=value,
                work=work,
                limit=work / limits["matmul_gflops"] / 1e9,
                s2s=reading(both, 0),
                peer=reading(both, 1),
            )


def train_curves(size: Size, *, quick: bool) -> dict[str, dict[int, Size]]:
    """By what is varied: the value, and the size of everything. The rest of each stands still at W2's."""
    base = replace(size, steps=1)
    if quick:
        widths, depths, lengths, batches = (32, 64), (1, 2), (16, 32), (1, 2)
    else:
        widths, depths, lengths, batches = (192, 384, 768), (3, 6, 12), doubled(32, 512), doubled(1, 64)
    head = size.hidden_size // size.num_heads
    return {
        "width": {n: replace(base, hidden_size=n, num_heads=n // head) for n in widths},
        "layers a side": {n: replace(base, num_layers=n) for n in depths},
        "source length": {n: replace(base, source_length=n) for n in lengths},
        "batch": {n: replace(base, batch=n) for n in batches},
    }
