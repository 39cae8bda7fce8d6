"""Plain SQL about the company beyond what is asked: more for a decoder to learn the language from."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from seq2seq_cli.tasks.boss2sql.pairs import SLOTS

# column -> the slot its values come from; "name" differs by table.
_WORDS = {
    "departments": {"name": "department"},
    "employees": {"name": "person", "title": "title", "city": "city"},
    "projects": {"name": "project"},
    "customers": {"name": "customer", "industry": "industry", "city": "city"},
    "products": {"name": "product", "category": "category"},
    "orders": {"status": "status"},
    "order_items": {},
}
_NUMBERS = {
    "departments": {"budget": "project_budget"},
    "employees": {"salary": "salary"},
    "projects": {"budget": "project_budget"},
    "customers": {},
    "products": {"price": "price", "stock": "stock"},
    "orders": {"total": "total"},
    "order_items": {"quantity": "few"},
}
_DATES = {
    "employees": {"hired": "hire_year"},
    "projects": {"started": "order_year"},
    "orders": {"ordered": "order_year"},
}
# FROM clause -> the tables in it by their short name; "" where columns need none.
_SOURCES = {
    "departments": {"": "departments"},
    "employees": {"": "employees"},
    "projects": {"": "projects"},
    "customers": {"": "customers"},
    "products": {"": "products"},
    "orders": {"": "orders"},
    "employees e JOIN departments d ON d.id = e.department_id": {"e.": "employees", "d.": "departments"},
    "employees e JOIN employees m ON m.id = e.manager_id": {"e.": "employees", "m.": "employees"},
    "projects p JOIN departments d ON d.id = p.department_id": {"p.": "projects", "d.": "departments"},
    "projects p JOIN employees e ON e.id = p.leader_id": {"p.": "projects", "e.": "employees"},
    "orders o JOIN customers c ON c.id = o.customer_id": {"o.": "orders", "c.": "customers"},
    "orders o JOIN employees e ON e.id = o.employee_id": {"o.": "orders", "e.": "employees"},
    "order_items i JOIN products p ON p.id = i.product_id": {"i.": "order_items", "p.": "products"},
}


def _columns(tables: dict[str, str], kinds: dict[str, dict[str, str]]) -> list[tuple[str, str]]:
    return [
        (short + column, slot)
        for short, table in tables.items()
        for column, slot in kinds.get(table, {}).items()
    ]


def _condition(random: Random, tables: dict[str, str]) -> str:
    kind = random.choice([kind for kind in (_WORDS, _WORDS, _NUMBERS, _DATES) if _columns(tables, kind)])
    column, slot = random.choice(_columns(tables, kind))
    value = random.choice(list(SLOTS[slot])).replace("'", "''")
    if kind is _WORDS:
        return f"{column} {random.choice(('=', '=', '<>'))} '{value}'"
    if kind is _NUMBERS:
        return f"{column} {random.choice('<>')} {value}"
    return random.choice(
        (f"{column} LIKE '{value}%'", f"{column} < '{value}-01-01'", f"{column} >= '{value}-01-01'")
    )


def _statement(random: Random) -> str:
    source, tables = random.choice(list(_SOURCES.items()))
    words = [column for column, _ in _columns(tables, _WORDS)]
    numbers = [column for column, _ in _columns(tables, _NUMBERS)]
    dates = [column for column, _ in _columns(tables, _DATES)]
    conditions = [_condition(random, tables) for _ in range(random.choice((0, 1, 1, 2)))]
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    word = random.choice(words)
    form = random.choice(("list", "list", "count", "measure", "rank", "group"))
    if form == "count":
        return f"SELECT COUNT(*) FROM {source}{where}"
    if form == "measure" and numbers:
        function = random.choice(("AVG", "SUM", "MIN", "MAX"))
        return f"SELECT {function}({random.choice(numbers)}) FROM {source}{where}"
    if form == "rank" and numbers + dates:
        limit = random.choice(list(SLOTS["n"]))
        order = random.choice(numbers + dates) + random.choice((" DESC", ""))
        return f"SELECT {word} FROM {source}{where} ORDER BY {order} LIMIT {limit}"
    if form == "group":
        having = f" HAVING COUNT(*) > {random.choice(list(SLOTS['few']))}" if random.random() < 0.3 else ""
        return f"SELECT {word}, COUNT(*) FROM {source}{where} GROUP BY {word}{having}"
    distinct = random.choice(("", "", "DISTINCT "))
    return f"SELECT {distinct}{random.choice(words + numbers + dates)} FROM {source}{where}"


def statements(random: Random) -> Iterator[str]:
    """Random statements about the company without end; they repeat now and then."""
    while True:
        yield _statement(random)
