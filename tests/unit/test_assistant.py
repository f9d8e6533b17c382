"""The book's assistant: its sections, its test set, and the page's JavaScript, which must rank as Python does."""

import json
import shutil
import subprocess
from collections import Counter

import numpy as np
import pytest

from llmbook.applications import assistant
from llmbook.applications.assistant import Assistant, Passage, anchor, plain, terms

CHAPTERS = [f"{n:02}" for n in range(1, 16)]


@pytest.fixture(scope="module")
def book():
    return assistant.passages(chapters=CHAPTERS)


def test_every_chapter_has_sections_with_text(book):
    counts = Counter(passage.chapter for passage in book)
    assert set(counts) == set(CHAPTERS)
    assert min(counts.values()) >= 8
    assert all(passage.link.startswith(f"notebooks/{passage.chapter}_") for passage in book)
    assert not any(passage.heading in assistant.SKIPPED for passage in book)
    assert not any("```" in passage.text or "{cite" in passage.text for passage in book)


def test_anchors_are_those_of_docutils(book):
    nodes = pytest.importorskip("docutils.nodes")
    for passage in book:
        assert passage.link.split("#")[1] == nodes.make_id(passage.heading), passage.heading


def test_plain_words():
    assert plain("See {ref}`ch-05` and [the *page*](x.md) for $k_1$.") == "See chapter 05 and the page for k_1."
    assert plain("{cite:t}`devlin2019bert` hide words {cite:p}`a1,b2`.") == "Devlin hide words."
    assert plain("{eq}`eq-x` in {numref}`fig-ch06-x`, a {term}`token`") == "the formula in the figure, a token"
    assert plain('Before.\n```{raw} html\n<form id="f">\n</form>\n```\nSee <a href="x.html#c">the cell</a>.') == (
        "Before. See the cell ."
    )
    assert anchor("Why divide by the square root of $d_k$?") == "why-divide-by-the-square-root-of-d-k"


def test_terms_drop_function_words_and_endings():
    assert terms("What are the models' caches?") == terms("model cache")
    assert terms("") == []


def test_answers_come_with_a_sentence_of_their_passage(book):
    found = Assistant(book).answer("How does nucleus sampling work?", k=3)
    assert len(found) == 3
    assert all(one.extract in one.passage.text for one in found)
    assert found[0].score >= found[1].score >= found[2].score > 0
    assert found[0].passage.chapter == "11"


def test_silent_where_no_word_is_known(book):
    assert Assistant(book).answer("zxqv wvut") == []


def test_no_chapters(tmp_path):
    with pytest.raises(FileNotFoundError, match="no chapters"):
        assistant.passages(tmp_path)


# ------------------------------------------------------------ the test set


def test_the_questions_name_sections_that_exist(book):
    asked = assistant.questions()
    assert len(asked) >= 100
    assert len({one["question"] for one in asked}) == len(asked)
    headings = {(passage.chapter, passage.heading) for passage in book}
    for one in asked:
        assert all((one["chapter"], plain(section)) in headings for section in one["sections"]), one


def test_places_count_ties_against():
    four = [Passage("01", name, name, "") for name in "abcd"]
    asked = [{"question": "", "chapter": "01", "sections": ["b"]}]
    places = assistant.places(Assistant(four), asked, np.array([[3.0, 2.0, 2.0, 1.0]]))
    assert places.tolist() == [3.0]
    with pytest.raises(ValueError, match="sections that exist"):
        assistant.places(Assistant(four), [asked[0] | {"sections": ["z"]}], np.zeros((1, 4)))


# ------------------------------------------------------------ the page


@pytest.mark.skipif(shutil.which("node") is None, reason="no node here to run the page's script")
def test_the_page_ranks_and_quotes_as_the_library_does(book, tmp_path):
    asked = [one["question"] for one in assistant.questions()]
    (tmp_path / "index.json").write_text(json.dumps(assistant.index(book)), encoding="utf-8")
    (tmp_path / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
    script = assistant.ROOT / "book" / "_static" / "assistant.js"
    code = f"""
        const {{rank, extract}} = require({json.dumps(str(script))});
        const read = (name) => JSON.parse(require('fs').readFileSync({json.dumps(str(tmp_path))} + '/' + name, 'utf8'));
        const index = read('index.json');
        console.log(JSON.stringify(read('asked.json').map((question) => {{
            const {{order, scores, weights, stop}} = rank(index, question);
            const best = order.slice(0, 5).map((i) => [i, extract(index.passages[i], weights, stop)]);
            return {{scores: [...scores], best}};
        }})));"""
    run = subprocess.run(["node", "-e", code], capture_output=True, text=True, check=True)
    page, ours = json.loads(run.stdout), Assistant(book)
    scores = np.stack([ours.scores(question) for question in asked])
    np.testing.assert_allclose(np.array([one["scores"] for one in page]), scores, rtol=1e-9, atol=1e-9)
    for question, one in zip(asked, page, strict=True):
        answers = ours.answer(question, k=5)
        assert [(book[i].link, text) for i, text in one["best"]] == [(a.passage.link, a.extract) for a in answers]
