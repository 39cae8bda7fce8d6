"""What became of every parameter when a model was put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """Parameter name (ours) -> number of values: read from a file, new, or in a file but unused."""

    loaded: Mapping[str, int] = field(default_factory=dict)
    fresh: Mapping[str, int] = field(default_factory=dict)
    unused: Mapping[str, int] = field(default_factory=dict)

    def prefixed(self, prefix: str) -> LoadReport:
        """The same under ``prefix.``, as part of a larger model."""

        def renamed(names: Mapping[str, int]) -> dict[str, int]:
            return {f"{prefix}.{name}": size for name, size in names.items()}

        return LoadReport(loaded=renamed(self.loaded), fresh=renamed(self.fresh), unused=renamed(self.unused))

    def __add__(self, other: LoadReport) -> LoadReport:
        return LoadReport(
            loaded={**self.loaded, **other.loaded},
            fresh={**self.fresh, **other.fresh},
            unused={**self.unused, **other.unused},
        )

    def by_part(self, part_of: Callable[[str], str]) -> dict[str, dict[str, int]]:
        """part -> {"loaded": n, "fresh": n, "unused": n}, counted in single values."""
        table: dict[str, dict[str, int]] = {}
        for column in ("loaded", "fresh", "unused"):
            for name, size in getattr(self, column).items():
                row = table.setdefault(part_of(name), {"loaded": 0, "fresh": 0, "unused": 0})
                row[column] += size
        return table


def part_of(name: str) -> str:
    """The part that a parameter of a pair belongs to: encoder, decoder, cross_attention or projection."""
    if name.startswith("projection"):
        return "projection"
    if ".cross_attention." in name or ".cross_norm." in name:
        return "cross_attention"
    return name.partition(".")[0] if name.startswith(("encoder.", "decoder.")) else "stack"
