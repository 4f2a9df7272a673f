"""The site that `make docs` builds of these pages."""

import os
import re
from importlib.metadata import version as version_of

from sphinx.application import Sphinx

# The tour's model is small: threads that wait for each other take many times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

project = "scdiff_data"
author = "the scdiff_data authors"
copyright = "2026, the scdiff_data authors"  # noqa: A001 - Sphinx names it so
version = release = version_of("scdiff_data")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]

html_theme = "sphinx_book_theme"
html_title = f"scdiff_data {version}"
html_theme_options = {"show_navbar_depth": 1, "show_toc_level": 2}
copybutton_exclude = ".linenos, .gp, .go"

# Pages: links to headings and to files of the repository, both checked.
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

# Notebooks run anew in every build, in a folder of their own, and must end well.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_timeout = 900  # seconds a cell; the tour takes one minute in all
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars and logs

# Docstrings: `names` in them are code; types stand in annotations alone.
default_role = "literal"
autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
napoleon_google_docstring = False

PAGE_OF = {
    r"benchmarks/results/(\w+)\.md": r"performance.md#\1",
    r"benchmarks/README\.md": "performance.md",
    r"CONTRIBUTING\.md": "contributing.md",
    r"CHANGELOG\.md": "changelog.md",
}
"""Files outside of this folder that are pages of the site."""

# `make links` asks other servers; nothing else does.
linkcheck_anchors = False
linkcheck_retries = 2
linkcheck_timeout = 20
linkcheck_allow_unauthorized = True  # publishers' pages that refuse programs are there


def lead_to_pages(app: Sphinx, docname: str, source: list[str]) -> None:
    """Links to files of the repository that are pages here become links to these pages."""
    up = "../" * docname.count("/")
    for pattern, page in PAGE_OF.items():
        source[0] = re.sub(rf"\((?:\.\./)+{pattern}", f"({up}{page}", source[0])


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", lead_to_pages)
