"""Training on many devices, on paper: what each of them keeps, and what it sends, for a plan.

Bytes per parameter are those of mixed precision with Adam: 2 for the weight, 2 for the gradient, 12 for the
float32 weight and two moments (Rajbhandari et al., 2020). Activations are those of ``activation_numbers``,
2 bytes each.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from llmbook.transformer import GPTConfig, activation_numbers, parameter_count

HALF = 2  # bytes
WEIGHT, GRADIENT, OPTIMIZER = 2, 2, 12  # bytes per parameter


@dataclass(frozen=True)
class Plan:
    """How a model is laid out: data × tensor × pipeline devices, each working through micro-batches."""

    data: int = 1
    tensor: int = 1
    pipeline: int = 1
    zero: int = 0  # 1 shards the optimiser over the data-parallel devices, 2 also gradients, 3 also weights
    micro_batch: int = 1  # sequences
    micro_batches: int = 1  # in a step, one after another
    recompute: bool = False  # keep a block's input only

    def __post_init__(self) -> None:
        for field in fields(self):
            low = 0 if field.name in ("zero", "recompute") else 1
            if getattr(self, field.name) < low:
                raise ValueError(f"{field.name} must be at least {low}, got {getattr(self, field.name)}")
        if self.zero > 3:
            raise ValueError(f"zero must be 0, 1, 2 or 3, got {self.zero}")

    @property
    def devices(self) -> int:
        return self.data * self.tensor * self.pipeline

    @property
    def sequences(self) -> int:
        """Sequences in one step, over all devices."""
        return self.data * self.micro_batch * self.micro_batches


def state_bytes(parameters: float, plan: Plan) -> dict[str, float]:
    """Bytes of weights, gradients and optimiser on the device of one stage and tensor share."""
    share = parameters / (plan.tensor * plan.pipeline)
    split = {name: plan.data if plan.zero >= stage else 1 for stage, name in enumerate(("o", "g", "w"), start=1)}
    return {
        "weights": WEIGHT * share / split["w"],
        "gradients": GRADIENT * share / split["g"],
        "optimiser": OPTIMIZER * share / split["o"],
    }


def device_bytes(config: GPTConfig, length: int, plan: Plan) -> dict[str, float]:
    """What the fullest device keeps: :func:`state_bytes`, and the activations of the micro-batches in flight.

    Tensor-parallel devices share the activations too (as sequence parallelism does). Of a pipeline the first
    stage is the fullest: it has as many micro-batches in flight as there are stages (one forward, one backward
    in turn; Narayanan et al., 2021).
    """
    flying = min(plan.pipeline, plan.micro_batches)
    blocks, head = (
        HALF * n / plan.tensor for n in activation_numbers(config, plan.micro_batch, length, plan.recompute)
    )
    activations = blocks * flying / plan.pipeline + (head if plan.pipeline == 1 else 0)
    return state_bytes(parameter_count(config), plan) | {"activations": activations}


def sent_bytes(config: GPTConfig, length: int, plan: Plan) -> dict[str, float]:
    """What one device sends in one step, by the kind of parallelism that asks for it.

    Data: a ring all-reduce of the gradients, or (stage 3) gathering the weights twice for each micro-batch and
    scattering the gradients. Tensor: four all-reduces of the stream in each block and micro-batch. Pipeline:
    the stream on to the next stage, its gradient back.
    """
    share = HALF * parameter_count(config) / (plan.tensor * plan.pipeline)
    stream = HALF * plan.micro_batch * length * config.n_embd  # bytes of (B, T, C)
    passes = 2 if plan.zero < 3 else 2 * plan.micro_batches + 1
    return {
        "data": passes * _others(plan.data) * share,
        "tensor": plan.micro_batches * config.n_layer / plan.pipeline * 4 * 2 * _others(plan.tensor) * stream,
        "pipeline": plan.micro_batches * 2 * stream / plan.tensor if plan.pipeline > 1 else 0.0,
    }


def bubble(plan: Plan) -> float:
    """Share of a step in which a stage of the pipeline waits: (p − 1)/(m + p − 1) (Huang et al., 2019)."""
    return (plan.pipeline - 1) / (plan.micro_batches + plan.pipeline - 1)


def _others(n: int) -> float:
    return (n - 1) / n
