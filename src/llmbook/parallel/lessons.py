"""What several processes do together, each lesson compared with one process; run by :func:`launch`.

A lesson is a function of a seed that every process runs; it returns numbers, the largest over the processes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from llmbook.parallel.ring import average_gradients, ring_all_reduce
from llmbook.parallel.tensor import ParallelMLP
from llmbook.training.processes import ranks
from llmbook.transformer import GPT, MLP, GPTConfig

CONFIG = GPTConfig(64, 16, n_embd=32, n_layer=2, n_head=4, initializer_range=0.1)
ROWS, STEPS = 6, 5  # of a batch, which two and three processes can share; of a training run
EPS = 1e-5  # Adam's: at 1e-8 it makes full steps of what is rounding only, as the gradients of keys' biases are
Numbers = dict[str, float]


def ring(seed: int) -> Numbers:
    """The ring's sum against torch's, of a length that the processes cannot share evenly."""
    rank, n = ranks()
    x = torch.randn(1001, generator=torch.Generator().manual_seed(100 * seed + rank), dtype=torch.float64)
    total = x.clone()
    dist.all_reduce(total)
    sent = ring_all_reduce(x)
    return {"error": _gap([x], [total]), "sent": sent, "least": 2 * (n - 1) / n * x.numel()}


def data_parallel(seed: int) -> Numbers:
    """Gradients and a short training run: by hand over the ring, by DistributedDataParallel, and in one process."""
    rank, n = ranks()
    ids = _rows(seed)
    mine = ids.chunk(n)[rank]
    whole, hand, model = (_model(seed) for _ in range(3))
    parallel = DistributedDataParallel(model)
    whole(ids, ids).loss.backward()
    hand(mine, mine).loss.backward()
    found = {"without": _gap(_grads(hand), _grads(whole))}
    found["sent"] = average_gradients(list(hand.parameters()))
    found["parameters"] = sum(p.numel() for p in hand.parameters())
    parallel(mine, mine).loss.backward()
    found |= {"hand": _gap(_grads(hand), _grads(model)), "whole": _gap(_grads(hand), _grads(whole))}
    _train(whole, whole, ids)
    _train(model, parallel, mine)
    _train(hand, hand, mine, lambda: average_gradients(list(hand.parameters())))
    return found | {"trained": max(_gap(_weights(hand), _weights(m)) for m in (model, whole))}


def tensor_parallel(seed: int) -> Numbers:
    """A feed-forward layer shared out, against the whole one: output, and gradients of input and weights."""
    rank, n = ranks()
    generator = torch.Generator().manual_seed(seed)
    whole = MLP(CONFIG)
    for p in whole.parameters():
        nn.init.normal_(p, 0.0, 0.2, generator=generator)
    part = ParallelMLP(whole)
    x = torch.randn(2, 8, CONFIG.n_embd, generator=generator)
    upstream = torch.randn(x.shape, generator=generator)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [layer(each) for layer, each in zip((whole, part), inputs, strict=True)]
    for output in outputs:
        output.backward(upstream)
    own = [whole.c_fc.weight.grad.chunk(n, 0)[rank], whole.c_fc.bias.grad.chunk(n)[rank]]
    own += [whole.c_proj.weight.grad.chunk(n, 1)[rank], whole.c_proj.bias.grad]
    return {
        "output": _gap(outputs[:1], outputs[1:]),
        "input": _gap([inputs[0].grad], [inputs[1].grad]),
        "weights": _gap(own, _grads(part)),
        "held": sum(p.numel() for p in part.parameters()),
        "all": sum(p.numel() for p in whole.parameters()),
    }


def fully_sharded(seed: int) -> Numbers:
    """FSDP2 against one process: weights after a short run, what each process holds, and what it asks for."""
    rank, n = ranks()
    ids = _rows(seed)
    mine, whole, model = ids.chunk(n)[rank], _model(seed), _model(seed)
    mesh = init_device_mesh("cpu", (n,))
    for block in model.h:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    with _Asked() as asked:
        model(mine, mine).loss.backward()
    model.zero_grad()
    optimizer = _train(model, model, mine)
    _train(whole, whole, ids)
    state = [v for s in optimizer.state.values() for v in s.values() if getattr(v, "ndim", 0)]
    return {
        "trained": _gap([p.full_tensor() for p in model.parameters()], _weights(whole)),
        "held": sum(p.to_local().numel() for p in model.parameters()),
        "all": sum(p.numel() for p in whole.parameters()),
        "moments": sum(v.to_local().numel() for v in state),
        "gathers": sum("allgather" in name for name in asked.names),
        "scatters": sum("reduce_scatter" in name for name in asked.names),
        "units": 1 + len(model.h),
    }


class _Asked(TorchDispatchMode):
    """The names of the operations between processes that are asked for inside the ``with``."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "c10d":
            self.names.append(func.name())
        return func(*args, **(kwargs or {}))


LESSONS: dict[str, Callable[[int], Numbers]] = {
    f.__name__: f for f in (ring, data_parallel, tensor_parallel, fully_sharded)
}


def run(lesson: Callable[[int], Numbers], seed: int) -> Numbers:
    """A lesson's numbers, each the largest of any process's: an error anywhere is seen."""
    found = lesson(seed)
    largest = torch.tensor(list(found.values()), dtype=torch.float64)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return dict(zip(found, largest.tolist(), strict=True))


def _model(seed: int) -> GPT:
    return GPT(CONFIG, generator=torch.Generator().manual_seed(seed))


def _rows(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 1)
    return torch.randint(CONFIG.vocab_size, (ROWS, CONFIG.n_positions), generator=generator)


def _train(
    model: nn.Module, forward: nn.Module, ids: Tensor, exchange: Callable[[], object] = lambda: None
) -> torch.optim.Optimizer:
    """A few steps of AdamW on one batch; ``exchange`` runs between the gradient and the step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, eps=EPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        forward(ids, ids).loss.backward()
        exchange()
        optimizer.step()
    return optimizer


def _weights(model: nn.Module) -> list[Tensor]:
    return [p.detach() for p in model.parameters()]


def _grads(model: nn.Module) -> list[Tensor]:
    return [p.grad for p in model.parameters()]


def _gap(a: list[Tensor], b: list[Tensor]) -> float:
    return max((x - y).abs().max().item() for x, y in zip(a, b, strict=True))
