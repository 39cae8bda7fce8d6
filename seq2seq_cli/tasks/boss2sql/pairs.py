"""Questions with their SQL, split so that neither wording nor values of a test row are seen in training."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import cycle, product
from random import Random
from typing import Literal

from seq2seq_cli.tasks.boss2sql import company

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")

_COUNT_WORDS = {2: "two", 3: "three", 5: "five", 10: "ten"}
_OPENERS = (
    "hey, ",
    "quick one: ",
    "good morning! ",
    "ok, ",
    "for the board: ",
    "sorry to bother you, ",
    "one more: ",
)
_CLOSERS = (", please", ", thanks", ", asap")


def _amounts(numbers: Sequence[int]) -> dict[str, tuple[str, ...]]:
    """A number as SQL -> how it is said: 40000 -> 40,000 or 40k."""
    return {str(n): (f"{n:,}", f"{n // 1000}k") if n >= 1000 else (str(n),) for n in numbers}


def _counts(numbers: Sequence[int]) -> dict[str, tuple[str, ...]]:
    return {str(n): (str(n), _COUNT_WORDS[n]) for n in numbers}


def _names(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    return {name: (name,) for name in names}


def _slots() -> dict[str, dict[str, tuple[str, ...]]]:
    people = company.person_names()
    heads = people[: len(company.DEPARTMENTS)]
    leads = people[len(heads) : 2 * len(heads)]
    sellers = [people[number - 1] for number in company.seller_ids()]
    salaries = _amounts((40_000, 50_000, 60_000, 80_000, 100_000))
    prices = _amounts((100, 200, 300, 400, 500))
    years = _names([str(year) for year in company.YEARS])
    return {
        "city": _names(company.CITIES),
        "department": _names(company.DEPARTMENTS),
        "title": {title: (title.lower(),) for title in company.TITLES},
        "industry": {name: (name.lower(),) for name in company.INDUSTRIES},
        "category": {name: (name.lower(),) for name in company.CATEGORIES},
        "status": _names(company.STATUSES),
        "project": _names(company.PROJECTS),
        # The customers that are well known enough to be asked for by name.
        "customer": _names(company.customer_names()[:20]),
        "product": _names(company.product_names()),
        "person": _names(leads + sellers),
        "boss": _names(heads + leads),
        "seller": _names(sellers),
        "n": _counts((3, 5, 10)),
        "few": _counts((2, 3, 5)),
        "salary": salaries,
        "low_salary": salaries,
        "high_salary": salaries,
        "price": prices,
        "low_price": prices,
        "high_price": prices,
        "stock": _amounts((50, 100, 200)),
        "total": _amounts((2000, 3000, 5000)),
        "orders": _amounts((10, 20, 30)),
        "project_budget": _amounts((100_000, 200_000, 300_000)),
        "hire_year": years,
        "first_hire_year": years,
        "last_hire_year": years,
        "order_year": years,
    }


#: slot -> its values as they stand in SQL -> the ways to say each in a question.
SLOTS: Mapping[str, Mapping[str, tuple[str, ...]]] = _slots()
_ASCENDING = (
    ("low_salary", "high_salary"),
    ("low_price", "high_price"),
    ("first_hire_year", "last_hire_year"),
)

Values = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Intent:
    """A kind of question: its SQL with {slots}, and the wordings of each split."""

    name: str
    sql: str
    wordings: Mapping[Split, tuple[str, ...]]

    def all_values(self) -> list[Values]:
        """Every combination of slot values that makes sense (ranges go up)."""
        slots = list(dict.fromkeys(re.findall(r"\{(\w+)\}", self.sql)))
        combinations = [
            dict(zip(slots, values, strict=True)) for values in product(*(SLOTS[s] for s in slots))
        ]
        return [
            values
            for values in combinations
            if all(int(values[low]) < int(values[high]) for low, high in _ASCENDING if low in values)
        ]

    def fill(self, values: Values) -> str:
        """The SQL for ``values``."""
        return self.sql.format_map({slot: value.replace("'", "''") for slot, value in values.items()})


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One row of a data file."""

    source: str
    target: str
    intent: str
    wording: str
    values: Values


def load_intents() -> tuple[Intent, ...]:
    """The intents of ``questions.txt``, in its order."""
    text = files(__package__).joinpath("questions.txt").read_text(encoding="utf-8")
    body = "\n".join(line for line in text.splitlines() if line and not line.startswith("#"))
    intents = []
    for block in body.split("== ")[1:]:
        name, sql, *lines = block.strip().split("\n")
        wordings: dict[Split, tuple[str, ...]] = {
            split: tuple(line[len(split) + 2 :] for line in lines if line.startswith(f"{split}: "))
            for split in SPLITS
        }
        intents.append(Intent(name=name, sql=sql, wordings=wordings))
    return tuple(intents)


@cache
def alternatives(wording: str) -> tuple[str, ...]:
    """Every text that the ``(a|b|)`` groups of a wording stand for, nested ones too; slots stay."""
    group = re.search(r"\(([^()]*)\)", wording)
    if group is None:
        return (wording,)
    before, after = wording[: group.start()], wording[group.end() :]
    texts = (text for choice in group[1].split("|") for text in alternatives(before + choice + after))
    return tuple(dict.fromkeys(texts))


def ask(wording: str, values: Values, random: Random) -> str:
    """One question: alternatives picked, slots filled, and the noise of people who type in a hurry."""
    text = random.choice(alternatives(wording))
    text = text.format_map({slot: random.choice(SLOTS[slot][value]) for slot, value in values.items()})
    text = re.sub(r"\b([Aa]) (?=[aeiouAEIOU])", r"\1n ", text)
    if random.random() < 0.15:
        end = "?" if text.endswith("?") else ""
        text = text.rstrip("?") + random.choice(_CLOSERS) + end
    if random.random() < 0.25:
        text = random.choice(_OPENERS) + text
    if random.random() < 0.3:
        text = text.rstrip("?")
    if random.random() < 0.2:
        return text.lower()
    return text[0].upper() + text[1:] if random.random() < 0.6 else text


def split_values(intent: Intent, usable: Sequence[Values], random: Random) -> dict[Split, list[Values]]:
    """Deal the value combinations of one intent out to the splits: each belongs to exactly one."""
    shuffled = random.sample(list(usable), len(usable))
    test, dev = max(1, len(shuffled) // 6), max(1, len(shuffled) // 12)
    return {"test": shuffled[:test], "dev": shuffled[test : test + dev], "train": shuffled[test + dev :]}


def questions(intent: Intent, split: Split, values: Sequence[Values], random: Random) -> Iterator[Pair]:
    """Different questions of one intent and split; ends when new ones have become rare."""
    seen: set[str] = set()
    misses = 0
    for combination in cycle(values):
        wording = random.choice(intent.wordings[split])
        source = ask(wording, combination, random)
        if source.lower() in seen:
            misses += 1
            if misses > 50:
                return
            continue
        misses = 0
        seen.add(source.lower())
        yield Pair(
            source=source,
            target=intent.fill(combination),
            intent=intent.name,
            wording=wording,
            values=combination,
        )


def take(streams: Sequence[Iterator[Pair]], count: int) -> list[Pair]:
    """``count`` pairs in turn from each intent's questions; fewer when all of them run dry."""
    pairs: list[Pair] = []
    waiting = list(streams)
    while waiting and len(pairs) < count:
        for stream in tuple(waiting):
            pair = next(stream, None)
            if pair is None:
                waiting.remove(stream)
            elif len(pairs) < count:
                pairs.append(pair)
    return pairs
