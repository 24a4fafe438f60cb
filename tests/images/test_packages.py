"""What pip is given: requirements files and all that they name, pyproject.toml and its lock."""

from __future__ import annotations

import pytest

from rainbow_prefect.errors import RunError
from rainbow_prefect.images.packages import Packages, packages_of
from tests.conftest import Project


def test_without_any_file_there_is_an_empty_one(project: Project) -> None:
    root = project({"a.py": ""})

    assert packages_of(root, None) == Packages(made={"requirements.txt": ""})


def test_a_file_of_comments_is_empty(project: Project) -> None:
    assert packages_of(project({"requirements.txt": "# none\n\n"}), None).is_empty


def test_files_that_a_file_names_come_along(project: Project) -> None:
    root = project({"req/prod.txt": "-r base.txt\n-c ../limits.txt\na\n", "req/base.txt": "b\n", "limits.txt": "b<2\n"})

    found = packages_of(root, "req/prod.txt")

    assert (found.file, found.copied) == ("req/prod.txt", ("req/prod.txt", "req/base.txt", "limits.txt"))
    assert not found.is_empty
    assert not found.with_code


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_may_begin_with_a_mark(project: Project, encoding: str) -> None:
    root = project({"base.txt": "a\n"})
    (root / "requirements.txt").write_text("-r base.txt\r\n", encoding=encoding)

    assert packages_of(root, None).copied == ("requirements.txt", "base.txt")


@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_file_with_a_blank_in_its_name_comes_along(project: Project, quote: str) -> None:
    root = project({"requirements.txt": f"-r {quote}my base.txt{quote}\n", "my base.txt": "a\n"})

    assert packages_of(root, None).copied == ("requirements.txt", "my base.txt")


def test_a_file_outside_of_the_source_is_told(project: Project) -> None:
    root = project({"code/requirements.txt": "-r ../base.txt\n-c /etc/hosts\n", "base.txt": "a\n"})

    with pytest.raises(RunError) as raised:
        packages_of(root / "code", None)

    assert str(raised.value) == (
        f"{root}/code/requirements.txt names '../base.txt', which is not in the source {root}/code; "
        "copy it into that folder"
    )


@pytest.mark.parametrize("line", ["-e .", "./lib", "lib/ ; python_version > '3'", "./lib[extra]"])
def test_a_part_of_the_code_needs_the_code(project: Project, line: str) -> None:
    assert packages_of(project({"requirements.txt": f"{line}\n", "lib/a.py": ""}), None).with_code


def test_a_file_that_is_named_must_be_there(project: Project) -> None:
    root = project({"a.py": ""})

    with pytest.raises(RunError) as raised:
        packages_of(root, "needs.txt")

    assert str(raised.value) == f"there is no requirements file 'needs.txt' in {root}; correct `requirements`"


PROJECT = '[project]\nname = "mine"\nversion = "1"\ndependencies = ["rich>=13", "click"]\n'


def test_pyproject(project: Project) -> None:
    found = packages_of(project({"pyproject.toml": PROJECT}), None)

    assert found == Packages(made={"requirements.txt": "rich>=13\nclick\n"}, is_empty=False)


def test_requirements_win_over_pyproject(project: Project) -> None:
    assert packages_of(project({"pyproject.toml": PROJECT, "requirements.txt": "a\n"}), None).made == {}


def test_pyproject_that_is_built_is_installed(project: Project) -> None:
    text = PROJECT + '[build-system]\nrequires = ["setuptools"]\n'

    assert packages_of(project({"pyproject.toml": text}), None).is_project


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "uv.lock",
            'version = 1\n[[package]]\nname = "mine"\nversion = "1"\nsource = {virtual = "."}\n'
            '[[package]]\nname = "rich"\nversion = "13.9.4"\nsource = {registry = "x"}\n'
            '[[package]]\nname = "click"\nversion = "8.1.8"\n[[package]]\nname = "click"\nversion = "8.2.0"\n',
        ),
        ("poetry.lock", '[[package]]\nname = "rich"\nversion = "13.9.4"\n'),
        ("pylock.toml", 'lock-version = "1.0"\n[[packages]]\nname = "rich"\nversion = "13.9.4"\n'),
    ],
)
def test_a_lock_says_the_versions(project: Project, name: str, text: str) -> None:
    found = packages_of(project({"pyproject.toml": PROJECT, name: text}), None)

    assert found.made == {
        "requirements.txt": "-c rainbow-constraints.txt\nrich>=13\nclick\n",
        "rainbow-constraints.txt": "rich==13.9.4\n",
    }
    assert found.copied == ("requirements.txt", "rainbow-constraints.txt")


def test_files_that_name_each_other_are_told(project: Project) -> None:
    root = project({"requirements.txt": "-r a.txt\n", "a.txt": "rich\n-r b.txt\n", "b.txt": "-c a.txt\n"})

    with pytest.raises(RunError, match=r"in a circle: a\.txt -> b\.txt -> a\.txt; remove one of these lines"):
        packages_of(root, None)


def test_a_file_may_be_named_twice(project: Project) -> None:
    root = project(
        {"requirements.txt": "-r a.txt\n-r b.txt\n", "a.txt": "-c c.txt\n", "b.txt": "-c c.txt\n", "c.txt": ""}
    )

    assert packages_of(root, None).copied == ("requirements.txt", "a.txt", "c.txt", "b.txt")


