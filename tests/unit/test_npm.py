"""Packages from npm: kept in the cache, asked for once, and a clear word where they cannot be brought."""

from __future__ import annotations

import pytest

from llmbook import npm
from llmbook.experiments import browser

FAKE = """#!/bin/sh
echo "$@" >> {log}
mkdir -p "$3/node_modules/words/dist" && echo ok > "$3/node_modules/words/dist/words.js"
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Puts a shell script in npm's place, and gives the log of what it was asked."""
    monkeypatch.setenv("LLMBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def put(script: str):
        (tmp_path / "npm").write_text(script.format(log=tmp_path / "log"))
        (tmp_path / "npm").chmod(0o755)
        return tmp_path / "log"

    return put


def test_a_package_is_brought_once_at_its_version_and_runs_no_script(fake):
    log = fake(FAKE)
    for _ in range(2):
        assert (npm.package("words", "1.2.3", ["dist/words.js"]) / "dist" / "words.js").read_text() == "ok\n"
    (line,) = log.read_text().splitlines()
    assert line.endswith("words@1.2.3")
    assert "--ignore-scripts" in line


def test_a_file_that_the_package_lacks_is_named(fake):
    fake(FAKE)
    with pytest.raises(npm.NotBrought, match=r"words 1\.2\.3 has no gone\.js"):
        npm.package("words", "1.2.3", ["dist/words.js", "gone.js"])


def test_an_npm_that_fails_or_does_not_answer_is_told(fake, monkeypatch):
    fake("#!/bin/sh\necho 'no such registry' >&2\nexit 1\n")
    with pytest.raises(npm.NotBrought, match="could not bring words 1: no such registry"):
        npm.package("words", "1", ["words.js"])
    fake("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(npm, "PATIENCE", 0.2)
    with pytest.raises(npm.NotBrought, match=r"within 0\.2 s"):
        npm.package("words", "1", ["words.js"])


def test_without_npm_that_is_said_and_the_race_says_it_too(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMBOOK_CACHE", str(tmp_path))
    monkeypatch.setattr("shutil.which", lambda name: None if name == "npm" else f"/bin/{name}")
    with pytest.raises(npm.NotBrought, match="no npm on the PATH, which brings words"):
        npm.package("words", "1", ["words.js"])
    with pytest.raises(browser.CannotRace, match="onnxruntime-web"):
        browser.race()
