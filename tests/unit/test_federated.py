"""Federated averaging is central training in its limit, masked sums open only together, and a gradient tells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbook import federated
from llmbook.parallel import launch
from llmbook.privacy import per_sample_gradients
from llmbook.transformer import GPT, GPTConfig

CONFIG = GPTConfig(40, 12, n_embd=16, n_layer=1, n_head=2, positions="rotary", tie_word_embeddings=False,
                   initializer_range=0.2)  # fmt: skip


def model(seed: int = 0) -> GPT:
    return GPT(CONFIG, generator=torch.Generator().manual_seed(seed))


def rows(count: int, seed: int) -> torch.Tensor:
    return torch.randint(CONFIG.vocab_size, (count, 10), generator=torch.Generator().manual_seed(seed))


def gap(a, b) -> float:
    return max(float((a[k] - b[k]).abs().max()) for k in a)


# Averaging


def test_one_step_of_each_client_is_one_central_step():
    clients = [rows(6, 1), rows(2, 2), rows(4, 3)]
    central, together = model(), model()
    federated.local_update(central, [torch.cat(clients)], lr=0.5)
    federated.federated_round(
        together, clients, lambda m, k: federated.local_update(m, [clients[k]], lr=0.5), scratch=model()
    )
    assert gap(central.state_dict(), together.state_dict()) < 1e-6
    start = model().state_dict()
    assert gap(central.state_dict(), start) > 1e-3


def test_more_local_steps_are_not_central_training():
    clients = [rows(6, 1), rows(6, 2)]
    central, together = model(), model()
    federated.local_update(central, [torch.cat(clients)] * 3, lr=0.5)
    federated.federated_round(
        together, clients, lambda m, k: federated.local_update(m, [clients[k]] * 3, lr=0.5), scratch=model()
    )
    assert gap(central.state_dict(), together.state_dict()) > 1e-4


def test_an_average_weighs_by_size():
    a, b = {"w": torch.tensor([0.0, 4.0])}, {"w": torch.tensor([4.0, 0.0])}
    assert federated.average([a, b], [3, 1])["w"].tolist() == [1.0, 3.0]
    with pytest.raises(ValueError, match="a weight that is not negative for each of 2 states"):
        federated.average([a, b], [1])
    with pytest.raises(ValueError, match="not negative"):
        federated.average([a, b], [2, -1])


def test_a_batch_follows_from_its_key():
    x = rows(9, 0)
    one, same, other = (federated.batch_of(x, 4, key) for key in ((1, 2, 3), (1, 2, 3), (1, 2, 4)))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert len({tuple(r.tolist()) for r in one}) == 4
    with pytest.raises(ValueError, match=r"size must lie in 1\.\.9, got 10"):
        federated.batch_of(x, 10, (0,))


# Secure aggregation

numbers = st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3)


@settings(max_examples=50)
@given(st.lists(numbers, min_size=1, max_size=5), st.integers(0, 10**6))
def test_masks_cancel_in_the_sum_and_only_there(updates, seed):
    n = len(updates)
    sent = [federated.encode(u) + federated.mask_for(k, n, 3, seed) for k, u in enumerate(updates)]
    total = federated.decode(sum(sent[1:], sent[0]))
    assert total == pytest.approx(np.sum(updates, axis=0), abs=n * 2.0**-33 + 1e-9)
    if n > 1:
        assert not np.allclose(federated.decode(sent[0]), updates[0], atol=1)
        assert not np.allclose(federated.decode(sum(sent[2:], sent[1])), np.sum(updates[1:], axis=0), atol=1)


def test_masks_are_uniform_and_pairs_have_their_own():
    masks = federated.mask_for(0, 3, 4000, 5) / 2.0**64
    assert masks.mean() == pytest.approx(0.5, abs=0.03)
    assert np.histogram(masks, bins=4, range=(0, 1))[0].min() > 800
    assert not np.array_equal(federated.mask_for(0, 2, 4, 5), federated.mask_for(0, 3, 4, 5))
    with pytest.raises(ValueError, match=r"client must lie in 0\.\.1, got 2"):
        federated.mask_for(2, 2, 4, 0)


def test_what_cannot_be_encoded():
    assert federated.decode(federated.encode([-1.5, 0.25])).tolist() == [-1.5, 0.25]
    for bad in ([np.nan], [2.0**31]):
        with pytest.raises(ValueError, match="values must be finite and below"):
            federated.encode(bad)


# Gradients that tell


def test_the_embedding_names_its_tokens():
    labels = torch.tensor([[1, 5, 9, 5, 2]])
    gradient = {k: g[0] for k, g in per_sample_gradients(model(), labels).items()}
    assert federated.tokens_in_gradient(gradient["wte.weight"]) == [1, 5, 9]  # the last is read by nobody


def test_a_text_is_read_from_its_gradient():
    text = [1, 17, 30, 4, 17, 22, 8, 2]
    m = model(3)
    gradient = {k: g[0] for k, g in per_sample_gradients(m, torch.tensor([text])).items()}
    found, distance = federated.read_gradient(m, gradient, (1, 2), len(text), np.random.default_rng(0))
    assert found == text
    assert distance < 1e-9
    with pytest.raises(ValueError, match="length must be at least 7"):
        federated.read_gradient(m, gradient, (1, 2), 6, np.random.default_rng(0))


# Processes


@pytest.fixture(scope="module")
def three():
    return launch(["averaging"], 3, seed=2, module="llmbook.federated")["averaging"]


def test_processes_agree_with_the_loop(three):
    assert three["clients"] == 3
    assert max(three["open"], three["masked"]) < 1e-5
    assert three["moved"] > 1e-2
    assert three["seen"] > 1e8  # a message by itself is noise, of 2³⁰ on average
