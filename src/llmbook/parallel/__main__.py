"""``torchrun --nproc-per-node 2 -m llmbook.parallel ring``: lessons, run by several processes."""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta

import torch.distributed as dist

from llmbook.parallel.lessons import LESSONS, Numbers, run


def end_with_torchrun() -> None:
    """End this process soon after torchrun, which, when it is killed, has no time to end its workers."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(lessons: Mapping[str, Callable[[int], Numbers]] = LESSONS) -> None:
    parser = argparse.ArgumentParser(prog="torchrun --nproc-per-node 2 -m llmbook.parallel", description=__doc__)
    parser.add_argument("lessons", nargs="+", choices=sorted(lessons))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    end_with_torchrun()
    dist.init_process_group("gloo", timeout=timedelta(minutes=5))
    try:
        found = {name: run(lessons[name], options.seed) for name in options.lessons}
        if dist.get_rank() == 0:
            print(json.dumps(found))
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
