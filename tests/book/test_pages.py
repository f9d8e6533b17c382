"""The rendered book: every page is there, whole, readable offline and fit for a phone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import unquote, urlencode, urlsplit

import pages
import pytest
import screenshots
import torch
import yaml
from bs4 import BeautifulSoup

from llmbook import edge, npm
from llmbook.applications import assistant
from llmbook.applications.assistant import Assistant
from llmbook.decoding import generate

ROOT = Path(__file__).resolve().parents[2]
MATHJAX = ("core.js", "input/tex.js", "output/chtml.js", "output/chtml/fonts/tex.js", "a11y/assistive-mml.js")


def toc() -> list[str]:
    """Every page that _toc.yml names."""
    content = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files: list[str] = []

    def walk(entry: object) -> None:
        if isinstance(entry, dict):
            files.extend(value for key, value in entry.items() if key in ("root", "file"))
            for value in entry.values():
                walk(value)
        elif isinstance(entry, list):
            for value in entry:
                walk(value)

    walk(content)
    return files


@pytest.mark.parametrize("name", toc())
def test_page_exists(book, name):
    assert (book / f"{name}.html").exists()


@pytest.mark.parametrize("check", pages.CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("name", toc())
def test_page(book, name, check):
    assert check(book / f"{name}.html") == []


def test_every_chapter_is_in_the_contents():
    assert {f"notebooks/{p.stem}" for p in (ROOT / "notebooks").glob("*.ipynb")} <= set(toc())


def test_ledger_links_lead_to_the_cells_that_make_the_claims(book):
    data = json.loads((ROOT / "book" / "data" / "claims.json").read_text(encoding="utf-8"))
    ledger = {a["href"]: a.get_text() for a in pages.page(book / "book" / "claims.html").select("td > a, td p > a")}
    for chapter in data["chapters"]:
        target = pages.page(book / "notebooks" / f"{chapter['chapter']}.html")
        for claim in chapter["claims"]:
            anchor = f"cell-{claim['cell']}"
            assert ledger.get(f"../notebooks/{chapter['chapter']}.html#{anchor}")
            assert claim["text"] in target.find(id=anchor).get_text()


def cited() -> set[str]:
    """The keys that the book's sources cite."""
    texts = [next(ROOT.glob(f"{name}.*")).read_text(encoding="utf-8") for name in toc()]
    return {
        key.strip() for text in texts for keys in re.findall(r"\{cite:[pt]\}`([^`]+)`", text) for key in keys.split(",")
    }


def test_every_work_cited_is_listed_and_every_entry_is_whole(book):
    entries = re.findall(r"^@\w+\{(\S+),", (ROOT / "book" / "references.bib").read_text(encoding="utf-8"), re.MULTILINE)
    listed = pages.page(book / "book" / "bibliography.html").select(".citation")
    assert len(entries) == len(set(entries))
    assert cited() <= set(entries)
    assert len(listed) == len(cited())
    assert all(len(entry.get_text(strip=True)) > 40 for entry in listed)


def test_every_glossary_term_has_a_definition(book):
    terms = pages.page(book / "book" / "glossary.html").select("dl.glossary dt")
    assert terms
    assert all(term.find_next_sibling("dd").get_text(strip=True) for term in terms)


def test_every_chapter_and_every_term_is_in_the_index(book):
    index = pages.page(book / "genindex.html").select_one("main")
    leads_to = {a["href"].partition("#")[0] for a in index.select("a")}
    assert {f"{name}.html" for name in toc() if name.startswith("notebooks/")} <= leads_to
    terms = {
        term.contents[0].get_text().replace("’", "'")
        for term in pages.page(book / "book" / "glossary.html").select("dl.glossary dt")
    }
    assert terms <= {a.get_text() for a in index.select("li > a:first-child")}


# --- in a browser -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(book):
    if screenshots.CHROMIUM is None:
        pytest.skip("no Chromium on this machine: overflow and mathematics are not measured")
    with screenshots.served(book) as address:
        yield address


@pytest.fixture(scope="module")
def lacks_axe() -> str:
    """Why axe-core is not here; nothing if it is."""
    try:
        screenshots.axe_core()
    except npm.NotBrought as error:
        return str(error)
    return ""


@pytest.mark.enable_socket
@pytest.mark.parametrize("name", [*toc(), "search"])
def test_every_reader_can_use_the_page(address, lacks_axe, name):
    """It fits a phone, its mathematics sets, no code scrolls on a laptop, keys reach all; axe-core finds nothing.

    Of axe-core all rules of WCAG 2.2 AA and of its best practice, at both widths, in light and dark.
    """
    found = screenshots.examine(address, f"{name}.html", [screenshots.PHONE, screenshots.WIDE], axe=not lacks_axe)
    axe = {width: report.pop("axe", {}) for width, report in found.items()}
    phone, wide = found[screenshots.PHONE], found[screenshots.WIDE]
    assert phone.pop("width") == screenshots.PHONE
    assert phone.pop("height") > 0
    phone.pop("scrollingCode")  # on a phone code may scroll, in its own box
    assert not any(phone.values()), phone
    assert wide["scrollingCode"] == wide["unreachable"] == []
    if lacks_axe:
        pytest.skip(lacks_axe)
    assert axe == {width: {"light": [], "dark": []} for width in found}


