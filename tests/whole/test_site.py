"""The pages of the site: all reached, all names there, all figures those of their reports."""

import re
from importlib import import_module
from pathlib import Path

import pytest

import scdiff_data
from scdiff_data import callbacks, diffusion, evaluation, scvi
from support import forks
from support.cases import ROOT
from support.pages import blocks

DOCS = ROOT / "docs"
HOW_TOS = [
    path
    for path in sorted((DOCS / "howto").glob("*.md"))
    if blocks("python", path.read_text()) and path.stem != "drop_in"  # test_wheel runs that
]


def test_every_page_is_in_a_table_of_contents() -> None:
    index = (DOCS / "index.md").read_text("utf-8")
    listed = re.findall(r"^(?:howto/)?\w+$", index, re.MULTILINE)
    pages = [
        p.relative_to(DOCS).with_suffix("").as_posix()
        for p in (*DOCS.glob("*.md"), *DOCS.glob("howto/*.md"))
    ]
    assert sorted(listed) == sorted(set(pages) - {"index"})


def test_every_public_name_is_on_the_api_page() -> None:
    page = (DOCS / "api.md").read_text("utf-8")
    listed = re.findall(r"^   (?:(\w+)\.)?(\w+)$", page, re.MULTILINE)
    faces = (scdiff_data, callbacks, diffusion, evaluation, scvi)
    public = {name for face in faces for name in face.__all__}
    assert {name for room, name in listed if not room} == public - {"__version__"}
    for room, name in listed:
        assert not room or name in import_module(f"scdiff_data.{room}").__all__


def test_figures_are_lines_of_their_reports() -> None:
    page = (DOCS / "performance.md").read_text("utf-8")
    rows = re.findall(r"^\| .* \| ([\d.,]+)[^|]* \| (\w+) \|$", page, re.MULTILINE)
    page = (DOCS / "howto" / "slurm.md").read_text("utf-8")
    rows += re.findall(
        r"^\| .* \| ([\d.,]+) [^|]* \| .*results/(\w+)\.md.* \|$", page, re.MULTILINE
    )
    assert len(rows) > 18
    for figure, name in rows:
        report = (ROOT / "benchmarks" / "results" / f"{name}.md").read_text("utf-8")
        assert re.search(rf"(?<![\d.,]){re.escape(figure)}(?![\d,])", report), (figure, name)


def test_every_report_is_on_the_page_of_performance() -> None:
    page = (DOCS / "performance.md").read_text("utf-8")
    shown = re.findall(r"literalinclude} \.\./benchmarks/results/(\w+)\.md", page)
    assert sorted(shown) == sorted(p.stem for p in (ROOT / "benchmarks" / "results").glob("*.md"))


def test_one_version_is_named_everywhere() -> None:
    project = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    citation = re.search(r"^version: (.*)", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    changes = re.search(r"^## \[(\d.*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert project is not None
    assert citation is not None
    assert changes is not None
    assert project[1] == citation[1] == changes[1]


@pytest.mark.parametrize("page", HOW_TOS, ids=lambda path: path.stem)
def test_a_how_tos_python_runs_as_written(page: Path, tmp_path: Path) -> None:
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks("python", page.read_text("utf-8"))))
    finished = forks.run(script, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
