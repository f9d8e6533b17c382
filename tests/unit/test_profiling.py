"""The memory counter counts what is alive, not what was ever made."""

import torch

from llmbook.profiling import peak_memory


def test_freed_tensors_leave_the_count():
    def chain():
        x = torch.zeros(1000)
        for _ in range(5):
            x = x + 1  # old and new together: never more than two
        return x

    assert peak_memory(chain) == 2 * 4000


def test_views_and_in_place_operations_cost_nothing():
    assert peak_memory(lambda: torch.zeros(10, 100).view(-1).t().add_(1).mul_(2)) == 4000


def test_a_view_keeps_its_whole_storage():
    def keep_a_slice():
        part = torch.zeros(1000)[:10]
        return part, torch.zeros(500)

    assert peak_memory(keep_a_slice) == 4000 + 2000


def test_what_existed_before_is_not_counted():
    x = torch.zeros(1000)
    assert peak_memory(lambda: x.mul_(2)) == 0
    assert peak_memory(lambda: x.view(10, 100)) == 0
    assert peak_memory(lambda: x[:500] * 2) == 2000


def test_tensors_saved_for_backward_and_gradients_count():
    x = torch.zeros(1000, requires_grad=True)

    def step():
        y = x.exp()  # saved for backward
        return torch.autograd.grad(y.sum(), x)

    assert peak_memory(step) >= 2 * 4000