@pytest.mark.enable_socket
@pytest.mark.parametrize(
    ("words", "chapter"),
    [
        ("softmax", "01"), ("perplexity", "01"), ("learning rate", "07"), ("KV cache", "05"), ("LoRA", "10"),
        ("beam search", "11"), ("BLEU", "18"), ("temperature", "11"), ("attention", "04"), ("dropout", "08"),
        ("cross-entropy", "01"), ("hallucination", "16"), ("quantisation", "14"), ("byte-pair encoding", "02"),
    ],
)  # fmt: skip
def test_the_search_finds_the_chapter_that_builds_a_thing_first(book, words, chapter):
    dom = screenshots.chromium("--dump-dom", f"{(book / 'search.html').as_uri()}?{urlencode({'q': words})}")
    first = BeautifulSoup(dom, "html.parser").select_one("ul.search > li a")
    assert first["href"].startswith(f"notebooks/{chapter}_")


@pytest.mark.parametrize("name", toc())
def test_a_page_weighs_little(book, name):
    """Below 2.5 MB with all that it loads, the weights of a model that a reader starts not counted."""
    page = book / f"{name}.html"
    soup = pages.page(page)
    files = {page, *(book / "_static" / "mathjax" / part for part in MATHJAX if soup.select(".math"))}
    for tag in soup.select("script[src], img[src], link[rel=stylesheet]"):
        files.add((page.parent / unquote(urlsplit(tag.get("src") or tag.get("href")).path)).resolve())
    fonts = 200_000 if soup.select(".math") else 0  # of MathJax, at most
    assert sum(file.stat().st_size for file in files) + fonts < 2_500_000
    assert "fontawesome" not in page.read_text(encoding="utf-8")


def test_marks_that_code_loses_have_the_colour_of_its_text(book):
    styles = (book / "_static" / "pygments.css").read_text(encoding="utf-8")
    for theme in ("light", "dark"):
        rule = rf'html\[data-theme="{theme}"\] \.highlight {{part}}{{{{.*: (#\w+) }}}}'
        colours = {re.search(rule.format(part=part), styles)[1] for part in ("", r"\.n ", r"\.p ", r"\.w ")}
        assert len(colours) == 1, theme


def test_every_icon_of_the_pages_is_drawn(book):
    drawn = (book / "_static" / "icons.css").read_text(encoding="utf-8")
    named = {icon for page in book.glob("*/*.html") for icon in re.findall(r'"fa\w* fa-([\w-]+)', page.read_text())}
    assert named
    assert all(f".fa-{icon}::before" in drawn for icon in named)


def test_chapters_ask_their_neighbours_questions_and_say_how_long_they_take(book):
    asked = re.findall(
        r"\.ipynb\) \| (.+?) \|$", (ROOT / "book" / "intro.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    chapters = [name for name in toc() if name.startswith("notebooks/")]
    assert len(asked) == len(chapters)
    for number, name in enumerate(chapters):
        soup = pages.page(book / f"{name}.html")
        shown = [tag.get_text() for tag in soup.select(".prev-next-question")]
        assert shown == [asked[n] for n in (number - 1, number + 1) if 0 <= n < len(asked)]
        assert re.fullmatch(r"About \d+ minutes to read.*", soup.select_one("article .reading-time").get_text())


@pytest.mark.skipif(screenshots.CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("question", ["What is a KV cache?", "Why does BERT mask 15 % of the tokens?", "zxqv wvut"])
def test_the_assistant_answers_from_a_folder_as_the_library_does(book, question):
    page = book / "book" / "assistant.html"
    dom = screenshots.chromium("--dump-dom", f"{page.as_uri()}?{urlencode({'q': question})}")
    soup = BeautifulSoup(dom, "html.parser")
    shown = []
    for item in soup.select("#assistant-answers > li"):
        url = urlsplit(item.a["href"])
        shown.append(((page.parent / unquote(url.path)).resolve(), url.fragment, item.p.text))
    wanted = []
    for one in Assistant(assistant.passages()).answer(question, k=5):
        file, mark = one.passage.link.split("#")
        wanted.append(((book / file).resolve(), mark, one.extract))
    assert shown == wanted
    assert all(mark in pages.anchors(file) for file, mark, _ in shown)
    assert soup.select_one("#assistant-said").text


@pytest.mark.enable_socket
@pytest.mark.skipif(screenshots.CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("from_a_folder", [True, False])
def test_the_gpt_in_the_page_writes_what_torch_writes(book, address, from_a_folder):
    beginning = "it is Monday morning . the nurse Anna is in the hospital ."
    page = "notebooks/26_beyond.html"
    place = (book / page).as_uri() if from_a_folder else f"{address}/{page}"
    dom = screenshots.chromium("--dump-dom", f"{place}?{urlencode({'beginning': beginning, 'temperature': 0})}")
    soup = BeautifulSoup(dom, "html.parser")
    model, words = edge.load_page(edge.PAGE_WEIGHTS)
    ids = [words.index(word) for word in ["<bos>", *beginning.split()]]
    row = generate(model, torch.tensor([ids]), 128 - len(ids), eos_token_id=words.index("<eos>"))[0, 1:]
    assert soup.select_one("#gpt-written").text.split() == [words[i] for i in row.tolist()]
    assert "words" in soup.select_one("#gpt-said").text


@pytest.mark.skipif(screenshots.CHROMIUM is None, reason="no Chromium on this machine")
def test_the_gpt_in_the_page_says_which_words_it_does_not_know(book):
    page = book / "notebooks" / "26_beyond.html"
    dom = screenshots.chromium("--dump-dom", f"{page.as_uri()}?{urlencode({'beginning': 'the quark Anna'})}")
    soup = BeautifulSoup(dom, "html.parser")
    assert "quark" in soup.select_one("#gpt-said").text
    assert soup.select_one("#gpt-written").text == ""
