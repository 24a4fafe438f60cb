"""`rainbow ci init github | gitlab`: write a workflow that checks, shows the diff of a change, and deploys main."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import CallError
from .options import json_option, print_json

GITHUB = """\
# Checks every change, shows on a pull request what it would change on the server, deploys main.
# Secrets of the repository: PREFECT_API_URL; and PREFECT_API_KEY, or PREFECT_API_AUTH_STRING for basic auth.
name: rainbow
on:
  pull_request:
  push:
    branches: [{branch}]
permissions:
  contents: read
  pull-requests: write
concurrency:
  group: rainbow-${{{{ github.ref }}}}
env:
  PREFECT_API_URL: ${{{{ secrets.PREFECT_API_URL }}}}
  PREFECT_API_KEY: ${{{{ secrets.PREFECT_API_KEY }}}}
  PREFECT_API_AUTH_STRING: ${{{{ secrets.PREFECT_API_AUTH_STRING }}}}
jobs:
  rainbow:
    runs-on: ubuntu-latest
    timeout-minutes: 30
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "{python}"
      - name: Install
        run: pip install '{package}'
      - name: Check
        run: rainbow check {path}
      - name: Diff
        id: diff
        if: github.event_name == 'pull_request' && env.PREFECT_API_URL != ''
        run: |
          {diff}
      - name: Show the diff
        if: github.event_name == 'pull_request' && env.PREFECT_API_URL != ''
        env:
          GH_TOKEN: ${{{{ github.token }}}}
          NUMBER: ${{{{ github.event.number }}}}
        run: |
          {{ echo '```'; cat rainbow-diff.txt; echo '```'; }} > comment.md
          gh pr comment "$NUMBER" --body-file comment.md --edit-last || gh pr comment "$NUMBER" --body-file comment.md
      - name: Deploy
        if: github.event_name == 'push'
        run: rainbow deploy {path} --yes --prune
"""

GITLAB = """\
# Checks every change, shows on a merge request what it would change on the server, deploys main.
# Variables of the project: PREFECT_API_URL; and PREFECT_API_KEY, or PREFECT_API_AUTH_STRING for basic auth.
image: python:{python}
stages: [check, deploy]
before_script:
  - pip install '{package}'
check:
  stage: check
  script:
    - rainbow check {path}
diff:
  stage: check
  rules:
    - if: $CI_PIPELINE_SOURCE == "merge_request_event" && $PREFECT_API_URL
  script:
    - |
      {diff}
  artifacts:
    paths: [rainbow-diff.txt]
    expose_as: what this changes on the server
deploy:
  stage: deploy
  resource_group: rainbow
  rules:
    - if: $CI_COMMIT_BRANCH == "{branch}"
  script:
    - rainbow deploy {path} --yes --prune
"""

_DIFF = """\
rainbow diff {path} > rainbow-diff.txt || test $? -eq 2  # 2: it changes something
cat rainbow-diff.txt"""

_FILES = {
    "github": (Path(".github/workflows/pipelines.yml"), GITHUB, 10),
    "gitlab": (Path(".gitlab-ci.yml"), GITLAB, 6),
}


@click.group()
def command() -> None:
    """Write a workflow of GitHub or GitLab that checks, shows the diff and deploys."""


@command.command()
@click.argument("where", type=click.Choice(sorted(_FILES)))
@click.option("--path", default=".", show_default=True, help="Where rainbow.yml is in the repository.")
@click.option("--branch", default="main", show_default=True, help="The branch that is deployed.")
@click.option("--package", default="rainbow-prefect", show_default=True, help="What pip installs.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@json_option
def init(where: str, path: str, branch: str, package: str, force: bool, as_json: bool) -> None:
    """Write the workflow into this repository."""
    import shlex
    import sys

    if "'" in package or "\n" in package + branch + path:
        raise CallError("--package, --branch and --path take no quotes and no line breaks")
    file, template, indent = _FILES[where]
    if file.exists() and not force:
        raise CallError(f"{file} exists already; add --force to write over it")
    words = shlex.quote(path)
    diff = _DIFF.format(path=words).replace("\n", "\n" + " " * indent)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    text = template.format(path=words, branch=branch, package=package, python=python, diff=diff)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    if as_json:
        print_json({"file": str(file)})
    else:
        click.echo(f"wrote {file}; give it the secrets that it names at its top")
