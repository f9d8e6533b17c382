"""Print the whole book as one file, _build/The-Uncertainty-of-AI.pdf (`make pdf`).

The built pages are joined into one, in the order of the table of contents: what is folded is opened, what is no
print is left out, and links lead to places in the file. Chromium prints it; what comes out is checked, and packed,
before it takes its name.
"""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pikepdf
import screenshots
import yaml
from bs4 import BeautifulSoup, Tag
from build import BuildError, alone
from pikepdf import Dictionary, Name

ROOT = Path(__file__).resolve().parents[1]
FILE = "The-Uncertainty-of-AI.pdf"
CSS, SCRIPT = (Path(__file__).with_suffix(suffix) for suffix in (".css", ".js"))
NO_PRINT = "script, style, form, button, a.headerlink, .toctree-wrapper, .sd-summary-state-marker"
PLAIN_SPAN = re.compile(r'<span class="(?:n|nn|o|p|pre|w)">([^<]*)</span>')
FLAGS = ("--no-pdf-header-footer", "--generate-pdf-document-outline", "--virtual-time-budget=600000")


class PdfError(RuntimeError):
    """No PDF was made; the message says why. One that was there is as it was."""


def parse(path: Path) -> BeautifulSoup:
    """A page, without the spans of code that have the colour of text: each would be an object of the file."""
    return BeautifulSoup(PLAIN_SPAN.sub(r"\1", path.read_text(encoding="utf-8")), "html.parser")


def text_of(tag: Tag) -> str:
    return " ".join(tag.get_text().split())


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
    for link in article.find_all("a", href=True):
        url = urlsplit(link["href"])
        target = os.path.normpath(Path(page).parent / url.path).removesuffix(".html") if url.path else page
        if not url.scheme and target in known:
            link["href"] = "#" + anchor(target, unquote(url.fragment))
        elif url.scheme not in ("http", "https", "mailto"):  # a download, or the file of a picture
            link.unwrap()


def chapter(article: Tag, page: str, known: list[str]) -> Tag:
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


def head_of(pages: dict[str, BeautifulSoup]) -> str:
    """The pages' styles and MathJax, as seen from the folder beside theirs, and what the print has of its own."""
    kept: dict[str, None] = {}  # in this order
    for page, soup in pages.items():
        for tag in soup.head.select('link[rel="stylesheet"], script'):
            if tag.name == "link" or "mathjax" in (tag.get("src", "") + tag.get_text()).lower():
                for name in {"href", "src"} & set(tag.attrs):
                    tag[name] = beside(page, tag[name])
                kept[str(tag)] = None
    style, script = CSS.read_text(encoding="utf-8"), SCRIPT.read_text(encoding="utf-8")
    return f'<meta charset="utf-8">{"".join(kept)}<style>{style}</style><script>{script}</script>'


def check_links(articles: list[Tag]) -> None:
    """Every link within the book has its place."""
    places = {tag["id"] for article in articles for tag in (article, *article.find_all(id=True))}
    links = {link["href"] for article in articles for link in article.select('a[href^="#"]')}
    if lost := sorted(link for link in links if link[1:] not in places):
        raise PdfError(f"links to places that are not there: {', '.join(lost[:5])}")


def running_head(number: int, title: str) -> str:
    return f"@page c{number} {{ @top-right {{ content: {json.dumps(title, ensure_ascii=False)} }} }}"


def title_page(root: Path) -> str:
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    title, _, subtitle = config["title"].partition(": ")
    lines = {"title": title, "subtitle": subtitle, "author": f"{config['author']}, {config['copyright']}"}
    return f'<section class="title-page">{"".join(f"<p class={k}>{html.escape(v)}</p>" for k, v in lines.items())}</section>'


def join(root: Path, book: Path) -> tuple[str, list[str], int]:
    """The whole book as one page, the titles of its chapters, and the number of its formulae."""
    plan = parts(root)
    pages = {page: parse(book / f"{page}.html") for _, names in plan for page in names}
    head = head_of(pages)
    articles = {page: chapter(soup.select_one("article.bd-article"), page, list(pages)) for page, soup in pages.items()}
    check_links(list(articles.values()))
    next(iter(articles.values())).h2.string = "Introduction"  # it has the book's title, which has a page of its own
    titles = {page: text_of(article.h2) for page, article in articles.items()}
    heads = []
    for number, (page, article) in enumerate(articles.items()):
        article["style"] = f"page: c{number}"
        heads.append(f"@page c{number} {{ @top-right {{ content: {json.dumps(titles[page], ensure_ascii=False)} }} }}")
    contents, body = ["<h1>Contents</h1>"], []
    for caption, names in plan:
        contents += [f"<p>{html.escape(caption)}</p>"]
        contents += [f'<a href="#{anchor(page)}">{html.escape(titles[page])}</a>' for page in names]
        body += [f'<section class="part"><h1>{html.escape(caption)}</h1></section>']
        body += [str(articles[page]) for page in names]
    whole = (
        f'<!doctype html><html lang="en" data-theme="light" data-mode="light"><head>{head}'
        f"<style>{' '.join(heads)}</style></head><body>{title_page(root)}"
        f'<nav class="contents">{"".join(contents)}</nav>{"".join(body)}</body></html>'
    )
    return whole, list(titles.values()), sum(len(article.select(".math")) for article in articles.values())


