"""The page of settings is that of the signatures, docstrings and configs there are."""

import runpy

from support.cases import ROOT


def test_the_page_of_settings_is_up_to_date() -> None:
    make_page = runpy.run_path(str(ROOT / "docs" / "make_settings.py"))["make_page"]
    page = (ROOT / "docs" / "settings.md").read_text("utf-8")
    assert page == make_page(), "run: python docs/make_settings.py"
    assert "| None |" not in page
