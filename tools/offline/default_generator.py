"""In a checked chapter, nothing may come from torch's default generator: no seed of the chapter governs it.

Loaded into each kernel. Once a cell has imported torch, an in-place draw without a generator gives NaN (so that
a layer may be built and then given its weights, but a weight that is left as drawn spoils every claim), and a
function that makes new random values raises. Both are allowed after an explicit ``torch.manual_seed``, which the
library calls inside ``fork_rng``. What draws by other ways is found after the cell: the generator has moved.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from typing import Any

SENTINEL = 0x5EED_0FC4  # the default generator's seed as long as nobody has given it one
IN_PLACE = ("normal_", "uniform_", "bernoulli_", "exponential_", "geometric_", "cauchy_", "log_normal_")
FRESH = (
    "rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson",
    "rand_like", "randn_like", "randint_like",
)  # fmt: skip


class DefaultGenerator(RuntimeError):
    """A cell drew from torch's default generator."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} draws from torch's default generator, which the chapter's seed does not govern")


def _unseeded() -> bool:
    return sys.modules["torch"].initial_seed() == SENTINEL


def _spoil(method: Callable) -> Callable:
    """An in-place draw that fills its tensor with NaN where it would draw from the default generator."""

    @functools.wraps(method)
    def draw(tensor: Any, *args: Any, generator: Any = None, **kwargs: Any) -> Any:
        if generator is None and _unseeded() and tensor.device.type != "meta":
            if not tensor.is_floating_point():
                raise DefaultGenerator(f"Tensor.{method.__name__}")
            return tensor.fill_(math.nan)
        return method(tensor, *args, generator=generator, **kwargs)

    return draw


def _refuse(function: Callable, name: str, draws: Callable[..., bool]) -> Callable:
    """A function that raises where ``draws(*args, **kwargs)`` says that it would draw unseeded."""

    @functools.wraps(function)
    def draw(*args: Any, **kwargs: Any) -> Any:
        if draws(*args, **kwargs) and _unseeded():
            raise DefaultGenerator(name)
        return function(*args, **kwargs)

    return draw


def _has_no_generator(*_: Any, generator: Any = None, **__: Any) -> bool:
    return generator is None


def _drops(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> bool:
    return training and p > 0


def _attention_drops(query: Any, key: Any, value: Any, mask: Any = None, dropout_p: float = 0.0, *_: Any, **__: Any):
    return dropout_p > 0


def guard() -> None:
    """Put the refusals in place, and give the default generator the seed that marks it as untouched."""
    import torch
    from torch.nn import functional as F

    for name in IN_PLACE:
        setattr(torch.Tensor, name, _spoil(getattr(torch.Tensor, name)))
    for name in FRESH:
        setattr(torch, name, _refuse(getattr(torch, name), f"torch.{name}", _has_no_generator))
    F.dropout = _refuse(F.dropout, "dropout", _drops)
    F.scaled_dot_product_attention = _refuse(F.scaled_dot_product_attention, "attention's dropout", _attention_drops)
    torch.manual_seed(SENTINEL)


class Watch:
    """IPython's hook after each cell: guard torch once it is there, then see whether its generator moved."""

    def __init__(self) -> None:
        self.state: Any = None

    def __call__(self, result: Any = None) -> None:
        torch = sys.modules.get("torch")
        if torch is None or not hasattr(torch, "initial_seed"):
            return
        if self.state is None:
            guard()
            self.state = torch.get_rng_state()
        elif _unseeded() and not torch.equal(self.state, torch.get_rng_state()):
            torch.manual_seed(SENTINEL)
            raise DefaultGenerator("this cell")


def load_ipython_extension(ipython: Any) -> None:
    """`%load_ext default_generator`, which the kernels' settings do."""
    ipython.events.register("post_run_cell", Watch())
