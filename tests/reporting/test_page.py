"""A page is one file: it asks for nothing, and what comes from data is shown, never run."""

from scdiff_data.reporting.page import (
    show_cards,
    show_details,
    show_figure,
    show_heading,
    show_page,
    show_table,
    show_text,
)

EVIL = '<script>alert("1")</script>&'


def test_whatever_text_comes_is_escaped() -> None:
    parts = [
        show_text(EVIL),
        show_heading(EVIL),
        show_cards([(EVIL, EVIL)]),
        show_table((EVIL,), [(EVIL,)]),
        show_details(EVIL, show_text(EVIL)),
        show_figure(b"png", EVIL),
    ]
    page = show_page(EVIL, "", [(EVIL, "".join(parts))])
    assert "<script" not in page
    assert '("1")' not in page
    assert page.count("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;") == 14


def test_numbers_stand_to_the_right_with_commas() -> None:
    table = show_table(("name", "cells"), [("a", 12345), ("b", 1)])
    assert '<th>name</th><th class="number">cells</th>' in table
    assert '<td>a</td><td class="number">12,345</td>' in table
    assert show_table(("name",), []).count("<tr>") == 1
