"""Preferences and rewards: the formulas, trl's trainer on the same batch, and what must hold of any policy."""

import copy
import math
import types
from collections import defaultdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmbook.applications import preference as pref
from llmbook.transformer import GPT, GPTConfig

V = 23


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def new_model(seed=0):
    return GPT(GPTConfig(V, 16, 16, 2, 2, initializer_range=0.3), generator=generator(seed)).eval()


@pytest.fixture
def batch():
    """Six rows (chosen first), of which two to five tokens at the end are scored."""
    ids = torch.randint(1, V, (6, 9), generator=generator(1))
    labels = ids.clone()
    for row, start in enumerate((4, 5, 6, 4, 7, 5)):
        labels[row, :start] = -100
    return ids, labels


def test_log_probabilities_are_those_of_the_scored_tokens(batch):
    ids, labels = batch
    model = new_model()
    logs = model(ids).logits.log_softmax(-1)
    by_hand = [
        sum(logs[row, t - 1, ids[row, t]] for t in range(1, 9) if labels[row, t] != -100) for row in range(len(ids))
    ]
    torch.testing.assert_close(pref.sequence_logprobs(model, ids, labels), torch.stack(by_hand))


def test_the_supervised_loss_is_the_model_s_own(batch):
    ids, labels = batch
    model = new_model()
    torch.testing.assert_close(pref.supervised_loss(model, ids, labels), model(ids, labels).loss)
    with pytest.raises(ValueError, match="nothing to score"):
        pref.supervised_loss(model, ids, torch.full_like(ids, -100))


def test_the_supervised_loss_is_that_of_transformers(batch):
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=V, n_positions=16, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(config).eval()
    ids, labels = batch
    torch.testing.assert_close(pref.supervised_loss(model, ids, labels), model(ids, labels=labels).loss)


def four(seed=0, n=5):
    return [3 * torch.randn(n, generator=generator(seed + i)) - 4 for i in range(4)]


@pytest.mark.parametrize("beta", [0.1, 0.7])
def test_the_loss_is_its_formula(beta):
    pc, pr, rc, rr = four()
    found = pref.dpo_loss(pc, pr, rc, rr, beta)
    for i in range(len(pc)):
        margin = beta * ((pc[i] - rc[i]) - (pr[i] - rr[i]))
        assert found.losses[i].item() == pytest.approx(-math.log(1 / (1 + math.exp(-margin))), rel=1e-5)
    torch.testing.assert_close(found.chosen_rewards, beta * (pc - rc))
    torch.testing.assert_close(found.rejected_rewards, beta * (pr - rr))


def test_at_the_reference_every_pair_costs_ln_2():
    pc, pr, *_ = four()
    torch.testing.assert_close(pref.dpo_loss(pc, pr, pc, pr).losses, torch.full((5,), math.log(2)))


class Trainer(types.SimpleNamespace):
    """What trl's losses ask of their trainer; every switch that is not given is off."""

    accelerator = types.SimpleNamespace(
        device=torch.device("cpu"), gather_for_metrics=lambda x: x, gather=lambda x: x, unwrap_model=lambda m: m,
        reduce=lambda x, **_: x,
    )  # fmt: skip
    model = torch.nn.Identity().eval()
    model.is_gradient_checkpointing = False

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return False


def trl_loss(policy, reference, ids, labels, beta):
    """trl's own loss on a batch of which the first half is preferred, without building its trainer."""
    from trl.trainer.dpo_trainer import DPOTrainer

    def outputs(model):
        def forward(input_ids, attention_mask, labels, **_):
            logs, _ = pref.token_logprobs(model, input_ids, labels)
            zeros = torch.zeros_like(logs)
            return types.SimpleNamespace(log_probs=logs, entropy=zeros, mean_logits=zeros, is_top1=zeros > 0)

        return forward

    trainer = Trainer(
        ref_model=outputs(reference), ld_alpha=None, f_divergence_type="reverse_kl", loss_types=["sigmoid"],
        loss_weights=[1.0], beta=beta, args=Trainer(), _metrics={"eval": defaultdict(list)},
    )  # fmt: skip
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "completion_mask": (labels != -100).long(),
    }
    return DPOTrainer._compute_loss(trainer, outputs(policy), inputs, return_outputs=False)


