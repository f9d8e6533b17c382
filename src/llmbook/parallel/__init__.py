"""Training on several devices: a ring all-reduce, a shared feed-forward layer, lessons in processes, and plans.

``ring`` and ``tensor`` are written to be read; ``lessons`` runs them, DistributedDataParallel and FSDP2 under
torchrun, which ``launch`` starts; ``plan`` counts memory and traffic for any number of devices.
"""

from llmbook.parallel.launch import launch
from llmbook.parallel.plan import Plan, bubble, device_bytes, sent_bytes, state_bytes
from llmbook.parallel.ring import average_gradients, ring_all_reduce
from llmbook.parallel.tensor import ParallelMLP

__all__ = [
    "ParallelMLP", "Plan", "average_gradients", "bubble", "device_bytes", "launch", "ring_all_reduce", "sent_bytes",
    "state_bytes",
]  # fmt: skip
