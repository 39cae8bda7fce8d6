"""The company that the bosses ask about: an invented one, in SQLite, made from a seed."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import date, timedelta
from itertools import product
from pathlib import Path
from random import Random

SCHEMA = """
CREATE TABLE departments (id INTEGER PRIMARY KEY, name TEXT NOT NULL, budget INTEGER NOT NULL);
CREATE TABLE employees (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, title TEXT NOT NULL,
    department_id INTEGER NOT NULL REFERENCES departments, city TEXT NOT NULL,
    salary INTEGER NOT NULL, hired TEXT NOT NULL, manager_id INTEGER REFERENCES employees
);
CREATE TABLE projects (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, department_id INTEGER NOT NULL REFERENCES departments,
    leader_id INTEGER NOT NULL REFERENCES employees, budget INTEGER NOT NULL, started TEXT NOT NULL
);
CREATE TABLE customers (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, industry TEXT NOT NULL, city TEXT NOT NULL
);
CREATE TABLE products (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, category TEXT NOT NULL,
    price INTEGER NOT NULL, stock INTEGER NOT NULL
);
CREATE TABLE orders (
    id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customers,
    employee_id INTEGER NOT NULL REFERENCES employees, ordered TEXT NOT NULL, status TEXT NOT NULL,
    total INTEGER NOT NULL
);
CREATE TABLE order_items (
    order_id INTEGER NOT NULL REFERENCES orders, product_id INTEGER NOT NULL REFERENCES products,
    quantity INTEGER NOT NULL, PRIMARY KEY (order_id, product_id)
);
"""


def _words(text: str) -> list[str]:
    return text.split()


# Few values, each in many questions: which words name a thing has to be learned from examples, and the
# demo has only minutes to do so.
CITIES = _words("Berlin London Paris Madrid Vienna Rome Oslo Dublin")
DEPARTMENTS = _words("Sales Engineering Support Marketing Finance Logistics Research Legal")
TITLES = _words("Accountant Analyst Assistant Consultant Designer Developer")
INDUSTRIES = _words("Banking Education Energy Healthcare Media Transport")
CATEGORIES = _words("Cameras Chairs Desks Lamps Phones Printers")
STATUSES = _words("shipped open cancelled returned")
PROJECTS = _words("Apollo Eclipse Galaxy Horizon Jupiter Phoenix Rocket Zenith")
YEARS = range(2020, 2025)

_FIRST_NAMES = _words(
    "Anna Ben Clara David Emma Felix Grace Henry Ida Jonas Karen Leo Maria Noah Olivia Peter"
)
_LAST_NAMES = _words(
    "Adams Baker Carter Duncan Ellis Fischer Garcia Hansen Ivanov Keller Lopez Moreau Novak Olsen Rossi "
    "Schmidt Turner Vogel Walsh Ziegler"
)
_CUSTOMER_WORDS = (
    _words("Blue Golden Green Red Royal Silver White"),
    _words("Bridge Castle Forest Harbor Island Mountain River Valley"),
)
_PRODUCT_LINES = _words("Aurora Comet Falcon Lotus Orion Titan")

#: Rows of the bigger tables, and how many employees lead a group (two in each department) or sell.
EMPLOYEES, CUSTOMERS, ORDERS, LEADS, SELLERS = 320, 56, 1200, 16, 8


def person_names() -> list[str]:
    """Every employee's name in the order of their ids: first the heads, then the leads, then the rest."""
    names = [f"{first} {last}" for first, last in product(_FIRST_NAMES, _LAST_NAMES)]
    Random("people").shuffle(names)
    return names[:EMPLOYEES]


def customer_names() -> list[str]:
    names = [f"{first} {second}" for first, second in product(*_CUSTOMER_WORDS)]
    Random("customers").shuffle(names)
    return names[:CUSTOMERS]


def product_names() -> list[str]:
    """``Falcon Chair``, ...: every line in every category, categories one after another."""
    return [f"{line} {category[:-1]}" for category in CATEGORIES for line in _PRODUCT_LINES]


def seller_ids() -> range:
    """The employees who take the orders; all of them are in Sales, the first department."""
    heads = len(DEPARTMENTS)
    return range(heads + LEADS + 1, heads + LEADS + 1 + SELLERS * heads, heads)


def _uneven(random: Random, values: Sequence[str], count: int) -> list[str]:
    """``count`` draws where early values come about three times as often as late ones."""
    weights = [3 - 2 * place / len(values) for place in range(len(values))]
    return random.choices(values, weights, k=count)


