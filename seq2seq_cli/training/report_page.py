"""The look of report.html. Everything that comes from data, recipe or machine is escaped here, once."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from seq2seq_cli.charts import Panel, chart

#: no script, no request: what a hostile text could ask for, the browser refuses as well
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1b1b1b; --soft: #666; --line: #ddd; --card: #f6f6f4;
  --warn: #8a3b00; --pen-0: #0b61a4; --pen-1: #c2410c; --pen-2: #2e7d32; --pen-3: #8e24aa; --pen-4: #6d6d00; }
@media (prefers-color-scheme: dark) { :root { --back: #16181b; --text: #e6e6e3; --soft: #a0a0a0;
  --line: #3a3d42; --card: #1f2226; --warn: #ffb07a; --pen-0: #6cb4f0; --pen-1: #ff9e6b; --pen-2: #7fd085;
  --pen-3: #d9a3e8; --pen-4: #d6d16a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; background: var(--back); color: var(--text);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; font-weight: 600; margin: 0 0 .3rem; }
.status, .name { color: var(--soft); }
.warning { border-left: 4px solid var(--warn); color: var(--warn); padding: .3rem .7rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .6rem;
  margin: 1rem 0; }
.figures div, figure { background: var(--card); border: 1px solid var(--line); border-radius: 6px;
  padding: .5rem .7rem; min-width: 0; }
.figures b { display: block; font-size: 1.15rem; font-variant-numeric: tabular-nums; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr));
  gap: .8rem; }
figure { margin: 0; }
figure svg { display: block; width: 100%; height: auto; }
.legend span { margin-right: .9rem; white-space: nowrap; }
.legend i { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .3em; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin-bottom: .8rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 500; }
td { unicode-bidi: isolate; white-space: pre-wrap; }
.samples td { width: 33%; min-width: 7rem; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .7rem;
  overflow-x: auto; font-size: 13px; }
""" + "".join(
    f".pen-{n} {{ stroke: var(--pen-{n}); fill: var(--pen-{n}); }}\n"
    f".key-{n} {{ background: var(--pen-{n}); }}\n"
    for n in range(5)
)


@dataclass(frozen=True)
class Chart:
    """A panel under a title of the page's own."""

    title: str
    panel: Panel


@dataclass(frozen=True, kw_only=True)
class Table:
    """Plain texts in rows; an empty head is left out."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Page:
    """All that the report says, as plain texts and numbers."""

    title: str
    status: str
    warnings: Sequence[str]
    figures: Sequence[tuple[str, str]]
    charts: Sequence[Chart]
    samples: Sequence[Table]
    data: Table
    histograms: Sequence[Chart]
    parts: Table
    environment: Table
    recipe: str


def html_of(page: Page) -> str:
    """The page as one HTML file: no script, and nothing that a browser would have to fetch."""
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{text(page.title)} · s2s report</title><style>{_STYLE}</style></head><body>",
        f'<header><h1>{text(page.title)}</h1><div class="status">{text(page.status)}</div></header>',
        *(f'<p class="warning">{text(each)}</p>' for each in page.warnings),
        '<div class="figures">',
        *(
            f'<div><span class="name">{text(name)}</span><b>{text(told)}</b></div>'
            for name, told in page.figures
        ),
        "</div>",
        *_section("Curves", _charts(page.charts)),
        *_section("Samples", _samples(page.samples)),
        *_section("Data", [*_table(page.data), *_charts(page.histograms)]),
        *_section("Parameters", _table(page.parts)),
        *_section("Environment", _table(page.environment)),
        *_section("Recipe", [f"<pre>{text(page.recipe)}</pre>"]),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def text(raw: str) -> str:
    """Text for any place in the page: markup escaped, and whatever cannot be seen shown by its number."""
    shown = "".join(c if c.isprintable() or c in "\n\t" else f"\\u{{{ord(c):x}}}" for c in raw)
    return html.escape(shown, quote=True)


def _section(title: str, content: Iterable[str]) -> list[str]:
    found = list(content)
    return [f'<section id="{title.lower()}"><h2>{title}</h2>', *found, "</section>"] if found else []


def _charts(charts: Sequence[Chart]) -> list[str]:
    if not charts:
        return []
    parts = ['<div class="charts">']
    for each in charts:
        names = [line.name for line in each.panel.lines]
        keys = "".join(f'<span><i class="key-{n}"></i>{text(name)}</span>' for n, name in enumerate(names))
        legend = f'<figcaption class="legend">{keys}</figcaption>' if len(names) > 1 else ""
        parts.append(f"<figure><h3>{text(each.title)}</h3>{chart(each.panel)}{legend}</figure>")
    return [*parts, "</div>"]


def _samples(tables: Sequence[Table]) -> list[str]:
    """The newest evaluation's samples open, the others behind their titles."""
    parts = []
    for number, table in enumerate(tables):
        mark = " open" if number == 0 else ""
        parts.append(f'<details class="samples"{mark}><summary>{text(table.title)}</summary>')
        parts += [*_table(table), "</details>"]
    return parts


def _table(table: Table) -> list[str]:
    head = "".join(f"<th>{text(name)}</th>" for name in table.head)
    rows = ["<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in table.rows]
    top = f"<tr>{head}</tr>" if any(table.head) else ""
    return ['<div class="scroll"><table>', top, *rows, "</table></div>"]
