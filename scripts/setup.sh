#!/usr/bin/env bash
# Make .venv with exactly the versions of requirements.lock, and rainbow_prefect itself in editable mode.
# Uses uv when it is there, else venv and pip. Does nothing when nothing changed.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONDONTWRITEBYTECODE=   # without .pyc files every process compiles every import anew
venv=.venv
stamp=$(cat requirements.lock pyproject.toml scripts/setup.sh | cksum)
[[ -x $venv/bin/rainbow && $(cat $venv/.stamp 2>/dev/null) == "$stamp" ]] && exit 0

python=${PYTHON:-}
if [[ -z $python ]]; then
    for name in python3.13 python3.12 python3.11 python3; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$name; break; fi
    done
fi
[[ -n $python ]] || { echo "setup: Python 3.11 or newer is needed; install it, or say PYTHON=/path/to/python3.11" >&2; exit 1; }

retry() {   # a registry that hiccups once must not fail the set-up
    local n
    for n in 1 2 3; do "$@" && return; echo "setup: try $n failed: $1 $2" >&2; sleep $((n * 5)); done
    return 1
}

echo "setup: making $venv with $("$python" -V) (a minute or two the first time)" >&2
if command -v uv >/dev/null; then
    [[ -x $venv/bin/python ]] || uv venv -q --python "$python" $venv
    export VIRTUAL_ENV=$PWD/$venv
    retry uv pip install -q --require-hashes -r requirements.lock
    retry uv pip install -q --no-deps --no-build-isolation -e .
else
    [[ -x $venv/bin/pip ]] || "$python" -m venv $venv
    retry $venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
    retry $venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
fi
echo "$stamp" >$venv/.stamp
