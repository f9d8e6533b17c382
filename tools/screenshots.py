"""Look at the built pages in a headless Chromium: pictures, and what a browser measures.

`python tools/screenshots.py [HTML] [page …]` writes each page wide and at phone width, light and dark, to
_build/screenshots/. `examine` (used by tests/book) reports what overflows a phone, which formulas MathJax
could not set, and what axe-core finds that some readers cannot use. Pages are served from this machine only.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

ROOT = Path(__file__).resolve().parents[1]
WIDE, PHONE = 1280, 390  # pixels
MAX_HEIGHT = 15000  # pixels of a picture
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--virtual-time-budget=60000",
]  # fmt: skip

# Runs before the page's own scripts: the theme reads its mode from here.
MODE_SCRIPT = "localStorage.setItem('mode', '{mode}'); localStorage.setItem('theme', '{mode}');"

AXE, AXE_FILE, AXE_ADDRESS = ("axe-core", "4.14.1"), "axe.min.js", "/axe.min.js"

MEASURE_SCRIPT = (Path(__file__).parent / "measure.js").read_text(encoding="utf-8")

FORWARD = re.compile(r"""<meta[^>]*http-equiv=["']?refresh[^>]*url=([^"'>\s]+)""", re.IGNORECASE)

# Chromium's own window is never narrower than 500 pixels; a frame in it may be.
FRAME = (
    '<!doctype html><body style="margin: 0; background: gray">'
    '<iframe src="{page}" width="{width}" height="{height}" data-widths="{widths}" '
    'style="border: 0; margin-top: -{top}px"></iframe>'
)


class Pages(SimpleHTTPRequestHandler):
    """Files of the book; `?mode=dark`, `?measure` and `?axe` put scripts into a page, `/frame` shows it in a frame."""

    def do_GET(self) -> None:
        url, query = urlsplit(self.path), parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        if url.path == "/frame":
            values = {name: html.escape(texts[0]) for name, texts in query.items()}
            self.answer(FRAME.format(**values))
        elif url.path == AXE_ADDRESS:
            self.answer(axe_core().read_text(encoding="utf-8"), "text/javascript")
        elif url.path.endswith(".html") and query:
            page = Path(self.translate_path(url.path)).read_text(encoding="utf-8")
            if forward := FORWARD.search(page):  # the scripts would be gone with this page
                self.send_response(302)
                self.send_header("Location", f"{urljoin(url.path, forward[1])}?{url.query}")
                self.end_headers()
                return
            scripts = f"<script>{MODE_SCRIPT.format(mode=query.get('mode', ['light'])[0])}</script>"
            scripts += f"<script>{MEASURE_SCRIPT}</script>" if "measure" in query else ""
            scripts += f'<script src="{AXE_ADDRESS}"></script>' if "axe" in query else ""
            self.answer(page.replace("<head>", "<head>" + scripts, 1))
        else:
            super().do_GET()

    def answer(self, page: str, kind: str = "text/html") -> None:
        body = page.encode()
        self.send_response(200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address under which this machine, and no other, can read the folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Pages, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def chromium(*arguments: str) -> str:
    """Run a headless Chromium with a profile of its own; what it prints."""
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=1800, check=True).stdout


def frame(address: str, page: str, widths: Sequence[int], height: int, top: int = 0) -> str:
    """The address of a page (with its query) in a frame as wide as the first width, less the pixels above ``top``."""
    query = {"page": "/" + page, "width": widths[0], "height": height, "top": top, "widths": json.dumps(widths)}
    return f"{address}/frame?" + urlencode(query)


@cache
def axe_core() -> Path:
    """The file of axe-core's one fixed version, from npm. Raises npm.NotBrought where there is none."""
    from llmbook import npm  # torch comes with it, which pictures do not need

    return npm.package(*AXE, [AXE_FILE]) / AXE_FILE


def examine(address: str, page: str, widths: Sequence[int], axe: bool = False) -> dict[int, dict[str, Any]]:
    """What the browser finds on a page at each width: overflow, mathematics not set, height, violations in axe."""
    query = "measure&axe" if axe else "measure"
    dom = chromium("--dump-dom", "--window-size=1400,2000", frame(address, f"{page}?{query}", widths, 2000))
    found = re.search(r'<pre id="measured"[^>]*>(.*?)</pre>', dom, re.DOTALL)
    if not found:
        raise RuntimeError(f"Chromium did not finish {page}")
    return {int(width): report for width, report in json.loads(html.unescape(found.group(1))).items()}


def measure(address: str, page: str, width: int) -> dict[str, Any]:
    """What the browser finds on a page of one width."""
    return examine(address, page, [width])[width]


def pictures(address: str, page: str, width: int, mode: str, folder: Path) -> list[Path]:
    """Pictures of the whole page (solutions folded, as a reader first sees it), from top to bottom."""
    height = measure(address, page, width)["height"]
    folder.mkdir(parents=True, exist_ok=True)
    targets = []
    for part, top in enumerate(range(0, height, MAX_HEIGHT), start=1):
        target = folder / f"{Path(page).stem}-{width}-{mode}-{part}.png"
        window = f"--window-size={max(width, 500)},{min(height - top, MAX_HEIGHT)}"
        chromium(f"--screenshot={target}", window, frame(address, f"{page}?mode={mode}", [width], height, top))
        targets.append(target)
    return targets


def pages(folder: Path) -> list[str]:
    """The book's own pages, without the search and index pages that the theme adds."""
    found = sorted(folder.glob("book/*.html")) + sorted(folder.glob("notebooks/*.html"))
    return [str(path.relative_to(folder)) for path in found]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("html", nargs="?", type=Path, default=ROOT / "_build" / "html", help="the built book")
    parser.add_argument("pages", nargs="*", help="such as notebooks/03_word2vec.html; all if none is given")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "screenshots")
    args = parser.parse_args()
    if CHROMIUM is None:
        print("error: no chromium, chromium-browser or google-chrome on the PATH", file=sys.stderr)
        return 1
    with served(args.html) as address:
        for page in args.pages or pages(args.html):
            for width, mode in [(WIDE, "light"), (WIDE, "dark"), (PHONE, "light"), (PHONE, "dark")]:
                for target in pictures(address, page, width, mode, args.out):
                    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
