"""The whole book as one HTML page, ready to print: the built pages joined in the order of the table of contents.

What is folded is opened, what is no print is left out, ids are unique, and links within the book lead to them.
"""

from __future__ import annotations

import html
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml
from bs4 import BeautifulSoup, Tag

CSS, SCRIPT = (Path(__file__).with_name(name) for name in ("pdf.css", "pdf.js"))
NO_PRINT = "script, style, form, button, input, [hidden], a.headerlink, .toctree-wrapper, .sd-summary-state-marker"
PLAIN_SPAN = re.compile(r'<span class="(?:nn|o|pre)">([^<]*)</span>')


class LinkError(ValueError):
    """A link within the book leads nowhere."""


@dataclass
class OnePage:
    """The page, the titles of its chapters, all headings by what an outline has of them, and the number of formulae."""

    text: str
    titles: list[str]
    headings: dict[str, str]
    formulae: int


@dataclass
class Chapter:
    """What is needed of a page, without its tree: all trees together would take half a gigabyte."""

    head: list[str]
    text: str
    title: str
    headings: dict[str, str]
    places: set[str]
    links: set[str]
    formulae: int


def parse(path: Path) -> BeautifulSoup:
    """A page, without the marks of code that print can spare: each would be an object of the file."""
    return BeautifulSoup(PLAIN_SPAN.sub(r"\1", path.read_text(encoding="utf-8")), "html.parser")


def text_of(tag: Tag) -> str:
    return re.sub(r"\\[()]", "", " ".join(tag.get_text().split()))


def outlined(heading: Tag) -> str:
    """What Chromium's outline has of a heading: no formula, and not all of the spaces."""
    return "".join("".join(text for text in heading.strings if not text.find_parent(class_="math")).split())


def anchor(page: str, name: str = "") -> str:
    """The id that a place of a page has in the joined one."""
    return f"{page}:{name}" if name else page


def beside(page: str, address: str) -> str:
    """Where the joined page, which stands beside the folder of the built ones, finds what a page shows."""
    return "html/" + os.path.normpath(Path(page).parent / address)


def open_folds(article: Tag) -> None:
    """Show what is folded, under its title; "Show the code" is no title."""
    for details in article.find_all("details"):
        summary = details.summary.extract()
        details.name, details["class"] = "div", ["folded"]
        if not summary.find(class_="collapsed"):
            summary.name, summary["class"] = "p", ["folded-title"]
            details["class"].append("titled")
            details.insert(0, summary)


def relink(article: Tag, page: str, known: list[str]) -> None:
    """Give places their ids in the joined page, lead links there, and find pictures from its folder."""
    seen: set[str] = set()
    for place in article.find_all(id=True):
        name = place.attrs.pop("id")
        if name not in seen:  # a browser, too, goes to the first only
            place["id"] = anchor(page, name)
        seen.add(name)
    for image in article.find_all("img", src=True):
        image["src"] = beside(page, image["src"])
        image.attrs.pop("loading", None)  # a printer does not scroll
    for link in article.find_all("a", href=True):
        url = urlsplit(link["href"])
        target = os.path.normpath(Path(page).parent / url.path).removesuffix(".html") if url.path else page
        if not url.scheme and target in known:
            link["href"] = "#" + anchor(target, unquote(url.fragment))
        elif url.scheme not in ("http", "https", "mailto"):  # a download, or the file of a picture
            link.unwrap()


def ready(article: Tag, page: str, known: list[str]) -> Tag:
    """A page's article, ready to print, its headings one level lower, below those of the parts."""
    for element in article.select(NO_PRINT):
        element.decompose()
    for element in article.find_all("noscript"):
        element.name = "p"
    open_folds(article)
    relink(article, page, known)
    for level in (5, 4, 3, 2, 1):
        for heading in article.find_all(f"h{level}"):
            heading.name = f"h{level + 1}"
    article["class"], article["id"] = ["bd-article", "chapter"], anchor(page)
    return article


