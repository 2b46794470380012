"""Settings of the documentation, which `make docs` builds into docs/_build."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent / "_ext")]

import fastmtl

project = "fastmtl"
author = "The fastmtl developers"
copyright = author
release = version = fastmtl.__version__

extensions = ["myst_parser", "generated"]
exclude_patterns = ["_build", "_ext"]
myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 4

highlight_language = "none"
html_theme = "furo"
html_title = f"fastmtl {release}"
html_static_path = ["_static"]
html_css_files = ["fastmtl.css"]
html_show_sourcelink = False
html_show_sphinx = False
html_copy_source = False
python_maximum_signature_line_length = 100
python_display_short_literal_types = True
toc_object_entries_show_parents = "hide"
