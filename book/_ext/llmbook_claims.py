"""Sphinx extension: {claim}`07: what it says` is what the ledger measured for that claim, with a link to its cell.

A page that states a result so cannot be out of step with the chapters: the value is the ledger's, and a claim that
no longer exists is a warning, which `make book` takes for an error.
"""

from __future__ import annotations

import html
import re
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole

LEDGER = Path("book", "claims.md")
ROW = re.compile(
    r'^\| <a href="\.\./(notebooks/(\d\d)_\w+\.html#cell-\w+)">(.+?)</a>(?: †)? \| .+ \| (.+) \| .+ \|$', re.MULTILINE
)


@cache
def ledger(page: str) -> dict[tuple[str, str], tuple[str, str]]:
    """Address and measured value of each claim, by its chapter and text."""
    plain = {text: re.sub(r"\\(.)", r"\1", html.unescape(text)) for _, _, text, _ in ROW.findall(page)}
    return {(chapter, plain[text]): (address, measured) for address, chapter, text, measured in ROW.findall(page)}


class Claim(SphinxRole):
    """``07: Excess over the floor (nats per token)``: a chapter's number and a claim of it, word for word."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        path = Path(self.env.srcdir, LEDGER)
        self.env.note_dependency(str(path))
        chapter, _, text = self.text.partition(": ")
        found = ledger(path.read_text(encoding="utf-8")).get((chapter, text))
        if found is None:
            message = self.inliner.reporter.warning(
                f"no claim {text!r} of chapter {chapter} in the ledger", line=self.lineno
            )
            return [nodes.inline(text=self.text)], [message]
        address, measured = found
        up = "../" * self.env.docname.count("/")
        return [nodes.reference(text=measured, refuri=up + address, reftitle=text, classes=["claimed"])], []


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_role("claim", Claim())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
