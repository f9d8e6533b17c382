"""Chapter 21's long run: its questions, its prompts, what it reads off a model, and its file."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from llmbook import pretrained
from llmbook.experiments import prompted
from llmbook.experiments.prompted import prompts, runs


def test_questions_are_balanced_and_have_one_right_option():
    asked = prompted.questions()
    assert len(asked) == 119
    places = [sum(q.right == i for q in asked) for i in range(4)]
    assert max(places) - min(places) <= 1
    for q in asked:
        assert len(set(q.options)) == 4
        assert q.wrong in q.options
        assert q.wrong != q.answer
    assert len({q.text for q in asked}) == len(asked)


def test_starts_are_news_and_what_a_person_wrote_next():
    rows = prompted.starts()
    assert len(set(rows)) == 24
    assert all(len(a.split()) == 16 and len(b.split()) == 30 for a, b in rows)


class Template:
    """A tokeniser of characters."""

    all_special_ids = (0,)

    def __call__(self, text, **how):
        ids = [1 + ord(c) % 7 for c in text]
        return {"input_ids": torch.tensor([ids]) if how.get("return_tensors") else ids}

    def decode(self, ids):
        return "".join(chr(97 + int(i)) for i in ids)

    def apply_chat_template(self, message, **how):
        return f"<{message[0]['content']}>"


class Bigram(nn.Module):
    """p(next | last) from a table, so that every log-probability is known."""

    def __init__(self):
        super().__init__()
        self.table = torch.randn(8, 8, generator=torch.Generator().manual_seed(0)).log_softmax(-1)

    def forward(self, input_ids, logits_to_keep=0, past_key_values=None, use_cache=False):
        return SimpleNamespace(logits=self.table[input_ids][:, -logits_to_keep:], past_key_values=None)


def by_hand(model, tokenizer, prefix, end):
    ids = tokenizer(prefix + end)["input_ids"]
    size = len(tokenizer(end)["input_ids"])
    return sum(float(model.table[a, b]) for a, b in zip(ids[-size - 1 : -1], ids[-size:], strict=True))


@pytest.mark.parametrize("ends", [("A", "B"), ("abc", "d", "ef")])
def test_log_probabilities_are_sums_over_the_continuation(ends):
    model, tokenizer = Bigram(), Template()
    found = runs.option_logprobs(model, tokenizer, ("some text", ends))
    assert found == pytest.approx([by_hand(model, tokenizer, "some text", end) for end in ends], abs=1e-5)


def test_what_is_written_holds_no_mark():
    model, tokenizer = Bigram(), Template()
    model.table[:, 0] = 5.0  # the mark that ends a text would always be likeliest
    told = runs.write_on(model, tokenizer, "ab", size=6)
    assert len(told) == 6
    assert "a" not in told


def test_every_format_shows_the_question_and_reads_four_answers():
    q = prompted.questions()[5]
    for form in prompted.FORMATS:
        prefix, ends = form.prompt(q, Template())
        assert q.text in prefix
        assert len(set(ends)) == 4
        shown = [option in prefix for option in q.options]
        assert all(shown) if form.letters or "lines" in form.name else True
    assert len({form.name for form in prompted.FORMATS}) == 10


def test_a_judge_sees_both_answers_in_this_order():
    for judge in prompted.JUDGES:
        prefix, ends = prompts.verdict_prompt(judge, "task", "one", "two", Template())
        assert prefix.index("one") < prefix.index("two")
        assert len(ends) == 2
    assert len(prompts.padded("Paris")) > 20 * len("Paris")
    assert "Paris" in prompts.padded("Paris")


def test_a_row_is_as_long_as_its_questions(monkeypatch):
    monkeypatch.setattr(runs, "WRITTEN", 4)
    model, tokenizer = Bigram(), Template()
    row = runs.measure(("format", "A. lines", "set"), model, tokenizer, slice(0, 3))
    assert [len(x) for x in row["logprobs"]] == [4, 4, 4]
    row = runs.measure(("judge", "plain, A or B", "long, short"), model, tokenizer, slice(0, 2))
    assert [len(x) for x in row["logprobs"]] == [4, 4]
    row = runs.measure(("judge", "plain, A or B", "same, same"), model, tokenizer, slice(0, 2))
    assert [len(x) for x in row["logprobs"]] == [2, 2]


def test_the_file_is_whole_and_of_todays_code():
    rows = runs.load()
    assert runs.missing(rows) == []
    for row in rows:
        assert all(math.isfinite(x) and x <= 0 for line in row["logprobs"] for x in line)


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"part": "format"}\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 1: name"):
        runs.load(path)


@pytest.mark.skipif(not pretrained.available("smollm2"), reason="needs make models")
def test_the_real_model_says_today_what_the_file_holds():
    model, tokenizer = pretrained.load("smollm2")
    kept = {tuple(row[k] for k in runs.KEY): row["logprobs"] for row in runs.load()}
    for key in (("format", "A. lines", "set"), ("judge", "chat, 1 or 2", "right, wrong")):
        again = runs.measure(key, model, tokenizer, slice(3, 5))["logprobs"]
        assert torch.allclose(torch.tensor(again), torch.tensor(kept[key][3:5]), atol=0.02)
