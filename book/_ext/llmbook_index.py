"""Sphinx extension: the book's index, made from its glossary.

A glossary entry names the chapters in which its term is built or measured, as {ref}`ch-07`. In each of them the
section that treats the term becomes an entry of the index, beside the definition, which Sphinx enters by itself.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from llmbook_sphinx import version_of
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

GLOSSARY = Path("book", "glossary.md")
ENTRY = re.compile(r"^(\S.*)\n((?:  .*\n?)+)", re.MULTILINE)  # a term, and its definition, indented
SHORT = re.compile(r"  ([A-Z]\w+(?: cache)?)\. ")  # which may begin with a short form: "  AWQ. Before …"
CHAPTER = re.compile(r"\{ref\}`ch-(\d\d)`")
DESCRIPTION = "The terms of the book, each with its definition and the sections in which it is built or measured."
ASIDE = ("Three questions", "Exercises", "Summary")  # sections that speak of everything


def entries(glossary: str) -> list[tuple[str, str]]:
    """Each term with its definition."""
    return ENTRY.findall(glossary.partition("```{glossary}")[2])


def terms_of(chapter: str, glossary: str) -> list[str]:
    """The terms whose definitions name the chapter, which is two digits."""
    return [term for term, definition in entries(glossary) if chapter in CHAPTER.findall(definition)]


def home_of(term: str, glossary: str) -> str:
    """The chapter that builds the term: the first that its definition names."""
    return CHAPTER.findall(dict(entries(glossary))[term])[0]


def short_forms(glossary: str) -> list[tuple[str, str]]:
    """Abbreviations, each with its term."""
    return [(short[1], term) for term, definition in entries(glossary) if (short := SHORT.match(definition))]


def phrase(term: str) -> re.Pattern[str]:
    """Finds the term in prose: singular or plural, with whatever hyphens."""
    words = [re.escape(word) for word in re.split(r"[ –—-]", term)]
    return re.compile(rf"(?<!\w){'[ –—-]'.join(words)}(?:e?s)?(?!\w)", re.IGNORECASE)


def stems(term: str) -> list[re.Pattern[str]]:
    """Finds its words one by one, by their beginnings: a text may speak of what it does not name."""
    return [re.compile(rf"(?<!\w){re.escape(word[:6])}", re.IGNORECASE) for word in re.findall(r"\w{2,}", term)]


def text_of(node: nodes.Node) -> str:
    return node.astext().replace("’", "'")


def treats(section: nodes.section, term: str) -> tuple[int, ...]:
    """How much a section itself is about a term: by its title, by introducing it in italics, by naming it."""
    own = [child for child in section.children if not isinstance(child, nodes.section | nodes.container)]  # no code
    title, text, name = text_of(section[0]), "\n".join(map(text_of, own)), phrase(term)
    italics = [text_of(node) for child in own for node in child.findall(nodes.emphasis)]
    named, counts = len(name.findall(text)), [len(stem.findall(text)) for stem in stems(term)]
    introduced = any(map(name.fullmatch, italics))
    return bool(name.search(title)), named > 0 and title not in ASIDE, introduced, named, sum(map(bool, counts))


class Index(SphinxTransform):
    """Put the entries of a chapter's terms at the head of their sections, and short forms into the glossary."""

    default_priority = 840  # before Sphinx collects them, at 850

    def apply(self, **kwargs: Any) -> None:
        glossary = Path(self.env.srcdir, GLOSSARY)
        if chapter := re.match(r"notebooks/(\d\d)_", self.env.docname):
            self.env.note_dependency(str(glossary))
            sections = [s for s in self.document.findall(nodes.section) if isinstance(s[0], nodes.title)]
            text = glossary.read_text(encoding="utf-8")
            for term in terms_of(chapter[1], text):
                section = max(sections, key=lambda one, term=term: treats(one, term))  # of equals the first
                main = "main" if home_of(term, text) == chapter[1] else ""  # the search shows such entries first
                for name in (term, *(short for short, of in short_forms(text) if main and of == term)):
                    enter(section, "single", name, main)
        elif self.env.docname == GLOSSARY.with_suffix("").as_posix():
            for short, term in short_forms(glossary.read_text(encoding="utf-8")):
                enter(next(self.document.findall(nodes.section)), "see", f"{short}; {term}")


def enter(section: nodes.section, kind: str, entry: str, main: str = "") -> None:
    section.insert(1, addnodes.index(entries=[(kind, entry, section["ids"][0], main, None)]))


def prepare_page(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Give the index's template the names of places, and its page the description that pages with a source have."""
    if page == "genindex":
        context["place_name"] = place_name
        context["metatags"] = context.get("metatags", "") + f'\n<meta name="description" content="{DESCRIPTION}" />'


def place_name(link: str) -> str:
    """A chapter's two digits, or "glossary"."""
    chapter = re.search(r"notebooks/(\d\d)_", link)
    return chapter[1] if chapter else "glossary" if "book/glossary" in link else "page"


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_transform(Index)
    app.connect("html-page-context", prepare_page)
    return {"env_version": version_of(__file__), "parallel_read_safe": True, "parallel_write_safe": True}