def test_dependencies_that_the_build_system_computes_are_asked_of_it(project: Project) -> None:
    text = '[project]\nname = "mine"\nversion = "1"\ndynamic = ["dependencies"]\n[build-system]\nrequires = ["setuptools"]\n'
    found = packages_of(project({"pyproject.toml": text}), None)

    assert found.made == {"requirements.txt": ".\n"}
    assert (found.with_code, found.is_project, found.is_empty) == (True, False, False)


def test_dependencies_that_uv_fetches_from_elsewhere(project: Project) -> None:
    text = (
        '[project]\nname = "mine"\nversion = "1"\n'
        'dependencies = ["My_Tool[x]>=1; python_version > \'3\'", "wheel-of-it", "rich"]\n'
        '[tool.uv.sources]\nmy-tool = {git = "https://git.example.com/tool", tag = "v1", subdirectory = "py"}\n'
        'wheel_of_it = {url = "https://files.example.com/w-1-py3-none-any.whl"}\nother = {path = "../other"}\n'
    )

    assert packages_of(project({"pyproject.toml": text}), None).made["requirements.txt"].splitlines() == [
        "My_Tool[x] @ git+https://git.example.com/tool@v1#subdirectory=py ; python_version > '3'",
        "wheel-of-it @ https://files.example.com/w-1-py3-none-any.whl",
        "rich",
    ]


@pytest.mark.parametrize("source", ['{path = "../rich"}', "{workspace = true}", '[{index = "a", marker = "b"}]'])
def test_what_only_uv_can_fetch_is_told(project: Project, source: str) -> None:
    root = project({"pyproject.toml": PROJECT + f"[tool.uv.sources]\nrich = {source}\n"})

    with pytest.raises(
        RunError, match=r"pip cannot fetch 'rich' from where `tool.uv.sources` says; write a requirements"
    ):
        packages_of(root, None)


def test_dependencies_of_poetry(project: Project) -> None:
    text = (
        '[tool.poetry.dependencies]\npython = "^3.11"\na = "^1.2.3"\nb = "~2.3"\nc = "*"\nd = "1.0"\n'
        'e = ">=1,<2"\nf = {version = "^0.3", extras = ["x", "y"]}\ng = "^0.0.4"\n'
    )

    found = packages_of(project({"pyproject.toml": text}), None)

    assert found.made["requirements.txt"].splitlines() == [
        "a>=1.2.3,<2",
        "b>=2.3,<2.4",
        "c",
        "d==1.0",
        "e>=1,<2",
        "f[x,y]>=0.3,<0.4",
        "g>=0.0.4,<0.0.5",
    ]


def test_broken_pyproject_is_told(project: Project) -> None:
    root = project({"pyproject.toml": "[project\n"})

    with pytest.raises(RunError, match=r"pyproject\.toml is no TOML: "):
        packages_of(root, None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("project = 1", "`project` is not a table"),
        ('[project]\nname = "x"\ndependencies = "requests"', "`dependencies` is not a list of texts"),
        ('[project]\nname = "x"\ndependencies = [1]', "`dependencies` is not a list of texts"),
        ("tool = 3", "`tool` is not a table"),
        ("[tool]\npoetry = 3", "`poetry` is not a table"),
        ("[tool.poetry]\ndependencies = ['a']", "`dependencies` is not a table"),
    ],
)
def test_a_pyproject_of_another_shape_is_told(project: Project, text: str, told: str) -> None:
    with pytest.raises(RunError) as raised:
        packages_of(project({"pyproject.toml": text}), None)

    assert str(raised.value) == f"pyproject.toml: {told}; correct it, or write a requirements.txt beside it"


@pytest.mark.parametrize(
    "value", ['"^"', '"~"', '"1.2 || 1.3"', '{path = "../z"}', "{version = 1}", "3", '[{version = "1"}]']
)
def test_a_dependency_that_pip_has_no_words_for_is_told(project: Project, value: str) -> None:
    with pytest.raises(RunError) as raised:
        packages_of(project({"pyproject.toml": f"[tool.poetry.dependencies]\na = {value}\n"}), None)

    assert str(raised.value) == (
        "pyproject.toml: the dependency 'a' cannot be read; write a requirements.txt beside it"
    )


def test_dependencies_of_poetry_from_elsewhere(project: Project) -> None:
    text = (
        '[tool.poetry.dependencies]\na = {git = "https://x.y/a.git", tag = "v1", extras = ["b"]}\n'
        'c = {url = "https://x.y/c-1.tar.gz"}\nd = {git = "https://x.y/d.git", subdirectory = "sub"}\n'
    )

    found = packages_of(project({"pyproject.toml": text}), None)

    assert found.made["requirements.txt"].splitlines() == [
        "a[b] @ git+https://x.y/a.git@v1",
        "c @ https://x.y/c-1.tar.gz",
        "d @ git+https://x.y/d.git#subdirectory=sub",
    ]


@pytest.mark.parametrize("text", ['package = "x"', 'package = ["x"]', "package = 1", '[[package]]\nversion = "1"'])
def test_a_lock_of_another_shape_is_told(project: Project, text: str) -> None:
    root = project({"pyproject.toml": PROJECT, "uv.lock": text})

    with pytest.raises(RunError) as raised:
        packages_of(root, None)

    assert str(raised.value) == (
        f"{root}/uv.lock is not a lock: a package in it has no name; make it anew, or remove it"
    )
