"""Chapter 19's checker tells a right, a nearly right and a wrong answer apart, in words."""

from checking import assert_nearly, assert_not_attempted, assert_right, assert_wrong

from llmbook.applications.understanding import from_bio
from llmbook.exercises.ch19 import check_spans


def test_spans(capsys):
    assert_not_attempted(check_spans, capsys)
    assert_right(check_spans, from_bio, capsys)
    assert_nearly(
        check_spans, lambda tags: [(i, i + 1, t[2:]) for i, t in enumerate(tags) if t != "O"], "begin a new one", capsys
    )
    assert_nearly(
        check_spans,
        lambda tags: from_bio([t.replace("B-", "I-") for t in tags]),
        "a B begins a new span",
        capsys,
    )
    assert_nearly(check_spans, lambda tags: [(a, b - 1, k) for a, b, k in from_bio(tags)], "behind", capsys)
    assert_nearly(check_spans, lambda tags: [s for s in from_bio(tags) if s[1] < len(tags)], "is lost", capsys)
    assert_wrong(check_spans, lambda tags: [], capsys)
