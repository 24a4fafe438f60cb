#!/usr/bin/env bash
# Renew requirements.lock: every version with its hashes, for all platforms, naming no package index.
set -euo pipefail
cd "$(dirname "$0")/.."
uv pip compile pyproject.toml --group dev --all-extras --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-emit-package rainbow-prefect --custom-compile-command scripts/lock.sh \
    --quiet -o requirements.lock "$@"
