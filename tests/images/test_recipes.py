"""Which images an app has, and which one a task runs in."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from rainbow_prefect.app import App
from rainbow_prefect.check import check
from rainbow_prefect.errors import CallError
from rainbow_prefect.images.recipes import Recipe, image_of, needed, recipes, tagged
from rainbow_prefect.schema import ImageName
from tests.conftest import Project

FILES = {"code/a.py": "", "web/w.py": "def p(): return 'p'\n", "conf/pip.conf": "", "Dockerfile": "FROM team/app:1\n"}


def app_of(project: Project, text: str, more: str = "") -> App:
    tasks = f"\npipelines:\n  - pipeline: p\n    tasks:\n{more}" if more else ""
    return check(project({**FILES, "rainbow.yml": f"name: app\n{text}{tasks}"})).apps[0]


def one(project: Project, text: str) -> Recipe:
    return recipes(app_of(project, f"images:\n  - {{image: i, {text}}}\n"))[0]


def test_images_come_in_the_order_of_the_file(project: Project) -> None:
    app = app_of(
        project,
        "images:\n  - {image: second}\n  - {image: 'first:1', source: code}\n"
        "services:\n  - {service: s, image: web, source: web}\n",
        "      - {task: t, type: python, image: inline, source: code, cmd: echo}\n",
    )

    found = recipes(app)

    assert [(one.image, one.type, one.source) for one in found] == [
        ("second", "python", None),
        ("first:1", "python", "code"),
        ("inline", "python", "code"),
        ("web", "python_server", "web"),
    ]


def test_base_images(project: Project) -> None:
    assert one(project, "source: code").base_image == "python:3.11-slim"
    assert one(project, "source: code, python_version: '3.14'").base_image == "python:3.14-slim"
    assert one(project, "source: code, python_version: 3.10").base_image == "python:3.10-slim"
    assert one(project, "source: code, type: spark").base_image == "apache/spark:3.5.0-python3"
    assert one(project, "source: code, type: spark, base_image: mine:2").base_image == "mine:2"


def test_paths_are_relative_to_the_file(project: Project, tmp_path: Path) -> None:
    found = one(project, "source: code, pip_conf: conf/pip.conf")

    assert (found.folder, found.pip_conf) == (tmp_path / "project/code", tmp_path / "project/conf/pip.conf")


def test_a_dockerfile_without_source_has_its_own_folder(project: Project) -> None:
    found = one(project, "dockerfile: Dockerfile, build_args: {A: 1}, platform: linux/amd64, labels: {a: b}")

    assert found.source == "."
    assert found.bases == ["team/app:1"]
    assert (found.build_args, found.platform, found.labels) == ({"A": "1"}, "linux/amd64", {"a": "b"})


def test_an_image_without_source_takes_that_of_a_task(project: Project) -> None:
    app = app_of(
        project,
        "images: [{image: 'i:latest', build_cmd: echo}]\n",
        "      - {task: t, type: python, image: i, source: code, pip_conf: conf/pip.conf, cmd: echo}\n",
    )

    (found,) = recipes(app)

    assert (found.source, found.build_cmd, found.pip_conf) == ("code", ("echo",), app.root / "conf/pip.conf")


def test_two_sources_of_one_image_are_a_call_error(project: Project) -> None:
    app = app_of(
        project,
        "images: [{image: i, source: web}]\n",
        "      - {task: t, type: python, image: i, source: code, cmd: echo}\n",
    )

    with pytest.raises(CallError) as raised:
        recipes(app)

    assert str(raised.value) == "image 'i' has two sources, 'web' and 'code'; give one of them another name"


def test_nothing_is_built_under_a_digest(project: Project) -> None:
    name = "app@sha256:" + 64 * "0"
    task = f"{{task: t, type: python, image: '{name}', source: code, cmd: python a.py}}"
    app = app_of(project, f"pipelines: [{{pipeline: p, tasks: [{task}]}}]\n")

    with pytest.raises(CallError, match="a digest names one finished image, so nothing can be built under that name"):
        recipes(app)


def test_nothing_is_built_under_a_digest_of_the_images(project: Project) -> None:
    name = "app@sha256:" + 64 * "0"
    root = project({**FILES, "rainbow.yml": f"name: app\nimages:\n- image: '{name}'\n  source: code\n"})

    (found,) = check(root).errors

    assert (found.mark.line, found.mark.column) == (3, 10)
    assert found.message == f"'{name}' names one finished image by its digest, so nothing can be built under that name"


def test_a_secret_never_enters_an_image(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_of(
        project,
        "secrets: [{secret: s, env: S}]\nimages: [{image: i, source: code, build_args: {TOKEN: '{{secret.s}}'}}]\n",
    )

    with pytest.raises(CallError) as raised:
        recipes(app)

    assert str(raised.value) == (
        "image 'i': `build_args` holds a secret, which anybody could read in the image; "
        "give secrets to its tasks, with their key `secrets`"
    )


def test_an_image_that_serves_knows_its_endpoints_and_services(project: Project) -> None:
    app = app_of(
        project,
        "images: [{image: web, type: python_server, source: web, endpoints: [{endpoint: /p, module: w, function: p}]}]\n"
        "services: [{service: shop, image: web}]\n",
    )

    (found,) = recipes(app)

    assert found.service is not None
    endpoint = {"endpoint": "/p", "module": "w", "function": "p", "methods": ["GET", "POST"], "description": ""}
    assert found.service["services"] == ["shop"]
    assert found.service["endpoints"] == [endpoint]
    (served,) = found.service["served"]
    assert (served["definition"]["service"], served["definition"]["name"]) == ("shop", "web")
    assert [one["endpoint"] for one in served["definition"]["endpoints"]] == ["/p"]


def test_an_image_that_serves_knows_no_secret(project: Project) -> None:
    app = app_of(
        project,
        "secrets: [{secret: key, env: KEY_OF_ALL}]\n"
        "services:\n"
        "  - service: shop\n"
        "    image: web\n"
        "    source: web\n"
        "    auth: key\n"
        "    env_vars: {A: b, PASSWORD: plain-4711, C: 'x{{secret.key}}'}\n"
        "    endpoints: [{endpoint: /p, module: w, function: p}]\n",
    )

    (found,) = recipes(app)

    assert found.service is not None
    definition = found.service["served"][0]["definition"]
    assert definition["env"] == {"A": "b"}
    assert definition["auth"] == [{"name": "key", "env": "RAINBOW_TOKEN_KEY", "scopes": []}]


@pytest.mark.parametrize(
    ("keys", "image"),
    [
        ("source: code", "rainbow/app-code:latest"),
        ("source: ./code/", "rainbow/app-code:latest"),
        ("source: code, image: 'mine:1'", "mine:1"),
        ("image: mine", "mine"),
        ("cmd: echo", None),
        ("source: my_code/sub", "rainbow/app-my_code.sub:latest"),
        ("source: My Code", "rainbow/app-my-code-cceb6569:latest"),
        ("source: ../code", "rainbow/app-code-56fbc9f3:latest"),
    ],
)
def test_image_of_a_task(keys: str, image: str | None) -> None:
    from rainbow_prefect.tasks.python import Python

    values = dict(part.split(": ") for part in keys.split(", "))
    task = Python.model_validate(
        {"task": "t", "cmd": "echo"} | {key: value.strip("'") for key, value in values.items()}
    )

    assert image_of(App(name="app"), task) == image


def test_other_settings_are_another_image() -> None:
    from rainbow_prefect.tasks.python import Python

    plain = Python(task="t", cmd="echo", source="code")
    names = {
        image_of(App(name="app"), plain.model_copy(update=update))
        for update in ({}, {"python_version": "3.12"}, {"pip_conf": "a"}, {"pip_conf": "b"})
    }

    assert len(names) == 4


def test_needed_are_the_images_of_a_pipeline_and_their_bases(project: Project) -> None:
    app = app_of(
        project,
        "images:\n  - {image: 'team/app:1', source: code}\n  - {image: on_top, dockerfile: Dockerfile}\n"
        "  - {image: other, source: code}\n",
        "      - {task: a, type: python, image: on_top, cmd: echo}\n"
        "      - {task: b, type: python, source: code, cmd: echo}\n"
        "      - {task: c, type: python, source: web, cmd: echo}\n",
    )

    found = needed(app.pipeline("p").plan(), lambda task: task.task != "c")

    assert [one.image for one in found] == ["team/app:1", "on_top", "rainbow/app-code:latest"]
    assert needed(app.pipeline("p").plan(), lambda task: False) == []


def test_tags() -> None:
    assert [tagged(name) for name in ("a", "a:1", "host:5000/a", "host:5000/a:1", "a@sha256:0")] == [
        "a:latest",
        "a:1",
        "host:5000/a:latest",
        "host:5000/a:1",
        "a@sha256:0",
    ]


NO_IMAGE = "'{}' is not the name of an image; write e.g. team/app:1 or registry.example.com/team/app:1"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "app",
            "team/app:1",
            "host:5000/a/b:x",
            "a__b-c--d.e/f:A_1.x-y",
            "localhost/a",
            "[::1]:5000/a",
            "ghcr.io/a@sha256:" + 64 * "0",
        ),
        *("UPPER.example/a", "a:1@sha256:" + 64 * "f", "sha256:" + 64 * "0", "35d367459f37", "'{{secret.x}}'"),
    ],
)
def test_names_of_images(name: str) -> None:
    assert TypeAdapter(ImageName).validate_python(name) == name


@pytest.mark.parametrize(
    "name",
    ["Upper/a", "a b", "-x", "--help", "a:", "a//b", "http://a/b", "a\n", "a@sha256:12", "/a", "a/", "$A", "żółw"],
)
def test_what_is_no_name_of_an_image(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(ImageName).validate_python(name)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("python_version: '2.7'", "`python_version` must be a version of Python 3, got '2.7'; write e.g. '3.12'"),
        ("base_image: a b", NO_IMAGE.format("a b")),
        ("base_image: ''", NO_IMAGE.format("")),
        ("base_image: Upper/x", NO_IMAGE.format("Upper/x")),
        ("build_args: {A B: x}", "'A B' is not the name of an argument; use letters, digits and '_'"),
        ("build_args: {'': x}", "'' is not the name of an argument; use letters, digits and '_'"),
        ("python_version: three", "`python_version` must be a version of Python 3, got 'three'; write e.g. '3.12'"),
        (
            "dockerfile: Dockerfile, base_image: b",
            "'base_image' and 'dockerfile' exclude each other; say it in the Dockerfile, or remove `dockerfile`",
        ),
        (
            "dockerfile: Dockerfile, build_cmd: b",
            "'build_cmd' and 'dockerfile' exclude each other; say it in the Dockerfile, or remove `dockerfile`",
        ),
        (
            "credentials: nosuch",
            "that is not the name of a secret of this file; add one to the root `secrets`, and write its name here",
        ),
        ("credentials: 'block:x'", "that is not a reference to a block; write `block:TYPE/NAME`"),
    ],
)
def test_mistakes_are_told(project: Project, keys: str, told: str) -> None:
    root = project({**FILES, "rainbow.yml": f"name: app\nimages: [{{image: i, source: code, {keys}}}]\n"})

    problems = check(root).problems

    assert [str(one).partition(": ")[2] for one in problems] == [f"image 'i': {told}"]


def test_files_with_secrets_are_kept_out(project: Project, tmp_path: Path) -> None:
    app = app_of(
        project,
        "images: [{image: i, source: code, pip_conf: conf/pip.conf}]\n"
        "secrets: [{secret: s, local_path_file: code/a.py}, {secret: t, env: T}]\n"
        "executors: [{executor: box, type: docker, env_file: web/w.py}]\n",
    )

    (found,) = recipes(app)

    assert found.kept_out == {str(tmp_path / "project" / one) for one in ("conf/pip.conf", "code/a.py", "web/w.py")}
