"""Start the processes of a lesson through torchrun, and leave none behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1")


def launch(
    lessons: Sequence[str], processes: int, seed: int = 0, module: str = "llmbook.parallel"
) -> dict[str, dict[str, float]]:
    """Run lessons of ``llmbook.parallel.lessons`` on so many gloo processes of this machine; their numbers.

    Another ``module`` may stand in, which is run in the same way: its main is :func:`llmbook.parallel.__main__.main`.

    A notebook cannot start processes that run its own functions (they would have to import the notebook), so
    they run a module. torchrun finds a free port by itself; the processes talk over the loopback interface,
    with one thread each. On an interruption they are ended before it is passed on. Raises ``RuntimeError``
    with what the processes wrote where one fails, and ``ValueError`` for a count below one.
    """
    if processes < 1:
        raise ValueError(f"processes must be at least 1, got {processes}")
    command = [sys.executable, *TORCHRUN, "--nproc-per-node", str(processes)]
    command += ["-m", module, "--seed", str(seed), *lessons]
    with subprocess.Popen(
        command, env=_environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as torchrun:
        try:
            output, errors = torchrun.communicate()
        except BaseException:
            end(torchrun)
            raise
    if torchrun.returncode:
        raise RuntimeError(f"{processes} processes of lessons {', '.join(lessons)} failed:\n{errors[-4000:]}")
    return json.loads(output.splitlines()[-1])


def end(torchrun: subprocess.Popen) -> None:
    """See that torchrun ends its workers and itself.

    Ctrl-C in a terminal or a notebook reaches it too, and a second signal would disturb its cleaning up: so wait
    a moment, then ask, then insist.
    """
    for patience, ask in ((2, lambda: None), (10, torchrun.terminate), (None, torchrun.kill)):
        ask()
        try:
            torchrun.wait(patience)  # seconds
            return
        except subprocess.TimeoutExpired:
            continue


def _environment() -> dict[str, str]:
    loopback = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
    interface = {"GLOO_SOCKET_IFNAME": loopback} if loopback else {}
    return os.environ | {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"} | interface
