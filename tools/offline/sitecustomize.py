"""Refuse every connection but a local one: on PYTHONPATH while the chapters are checked.

Python imports this file at start-up, so it reaches each kernel and whatever the kernel starts. An
audit hook sees all of Python's own sockets; the kernel's zmq sockets are C code and stay local.
"""

import sys

LOCAL = {"", "localhost", "0.0.0.0", "::", "::1"}


def is_local(host: object) -> bool:
    """Whether a host name or address is this machine (``None`` and UNIX sockets are)."""
    if isinstance(host, bytes):
        host = host.decode(errors="replace")
    return not isinstance(host, str) or host in LOCAL or host.startswith("127.")


def refuse(event: str, args: tuple) -> None:
    """Audit hook: raise ``ConnectionRefusedError`` where a chapter reaches out of this machine."""
    if event in ("socket.connect", "socket.sendto"):
        address = args[1]
        host = address[0] if isinstance(address, tuple) and address else None
    elif event == "socket.getaddrinfo":
        host = args[0]
    else:
        return
    if not is_local(host):
        raise ConnectionRefusedError(f"chapters run without a network, but this one asked for {host!r}")


sys.addaudithook(refuse)