def test_the_loss_is_that_of_trl(batch):
    ids, labels = batch
    policy, reference = new_model(0), new_model(7)
    theirs = trl_loss(policy, reference, ids, labels, 0.3)
    ours, base = (pref.sequence_logprobs(m, ids, labels).chunk(2) for m in (policy, reference))
    found = pref.dpo_loss(*ours, *base, beta=0.3)
    torch.testing.assert_close(found.losses.mean(), theirs)
    gradients = [torch.autograd.grad(loss, policy.h[0].attn.c_attn.weight)[0] for loss in (found.losses.mean(), theirs)]
    torch.testing.assert_close(*gradients)


def test_what_is_no_preference_is_refused():
    pc, pr, rc, rr = four()
    with pytest.raises(ValueError, match="beta must be positive, got 0"):
        pref.dpo_loss(pc, pr, rc, rr, 0.0)
    with pytest.raises(ValueError, match=r"reference_rejected must have shape \(5,\), got \(4,\)"):
        pref.dpo_loss(pc, pr, rc, rr[:4])


def test_the_tilted_distribution_is_the_minimiser_of_dpo():
    """With every pair in proportion to its true frequency, the gradient of the loss vanishes at the closed form."""
    reference = torch.rand(6, generator=generator(3)).softmax(-1).double()
    rewards, beta = 2 * torch.randn(6, generator=generator(4)).double(), 0.5
    logits = pref.tilted(reference, rewards, beta).log().requires_grad_()
    logs, loss = logits.log_softmax(-1), 0.0
    for a in range(6):
        for b in range(6):
            weight = reference[a] * reference[b] * pref.preference_probability(rewards[a], rewards[b])
            pair = [x[None] for x in (logs[a], logs[b], reference[a].log(), reference[b].log())]
            loss = loss + weight * pref.dpo_loss(*pair, beta=beta).losses[0]
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.abs().max() < 1e-9


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8), st.floats(0.1, 5))
def test_no_distribution_does_better_than_the_tilted_one(rewards, beta):
    r = torch.tensor(rewards, dtype=torch.double)
    reference = torch.rand(len(r), generator=generator(len(r))).double().softmax(-1)

    def value(p):
        return (p * r).sum() - beta * pref.kl_divergence(p, reference)

    best = pref.tilted(reference, r, beta)
    assert best.sum().item() == pytest.approx(1)
    other = torch.rand(len(r), generator=generator(1)).double().softmax(-1)
    assert value(best) >= value(other) - 1e-9
    assert value(best) >= value(reference) - 1e-9


def test_divergence_ignores_what_is_never_drawn():
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.25, 0.25, 0.5])
    assert pref.kl_divergence(p, q).item() == pytest.approx(math.log(2))


# ------------------------------------------------------------ rewards


