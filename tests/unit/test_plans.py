"""Plans: what is pushed, what is forbidden, what counts as held, and what a plan costs, exactly on a small world."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from llmbook import decoding
from llmbook.applications import plans as P
from llmbook.applications.generation import world
from llmbook.transformer import GPT, GPTConfig

KNOWN = world().token_to_id


def ids(*texts: str) -> torch.Tensor:
    return torch.tensor([[0, *(KNOWN[word] for word in text.split())] for text in texts])


def test_words_count_in_their_order_only():
    plan = P.plan(["key", "ball", "key"])
    new = ids("key ball key", "ball key Anna", "ball ball ball", "key key ball")[:, 1:]
    assert plan.said(new).tolist() == [3, 1, 0, 2]
    assert plan.said(new[:, :0]).tolist() == [0, 0, 0, 0]


def test_the_next_word_is_pushed_and_the_close_waits():
    plan = P.plan(["key", "ball"], push=3.0)
    scores = plan(ids("Anna Tom", "Anna key", "key ball"), torch.zeros(3, len(KNOWN)))
    assert scores[:, KNOWN["key"]].tolist() == [3, 0, 0]
    assert scores[:, KNOWN["ball"]].tolist() == [0, 3, 0]
    assert scores[:, KNOWN["that"]].tolist() == [-math.inf, -math.inf, 0]


def test_behind_a_full_stop_it_closes_when_it_is_late_and_all_was_said():
    plan = P.plan(["key"], tone="good", latest=2)
    scores = plan(ids("key .", "Tom .", "key Tom"), torch.zeros(3, len(KNOWN)))
    assert (scores > -math.inf).sum(1).tolist() == [1, len(KNOWN) - 3, len(KNOWN) - 2]
    assert scores[0, KNOWN["that"]] == 0
    assert (scores[:, KNOWN["bad"]] == -math.inf).all()
    assert (plan(ids("key . that ."), torch.zeros(1, len(KNOWN))) > -math.inf).sum() == len(KNOWN) - 2


def test_a_plan_is_held_by_whole_stories_in_order():
    assert P.holds("a key a ball <eos>".split(), ["key", "ball"])
    assert not P.holds("a ball a key <eos>".split(), ["key", "ball"])
    assert not P.holds("a key a ball".split(), ["key", "ball"])


def tiny() -> GPT:
    config = GPTConfig(5, 8, 16, 1, 2, positions="rotary", initializer_range=0.5)
    return GPT(config, generator=torch.Generator().manual_seed(0)).eval()


def probability(model: GPT, text: torch.Tensor, processor=lambda ids, scores: scores) -> float:
    p = 1.0
    for t in range(1, len(text)):
        p *= processor(text[None, :t], model(text[None, :t]).logits[:, -1]).softmax(-1)[0, text[t]].item()
    return p


@torch.inference_mode()
def test_no_plan_costs_less_than_the_chance_that_the_model_holds_it_by_itself():
    """Over all texts of three tokens: E_r[log r − log q] is the divergence, and at least −log q(held)."""
    model, plan = tiny(), P.Plan([3, 1], [4], 1, push=9.0)
    texts = torch.tensor([[0, *text] for text in itertools.product(range(5), repeat=3)])
    q = torch.tensor([probability(model, text) for text in texts])
    r = torch.tensor([probability(model, text, plan) for text in texts])
    assert q.sum() == pytest.approx(1, abs=1e-5)
    assert r.sum() == pytest.approx(1, abs=1e-5)
    possible = r > 0
    cost = P.nats(model, texts[possible], 1, plan)
    assert cost.tolist() == pytest.approx((r / q)[possible].log().tolist(), abs=1e-3)
    held = plan.said(texts[:, 1:]) == 2
    assert r[held].sum() > 0.95
    assert (r[possible] * cost).sum() > -math.log(q[held].sum())


@torch.inference_mode()
def test_what_is_behind_a_text_costs_nothing():
    model, plan = tiny(), P.Plan([3], [4], 1, push=1.0)
    whole = torch.tensor([[0, 3, 1, 4]])
    longer = torch.tensor([[0, 3, 1, 4, -1], [0, 1, 1, 1, 3]])
    assert P.nats(model, longer, 1, plan)[0] == pytest.approx(P.nats(model, whole, 1, plan)[0].item(), abs=1e-5)
    assert P.rows([["Anna"], ["Anna", "."]]).tolist()[0][-1] == -1


def test_generate_takes_a_plan():
    plan = P.Plan([3, 1], [4], 1, push=50.0)
    written = decoding.generate(tiny(), torch.tensor([[0], [2]]), 4, do_sample=True, logits_processor=[plan],
                                generator=torch.Generator().manual_seed(0))  # fmt: skip
    assert written[:, 1:3].tolist() == [[3, 1], [3, 1]]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: P.plan(["dragon"]), "planned must be"),
        (lambda: P.plan(["key"], tone="dull"), "planned must be"),
        (lambda: P.plan(["key"], push=-1.0), "push must be"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
