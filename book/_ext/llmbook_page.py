"""Sphinx extension: what stands around a page's text.

For search engines and shared links a description and, where the book has an address (``BOOK_URL``), Open Graph's
tags; for readers the reading time, and the questions of the chapters before and after; and of the theme's HTML what
a page does not need is left out, and what not every reader can use is mended (templates call :func:`lighter`).
"""

from __future__ import annotations

import html
import os
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from llmbook_sphinx import version_of
from PIL import Image
from sphinx.application import Sphinx
from sphinx.config import Config

MAX_DESCRIPTION = 300  # characters
WORDS, LINES = 200, 20  # of technical prose and of code, read in a minute
MAP_ROW = re.compile(r"^\| *\d\d *\| *\[.+?\]\(\.\./(?P<page>\S+)\.ipynb\) *\| *(?P<question>.+?) *\|$", re.MULTILINE)
IMAGE = re.compile(r'<img (?=[^>]*src="(?:\.\./)*_images/(?P<name>[^"]+)")(?P<rest>[^>]*)>')

# The theme's HTML: what is replaced, and by what.
MENDED = (
    # The icons' script, heavier than the page, their style sheet and fonts: icons.css has those that are shown.
    (r'<script src="[^"]*/fontawesome/[^"]*"></script>', ""),
    (r"<link [^>]*/fontawesome/[^>]*>", ""),
    # Live code is never switched on, and its settings name a repository that is not ours.
    (r'<script type="text/x-thebe-config">.*?</script>\s*<script>kernelName = [^<]*</script>', ""),
    # Without a choice the system's mode, from the first paint on.
    (r'(\.mode = localStorage\.getItem\("mode"\) \|\| )""', r'\1"auto"'),
    (
        r'(\.theme = localStorage\.getItem\("theme"\) \|\| )""',
        r'\1(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")',
    ),
    # A name that is not what one sees; a landmark that is none; roles that are no more, and a list without items.
    (r'(<button class="btn search-button-field[^>]*) aria-label="[^"]*"', r"\1"),
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),
    (r'<div class="bd-sidebar-primary', '<div role="complementary" aria-label="The book" class="bd-sidebar-primary'),
    (r'role="doc-biblioentry"', 'role="listitem"'),
)


def lighter(page: str) -> str:
    """A page's HTML without what it does not need, with names and roles that a screen reader understands."""
    for pattern, replacement in MENDED:
        page = re.sub(pattern, replacement, page, flags=re.DOTALL)
    return page


def load_lazily(body: str, files: dict[str, Path]) -> str:
    """Pictures come when they are nearly in view; their sizes (``files`` has them by name) keep the page still."""

    def image(match: re.Match[str]) -> str:
        size = ""
        if match["name"].endswith(".png") and " width=" not in match[0] and "width:" not in match[0]:
            with Image.open(files[match["name"]]) as picture:
                size = f'width="{picture.width}" height="{picture.height}" '
        return f'<img loading="lazy" decoding="async" {size}{match["rest"]}>'

    return IMAGE.sub(image, body)


def plain_words(body: str) -> str:
    """Code without the marks of what has the text's own colour, names, brackets and blanks: a third of a page."""
    return re.sub(r'<span class="[npw]">([^<]*)</span>', r"\1", body)


def questions(intro: str) -> dict[str, str]:
    """The question of each chapter, by its page, from the introduction's map."""
    return {row["page"]: row["question"] for row in MAP_ROW.finditer(intro)}


def minutes(document: nodes.document) -> int:
    """How long a chapter takes to read, in steps of five minutes, without its exercises and folded code."""
    words = lines = 0
    for node in document.findall(lambda n: isinstance(n, nodes.paragraph | nodes.caption | nodes.literal_block)):
        if in_exercises(node):
            continue
        if isinstance(node, nodes.literal_block):
            lines += 0 if folded(node) else len(node.astext().splitlines())
        else:
            words += len(node.astext().split())
    return max(5, 5 * round((words / WORDS + lines / LINES) / 5))


def parents(node: nodes.Node) -> list[nodes.Node]:
    return [] if node.parent is None else [node.parent, *parents(node.parent)]


def in_exercises(node: nodes.Node) -> bool:
    return any(isinstance(p, nodes.section) and p[0].astext() == "Exercises" for p in parents(node))


def folded(node: nodes.Node) -> bool:
    return any("tag_hide-input" in p.get("classes", ()) for p in parents(node) if isinstance(p, nodes.Element))


def add_reading_time(app: Sphinx, doctree: nodes.document) -> None:
    """Say below a chapter's title how long it takes to read."""
    if app.env.docname.startswith("notebooks/"):
        text = f"About {minutes(doctree)} minutes to read, without the exercises."
        title = next(doctree.findall(nodes.title))
        title.parent.insert(title.parent.index(title) + 1, nodes.paragraph(text=text, classes=["reading-time"]))


def description(doctree: nodes.document) -> str:
    """The page's first paragraphs and, of a chapter, what a reader will be able to do."""
    found = [node for node in doctree.findall(nodes.paragraph) if "reading-time" not in node["classes"]]
    text = " ".join(" ".join(node.astext().split()) for node in found)[: MAX_DESCRIPTION + 1].strip()
    return text if len(text) <= MAX_DESCRIPTION else text.rsplit(" ", 1)[0] + " …"


def tags(title: str, text: str, book: str, url: str, page_url: str | None) -> str:
    """The page's description and Open Graph's tags; those that need the book's address where it has one."""
    graph = {"type": "article" if "notebooks/" in (page_url or "") else "website", "site_name": book}
    graph |= {"title": title, "description": text}
    if page_url:
        graph |= {"url": page_url, "image": f"{url.rstrip('/')}/_static/card.png", "image:alt": f"First page of {book}"}
    lines = [f'<meta name="description" content="{html.escape(text)}" />']
    lines += [f'<meta property="og:{name}" content="{html.escape(value)}" />' for name, value in graph.items()]
    return "\n".join(lines)


def prepare_page(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Give the templates what they need: descriptions, questions, and the functions of this file."""
    context["lighter"] = lighter
    context["script_files"] = [script for script in context["script_files"] if "thebe" not in str(script)]
    context["css_files"] = [style for style in context["css_files"] if "thebe" not in str(style)]
    asked = questions(Path(app.srcdir, "book", "intro.md").read_text(encoding="utf-8"))
    for side in ("prev", "next"):
        target = (context.get(side) or {}).get("link", "").removesuffix(".html")
        context[f"{side}_question"] = next((q for name, q in asked.items() if target and name.endswith(target)), "")
    if doctree is not None:
        title = re.sub(r"<[^>]+>", "", context["title"])
        text, url = description(doctree), app.config.html_baseurl
        more = tags(html.unescape(title), text, app.config.html_title, url, context.get("pageurl"))
        context["metatags"] = context.get("metatags", "") + "\n" + more
        files = {name: Path(app.srcdir, source) for source, name in app.builder.images.items()}
        context["body"] = load_lazily(plain_words(context["body"]), files)


def take_address(app: Sphinx, config: Config) -> None:
    """The address at which the book will stand, for canonical links: ``BOOK_URL``, else none."""
    config.html_baseurl = os.environ.get("BOOK_URL", config.html_baseurl)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", take_address)
    app.connect("doctree-read", add_reading_time)
    app.connect("html-page-context", prepare_page, priority=900)  # after the extensions that add what is dropped
    return {"env_version": version_of(__file__), "parallel_read_safe": True, "parallel_write_safe": True}
