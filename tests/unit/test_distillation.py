"""Distillation: the losses against torch's, what T² keeps, what a student learns, CKA by its properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from llmbook.compression import distillation as D
from llmbook.training import TrainingArguments, padded_batches
from llmbook.transformer import GPT, GPTConfig

V = 11


def gpt(width=16, layers=2, seed=0, vocab=V):
    config = GPTConfig(vocab, 32, width, layers, 2, positions="rotary", initializer_range=0.3)
    return GPT(config, generator=torch.Generator().manual_seed(seed)).eval()


def logits(seed, *shape):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return [np.concatenate([[0], rng.integers(1, V, n)]) for n in rng.integers(4, 12, 24)]


ARGS = TrainingArguments(8, 8, 16, learning_rate=1e-2, min_lr_ratio=0.0)


# ------------------------------------------------------------ losses


def test_forward_and_reverse_are_torchs_kl():
    q, p = logits(0, 3, 5, V), logits(1, 3, 5, V)
    logs = {"q": q.log_softmax(-1), "p": p.log_softmax(-1)}
    forward = F.kl_div(logs["q"], logs["p"], reduction="none", log_target=True).sum(-1)
    reverse = F.kl_div(logs["p"], logs["q"], reduction="none", log_target=True).sum(-1)
    torch.testing.assert_close(D.divergence(q, p), forward)
    torch.testing.assert_close(D.divergence(q, p, "reverse"), reverse)


def test_jensen_shannon_is_symmetric_and_at_most_ln_2():
    q, p = logits(0, 50, V) * 20, logits(1, 50, V) * 20
    there, back = (D.divergence(a, b, "jensen-shannon") for a, b in ((q, p), (p, q)))
    torch.testing.assert_close(there, back)
    assert (there >= 0).all()
    assert (there <= np.log(2) + 1e-6).all()
    assert there.max() > 0.69


def test_a_teacher_may_call_a_token_impossible():
    p = torch.tensor([0.0, 1.0, -torch.inf])
    q = torch.zeros(3, requires_grad=True)
    loss = D.divergence(q, p)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(q.grad).all()


def test_the_gradient_is_what_the_chapter_derives():
    z, v, T = logits(0, V).double().requires_grad_(), logits(1, V).double(), 3.0
    D.distillation_loss(z, v, T).backward()
    torch.testing.assert_close(z.grad, T * ((z / T).softmax(-1) - (v / T).softmax(-1)).detach())


def test_at_high_temperature_the_loss_is_half_the_mean_squared_distance_of_centred_logits():
    z, v = logits(0, V).double(), logits(1, V).double()
    centred = (z - z.mean()) - (v - v.mean())
    assert D.distillation_loss(z, v, 1e4).item() == pytest.approx(centred.square().mean().item() / 2, rel=1e-3)


def test_only_masked_positions_count():
    q, p = logits(0, 2, 4, V), logits(1, 2, 4, V)
    mask = torch.tensor([[True, True, False, False], [True, False, False, False]])
    torch.testing.assert_close(D.distillation_loss(q, p, mask=mask), D.divergence(q, p)[mask].mean())


def test_hidden_loss_of_zeros_is_one():
    h = logits(0, 2, 4, 8)
    assert D.hidden_loss(torch.zeros_like(h), h).item() == pytest.approx(1)
    assert D.hidden_loss(h, h).item() == 0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: D.divergence(logits(0, 3, V), logits(0, 4, V)),
            r"teacher_logits must have .*\(3, 11\), got",
        ),
        (lambda: D.divergence(logits(0, V), logits(0, V), "sideways"), "kind must be one of .*'sideways'"),
        (lambda: D.distillation_loss(logits(0, V), logits(0, V), 0.0), "temperature must be positive, got 0"),
        (
            lambda: D.distillation_loss(logits(0, 2, V), logits(0, 2, V), mask=torch.zeros(2, dtype=torch.bool)),
            "mask must",
        ),
        (lambda: D.hidden_loss(logits(0, 3, 4), logits(0, 3, 8)), "project it first"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


# ------------------------------------------------------------ states and training


def test_states_are_the_embedding_and_what_each_block_leaves():
    model, ids = gpt(), torch.tensor([[1, 2, 3]])
    scores, states = D.run_with_states(model, ids)
    torch.testing.assert_close(scores, model(ids).logits)
    assert len(states) == 3
    torch.testing.assert_close(states[0], model.wte(ids))
    torch.testing.assert_close(model.lm_head(model.ln_f(states[-1])), scores)
    assert not any(block._forward_hooks for block in model.h)


def test_a_student_comes_closer_to_its_teacher_which_stays_as_it_is(rows):
    teacher, student = gpt(seed=1), gpt(8, 1, seed=2)
    before = {name: t.clone() for name, t in teacher.state_dict().items()}
    history = D.distil(student, teacher, rows, ARGS)
    assert history.steps[-1]["loss"] < 0.9 * history.steps[0]["loss"]
    assert all(torch.equal(t, before[name]) for name, t in teacher.state_dict().items())
    assert not student.training


def test_without_soft_targets_it_is_plain_training(rows):
    from llmbook.training import fit

    alone, taught = gpt(8, 1), gpt(8, 1)
    plain = fit(alone, padded_batches(rows, ARGS), ARGS, progress=False)
    hard = D.distil(taught, gpt(seed=1), rows, ARGS, soft=0.0)
    np.testing.assert_allclose(plain.column("loss"), hard.column("loss"), atol=1e-4)


def test_a_perfect_student_has_nothing_to_learn(rows):
    history = D.distil(gpt(), gpt(), rows, TrainingArguments(1, 8, 16))
    assert history.steps[0]["loss"] == pytest.approx(0, abs=1e-6)
    assert history.steps[0]["grad_norm"] < 1e-4


def test_remembered_targets_give_the_same_run_and_ask_once(rows):
    runs = []
    targets = D.SoftTargets(gpt(seed=1))
    for batches in (rows, targets.batches(rows, ARGS), targets.batches(rows, ARGS)):
        runs.append(D.distil(gpt(8, 1), targets.teacher, batches, ARGS).column("loss"))
    np.testing.assert_allclose(runs[1], runs[0], rtol=1e-4)
    np.testing.assert_allclose(runs[2], runs[0], rtol=1e-4)
    assert targets.asked <= len(rows)


def test_matching_trains_student_and_projection(rows):
    teacher, student = gpt(seed=1), gpt(8, 1, seed=2)
    match = D.HiddenMatch(student, teacher, [(0, 0), (1, 2)], torch.Generator().manual_seed(0))
    first = match.projections[0].weight.detach().clone()
    seen = []
    history = D.distil(student, teacher, rows, ARGS, soft=0.0, match=match, callback=lambda i, m: seen.append(m))
    assert history.steps[-1]["loss"] < history.steps[0]["loss"]
    assert not torch.equal(match.projections[0].weight, first)
    assert seen == [student] * ARGS.max_steps


def test_a_match_of_equals_begins_at_zero():
    model, ids = gpt(), torch.tensor([[1, 2, 3]])
    states = D.run_with_states(model, ids)[1]
    assert D.HiddenMatch(model, model, [(1, 1)])(states, states).item() == 0


def test_bad_pairs_shares_and_vocabularies_are_named(rows):
    with pytest.raises(ValueError, match=r"pairs must be of states 0..1 and 0..2"):
        D.HiddenMatch(gpt(layers=1), gpt(), [(2, 2)])
    with pytest.raises(ValueError, match=r"soft must lie in \[0, 1\], got 2"):
        D.distil(gpt(), gpt(), rows, ARGS, soft=2)
    with pytest.raises(ValueError, match="share a vocabulary, got 12 and 11"):
        D.distil(gpt(vocab=12), gpt(), rows, ARGS)


def test_samples_end_where_they_end_and_follow_the_generator():
    draws = [D.sample_rows(gpt(), 20, [0], 3, 12, torch.Generator().manual_seed(s), batch_size=8) for s in (0, 0, 1)]
    assert len(draws[0]) == 20
    for row in draws[0]:
        assert row[0] == 0
        assert len(row) <= 12
        assert 3 not in row[:-1]
    assert all(map(np.array_equal, draws[0], draws[1]))
    assert not all(map(np.array_equal, draws[0], draws[2]))


def test_on_policy_batches_are_the_students_own_and_new_after_a_while():
    student, teacher = gpt(8, 1, seed=2), gpt(seed=1)
    batches = D.on_policy(student, [0], 3, ARGS, torch.Generator().manual_seed(0), refresh=2)
    first = batches(0)
    assert torch.equal(first["input_ids"], batches(0)["input_ids"])
    assert not torch.equal(first["input_ids"], batches(2)["input_ids"])
    history = D.distil(student, teacher, batches, ARGS, kind="reverse")
    assert np.isfinite(history.column("loss")).all()


# ------------------------------------------------------------ likeness


def test_cka_is_one_for_what_is_rotated_scaled_and_moved():
    x = logits(0, 100, 6).double()
    turn = torch.linalg.qr(logits(1, 6, 6).double())[0]
    assert D.linear_cka(x, 3 * x @ turn + 5) == pytest.approx(1)
    assert D.linear_cka(x, logits(2, 100, 6)) < 0.2


def test_cka_is_the_kernels_correlation():
    x, y = logits(0, 30, 4).double(), logits(1, 30, 7).double()
    centre = torch.eye(30, dtype=torch.float64) - 1 / 30
    k, m = (centre @ a @ a.T @ centre for a in (x, y))
    assert D.linear_cka(x, y) == pytest.approx(((k * m).sum() / (k.norm() * m.norm())).item())


def test_cka_refuses_what_it_cannot_compare():
    with pytest.raises(ValueError, match=r"must be \(N, C\) and \(N, D\)"):
        D.linear_cka(logits(0, 3, 4), logits(0, 4, 4))
    with pytest.raises(ValueError, match="must change"):
        D.linear_cka(torch.ones(5, 2), logits(0, 5, 2))