def parts(root: Path) -> list[tuple[str, list[str]]]:
    """Each part's name and pages. The page that opens the book stands in its first part."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    found = [(part["caption"], [entry["file"] for entry in part["chapters"]]) for part in toc["parts"]]
    found[0][1].insert(0, toc["root"])
    return found


def head_of(soup: BeautifulSoup, page: str) -> list[str]:
    """The page's styles and MathJax, as seen from the folder beside."""
    kept = []
    for tag in soup.head.select('link[rel="stylesheet"], script'):
        if tag.name == "link" or "mathjax" in (tag.get("src", "") + tag.get_text()).lower():
            for name in {"href", "src"} & set(tag.attrs):
                tag[name] = beside(page, tag[name])
            kept.append(str(tag))
    return kept


def read(book: Path, page: str, known: list[str]) -> Chapter:
    """A page of the book. The first has the book's title, which has a page of its own in print."""
    soup, number = parse(book / f"{page}.html"), known.index(page)
    article = ready(soup.select_one("article.bd-article"), page, known)
    article["style"] = f"page: c{number}"  # its sheets, whose head running_heads writes
    if number == 0:
        article.h2.string = "Introduction"
    return Chapter(
        head=head_of(soup, page),
        text=str(article),
        title=text_of(article.h2),
        headings={outlined(heading): text_of(heading) for heading in article.find_all(["h2", "h3"])},
        places={article["id"], *(tag["id"] for tag in article.find_all(id=True))},
        links={link["href"] for link in article.select('a[href^="#"]')},
        formulae=len(article.select(".math")),
    )


def check_links(chapters: list[Chapter]) -> None:
    """Every link within the book has its place."""
    places = {place for chapter in chapters for place in chapter.places}
    links = {link for chapter in chapters for link in chapter.links}
    if lost := sorted(link for link in links if link[1:] not in places):
        raise LinkError(f"links to places that are not there: {', '.join(lost[:5])}")


def config(root: Path) -> dict[str, str]:
    return yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))


def title_page(root: Path) -> str:
    found = config(root)
    title, _, subtitle = found["title"].partition(": ")
    lines = {"title": title, "subtitle": subtitle, "author": f"{found['author']}, {found['copyright']}"}
    paragraphs = "".join(f'<p class="{name}">{html.escape(text)}</p>' for name, text in lines.items())
    return f'<section class="title-page">{paragraphs}</section>'


def running_heads(titles: list[str]) -> str:
    quoted = [json.dumps(title, ensure_ascii=False) for title in titles]
    return "".join(f"@page c{number} {{ @top-right {{ content: {text} }} }}" for number, text in enumerate(quoted))


def head(chapters: list[Chapter]) -> str:
    """Each style and script of the chapters once, and what the print has of its own."""
    theirs = dict.fromkeys(tag for chapter in chapters for tag in chapter.head)
    style = CSS.read_text(encoding="utf-8") + running_heads([chapter.title for chapter in chapters])
    script = SCRIPT.read_text(encoding="utf-8")
    return f'<meta charset="utf-8">{"".join(theirs)}<style>{style}</style><script>{script}</script>'


def join(root: Path, book: Path) -> OnePage:
    """The built pages of the book as one."""
    known = [page for _, pages in parts(root) for page in pages]
    chapters = {page: read(book, page, known) for page in known}
    check_links(list(chapters.values()))
    contents, body = ["<h1>Contents</h1>"], []
    for caption, pages in parts(root):
        contents += [f"<p>{html.escape(caption)}</p>"]
        contents += [f'<a href="#{anchor(page)}">{html.escape(chapters[page].title)}</a>' for page in pages]
        body += [f'<section class="part"><h1>{html.escape(caption)}</h1></section>']
        body += [chapters[page].text for page in pages]
    every = list(chapters.values())
    text = (
        f'<!doctype html><html lang="en" data-theme="light" data-mode="light"><head>{head(every)}</head>'
        f'<body>{title_page(root)}<nav class="book-contents">{"".join(contents)}</nav>{"".join(body)}</body></html>'
    )
    headings = {key: heading for chapter in every for key, heading in chapter.headings.items()}
    return OnePage(text, [chapter.title for chapter in every], headings, sum(chapter.formulae for chapter in every))