def test_advantages_have_mean_zero_and_unit_spread():
    rewards = torch.randn(12, generator=generator())
    groups = pref.group_advantages(rewards, 4).view(3, 4)
    torch.testing.assert_close(groups.mean(1), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(groups.std(1), torch.ones(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        pref.group_advantages(rewards, 4, scale=False).view(3, 4),
        rewards.view(3, 4) - rewards.view(3, 4).mean(1, keepdim=True),
    )


def test_a_group_of_equals_teaches_nothing():
    assert pref.group_advantages(torch.tensor([1.0, 1, 1, 0, 1, 0]), 3)[:3].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("shape", "size"), [((6,), 4), ((6,), 1), ((2, 3), 3)])
def test_groups_must_come_out_even(shape, size):
    with pytest.raises(ValueError, match="groups of at least 2"):
        pref.group_advantages(torch.zeros(shape), size)


def trl_policy_loss(model, ids, labels, advantages, old, reference, beta):
    """trl's loss of GRPO from log-probabilities that are given, without building its trainer."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    logs, scored = pref.token_logprobs(model, ids, labels)
    trainer = Trainer(
        args=Trainer(delta=None), top_entropy_quantile=1.0, off_policy_mask_threshold=None, beta=beta,
        importance_sampling_level="token", loss_type="grpo", epsilon_low=0.2, epsilon_high=0.2,
        current_gradient_accumulation_steps=1, tools=None, _metrics={"eval": defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *a, **k: (logs, torch.zeros_like(logs), None),
    )  # fmt: skip
    inputs = {
        "prompt_ids": ids[:, :1], "prompt_mask": torch.ones_like(ids[:, :1]), "completion_ids": ids[:, 1:],
        "completion_mask": scored.long(), "advantages": advantages, "old_per_token_logps": old,
        "ref_per_token_logps": reference,
    }  # fmt: skip
    return GRPOTrainer._compute_loss(trainer, model, inputs)


@pytest.mark.parametrize("beta", [0.0, 0.4])
def test_the_policy_loss_is_that_of_trl(batch, beta):
    ids, labels = batch
    model = new_model()
    with torch.no_grad():
        old, reference = (pref.token_logprobs(new_model(s), ids, labels)[0] for s in (2, 3))
        logs = pref.token_logprobs(model, ids, labels)[0]
        old = logs + 0.1 * (old - logs)
    advantages = pref.group_advantages(torch.tensor([1.0, 0, 0, 0.5, 1, 2]), 3)
    theirs = trl_policy_loss(model, ids, labels, advantages, old, reference, beta)
    ours = pref.policy_loss(
        *pref.token_logprobs(model, ids, labels)[:1], advantages, labels[:, 1:] != -100,
        old_logprobs=old, reference_logprobs=reference, beta=beta,
    )  # fmt: skip
    torch.testing.assert_close(ours, theirs)


def test_without_an_older_policy_the_gradient_is_reinforce_s(batch):
    ids, labels = batch
    model, advantages = new_model(), torch.tensor([1.0, -1, 0.5, -0.5, 2, -2])
    logs, scored = pref.token_logprobs(model, ids, labels)
    weight = model.wte.weight
    (ours,) = torch.autograd.grad(pref.policy_loss(logs, advantages, scored), weight, retain_graph=True)
    by_hand = -(advantages * logs.sum(1) / scored.sum(1)).mean()
    (theirs,) = torch.autograd.grad(by_hand, weight)
    torch.testing.assert_close(ours, theirs)


def test_clipping_stops_the_push():
    old = torch.zeros(2, 1)
    logs = torch.tensor([[0.5], [-0.5]], requires_grad=True)  # already far above, far below
    loss = pref.policy_loss(logs, torch.tensor([1.0, -1.0]), torch.ones(2, 1), old_logprobs=old)
    assert torch.autograd.grad(loss, logs)[0].abs().max() == 0


def test_the_estimate_of_the_divergence_has_its_mean():
    p, q = (torch.randn(5, generator=generator(s)).double().softmax(-1) for s in (1, 2))
    k3 = pref.kl_estimates(p.log(), q.log())
    assert (k3 >= 0).all()
    torch.testing.assert_close((p * k3).sum(), pref.kl_divergence(p, q))


def test_a_penalty_wants_a_reference():
    logs = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="reference_logprobs must be given"):
        pref.policy_loss(logs, torch.zeros(2), torch.ones(2, 3), beta=0.1)
    with pytest.raises(ValueError, match=r"advantages must be \(2,\), got \(3,\)"):
        pref.policy_loss(logs, torch.zeros(3), torch.ones(2, 3))


def test_a_few_steps_of_dpo_move_the_margin(batch):
    ids, labels = batch
    policy, reference = new_model(), copy.deepcopy(new_model())
    with torch.no_grad():
        base = pref.sequence_logprobs(reference, ids, labels).chunk(2)
    optimizer = torch.optim.Adam(policy.parameters(), 1e-2)
    for _ in range(10):
        found = pref.dpo_loss(*pref.sequence_logprobs(policy, ids, labels).chunk(2), *base)
        optimizer.zero_grad()
        found.losses.mean().backward()
        optimizer.step()
    assert (found.chosen_rewards > found.rejected_rewards).all()
