"""Print the whole book as one file, _build/The-Uncertainty-of-AI.pdf (`make pdf`).

Chromium prints the built pages, which onepage.py joins into one. What comes out is checked, its contents get their
page numbers, and it is packed before it takes its name: an interruption leaves the file that was there.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pikepdf
import screenshots
from build import BuildError, alone, report
from onepage import LinkError, OnePage, config, join
from pikepdf import Dictionary, Name, Pdf

ROOT = Path(__file__).resolve().parents[1]
FILE = "The-Uncertainty-of-AI.pdf"
FLAGS = ("--no-pdf-header-footer", "--generate-pdf-document-outline", "--virtual-time-budget=600000")


class PdfError(RuntimeError):
    """No PDF was made; the message says why. One that was there is as it was."""


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


def check(pdf: Pdf, page: OnePage) -> None:
    """All formulae are set, nothing is cut, each chapter is in the outline, and no link is bound to this machine."""
    counts = f"{page.formulae} formulae, 0 wrong, 0 cut, 0 pictures lost"  # as pdf.js writes them
    if (found := str(pdf.docinfo.get(Name.Title))) != counts:
        raise PdfError(f"the print should have {counts}; it has {found}")
    with pdf.open_outline() as outline:
        listed = {item.title for part in outline.root for item in part.children}
    if lacking := [title for title in page.titles if title not in listed]:
        raise PdfError(f"the outline lacks {', '.join(lacking)}")
    if wrong := [target for target in map(target_of, links(pdf)) if not leads(pdf, target)]:
        raise PdfError(f"links lead to this machine, or to nothing: {', '.join(map(str, wrong[:5]))}")


def links(pdf: Pdf) -> list[pikepdf.Object]:
    return [note for sheet in pdf.pages for note in sheet.get(Name.Annots, []) if note.Subtype == Name.Link]


def target_of(link: pikepdf.Object) -> Name | str:
    """The name of a place in the file, or an address."""
    return link.Dest if Name.Dest in link else str(link.A.get(Name.URI, ""))


def leads(pdf: Pdf, target: Name | str) -> bool:
    if isinstance(target, str):
        return urlsplit(target).scheme in ("http", "https", "mailto") and urlsplit(target).hostname != "127.0.0.1"
    return target in pdf.Root.Dests


def number_beside(link: pikepdf.Object, number: int) -> str:
    """A page number at the right end of its line, as an instruction of a page; a digit is 0.556 of the size wide."""
    right, bottom = float(link.Rect[2]), float(link.Rect[1])
    return f"BT /Number 9.5 Tf {right - 0.556 * 9.5 * len(str(number)):.1f} {bottom + 4:.1f} Td ({number}) Tj ET"


def number_contents(pdf: Pdf) -> None:
    """Write page numbers into the table of contents: Chromium knows them only when it has printed."""
    numbers = {sheet.obj.objgen: number for number, sheet in enumerate(pdf.pages, start=1)}
    font = Dictionary(Type=Name.Font, Subtype=Name.Type1, BaseFont=Name.Helvetica)
    with pdf.open_outline() as outline:
        contents, part = (numbers[item.destination[0].objgen] for item in outline.root[:2])
    for sheet in pdf.pages[contents - 1 : part - 1]:
        texts = [number_beside(link, numbers[pdf.Root.Dests[link.Dest][0].objgen]) for link in sheet.Annots]
        sheet.add_resource(font, Name.Font, Name.Number)
        sheet.contents_add(b"q", prepend=True)
        sheet.contents_add(f"Q {' '.join(texts)}".encode())


def mend_outline(pdf: Pdf, headings: dict[str, str]) -> None:
    """Give it the headings' whole texts, and unfold it to the chapters only."""
    with pdf.open_outline() as outline:
        for chapter in (chapter for part in outline.root for chapter in part.children):
            chapter.is_closed = True
            for item in (chapter, *chapter.children):
                item.title = headings.get("".join(item.title.split()), item.title)


def describe(pdf: Pdf, root: Path) -> None:
    """Whose book it is, instead of Chromium's words; readers open it beside its outline."""
    pdf.docinfo.update({"/Title": config(root)["title"], "/Author": config(root)["author"], "/Creator": "make pdf"})
    pdf.Root.PageMode, pdf.Root.ViewerPreferences = Name.UseOutlines, Dictionary(DisplayDocTitle=True)


def finish(file: Path, root: Path, page: OnePage) -> None:
    """Mend the outline and check what was printed; then number, describe and pack it."""
    with pikepdf.open(file, allow_overwriting_input=True) as pdf:
        mend_outline(pdf, page.headings)
        check(pdf, page)
        number_contents(pdf)
        describe(pdf, root)
        pdf.save(file, object_stream_mode=pikepdf.ObjectStreamMode.generate)  # half as large
        print(f"{len(pdf.pages)} pages, {file.stat().st_size / 1e6:.1f} MB")


def make(root: Path = ROOT) -> Path:
    """Join, print, check. Returns the file."""
    folder = root / "_build"
    final, new, joined = folder / FILE, folder / f"new-{FILE}", folder / "pdf.html"
    if not (folder / "html" / "index.html").exists():
        raise PdfError(f"no built book at {folder / 'html'}: run `make book` first")
    with alone(folder):
        try:
            print("Joining the pages …", flush=True)
            page = join(root, folder / "html")
            joined.write_text(page.text, encoding="utf-8")
            print(f"Printing {page.formulae} formulae and all else in Chromium (minutes) …", flush=True)
            printed(folder, joined.name, new)
            print("Checking and packing …", flush=True)
            finish(new, root, page)
            return new.replace(final)
        finally:
            new.unlink(missing_ok=True)
            joined.unlink(missing_ok=True)


def main() -> int:
    return report(make, (PdfError, LinkError, BuildError))


if __name__ == "__main__":
    sys.exit(main())
