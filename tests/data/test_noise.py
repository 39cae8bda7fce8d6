"""Holes in texts: beside a plain reading of the papers, every lay equally likely, shares as published."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from seq2seq_cli.data.noise import (
    DEFAULTS,
    Kind,
    Noise,
    infilled,
    span_counts,
    span_lengths,
    span_limit,
    spans,
)

MASK = 999
SENTINELS = tuple(range(1000, 1100))


def noise(kind: Kind, density: float | None = None, mean: float | None = None) -> Noise:
    usual = DEFAULTS[kind]
    marks = (MASK,) if kind == "infilling" else SENTINELS
    return Noise(kind=kind, density=density or usual[0], mean_span_length=mean or usual[1], marks=marks)


def draw(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def oracle_spans(
    ids: list[int], holes: list[bool], marks: tuple[int, ...] = SENTINELS
) -> tuple[list[int], list[int]]:
    """Source and target of a text with ``holes``, token by token."""
    source: list[int] = []
    target: list[int] = []
    used = 0
    for place, (number, hole) in enumerate(zip(ids, holes, strict=True)):
        if not hole:
            source.append(number)
            continue
        if place == 0 or not holes[place - 1]:
            source.append(marks[used])
            target.append(marks[used])
            used += 1
        target.append(number)
    return source, [*target, marks[used]]


def test_the_papers_defaults() -> None:
    assert DEFAULTS == {"infilling": (0.3, 3.0), "spans": (0.15, 3.0)}


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7, 20, 100, 511])
@pytest.mark.parametrize(("density", "mean"), [(None, None), (0.5, 1.0), (0.9, 3.0)])
def test_spans_are_those_of_the_oracle(length: int, density: float | None, mean: float | None) -> None:
    ids = list(range(1, length + 1))
    how = Noise(
        kind="spans",
        density=density or 0.15,
        mean_span_length=mean or 3.0,
        marks=tuple(range(1000, 1600)),
    )
    for seed in range(20):
        source, target = spans(np.array(ids, np.int64), how, draw(seed))
        inside = set(target.tolist()) - set(how.marks)
        wanted = oracle_spans(ids, [i in inside for i in ids], how.marks)
        assert (source.tolist(), target.tolist()) == wanted
        assert (len(source), len(target)) == span_lengths(length, how)
        assert len(inside) == span_counts(length, how)[0]


def test_every_lay_of_spans_is_equally_likely() -> None:
    how = noise("spans", 3 / 8, 1.5)
    assert span_counts(8, how) == (3, 2)
    ids = np.arange(1, 9)
    rng = draw(0)
    seen = Counter(tuple(spans(ids, how, rng)[0].tolist()) for _ in range(8000))
    possible = set()
    for holes in itertools.product([False, True], repeat=8):
        runs = [run for run, _ in itertools.groupby(holes) if run]
        if sum(holes) == 3 and len(runs) == 2:
            possible.add(tuple(oracle_spans(ids.tolist(), list(holes))[0]))
    assert set(seen) == possible
    expected = 8000 / len(possible)
    chi2 = sum((count - expected) ** 2 / expected for count in seen.values())
    assert chi2 < 1.7 * len(possible)


def test_span_shares_are_as_published() -> None:
    """512 tokens: 77 in 26 spans (Raffel et al. 2020, section 3.3.4: 15 % in spans of 3 on average)."""
    how = noise("spans")
    assert span_counts(512, how) == (77, 26)
    assert span_lengths(512, how) == (512 - 77 + 26, 77 + 26 + 1)


def test_texts_are_as_long_as_source_and_target_allow() -> None:
    how = noise("spans")
    for source, target in ((64, None), (None, 20), (64, 20), (5, 5)):
        limit = span_limit(how, source, target)
        for length, fits in ((limit, True), (limit + 1, False)):
            sizes = span_lengths(length, how)
            both = sizes[0] <= (source or sizes[0]) and sizes[1] <= (target or sizes[1])
            assert both is fits, (source, target, length)
    most = span_limit(how, None, None)
    assert span_counts(most, how)[1] == len(SENTINELS) - 1, "one sentinel ends the target"


def test_infilling_keeps_the_rest_in_order() -> None:
    ids = np.arange(1, 101)
    for seed in range(200):
        source = infilled(ids, noise("infilling"), draw(seed))
        left = source[source != MASK]
        assert len(left) == 70, "exactly 30 % of the tokens are gone"
        assert (np.diff(left) > 0).all()
        assert set(left.tolist()) <= set(ids.tolist())
        # every gap has a mask token in it
        whole = [0, *source.tolist(), 101]
        for one, two in itertools.pairwise(whole):
            assert MASK in (one, two) or two == one + 1
        assert len(source) <= len(ids)


def test_infilling_shares_are_as_published() -> None:
    """Poisson of 3, so one hole in twenty is empty: mask tokens where nothing is missing."""
    ids = np.arange(1, 2001)
    rng = draw(1)
    gaps: list[int] = []
    for _ in range(50):
        source = [0, *infilled(ids, noise("infilling"), rng).tolist(), 2001]
        places = [i for i, number in enumerate(source) if number != MASK]
        for one, two in itertools.pairwise(places):
            if two == one + 2:  # a single hole: holes side by side say nothing about one's length
                gaps.append(source[two] - source[one] - 1)
    share = Counter(gaps)
    total = len(gaps)
    assert np.mean(gaps) == pytest.approx(3.0, rel=0.03)
    for length, wanted in ((0, 0.0498), (1, 0.149), (2, 0.224), (3, 0.224), (4, 0.168)):
        assert share[length] / total == pytest.approx(wanted, abs=0.012)


def test_every_lay_of_holes_is_equally_likely() -> None:
    """Two tokens of four in holes; what is seen depends on the drawn lengths alone."""
    how = noise("infilling", 0.5, 2.0)
    rng = draw(2)
    ids = np.arange(1, 5)
    seen = Counter(tuple(infilled(ids, how, rng).tolist()) for _ in range(6000))
    one = [lay for lay in seen if lay.count(MASK) == 1]
    assert set(one) == {(MASK, 3, 4), (1, MASK, 4), (1, 2, MASK)}
    counts = [seen[lay] for lay in one]
    assert max(counts) < 1.15 * min(counts)
    two = Counter({lay: n for lay, n in seen.items() if lay.count(MASK) == 2})
    assert all(len(lay) == 4 for lay in two)
    assert (1, MASK, MASK, 4) in two


def test_short_texts() -> None:
    how = noise("infilling")
    assert infilled(np.array([], np.int64), how, draw(0)).tolist() == []
    assert {tuple(infilled(np.array([7]), how, draw(s)).tolist()) for s in range(30)} == {(MASK,)}
    source, target = spans(np.array([7]), noise("spans"), draw(0))
    assert (source.tolist(), target.tolist()) == ([1000], [1000, 7, 1001])
    for seed in range(100):
        assert len(infilled(np.arange(1, 4), noise("infilling", 0.3, 1.0), draw(seed))) <= 3