def _days(random: Random, years: range, count: int) -> list[str]:
    """``count`` dates within ``years``; all different while there are enough days."""
    start = date(years[0], 1, 1)
    days = (date(years[-1], 12, 31) - start).days + 1
    drawn = random.sample(range(days), count)
    return [(start + timedelta(days=day)).isoformat() for day in drawn]


def _employees(random: Random) -> list[tuple[object, ...]]:
    heads = len(DEPARTMENTS)
    cities, titles = _uneven(random, CITIES, EMPLOYEES), _uneven(random, TITLES, EMPLOYEES)
    hired = _days(random, YEARS, EMPLOYEES)
    salaries = random.sample(range(32_000, 121_000, 100), EMPLOYEES)
    rows: list[tuple[object, ...]] = []
    for number, name in enumerate(person_names()):
        # Heads lead a department and have no manager; two leads report to each head; the rest to a lead.
        department = number % heads
        if number < heads:
            manager = None
        elif number < heads + LEADS:
            manager = department + 1
        else:
            manager = heads + 1 + department + heads * random.randrange(LEADS // heads)
        rows.append(
            (
                number + 1,
                name,
                titles[number],
                department + 1,
                cities[number],
                salaries[number],
                hired[number],
                manager,
            )
        )
    # Move some people to bigger departments, so that departments differ in size and sellers stay in Sales.
    sellers = set(seller_ids())
    moved = random.sample([n for n in range(heads + LEADS, EMPLOYEES) if n + 1 not in sellers], 120)
    for number in moved:
        row = list(rows[number])
        row[3] = DEPARTMENTS.index(_uneven(random, DEPARTMENTS, 1)[0]) + 1
        rows[number] = tuple(row)
    return rows


def _orders(
    random: Random, prices: Sequence[int]
) -> tuple[list[tuple[object, ...]], list[tuple[int, int, int]]]:
    orders: list[tuple[object, ...]] = []
    items: list[tuple[int, int, int]] = []
    days = _days(random, YEARS, ORDERS)
    # The last customers never order, so that "who did not order" has an answer.
    buyers, sellers = range(1, CUSTOMERS - 3), seller_ids()
    for number in range(1, ORDERS + 1):
        basket = sorted(random.sample(range(len(prices)), random.choice((1, 1, 2, 2, 3))))
        quantities = [random.choice((1, 1, 2, 3, 5, 8)) for _ in basket]
        items += [(number, place + 1, many) for place, many in zip(basket, quantities, strict=True)]
        total = sum(prices[place] * many for place, many in zip(basket, quantities, strict=True))
        status = _uneven(random, STATUSES, 1)[0]
        orders.append(
            (number, random.choice(buyers), random.choice(sellers), days[number - 1], status, total)
        )
    return orders, items


def write_company(path: Path, *, seed: int = 0) -> None:
    """Write the database of ``seed`` to a new file at ``path``.

    Salaries, hire dates, order dates and prices are all different, so a ranking has one right answer.
    """
    random = Random(f"company {seed}")
    names = product_names()
    prices = random.sample(range(41, 990), len(names))
    orders, items = _orders(random, prices)
    employees = _employees(random)
    tables: dict[str, Sequence[tuple[object, ...]]] = {
        "departments": [
            (number, name, random.randrange(300_000, 3_000_000, 10_000))
            for number, name in enumerate(DEPARTMENTS, 1)
        ],
        "employees": employees,
        "projects": [
            (number, name, (number - 1) % len(DEPARTMENTS) + 1, leader, budget, day)
            for number, (name, leader, budget, day) in enumerate(
                zip(
                    PROJECTS,
                    random.sample(range(1, EMPLOYEES + 1), len(PROJECTS)),
                    random.sample(range(20_000, 400_000, 1_000), len(PROJECTS)),
                    _days(random, YEARS, len(PROJECTS)),
                    strict=True,
                ),
                1,
            )
        ],
        "customers": [
            (number, name, industry, city)
            for number, (name, industry, city) in enumerate(
                zip(
                    customer_names(),
                    _uneven(random, INDUSTRIES, CUSTOMERS),
                    _uneven(random, CITIES, CUSTOMERS),
                    strict=True,
                ),
                1,
            )
        ],
        "products": [
            (number, name, CATEGORIES[(number - 1) // len(_PRODUCT_LINES)], price, random.randrange(300))
            for number, (name, price) in enumerate(zip(names, prices, strict=True), 1)
        ],
        "orders": orders,
        "order_items": items,
    }
    connection = sqlite3.connect(path)
    try:
        connection.executescript(SCHEMA)
        for table, rows in tables.items():
            marks = ", ".join("?" * len(rows[0]))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
        connection.commit()
    finally:
        connection.close()
