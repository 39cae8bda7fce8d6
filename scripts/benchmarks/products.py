"""The products of decoding, laid out in every way that torch has on a CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.workload import FULL, Size

#: rows of the left matrix: a full batch, and one source
ROWS = (64, 1)

Product = Callable[[Any], Any]


def shapes(size: Size) -> list[tuple[int, int]]:
    """(in, out) of a layer's matrices and of the head's."""
    width = size.hidden_size
    return [(width, width), (width, 4 * width), (4 * width, width), (width, size.target_vocabulary)]


def products(folder: Path, mode: str, size: Size) -> Callable[[], list[dict[str, Any]]]:
    """GFLOP/s of [rows, in] x [in, out] for every shape and layout: the best of the repeats."""
    import torch

    @torch.inference_mode()
    def job() -> list[dict[str, Any]]:
        generator = torch.Generator().manual_seed(0)
        found = []
        for rows in ROWS:
            for inner, outer in shapes(size):
                x = torch.randn(rows, inner, generator=generator)
                weight = torch.randn(outer, inner, generator=generator)
                seconds = 0.3 if size.hidden_size == FULL.hidden_size else 0.001
                for layout, product in layouts(weight, rows).items():
                    given = x.to(torch.int8) if layout == INT8 else x
                    rate = 2 * rows * inner * outer / _best(product, given, seconds) / 1e9
                    found.append({"rows": rows, "in": inner, "out": outer, "layout": layout, "gflops": rate})
        return found

    return job


INT8 = "int8, torch._int_mm"


def layouts(weight: Any, rows: int) -> dict[str, Product]:
    """x [rows, in] -> x @ weight.T (or its transpose) for weight [out, in], however it lies in memory."""
    import torch
    from torch.nn import functional as F

    turned, whole = weight.t().contiguous(), weight.clamp(-3, 3).to(torch.int8)
    ways: dict[str, Product] = {
        "F.linear": lambda x: F.linear(x, weight),
        "weight laid [in, out]": lambda x: x @ turned,
        "weight @ x.T": lambda x: weight @ x.t(),
        INT8: lambda x: torch._int_mm(x, whole.t()),
    }
    ops: Any = torch.ops
    if torch.backends.mkldnn.is_available():
        ours = ops.mkldnn._reorder_linear_weight(weight, rows)
        ways["packed by oneDNN"] = lambda x: ops.mkldnn._linear_pointwise(x, ours, None, "none", [], "")
    if torch.backends.mkl.is_available():
        theirs = ops.mkl._mkl_reorder_linear_weight(weight, rows)
        ways["packed by MKL"] = lambda x: ops.mkl._mkl_linear(x, theirs, weight, None, rows)
    return ways


def _best(product: Product, x: Any, seconds: float) -> float:
    """Seconds of the quickest call among those that fit into ``seconds``, three at least."""
    product(x)
    times: list[float] = []
    ends = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < ends:
        begun = time.perf_counter()
        product(x)
        times.append(time.perf_counter() - begun)
    return min(times)


def table(found: list[dict[str, Any]]) -> list[list[str]]:
    """A line for each layout, a column for each product."""
    heads = list(dict.fromkeys((one["rows"], one["in"], one["out"]) for one in found))
    lines = [["GFLOP/s", *(f"[{rows}×{inner}]·[{inner}×{outer}]" for rows, inner, outer in heads)]]
    for layout in dict.fromkeys(one["layout"] for one in found):
        rates = {
            (one["rows"], one["in"], one["out"]): one["gflops"] for one in found if one["layout"] == layout
        }
        lines.append([layout, *(f"{rates[head]:.0f}" for head in heads)])
    return lines
