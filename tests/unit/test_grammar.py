"""A grammar takes what json takes, and its mask lets through only tokens that stay within it."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmbook.decoding import JSON, Grammar, GrammarMask, generate
from llmbook.transformer import GPT, GPTConfig

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def is_json(text):
    try:
        json.loads(text, parse_constant=lambda name: 1 / 0)
    except (ValueError, ZeroDivisionError):
        return False
    return True


@given(VALUES, st.booleans())
def test_what_json_writes_is_taken(value, ascii_only):
    text = json.dumps(value, ensure_ascii=ascii_only)
    state = JSON.after(text)
    assert state is not None
    assert JSON.is_complete(state)


@given(st.text(alphabet='{}[]",:0123456789.eE-+ truefalsn\\u', max_size=12))
def test_what_is_taken_is_json(text):
    state = JSON.after(text)
    if state is not None and JSON.is_complete(state):
        assert is_json(text)


@pytest.mark.parametrize("text", ["01", "[1,]", '{"a" 1}', "{,}", "tru ", "1.", "-", '"\n', '{"a":1,}', "]", "", "nul"])
def test_what_json_refuses_is_refused(text):
    state = JSON.after(text)
    assert state is None or not JSON.is_complete(state)


TEXTS = [
    '{"',
    '"',
    '":',
    " ",
    "1",
    "0",
    "}",
    "[",
    "]",
    ",",
    "name",
    '", "',
    "a",
    "\\",
    "true",
    "tr",
    "ue",
    "<end>",
    None,
    "\n",
    ":",
]
END = TEXTS.index("<end>")


def test_the_mask_is_the_grammar_token_by_token():
    mask = GrammarMask(JSON, TEXTS, END, prompt_length=1)
    for ids in ([], [0], [0, 10], [0, 10, 2], [0, 10, 2, 4], [7], [7, 4], [7, 14], [15], [5], [0, 10, 2, 4, 6]):
        state = JSON.after("".join(TEXTS[i] for i in ids))
        scores = mask(torch.tensor([[99, *ids]]), torch.zeros(1, len(TEXTS)))[0]
        for token, text in enumerate(TEXTS):
            if token == END:
                wanted = JSON.is_complete(state)
            else:
                wanted = bool(text) and JSON.after(text, state) is not None
            assert (scores[token] == 0) == wanted, (ids, text)


@pytest.mark.parametrize("seed", range(5))
def test_a_model_that_knows_nothing_writes_json(seed):
    model = GPT(GPTConfig(len(TEXTS), 128, 16, 1, 2), generator=torch.Generator().manual_seed(seed)).eval()
    mask = GrammarMask(JSON, TEXTS, END, prompt_length=1)
    texts = generate(
        model, torch.full((16, 1), 3), 100, do_sample=True, logits_processor=[mask], eos_token_id=END,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    ended = 0
    for row in texts[:, 1:].tolist():
        text = "".join(TEXTS[i] for i in row[: row.index(END)] if i != END) if END in row else None
        if text is not None:
            ended += 1
            assert is_json(text), text
    assert ended > 0


def test_faults_are_named():
    with pytest.raises(ValueError, match="start"):
        Grammar({"a": [("x", "")]}, start="b")
    with pytest.raises(ValueError, match="'a'"):
        Grammar({"a": [("xy", ""), ("y", "b")]}, start="a")
    mask = GrammarMask(JSON, TEXTS, END, prompt_length=0)
    with pytest.raises(ValueError, match="grammar"):
        mask(torch.tensor([[6]]), torch.zeros(1, len(TEXTS)))
