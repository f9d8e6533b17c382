"""Sphinx extension: each code cell of a chapter gets an anchor, `#cell-<id>`, with the notebook's cell id.

The ids follow from the cell's source (see tools/notebook.py), so that a link from the claims ledger
or the audit survives cells being inserted or moved.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx


def add_anchors(app: Sphinx, doctree: nodes.document) -> None:
    """Name the containers that MyST-NB makes of code cells; a page that is no notebook has none."""
    path = Path(app.env.doc2path(app.env.docname))
    if path.suffix != ".ipynb":
        return
    ids = [cell.get("id") for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    for node in doctree.findall(nodes.container):
        if node.get("nb_element") == "cell_code" and (name := ids[node["cell_index"]]):
            node["ids"].append(f"cell-{name}")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", add_anchors)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
