"""The check of external addresses, against a server on this machine that answers in every way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import links
import pytest
import requests

pytestmark = pytest.mark.enable_socket
STATUS = {"/moved": 301, "/moved-once": 302, "/gone": 410, "/refused": 403, "/busy": 429, "/broken": 500}


class Server(ThreadingHTTPServer):
    """Remembers what was asked, and how many asked at once."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.asked: list[str] = []
        self.now = self.most = 0
        self.lock, self.released = threading.Lock(), threading.Event()
        self.host = f"127.0.0.1:{self.server_port}"
        self.address = f"http://{self.host}"


class Answers(BaseHTTPRequestHandler):
    """`/ok…` is there, `/get` only for GET, `/slow…` after two seconds, `/waits…` when released.

    STATUS has the rest, all else is 404.
    """

    def do_HEAD(self) -> None:
        asked, slow = f"{self.command} {self.path}", self.path.startswith("/slow")
        self.count(1)
        self.server.asked.append(asked)
        time.sleep(2 if slow else 0.05)
        if self.path.startswith("/waits"):
            self.server.released.wait(60)
        self.count(-1)
        there = self.path.startswith("/ok") or slow or asked == "GET /get"
        refused = 405 if self.path == "/get" else 404
        self.send_response(200 if there else STATUS.get(self.path, refused))
        if self.path.startswith("/moved"):
            self.send_header("Location", "/ok")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def count(self, step: int) -> None:
        with self.server.lock:
            self.server.now += step
            self.server.most = max(self.server.most, self.server.now)

    do_GET = do_HEAD

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    """The server, running; a proxy of this machine is left out."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=[0.01], daemon=True).start()
        yield running
        running.shutdown()


def pages_with(folder: Path, *addresses: str) -> Path:
    """A built book of one page with these links."""
    body = "".join(f'<a href="{address}">there</a>' for address in addresses)
    (folder / "page.html").write_text(f"<html><body>{body}</body></html>", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("path", "verdict", "said"),
    [
        ("/ok", links.WORKS, ""),
        ("/get", links.WORKS, ""),
        ("/moved-once", links.WORKS, ""),
        ("/moved", links.MOVED, "now {server.address}/ok"),
        ("/nowhere", links.DEAD, "404"),
        ("/gone", links.DEAD, "410"),
        ("/refused", links.UNCHECKED, "403 from {server.host}"),
        ("/busy", links.UNCHECKED, "429 from {server.host}"),
        ("/broken", links.UNCHECKED, "500 from {server.host}"),
        ("/slow", links.UNCHECKED, "ReadTimeout"),
    ],
)
def test_each_answer_has_its_verdict(server, monkeypatch, path, verdict, said):
    monkeypatch.setattr(links, "TIMEOUT", 0.5)
    with requests.Session() as session:
        found = links.ask(session, server.address + path)
    assert found == links.Answer(server.address + path, verdict, said.format(server=server))
    assert server.asked[0] == f"HEAD {path}"


def test_a_host_that_does_not_exist_is_dead_and_one_that_refuses_is_not(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        refusing = f"http://127.0.0.1:{free.getsockname()[1]}/"
        with requests.Session() as session:
            assert links.ask(session, refusing).verdict == links.UNCHECKED

    def unknown(*_args, **_kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with requests.Session() as session:
        assert links.ask(session, "http://nowhere.invalid/") == links.Answer(
            "http://nowhere.invalid/", links.DEAD, links.NO_HOST
        )


def test_an_address_that_is_none_does_not_stop_the_rest(server, tmp_path, capsys):
    assert links.main([str(pages_with(tmp_path, "http://.broken/", f"{server.address}/ok"))]) == 0
    assert "InvalidURL" in capsys.readouterr().out


def test_each_address_is_asked_once_and_two_at_a_time(server, tmp_path, capsys):
    book = pages_with(
        tmp_path, *(f"{server.address}/ok{i}" for i in range(12)), f"{server.address}/ok0#part", "other.html", "#here"
    )
    assert links.main([str(book)]) == 0
    assert sorted(server.asked) == sorted(f"HEAD /ok{i}" for i in range(12))
    assert server.most == links.PER_HOST
    assert "12 of 12 addresses asked: 12 works" in capsys.readouterr().out


def test_the_table_names_the_pages_and_a_dead_address_fails(server, tmp_path, capsys):
    book = pages_with(
        tmp_path,
        f"{server.address}/nowhere",
        f"{server.address}/moved",
        f"{server.address}/busy",
        f"{server.address}/ok",
    )
    assert links.main([str(book)]) == 1
    said = capsys.readouterr().out
    assert f"Dead:\n  {server.address}/nowhere\n    404; in page.html" in said
    assert "Could not be checked:" in said
    assert "Moved for good:" in said
    assert list(book.iterdir()) == [book / "page.html"]  # nothing is written


def test_what_could_not_be_checked_is_no_failure(server, tmp_path):
    assert links.main([str(pages_with(tmp_path, f"{server.address}/busy", f"{server.address}/broken"))]) == 0


def test_no_pages_and_no_network_have_their_words(tmp_path, capsys, monkeypatch):
    with pytest.raises(SystemExit):
        links.main([str(tmp_path)])
    assert "run `make book` first" in capsys.readouterr().err
    monkeypatch.setattr(links, "ask", lambda _, address: links.Answer(address, links.DEAD, links.NO_HOST))
    assert links.main([str(pages_with(tmp_path, "https://example.org"))]) == 2
    assert "is there a network?" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for a process")
def test_ctrl_c_prints_what_is_known(server, tmp_path):
    book = pages_with(tmp_path, f"{server.address}/nowhere", f"{server.address}/waits", f"{server.address}/waits?too")
    command = [sys.executable, links.ROOT / "tools" / "links.py", book]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # where tests run in the background it is ignored
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "preexec_fn": heard}
    with subprocess.Popen(command, **pipes) as run:
        while "GET /nowhere" not in server.asked:
            time.sleep(0.05)
        time.sleep(2)  # for its answer, on a busy machine
        run.send_signal(signal.SIGINT)
        said, _ = run.communicate(timeout=30)
    server.released.set()
    assert run.returncode == 130
    assert "404; in page.html" in said
    assert "1 of 3 addresses asked" in said
