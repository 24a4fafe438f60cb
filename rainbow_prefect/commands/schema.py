"""`rainbow schema`."""

from __future__ import annotations

import click

from .options import print_json


@click.command(
    epilog="""\b
In rainbow.yml, for editors with a YAML language server:
  # yaml-language-server: $schema=.rainbow/schema.json
and, in the same folder:
  mkdir -p .rainbow && rainbow schema > .rainbow/schema.json"""
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON (it always is).")
def command(as_json: bool) -> None:
    """Print the JSON Schema of rainbow.yml: all keys, task types and plugins that are installed here."""
    from ..app import json_schema

    print_json(json_schema())
