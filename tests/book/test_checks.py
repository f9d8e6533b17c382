"""The checks of rendered pages catch the faults that they are for."""

from __future__ import annotations

import sys
from pathlib import Path

import pages
import pytest
import screenshots

from llmbook import npm

GOOD = """<html><head><title>Words</title>
<meta name="description" content="What you will be able to do: count words, and tell a count from a guess.">
<script src="../_static/book.js"></script></head><body><article class="bd-article"><h1 id="top">Words</h1>
<p>See <a href="#top">above</a>, <a href="other.html#here">there</a>, <a href="https://example.org">afar</a>,
<span class="math">\\(\\frac{1}{2}\\)</span>. It costs $5.</p><pre>```{note}</pre>
<figure><img src="a.png" alt="A curve that falls from left to right."><figcaption>
<span class="caption-number">Fig. 1</span> Falls.</figcaption></figure></article></body></html>"""

PLANTED = [
    (pages.links_resolve, "#top", "#nowhere"),
    (pages.links_resolve, "other.html", "gone.html"),
    (pages.links_resolve, "#here", "#gone"),
    (pages.links_resolve, "https://example.org", "https://example.org/\N{NO-BREAK SPACE}me"),
    (pages.images_are_described, "A curve that falls from left to right.", "f3a9c2d4e5f60718293a"),
    (pages.images_are_described, "A curve that falls from left to right.", "../_images/a_curve_that_falls.png"),
    (pages.images_are_described, ' alt="A curve that falls from left to right."', ""),
    (pages.images_are_described, "a.png", "b.png"),
    (pages.captions_are_numbered, "caption-number", "caption"),
    (pages.nothing_is_raw, "It costs", "{cite:p}`shannon1948mathematical` costs"),
    (pages.nothing_is_raw, "It costs", "```{note} It costs"),
    (pages.nothing_is_raw, "It costs", "::: It costs"),
    (pages.nothing_is_raw, "It costs", "$x_1$ costs"),
    (pages.nothing_is_raw, "It costs", r"\frac{1}{2} costs"),
    (pages.elements_are_html, "It costs", "A user types <eos>. It costs"),
    (pages.elements_are_html, "It costs", "Unknown words are <unk>. It costs"),
    (pages.no_error_nodes, "<p>", '<p class="system-message">'),
    (pages.no_error_nodes, "<p>", '<p><span class="problematic">x</span>'),
    (pages.no_workplace, "It costs", f"{pages.ROOT}/notebooks costs"),
    (pages.no_workplace, "It costs", f"{sys.prefix}/bin costs"),
    (pages.no_workplace, "https://example.org", "file:///index.html"),
    (pages.has_title_and_description, "<title>Words</title>", ""),
    (pages.has_title_and_description, 'name="description"', 'name="other"'),
    (pages.has_title_and_description, "<h1", "<h1>Two</h1><h1"),
    (pages.loads_nothing_from_afar, "../_static/book.js", "https://cdn.example.org/book.js"),
    (pages.loads_nothing_from_afar, 'src="a.png"', 'src="https://example.org/a.png"'),
]


def built(folder: Path, text: str) -> Path:
    """A page in a book of two."""
    (folder / "other.html").write_text('<html><head></head><body><p id="here"></p></body></html>', encoding="utf-8")
    (folder / "a.png").touch()
    path = folder / "page.html"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("check", pages.CHECKS, ids=lambda c: c.__name__)
def test_good_page_passes(tmp_path, check):
    assert check(built(tmp_path, GOOD)) == []


@pytest.mark.parametrize(("check", "old", "new"), PLANTED)
def test_planted_fault_is_caught(tmp_path, check, old, new):
    assert old in GOOD
    assert check(built(tmp_path, GOOD.replace(old, new)))


def test_every_check_has_a_planted_fault():
    assert set(pages.CHECKS) == {check for check, _, _ in PLANTED}


@pytest.mark.enable_socket
@pytest.mark.skipif(screenshots.CHROMIUM is None, reason="no Chromium on this machine")
def test_browser_sees_what_overflows_a_phone(tmp_path):
    wide = '<p id="w" style="width: 600px">wide</p><img src="gone.png">'
    code = f'<div class="cell_input"><pre style="overflow-x: auto">{"x = 1  # " * 30}</pre></div>'
    scrolling = '<div style="overflow-x: auto"><p style="width: 600px">scrolls</p></div>'
    built(
        tmp_path,
        GOOD.replace('src="../_static/book.js"', "").replace("</article>", wide + scrolling + code + "</article>"),
    )
    with screenshots.served(tmp_path) as address:
        found = screenshots.measure(address, "page.html", 390)
    assert found["width"] == 390
    assert found["overflowing"] == ["p : wide"]
    assert found["unreachable"] == ["div : scrolls", "pre : " + ("x = 1  # " * 7)[:60]]
    assert found["sideways"] > 0
    assert found["unsetMath"]
    assert found["scrollingCode"] == ["pre : " + ("x = 1  # " * 7)[:60]]
    assert any(source.endswith("gone.png") for source in found["missingImages"])


@pytest.mark.enable_socket
@pytest.mark.skipif(screenshots.CHROMIUM is None, reason="no Chromium on this machine")
def test_axe_sees_what_some_readers_cannot_use(tmp_path):
    try:
        screenshots.axe_core()
    except npm.NotBrought as error:
        pytest.skip(str(error))
    code = "".join('<span class="pale" style="opacity: 0.3">pale</span>' for _ in range(3))  # alike: one is looked at
    faults = f"<input><pre>{code}</pre><style>[data-theme=dark] h1 {{ opacity: 0.3 }}</style>"
    built(tmp_path, GOOD.replace('src="../_static/book.js"', "").replace("</article>", faults + "</article>"))
    with screenshots.served(tmp_path) as address:
        found = screenshots.examine(address, "page.html", [390], axe=True)[390]["axe"]
    rules = {mode: {line.split(",")[0] for line in lines} for mode, lines in found.items()}
    assert {"label", "color-contrast"} <= rules["light"]
    assert rules["dark"] == {"color-contrast"}
    assert any("color-contrast, 1 times" in line for line in found["light"])
    assert any("color-contrast, 2 times" in line for line in found["dark"])


@pytest.mark.enable_socket
@pytest.mark.skipif(screenshots.CHROMIUM is None, reason="no Chromium on this machine")
def test_a_page_that_only_forwards_is_followed(tmp_path):
    built(tmp_path, GOOD)
    (tmp_path / "index.html").write_text('<meta http-equiv="Refresh" content="0; url=other.html">', encoding="utf-8")
    with screenshots.served(tmp_path) as address:
        assert screenshots.measure(address, "index.html", 390)["width"] == 390
