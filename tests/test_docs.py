"""The documents are true: every YAML, shell, Python and TOML block runs, and nothing that exists is left out.

The blocks of one document run in order in one folder, with a copy of `examples/` when the document speaks of it. HTML comments, which
readers do not see, say what a block is:

    <!-- file: code/add.py -->     the next block is the text of this file
    <!-- file: code/add.py
    def add(...): ...
    -->                            a file that the text does not show
    <!-- tasks -->                 the next block is a list of tasks of a pipeline: it is checked as such
    <!-- key: volumes -->          the next block is a part of a root: it is put below `name: docs` and checked
    <!-- new -->                   start again in an empty folder
    <!-- output -->                the next block is what the shell block before it wrote; times and ids may differ

A YAML block without a comment is written to `rainbow.yml` and checked. A shell line that ends in `# exit status N` must
end so; all others must end with 0. `make` lines are looked up in the Makefile: the suite does not run itself. The word
`last` is the last run of this document: other tests run pipelines on the same server.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from rainbow_prefect.cli import COMMANDS, Commands, cli
from rainbow_prefect.registry import executors, observers, tasks

from .conftest import ROOT

DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "examples/**/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"
)
GENERATED = "docs/reference.md"
PIECE = re.compile(
    r"<!--[ ]*(?P<comment>.*?)-->\n|^(?P<fence>```+)(?P<kind>\w*)\n(?P<text>.*?)^(?P=fence)\n", re.S | re.M
)
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
RUNS = frozenset({"yaml", "sh", "python", "toml", "json"})
TELLS = frozenset({"text", "mermaid"})


@dataclass(frozen=True)
class Block:
    """A fenced block, with the word of the comment before it; an empty kind is a comment that is a whole block."""

    kind: str
    text: str
    line: int
    word: str = ""
    name: str = ""


def blocks(text: str) -> Iterator[Block]:
    word = name = ""
    for piece in PIECE.finditer(text):
        line = text.count("\n", 0, piece.start()) + 1
        if piece["comment"] is None:
            yield Block(piece["kind"], textwrap.dedent(piece["text"]), line, word, name)
            word = name = ""
            continue
        head, _, rest = piece["comment"].strip("\n ").partition("\n")
        word, _, name = (one.strip() for one in head.partition(":"))
        if rest or word == "new":
            yield Block("", f"{rest}\n", line, word, name)
            word = name = ""


class Reader:
    """Does what a person does who reads a document with a keyboard."""

    def __init__(self, home: Path, env: dict[str, str]) -> None:
        self.home = home
        self.env = env
        self.printed = ""
        self.last = "last"
        self.begin()

    def begin(self, *, with_examples: bool = False) -> None:
        """An empty folder, and nothing else."""
        self.folder = self.home / "work"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        if with_examples:
            shutil.copytree(ROOT / "examples", self.folder / "examples")

    def follow(self, block: Block) -> None:
        if block.word == "new":
            self.begin()
        elif block.word == "file":
            path = self.folder / block.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif block.word == "output":
            assert plain(block.text) in plain(self.printed)
        elif block.word == "tasks":
            self.check(
                "name: docs\npipelines:\n  - pipeline: docs\n    tasks:\n" + textwrap.indent(block.text, "      ")
            )
        elif block.word == "key":
            self.check(f"name: docs\n{block.text}")
        elif block.kind == "yaml":
            self.check(block.text)
            (self.folder / "rainbow.yml").write_text(block.text)
        elif block.kind == "sh":
            self.type(block.text)
        elif block.kind == "python":
            self.call([sys.executable, "-c", block.text], 0)
        elif block.kind == "toml":
            tomllib.loads(block.text)

    def check(self, text: str) -> None:
        """The text is a good rainbow.yml in the folder as it is now."""
        file = self.folder / "checked.yml"
        file.write_text(text)
        self.call(["rainbow", "check", str(file)], 0)
        file.unlink()

    def type(self, text: str) -> None:
        for line in re.sub(r"\\\n\s*", "", text).splitlines():
            words, _, comment = line.partition("   #")
            if not words.strip():
                continue
            status = re.search(r"exit status (\d)", comment)
            if words.startswith("make "):
                self.call(["make", "-n", words.split()[1]], 0, folder=ROOT)
            elif words.startswith("pip install ."):
                uv = ["uv", "pip", "install", "--dry-run", "--no-deps", "--no-build-isolation"]
                self.call([*uv, "--python", sys.executable, str(ROOT)], 0)
            elif words.startswith("cd "):
                self.folder = self.folder / words.removeprefix("cd ").strip()
                assert self.folder.is_dir()
            else:
                words = re.sub(r"(?<= )last\b", self.last, words)
                self.call(["bash", "-c", words], int(status[1]) if status else 0)
                if words.startswith("rainbow run ") or words.strip() == "rainbow run":
                    self.last = next(iter(ID.findall(self.printed)), self.last)

    def call(self, words: list[str], status: int, *, folder: Path | None = None) -> None:
        done = subprocess.run(
            words,
            cwd=folder or self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            check=False,
        )
        self.printed = done.stdout
        assert done.returncode == status, f"{words} ended with {done.returncode}\n{done.stdout[-3000:]}"
        assert not re.search(r"^Traceback", done.stdout, re.M), done.stdout  # one of user code has its task before it


def plain(text: str) -> str:
    """The text without what differs from run to run: times, ids, ports, dates, the width of spaces."""
    text = re.sub(r"\b[0-9a-f]{8}\b", "ID", ID.sub("ID", text))
    text = re.sub(r"127\.0\.0\.1:\d+", "HOST", text)
    text = re.sub(r"\b\d+:\d\d:\d\d(\.\d+)?", "TIME", text)
    text = re.sub(r"\b\d+(\.\d+)? s\b", "N s", text)
    text = re.sub(r"\b20\d\d-\d\d-\d\d", "DATE", text)
    return re.sub(r"[ ─━]+", " ", text).strip()


@pytest.fixture
def reader(tmp_path: Path, prefect_server: str) -> Reader:
    """A reader on a machine of their own, with this clone's `rainbow` on the PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env = {**own, "PATH": path, "HOME": str(tmp_path), "PREFECT_HOME": str(tmp_path / "prefect")}
    return Reader(tmp_path, env)