def printed(folder: Path, page: str, target: Path) -> None:
    """Have Chromium print a page of the folder."""
    if screenshots.CHROMIUM is None:
        raise PdfError("no chromium, chromium-browser or google-chrome on the PATH; the PDF is printed with one")
    with screenshots.served(folder) as address:
        try:
            screenshots.chromium(*FLAGS, f"--print-to-pdf={target}", f"{address}/{page}")
        except subprocess.SubprocessError as error:
            raise PdfError(f"Chromium did not print the book: {error}") from error
    if not target.exists():
        raise PdfError("Chromium printed nothing")


def check(pdf: pikepdf.Pdf, titles: list[str], formulae: int) -> None:
    """All formulae are set, nothing is cut, each chapter is in the outline, and links lead somewhere that others have."""
    counts = f"{formulae} formulae, 0 wrong, 0 cut"  # as pdf.js writes them
    if (found := str(pdf.docinfo.get(Name.Title))) != counts:
        raise PdfError(f"wanted {counts}; found {found}")
    with pdf.open_outline() as outline:
        listed = {" ".join(item.title.split()) for part in outline.root for item in part.children}
    if lacking := [title for title in titles if title not in listed]:
        raise PdfError(f"the outline lacks {', '.join(lacking)}")
    for link in (link for page in pdf.pages for link in page.get(Name.Annots, [])):
        place, uri = link.get(Name.Dest), str(link.get(Name.A, {}).get(Name.URI, ""))
        known = place in pdf.Root.Dests if place is not None else False
        if not known and (not uri.startswith(("http", "mailto:")) or "://127.0.0.1" in uri):
            raise PdfError(f"a link leads to {uri or place}")


def number_beside(link: pikepdf.Object, number: int) -> str:
    """A page number at the right end of its line, as an instruction of a page; a digit is 0.556 of the size wide."""
    right, bottom = float(link.Rect[2]), float(link.Rect[1])
    return f"BT /Number 9.5 Tf {right - 0.556 * 9.5 * len(str(number)):.1f} {bottom + 4:.1f} Td ({number}) Tj ET"


def number_contents(pdf: pikepdf.Pdf) -> None:
    """Write the page numbers into the table of contents, which Chromium cannot know before it has printed."""
    numbers = {page.obj.objgen: number for number, page in enumerate(pdf.pages, start=1)}
    font = Dictionary(Type=Name.Font, Subtype=Name.Type1, BaseFont=Name.Helvetica)
    with pdf.open_outline() as outline:
        first = numbers[outline.root[1].destination[0].objgen]  # after the contents, the first part
    for page in pdf.pages[1 : first - 1]:
        texts = [number_beside(link, numbers[pdf.Root.Dests[link.Dest][0].objgen]) for link in page.Annots]
        page.add_resource(font, Name.Font, Name.Number)
        page.contents_add(b"q", prepend=True)
        page.contents_add(f"Q {' '.join(texts)}".encode())


def describe(pdf: pikepdf.Pdf, root: Path) -> None:
    """Whose book it is, in place of what Chromium wrote; readers open it with its outline, folded to the chapters."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    pdf.docinfo.update({"/Title": config["title"], "/Author": config["author"], "/Creator": "make pdf"})
    pdf.Root.PageMode, pdf.Root.ViewerPreferences = Name.UseOutlines, Dictionary(DisplayDocTitle=True)
    with pdf.open_outline() as outline:
        for part in outline.root:
            for item in part.children:
                item.is_closed = True


def make(root: Path = ROOT) -> Path:
    """Join, print, check and pack. Returns the file."""
    folder = root / "_build"
    final, new, joined = folder / FILE, folder / f"new-{FILE}", folder / "pdf.html"
    with alone(folder):
        print("Joining the pages …", flush=True)
        page, titles, formulae = join(root, folder / "html")
        joined.write_text(page, encoding="utf-8")
        print(f"Printing {len(titles)} chapters with {formulae} formulae in Chromium (some minutes) …", flush=True)
        try:
            printed(folder, joined.name, new)
            print("Checking and packing …", flush=True)
            finish(new, root, titles, formulae)
            new.rename(final)
        finally:
            new.unlink(missing_ok=True)
            joined.unlink()
    return final


def finish(file: Path, root: Path, titles: list[str], formulae: int) -> None:
    """Check what was printed; then number, describe and pack it."""
    with pikepdf.open(file, allow_overwriting_input=True) as pdf:
        check(pdf, titles, formulae)
        number_contents(pdf)
        describe(pdf, root)
        pdf.save(file, object_stream_mode=pikepdf.ObjectStreamMode.generate)  # half the size
        print(f"{len(pdf.pages)} pages, {file.stat().st_size / 1e6:.1f} MB")


def main() -> int:
    try:
        final = make()
    except (PdfError, BuildError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; a PDF that was there is as it was.", file=sys.stderr)
        return 130
    print(f"The book is at {final}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
