"""The files of a source that go into an image."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rainbow_prefect.errors import RunError
from rainbow_prefect.images.context import File, Ignored, copy, files_of, ignored_in
from rainbow_prefect.images.digests import digests
from tests.conftest import Project


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def paths(root: Path) -> list[str]:
    return [one.path for one in files_of(root)]


def test_what_is_no_code_stays_out(project: Project) -> None:
    root = project(
        dict.fromkeys(("a.py", "b/c.py", ".git/x", ".venv/x", "__pycache__/a.pyc", "b/.mypy_cache/x", "b/d.pyc"), "")
        | {"env/pyvenv.cfg": "", "env/lib.py": "", ".ipynb_checkpoints/x": "", ".env.example": ""}
    )

    assert paths(root) == [".env.example", "a.py", "b/c.py"]


def test_dockerignore(project: Project) -> None:
    root = project(
        dict.fromkeys(("a.py", "data/big.csv", "data/keep.csv", "x/notes.md", "x/y/notes.md", "tmp/a"), "")
        | {".dockerignore": "# what is large\ndata/*\n!data/keep.csv\n**/notes.md\n/tmp\n"}
    )

    assert paths(root) == ["a.py", "data/keep.csv"]


@pytest.mark.parametrize(
    ("pattern", "path", "out"),
    [
        ("a", "a", True),
        ("a", "a/b", True),
        ("a", "b/a", False),
        ("*/a", "b/a", True),
        ("*/a", "b/c/a", False),
        ("**/a", "a", True),
        ("**/a", "b/c/a", True),
        ("a/**", "a/b", True),
        ("*.py", "a.py", True),
        ("*.py", "b/a.py", False),
        ("a?.py", "ab.py", True),
        ("a?", "a/", False),
        ("[ab].py", "b.py", True),
        ("[^ab].py", "b.py", False),
        (r"\*.py", "a.py", False),
        (r"\*.py", "*.py", True),
        ("a.b", "axb", False),
        ("./a/", "a", True),
        ("a/../b", "b", True),
    ],
)
def test_patterns(pattern: str, path: str, out: bool) -> None:
    assert Ignored([pattern]).matches(path) is out


def test_a_line_that_is_no_pattern_is_told() -> None:
    with pytest.raises(RunError) as raised:
        Ignored(["a", " [z-a]"])

    assert str(raised.value) == ("the line '[z-a]' of .dockerignore is no pattern: bad character range z-a; correct it")


def test_the_last_pattern_that_matches_counts() -> None:
    ignored = Ignored(["*", "!src", "src/secret", "!src/secret/not"])

    assert [path for path in ("a", "src/a", "src/secret/a", "src/secret/not") if not ignored.matches(path)] == [
        "src/a",
        "src/secret/not",
    ]


def test_links(project: Project, tmp_path: Path) -> None:
    root = project({"real.py": "x", "folder/inner.py": ""})
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/far.py").write_text("far")
    (root / "near.py").symlink_to("real.py")
    (root / "absolute.py").symlink_to(root / "real.py")
    (root / "far.py").symlink_to(tmp_path / "outside/far.py")
    (root / "away").symlink_to(tmp_path / "outside")
    (root / "folder/up").symlink_to("..")
    (root / "dead").symlink_to("nowhere")

    found = files_of(root)
    copy(found, tmp_path / "copy", {})

    assert {one.path: one.link for one in found} == {
        "absolute.py": "real.py",
        "away/far.py": "",
        "dead": "nowhere",
        "far.py": "",
        "folder/inner.py": "",
        "folder/up": "..",
        "near.py": "real.py",
        "real.py": "",
    }
    assert (tmp_path / "copy/away/far.py").read_text() == "far"
    assert (tmp_path / "copy/absolute.py").read_text() == "x"


def test_a_copy_is_the_same_for_every_umask(project: Project, tmp_path: Path) -> None:
    root = project({"a.py": "a", "run.sh": "b", "empty/.keep": ""})
    (root / "a.py").chmod(0o600)
    (root / "run.sh").chmod(0o700)

    before = os.umask(0o077)
    try:
        copy(files_of(root), tmp_path / "copy", {"requirements.txt": "", "sub/made.txt": "x"})
    finally:
        os.umask(before)

    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "copy").rglob("*")}
    assert modes == {
        "a.py": "0o644",
        "run.sh": "0o755",
        "empty": "0o755",
        ".keep": "0o644",
        "requirements.txt": "0o644",
        "sub": "0o755",
        "made.txt": "0o644",
    }


def test_digests_tell_content_mode_and_aim(project: Project) -> None:
    root = project({"a.py": "a"})
    seen = {digests(files_of(root))["a.py"]}
    (root / "a.py").write_text("b")
    seen.add(digests(files_of(root))["a.py"])
    (root / "a.py").chmod(0o755)
    seen.add(digests(files_of(root))["a.py"])
    (root / "a.py").unlink()
    (root / "a.py").symlink_to("b")
    seen.add(digests(files_of(root))["a.py"])

    assert len(seen) == 4


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"the source .*/nothing cannot be read: "):
        files_of(tmp_path / "nothing")


def test_what_is_kept_out_is_never_among_them(tmp_path: Path) -> None:
    for name in ("a.py", "conf/key.txt", "conf/other.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "link.txt").symlink_to("conf/key.txt")

    found = files_of(tmp_path, kept_out={str((tmp_path / "conf/key.txt").resolve())})

    assert [one.path for one in found] == ["a.py", "conf/other.txt"]


def test_the_source_is_the_context_where_nothing_must_change(tmp_path: Path) -> None:
    write(tmp_path, "a.py", "sub/b.py", "sub/c.txt", ".git/config", "sub/__pycache__/b.pyc", "odd [x]*.txt", "e/.keep")
    (tmp_path / ".dockerignore").write_text("*.txt\n**/*.txt\ne\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link.py").symlink_to("a.py")

    ignored = ignored_in(tmp_path, files_of(tmp_path))

    assert ignored is not None
    assert sorted(ignored.splitlines()) == [
        "/.dockerignore",
        "/.git",
        "/e",
        "/empty",
        r"/odd \[x\]\*.txt",
        "/sub/__pycache__",
        "/sub/c.txt",
    ]


@pytest.mark.parametrize("what", ["a file", "a folder", "an absolute link"])
def test_a_source_whose_links_must_change_is_copied(tmp_path: Path, what: str) -> None:
    source, other = tmp_path / "source", tmp_path / "other"
    write(source, "a.py")
    write(other, "b.py")
    aims = {"a file": other / "b.py", "a folder": other, "an absolute link": source / "a.py"}
    (source / "link").symlink_to(aims[what])

    assert ignored_in(source, files_of(source)) is None


def test_a_source_with_very_much_to_leave_out_is_copied(tmp_path: Path) -> None:
    write(tmp_path, "a.py", *(f"{number}.txt" for number in range(201)))
    (tmp_path / ".dockerignore").write_text("*.txt\n")

    assert ignored_in(tmp_path, files_of(tmp_path)) is None


@pytest.mark.parametrize("name", ["line\nbreak.pyc", "space .pyc ", "byte\udcff.pyc"])
def test_a_source_with_a_name_that_cannot_be_written_is_copied(tmp_path: Path, name: str) -> None:
    write(tmp_path, "a.py")
    (tmp_path / name).write_text("")
    (tmp_path / ".dockerignore").write_text("*.pyc*\n")

    assert ignored_in(tmp_path, files_of(tmp_path)) is None


def test_files_from_elsewhere_are_copied(tmp_path: Path) -> None:
    write(tmp_path, "a.py")

    assert ignored_in(tmp_path, [File("requirements.txt", str(tmp_path / "a.py"))]) is None
