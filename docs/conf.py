"""Sphinx: the site of `make docs`. Building it and searching in it need no network and no server."""

project = "Retune"
extensions = ["myst_parser"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
exclude_patterns = ["README.md"]  # included by index.rst
html_theme = "furo"
html_title = "Retune"
suppress_warnings = ["myst.xref_missing"]  # links to files outside docs/: tests/test_docs.py checks that they exist
