"""What README and the other pages say, for tests that hold them to it."""

import re

from support.cases import ROOT

README = (ROOT / "README.md").read_text("utf-8")
DOCS = [*sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "howto").glob("*.md"))]
PAGES = [README, *(path.read_text("utf-8") for path in DOCS)]


def blocks(language: str, text: str = README) -> list[str]:
    """A page's blocks of code of a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
