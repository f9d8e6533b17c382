"""Ask every external address that the built pages link to: `python tools/links.py [HTML]`, by hand, with a network.

Prints what is dead (404, 410, no such host: exit status 1), what has moved for good, and what could not be
checked (refused, too slow, or broken over there), with the pages that link to it. Ctrl-C prints what is known so far.
"""

from __future__ import annotations

import argparse
import socket
import sys
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from urllib.parse import urldefrag, urlsplit

import requests
from pages import ROOT, page
from tqdm import tqdm

WORKERS, PER_HOST = 8, 2  # requests at a time
TIMEOUT = 20  # seconds
# Some sites answer nothing but browsers.
HEADERS = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept": "text/html,application/xhtml+xml,*/*;q=0.8",
    "Accept-Language": "en-GB,en;q=0.5",
}
GONE = {404, 410}
DEAD, MOVED, UNCHECKED, WORKS = "dead", "moved for good", "could not be checked", "works"
NO_HOST = "no such host"


@dataclass(frozen=True)
class Answer:
    """What became of the question."""

    address: str
    verdict: str
    said: str = ""


def addresses(html: Path) -> dict[str, list[str]]:
    """Each external address, without its fragment, and the pages that link to it."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in html.rglob("*.html"):
        for tag in page(path).select('a[href^="http:"], a[href^="https:"]'):
            found[urldefrag(tag["href"]).url].add(path.relative_to(html).as_posix())
    return {address: sorted(found[address]) for address in sorted(found)}


def ask(session: requests.Session, address: str) -> Answer:
    """HEAD, which costs the other side least; GET where that is refused. Bodies are not read."""
    try:
        for method in ("HEAD", "GET"):
            with session.request(method, address, timeout=TIMEOUT, stream=True, allow_redirects=True) as response:
                if response.ok:
                    break
    except (OSError, ValueError) as error:  # requests' own are OSErrors; an address that is none, a ValueError
        return _unanswered(address, error)
    if response.status_code in GONE:
        return Answer(address, DEAD, str(response.status_code))
    if not response.ok:
        return Answer(address, UNCHECKED, f"{response.status_code} from {urlsplit(response.url).netloc}")
    moved = _moved_to([*response.history, response])
    return Answer(address, MOVED, f"now {moved}") if moved else Answer(address, WORKS)


def _moved_to(hops: list[requests.Response]) -> str:
    """Where the permanent redirects at the beginning lead; empty if there are none."""
    target = ""
    for hop, following in pairwise(hops):
        if not hop.is_permanent_redirect:
            break
        target = following.url
    return target


def _unanswered(address: str, error: BaseException) -> Answer:
    """Dead if there is no such host, which stands at the end of a chain of exceptions."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
            return Answer(address, DEAD, NO_HOST)
        cause = cause.__cause__ or cause.__context__
    return Answer(address, UNCHECKED, type(error).__name__)


def lanes(wanted: Iterable[str]) -> list[list[str]]:
    """Addresses that are asked one after another: at most PER_HOST lanes for a host, the longest first."""
    hosts: dict[str, list[str]] = defaultdict(list)
    for address in wanted:
        hosts[urlsplit(address).netloc].append(address)
    cut = [of_host[start::PER_HOST] for of_host in hosts.values() for start in range(PER_HOST)]
    return sorted(filter(None, cut), key=len, reverse=True)


def answers(wanted: Iterable[str]) -> Iterator[Answer]:
    """The answers as they come. The threads are daemons: none holds up the end after Ctrl-C."""
    waiting: SimpleQueue[list[str]] = SimpleQueue()
    answered: SimpleQueue[Answer] = SimpleQueue()
    cut = lanes(wanted)
    for lane in cut:
        waiting.put(lane)

    def work() -> None:
        while not waiting.empty():
            with requests.Session() as session:
                session.headers.update(HEADERS)
                for address in waiting.get():
                    answered.put(ask(session, address))

    for _ in range(min(WORKERS, len(cut))):
        threading.Thread(target=work, daemon=True).start()
    for _ in range(sum(map(len, cut))):
        yield answered.get()


def report(found: list[Answer], linked: dict[str, list[str]]) -> None:
    """A table of what did not simply work, and the counts."""
    for verdict in (DEAD, UNCHECKED, MOVED):
        rows = sorted((a for a in found if a.verdict == verdict), key=lambda a: a.address)
        if rows:
            print(f"\n{verdict.capitalize()}:")
        for row in rows:
            print(f"  {row.address}\n    {row.said}; in {', '.join(linked[row.address])}")
    counts = ", ".join(f"{sum(a.verdict == v for a in found)} {v}" for v in (WORKS, MOVED, UNCHECKED, DEAD))
    print(f"\n{len(found)} of {len(linked)} addresses asked: {counts}")


def main(arguments: list[str] | None = None) -> int:
    """Ask them all; 1 if one is dead, 2 without a network, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("html", nargs="?", type=Path, default=ROOT / "_build" / "html", help="the built book")
    html = parser.parse_args(arguments).html
    linked = addresses(html)
    if not linked:
        parser.error(f"{html} has no page with an external address: run `make book` first")
    found: list[Answer] = []
    try:
        for answer in tqdm(answers(linked), total=len(linked), unit=" addresses"):
            found.append(answer)
    except KeyboardInterrupt:
        report(found, linked)
        return 130
    unknown = sum(answer.said == NO_HOST for answer in found)
    if unknown > len(found) / 2:  # so many hosts do not vanish
        print(f"error: of {len(found)} addresses, {unknown} have no such host: is there a network?", file=sys.stderr)
        return 2
    report(found, linked)
    return 1 if any(answer.verdict == DEAD for answer in found) else 0


if __name__ == "__main__":
    sys.exit(main())
