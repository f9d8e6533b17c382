"""A file is written whole or not at all; a fingerprint names what it holds."""

import os
import stat

import pytest

from llmbook.files import fingerprint, write_whole


@pytest.mark.parametrize("content", ["Zwölf Boxkämpfer\n", b"\x00\xff"])
def test_what_is_written_is_read_back_and_replaces_the_old(tmp_path, content):
    path = tmp_path / "a.txt"
    path.write_text("old")
    write_whole(str(path), content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_others_may_read_it_as_any_other_file(tmp_path):
    before = os.umask(0o022)
    try:
        write_whole(tmp_path / "a.txt", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o644


def test_a_fingerprint_follows_the_bytes_and_not_the_line_ends(tmp_path):
    unix, windows, other = (tmp_path / name for name in "abc")
    unix.write_bytes(b"a = 1\nb = 2\n")
    windows.write_bytes(b"a = 1\r\nb = 2\r\n")
    other.write_bytes(b"a = 1\nb = 3\n")
    assert fingerprint(unix) == fingerprint(windows) != fingerprint(other)
    assert fingerprint(unix, other) != fingerprint(other, unix)
