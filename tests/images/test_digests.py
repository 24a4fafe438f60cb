"""Digests of many files: what is remembered of them, and that no change is missed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from rainbow_prefect.errors import RunError
from rainbow_prefect.images import digests as module
from rainbow_prefect.images.context import File, files_of
from rainbow_prefect.images.digests import digests


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """300 files that were written a while ago; the cache is this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_FRESH_NS", 0)
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(300):
        (folder / f"f{number}.py").write_text(f"x = {number}\n")
    return folder


def read_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read from now on."""
    read: list[str] = []
    real = module._digest

    def seen(one: File) -> str:
        read.append(one.path)
        return real(one)

    monkeypatch.setattr(module, "_digest", seen)
    return read


def test_files_that_did_not_change_are_not_read_again(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = digests(files_of(source), folder=source)
    read = read_files(monkeypatch)

    assert digests(files_of(source), folder=source) == first == digests(files_of(source))
    assert read == sorted(first)  # by the one without a folder


def test_a_change_of_any_kind_is_seen(source: Path) -> None:
    before = digests(files_of(source), folder=source)
    (source / "f1.py").write_text("x = 2\n")
    times = (source / "f2.py").stat()
    (source / "f2.py").write_text("x = 3\n")
    os.utime(source / "f2.py", ns=(times.st_atime_ns, times.st_mtime_ns))  # as `cp -p` and `tar` do it
    (source / "f3.py").chmod(0o755)
    (source / "f4.py").unlink()
    (source / "f5.py").rename(source / "f6.py")
    (source / "new.py").write_text("")

    now = digests(files_of(source), folder=source)

    changed = {name for name in {*before, *now} if before.get(name) != now.get(name)}
    assert changed == {"f1.py", "f2.py", "f3.py", "f4.py", "f5.py", "f6.py", "new.py"}
    assert now == digests(files_of(source))


def test_a_file_that_changed_a_moment_ago_is_read_again(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FRESH_NS", 3_600_000_000_000)
    digests(files_of(source), folder=source)
    read = read_files(monkeypatch)

    digests(files_of(source), folder=source)

    assert len(read) == 300


def test_what_is_remembered_may_be_broken_or_of_nobody(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = digests(files_of(source), folder=source)
    kept = module._file_of(source)
    for text in ("", "[1]", '{"f1.py": 3}', '{"f1.py": [1]}'):
        kept.write_text(text)
        assert digests(files_of(source), folder=source) == first
    monkeypatch.setattr(module, "_file_of", lambda folder: Path("/proc/nowhere/x.json"))
    assert digests(files_of(source), folder=source) == first


def test_remembering_is_faster(source: Path) -> None:
    for number in range(300):
        (source / f"f{number}.py").write_bytes(os.urandom(100_000))
    times = []
    for _ in range(4):
        begun = time.process_time()
        digests(files_of(source), folder=source)
        times.append(time.process_time() - begun)

    assert min(times[1:]) < times[0]


def test_a_file_that_is_gone_is_told(source: Path) -> None:
    files = files_of(source)
    (source / "f7.py").unlink()

    with pytest.raises(RunError, match=r"the source cannot be read: .*f7\.py"):
        digests(files, folder=source)
