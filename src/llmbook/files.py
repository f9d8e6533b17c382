"""Files that are written whole or not at all, and a name for what files hold."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def write_whole(path: str | Path, content: bytes | str) -> None:
    """Write under a temporary name beside ``path``, then rename: a reader never sees half a file. Text as UTF-8."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def fingerprint(*paths: str | Path) -> str:
    """Twelve hexadecimal digits that change with the files' bytes, and not with how a checkout ends their lines."""
    content = b"".join(Path(path).read_bytes().replace(b"\r\n", b"\n") for path in paths)
    return hashlib.sha256(content).hexdigest()[:12]
