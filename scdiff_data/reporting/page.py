"""A page of text, tables and pictures as one file of HTML that asks for nothing else.

What comes from data, names and reasons, is escaped: it is shown, never run.
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from scdiff_data.base import render_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff;
       max-width: 62rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.7rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; border-bottom: 2px solid #0072B2; }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .3rem; }
nav a { margin-right: 1rem; color: #0072B2; }
.cards { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1rem 0; }
.card { border: 1px solid #ddd; border-radius: .4rem; padding: .5rem 1rem; min-width: 8rem; }
.card b { display: block; font-size: 1.4rem; }
.card span { color: #555; font-size: .9rem; }
.note { border-left: 4px solid #D55E00; background: #FDF4EE; padding: .4rem 1rem; }
figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; }
figcaption, .small { color: #555; font-size: .9rem; }
table { border-collapse: collapse; margin: .75rem 0; font-size: .92rem; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #e5e5e5;
         vertical-align: top; overflow-wrap: anywhere; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
details { margin: .5rem 0; } summary { cursor: pointer; color: #0072B2; }
@media print { details > * { display: block; } h2 { break-after: avoid; } }
"""
"""How it looks, on a screen and on paper."""


def show_page(title: str, lead: str, sections: Sequence[tuple[str, str]]) -> str:
    """The whole file: a title, what stands below it, and sections by their headings."""
    names = [f"part-{number}" for number in range(1, len(sections) + 1)]
    links = [f'<a href="#{n}">{escape(h)}</a>' for n, (h, _) in zip(names, sections, strict=True)]
    parts = [
        f'<section id="{name}"><h2>{escape(heading)}</h2>{content}</section>'
        for name, (heading, content) in zip(names, sections, strict=True)
    ]
    return "\n".join(
        [
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
            f"<header><h1>{escape(title)}</h1>{lead}<nav>{' '.join(links)}</nav></header>",
            *parts,
            "</body></html>\n",
        ]
    )


def show_text(text: str, kind: str = "") -> str:
    """A paragraph; `note` makes one that is seen, `small` one that is not."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def show_heading(text: str) -> str:
    """A heading inside a section."""
    return f"<h3>{escape(text)}</h3>"


def show_cards(cards: Iterable[tuple[str, str]]) -> str:
    """A row of figures, each over what it is."""
    parts = (
        f'<div class="card"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for name, value in cards
    )
    return f'<div class="cards">{"".join(parts)}</div>'


def show_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table of texts and numbers: these stand to the right, whole ones with commas."""

    def cell(value: str | float, kind: str = "td") -> str:
        if isinstance(value, str):
            return f"<{kind}>{escape(value)}</{kind}>"
        text = f"{value:,}" if isinstance(value, int) else f"{value:.2f}"
        return f'<{kind} class="number">{text}</{kind}>'

    rows = [list(row) for row in rows]
    is_number = [bool(rows) and not isinstance(rows[0][place], str) for place in range(len(head))]
    names = [
        f'<th class="number">{escape(name)}</th>' if right else f"<th>{escape(name)}</th>"
        for name, right in zip(head, is_number, strict=True)
    ]
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f"<table><thead><tr>{''.join(names)}</tr></thead><tbody>{body}</tbody></table>"


def show_details(summary: str, content: str) -> str:
    """What is shown when it is asked for."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def show_figure(figure: "Figure | bytes", caption: str) -> str:
    """A picture inside the page, over what it shows; the caption stands in for it, too."""
    content = figure if isinstance(figure, bytes) else render_figure(figure)
    source = f"data:image/png;base64,{b64encode(content).decode()}"
    caption = escape(caption)
    image = f'<img alt="{caption}" src="{source}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"
