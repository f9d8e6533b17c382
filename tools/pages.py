"""Checks of the built pages: each is a function from one HTML page to its faults (see tests/book)."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, Tag

ROOT = Path(__file__).resolve().parents[1]

# Hosts from which a page may load scripts, styles, fonts or pictures. None: the book is read offline.
LOADED_FROM: set[str] = set()

CODE = ["pre", "code", "script", "style"]
RAW = re.compile(r"`{3}|:{3}|\{(cite|eq|ref|numref|math|term|doc|download|note|admonition|code-cell)\b[^}]*\}|^:label:")
RAW_MATH = re.compile(r"\$[^$\s][^$\n]*\$|\\(frac|sum|mathbf|mathrm|log|exp)\b")
HASH_OR_FILE = re.compile(r"^[0-9a-f]{16,}|\.(png|svg|jpe?g)$|/")
MIN_ALT, MIN_DESCRIPTION = 20, 50  # characters

# What may stand in an article. A browser takes any other `<word>` for an element too, and shows nothing.
ELEMENTS = frozenset(
    """a abbr article aside audio b bdi bdo blockquote br button caption cite code col colgroup data dd del details
    dfn div dl dt em figcaption figure footer form h1 h2 h3 h4 h5 h6 header hr i iframe img input ins kbd label
    legend li main mark nav noscript object ol option p picture pre q ruby rp rt s samp script section select small
    source span strong style sub summary sup svg table tbody td textarea tfoot th thead time tr u ul var video
    wbr""".split()
)


@lru_cache(maxsize=256)
def page(path: Path) -> BeautifulSoup:
    """A parsed page."""
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@lru_cache(maxsize=256)
def anchors(path: Path) -> frozenset[str]:
    """Every id (and named anchor) of a page."""
    return frozenset(tag.get("id") or tag.get("name") for tag in page(path).find_all(id=True)) | {
        tag["name"] for tag in page(path).find_all("a", attrs={"name": True})
    }


def article(soup: BeautifulSoup) -> Tag:
    """The part of a page that an author wrote."""
    return soup.select_one("article.bd-article") or soup.body


def visible(soup: BeautifulSoup) -> str:
    """The author's text without code and mathematics."""
    copy = BeautifulSoup(str(article(soup)), "html.parser")
    for tag in copy.find_all(CODE) + copy.select(".math"):
        tag.decompose()
    return copy.get_text("\n")


def links_resolve(path: Path) -> list[str]:
    """Each link inside the book leads to a file and an anchor that exist; an address elsewhere has no blank in it."""
    faults = []
    for tag in page(path).find_all("a", href=True):
        url = urlsplit(tag["href"])
        if url.scheme and re.search(r"\s", tag["href"]):
            faults.append(f"{tag['href']!r} has a blank: BibTeX makes one of ~")
        if url.scheme or url.netloc or tag["href"] in ("", "#"):
            continue
        target = (path.parent / unquote(url.path)).resolve() if url.path else path
        if not target.exists():
            faults.append(f"{tag['href']} leads to no file")
        elif url.fragment and target.suffix == ".html" and unquote(url.fragment) not in anchors(target):
            faults.append(f"{tag['href']} leads to no anchor")
    return faults


def images_are_described(path: Path) -> list[str]:
    """Each image exists and has an alternative text in words."""
    faults = []
    for image in article(page(path)).find_all("img"):
        alt, source = image.get("alt", ""), image["src"]
        if len(alt) < MIN_ALT or HASH_OR_FILE.search(alt):
            faults.append(f"{source}: alt text {alt!r}")
        if not urlsplit(source).scheme and not (path.parent / unquote(source)).exists():
            faults.append(f"{source} does not exist")
    return faults


def captions_are_numbered(path: Path) -> list[str]:
    """Each figure has a caption with its number."""
    return [
        f"figure {figure.get('id')} has no numbered caption"
        for figure in article(page(path)).find_all("figure")
        if not figure.select_one("figcaption .caption-number")
    ]


def nothing_is_raw(path: Path) -> list[str]:
    """No directive, role or formula is left as its source."""
    text = visible(page(path))
    return [
        f"raw {what}: {found.group()!r}"
        for what, pattern in {"directive or role": RAW, "mathematics": RAW_MATH}.items()
        if (found := pattern.search(text))
    ]


def elements_are_html(path: Path) -> list[str]:
    """No word in angle brackets, such as <eos>, was taken for an element: the reader would not see it."""
    names = {tag.name for tag in article(page(path)).find_all(True) if not tag.find_parent("svg")}
    return [f"<{name}> is no HTML element: write it as code" for name in sorted(names - ELEMENTS)]


def no_error_nodes(path: Path) -> list[str]:
    """Sphinx left no system message in the page."""
    return [f"a system message: {tag.get_text()[:80]!r}" for tag in page(path).select(".system-message, .problematic")]


def no_workplace(path: Path) -> list[str]:
    """Nothing names a folder of the machine that built the page."""
    text = path.read_text(encoding="utf-8")
    return [f"names {place}" for place in ("file://", f"{ROOT}/", sys.prefix, f"{Path.home()}/") if place in text]


def has_title_and_description(path: Path) -> list[str]:
    """One h1, a title and a description for search engines."""
    soup = page(path)
    faults = [] if soup.title and soup.title.get_text(strip=True) else ["no title"]
    if len(article(soup).find_all("h1")) != 1:
        faults.append("a page has one h1")
    described = soup.find("meta", attrs={"name": "description"})
    if described is None or len(described.get("content", "")) < MIN_DESCRIPTION:
        faults.append("no description")
    return faults


def loads_nothing_from_afar(path: Path) -> list[str]:
    """Scripts, styles, frames and images come from the book itself."""
    soup = page(path)
    sources = [tag["src"] for tag in soup.find_all(["script", "img", "iframe"], src=True)]
    sources += [
        t["href"] for t in soup.find_all("link", href=True) if "stylesheet" in t["rel"] or "preload" in t["rel"]
    ]
    return [f"loads {s}" for s in sources if (host := urlsplit(s).netloc) and host not in LOADED_FROM]


CHECKS: tuple[Callable[[Path], list[str]], ...] = (
    links_resolve, images_are_described, captions_are_numbered, nothing_is_raw, elements_are_html, no_error_nodes,
    no_workplace, has_title_and_description, loads_nothing_from_afar,
)  # fmt: skip
