"""How kernels and their clients talk: by socket files in a folder of their own.

jupyter_client's default is TCP on ports that were free a moment ago, and two kernels that start in the same
moment may be given the same one. As a pytest plugin (``-p kernel_transport``) this makes nbval's kernels do so.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any


def sockets(folder: str | None = None) -> dict[str, str]:
    """Settings of a KernelManager: files in a new folder within ``folder``; none where the system has no such files."""
    if os.name != "posix":
        return {}
    return {"transport": "ipc", "ip": os.path.join(tempfile.mkdtemp(prefix="k", dir=folder), "k")}


def pytest_configure(config: Any) -> None:
    """pytest's hook, in the parent and in each of xdist's workers."""
    import nbval.kernel

    manager = nbval.kernel.KernelManager
    nbval.kernel.KernelManager = lambda **options: manager(**options, **sockets())