@pytest.mark.slow
@pytest.mark.parametrize("document", [name for name in DOCUMENTS if name != GENERATED])
def test_blocks_run(reader: Reader, document: str, request: pytest.FixtureRequest) -> None:
    text = (ROOT / document).read_text()
    if "--executor docker" in text:
        request.getfixturevalue("base_image")  # a reader of this has Docker
        reader.env["DOCKER_HOST"] = os.environ.get("DOCKER_HOST", "")
    reader.begin(with_examples=" examples/" in text)
    for block in blocks(text):
        try:
            reader.follow(block)
        except Exception as error:
            raise AssertionError(f"{document}:{block.line}: {error}") from error


@pytest.mark.parametrize("document", DOCUMENTS)
def test_blocks_say_what_they_are(document: str) -> None:
    kinds = {block.kind: block.line for block in blocks((ROOT / document).read_text()) if block.word != "file"}

    assert set(kinds) <= RUNS | TELLS | {""}, f"{document}: {kinds}"


@pytest.mark.parametrize("document", [*DOCUMENTS, "CHANGELOG.md"])
def test_links_lead_somewhere(document: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / document).read_text(), flags=re.S)
    here = (ROOT / document).parent
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not re.match(r"https?://", target):
            assert (here / target).exists(), f"{document}: {target}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_anchors_lead_to_a_heading(document: str) -> None:
    text = (ROOT / document).read_text()
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", text):
        path = (ROOT / document).parent / target if target else ROOT / document
        headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
        slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert anchor in slugs, f"{document}: {target}#{anchor}"


def section(text: str, heading: str) -> str:
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.S | re.M)
    assert found, f"there is no section '{heading}'"
    return found[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_documented(name: str) -> None:
    text = section((ROOT / "docs/commands.md").read_text(), f"`rainbow {name}`")
    group = cli
    assert isinstance(group, Commands)
    command = group.get_command(click.Context(group), name)
    assert command is not None
    parts = list(parts_of(command))

    missing = [
        option
        for part in parts
        for parameter in part.params
        if isinstance(parameter, click.Option) and not parameter.hidden
        for option in parameter.opts
        if f"`{option}" not in text and f", {option}" not in text
    ]

    assert missing == []
    assert all(f"{words} [" in text or f"{words}`" in text for words in calls(f"`rainbow {name}", command))


def parts_of(command: click.Command) -> Iterator[click.Command]:
    """The command, or all that a group has, at any depth."""
    if not isinstance(command, click.Group):
        yield command
        return
    for one in command.commands.values():
        yield from parts_of(one)


def calls(words: str, command: click.Command) -> Iterator[str]:
    """How the parts of a group are called."""
    if isinstance(command, click.Group):
        for name, one in command.commands.items():
            yield from calls(f"{words} {name}", one)
    elif len(words.split()) > 2:
        yield words


@pytest.mark.parametrize("name", COMMANDS)
def test_readme_names_every_command(name: str) -> None:
    assert f"`rainbow {name}" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("registry", [tasks, executors, observers], ids=lambda registry: registry.what)
def test_every_type_is_in_the_reference(registry: object) -> None:
    text = (ROOT / GENERATED).read_text()

    assert [name for name in registry if f"`{name}`" not in text] == []  # type: ignore[attr-defined]


def test_reference_is_what_the_models_say(tmp_path: Path) -> None:
    written = tmp_path / "reference.md"

    subprocess.run([sys.executable, "-m", "rainbow_prefect.reference", written], check=True, cwd=ROOT, timeout=60)

    assert written.read_text() == (ROOT / GENERATED).read_text(), "run: make docs"


def test_every_environment_variable_is_documented() -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "rainbow_prefect").rglob("*.py"))
    documents = "\n".join((ROOT / name).read_text() for name in DOCUMENTS)

    names = set(re.findall(r"[\"']((?:RAINBOW|LIMINAL)_[A-Z_]+)[\"']", sources))

    assert sorted(name for name in names if name not in documents) == []


def test_every_public_name_is_documented() -> None:
    import rainbow_prefect

    documents = "\n".join((ROOT / name).read_text() for name in DOCUMENTS)

    assert [name for name in rainbow_prefect.__all__ if not re.search(rf"\b{name}\b", documents)] == []


def test_changelog_has_the_shape_of_keep_a_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()

    kinds = set(re.findall(r"^### (.*)$", text, re.M))
    entries = re.findall(r"^- (.*(?:\n  .*)*)", text, re.M)
    assert "## Unreleased" in text
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert entries
    assert all(entry.rstrip().endswith((".", ")")) for entry in entries)
