"""Sphinx extension: an anchor for each code cell of a chapter, its claims as a list, scripts with the book's data.

A code cell gets the id `cell-<id>`, with the notebook's cell id. Those follow from the cell's source
(see tools/notebook.py), so that a link from the claims ledger or the audit survives cells being
inserted or moved.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

CLAIM = re.compile(r"✓ (?P<text>.+): (?P<value>\S+) \(claimed (?P<bound>.+)\)")  # as llmbook.claims prints it


def add_anchors(app: Sphinx, doctree: nodes.document) -> None:
    """Name the containers that MyST-NB makes of code cells; a page that is no notebook has none."""
    path = Path(app.env.doc2path(app.env.docname))
    if path.suffix != ".ipynb":
        return
    ids = [cell.get("id") for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    for node in doctree.findall(nodes.container):
        if node.get("nb_element") == "cell_code" and (name := ids[node["cell_index"]]):
            node["ids"].append(f"cell-{name}")


def list_claims(app: Sphinx, doctree: nodes.document) -> None:
    """Show claims that follow one another in a cell's output as one compact list, not as a box each."""
    for output in list(doctree.findall(lambda n: isinstance(n, nodes.container) and "cell_output" in n["classes"])):
        claims = nodes.bullet_list(classes=["claims"], bullet="✓")
        for child in list(output.children):
            if not (isinstance(child, nodes.container) and (match := CLAIM.fullmatch(child.astext().strip()))):
                claims = nodes.bullet_list(classes=["claims"], bullet="✓")  # what comes after is another list
                continue
            if not claims.children:
                output.insert(output.index(child), claims)
            claims += claim_item(match)
            output.remove(child)


def claim_item(match: re.Match[str]) -> nodes.list_item:
    """One claim: what it says, what was measured, and the bound that it must keep."""
    parts = [nodes.inline(text=match[name], classes=[f"claim-{name}"]) for name in ("text", "value", "bound")]
    text, value, bound = parts
    line = nodes.paragraph("", "", text, nodes.Text(": "), value, nodes.Text(" "), bound)
    return nodes.list_item("", line)


def depend_on_bibliography(app: Sphinx, doctree: nodes.document) -> None:
    """Have a page that cites made anew when the bibliography changes, which its links and names come from."""
    if any(reference.get("refdomain") == "cite" for reference in doctree.findall(pending_xref)):
        for name in app.config.bibtex_bibfiles:
            app.env.note_dependency(str(Path(app.srcdir, name)))


def write_assistant(app: Sphinx, error: Exception | None) -> None:
    """Write the index of the book's assistant, once the pages are there."""
    if error is None and app.builder.format == "html" and "book/assistant" in app.env.found_docs:
        from llmbook.applications import assistant  # the book's own package; a page without it needs none

        made = assistant.index(assistant.passages(Path(app.srcdir)))
        text = json.dumps(made, ensure_ascii=False, separators=(",", ":"))
        target = Path(app.outdir) / "_static" / "assistant_index.js"  # a script: a page from a folder may load it
        target.write_text(f"globalThis.assistantIndex = {text};\n", encoding="utf-8")


def write_gpt(app: Sphinx, error: Exception | None) -> None:
    """Write the weights of the page's GPT as a script, which a page that is opened from a folder may load."""
    weights = Path(app.srcdir) / "book" / "_static" / "toyworld_gpt.safetensors"
    if error is None and app.builder.format == "html" and weights.exists():
        content = base64.b64encode(weights.read_bytes()).decode()
        target = Path(app.outdir) / "_static" / "gpt_weights.js"
        target.write_text(f'globalThis.gptWeights = "{content}";\n', encoding="utf-8")


def version_of(file: str) -> int:
    """A number that changes with an extension's file: then Sphinx reads all pages anew."""
    return int(hashlib.sha256(Path(file).read_bytes()).hexdigest()[:7], 16)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", add_anchors)
    app.connect("doctree-read", list_claims)
    app.connect("doctree-read", depend_on_bibliography)
    app.connect("build-finished", write_assistant)
    app.connect("build-finished", write_gpt)
    return {"env_version": version_of(__file__), "parallel_read_safe": True, "parallel_write_safe": True}
