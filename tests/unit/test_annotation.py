"""The class's task: items whose truth is known, a form that records, answers that are read strictly."""

import numpy as np
import pytest

from llmbook.metrics import annotation
from llmbook.metrics.annotation import LABELS


def test_items_are_a_third_each_and_the_same_for_all():
    items = annotation.items()
    assert [sum(i.truth == k for i in items) for k in range(3)] == [8, 8, 8]
    assert items == annotation.items(24, 21) != annotation.items(24, 22)
    with pytest.raises(ValueError, match="multiple of 3"):
        annotation.items(10)


def test_every_true_and_false_statement_fits_its_story():
    """A true one is an answer of the story's own; of a false one the subject is named."""
    for item in annotation.items():
        words = item.statement.rstrip(" .").split()
        subject = next(w for w in words if w != "the")
        assert subject in item.story.split()
        if item.truth == 2:
            assert words[-1] not in item.story.split()  # the feeling is not told


def test_the_form_records_and_turns_back():
    form = annotation.Form(" Kim ", annotation.items(3))
    assert form.back.disabled
    form.buttons[0].click()
    form.buttons[2].click()
    form.back.click()
    form.buttons[1].click()
    form.buttons[0].click()
    assert form.answers == {0: "true", 1: "false", 2: "true"}
    assert all(button.disabled for button in form.buttons)
    form.answer("false")  # all are judged: nothing happens
    raters, table = annotation.read_answers([form.to_csv()], 3)
    assert raters == ["Kim"]
    assert table.tolist() == [[0, 1, 0]]
    with pytest.raises(ValueError, match="rater must"):
        annotation.Form(" ")
    with pytest.raises(ValueError, match="label must"):
        form.answer("maybe")


def test_the_form_saves_where_it_is_told(tmp_path):
    form = annotation.Form("a", annotation.items(3))
    form.answer("true")
    form.save(tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "rater,item,label\na,0,true\n"


def test_answers_of_several_raters_make_a_table_with_gaps():
    tables = ["rater,item,label\na,0,true\na,2,not told\n", "rater,item,label\nb,1,false\n"]
    raters, table = annotation.read_answers(tables, 3)
    assert raters == ["a", "b"]
    assert np.array_equal(table, [[0, np.nan, 2], [np.nan, 1, np.nan]], equal_nan=True)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("who,item,label\n", "columns"),
        ("rater,item,label\n", "at least one answer"),
        ("rater,item,label\na,0,yes\n", "labels among"),
        ("rater,item,label\na,9,true\n", "items from 0 to 2"),
        ("rater,item,label\na,x,true\n", "items from 0 to 2"),
        ("rater,item,label\na,0,true\na,0,false\n", "twice"),
    ],
)
def test_a_wrong_table_is_named(table, words):
    with pytest.raises(ValueError, match=words):
        annotation.read_answers([table], 3)


def test_simulated_raters_are_as_careful_as_they_should_be():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 20_000)
    given = annotation.simulated_rater(truth, 0.8, rng)
    assert (given == truth).mean() == pytest.approx(0.8, abs=0.01)
    slips = given[given != truth]
    assert np.bincount(slips, minlength=3).min() / len(slips) > 0.3
    stubborn = annotation.simulated_rater(truth, 1.0, rng, habit=2)
    assert set(stubborn[truth == 2]) == {LABELS.index("false")}
    with pytest.raises(ValueError, match="care"):
        annotation.simulated_rater(truth, 1.2, rng)
