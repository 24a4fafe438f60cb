#!/usr/bin/env bash
# See to it that `FROM python:X.Y-slim` can be built here:   scripts/base_image.sh [3.11 ...]
#
# The image is there, or is pulled (a minute at most), or is made from this Debian machine's own packages and Python:
# a stand-in for tests where no image registry can be reached, with the label `rainbow.stand-in`.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="${PATH:-/bin}:/usr/local/bin:/usr/bin:/bin" HOME="${HOME:-/root}" LC_ALL=C DOCKER_BUILDKIT=0
(($#)) || set -- 3.11

say() { echo "base_image.sh: $*" >&2; }
there() { docker image inspect "$1" >/dev/null 2>&1; }

python_of() { # X.Y : a Python of that version that is an installation of its own, not a virtual environment
    local path
    for path in .venv/bin/python "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python /usr/local/bin/python3; do
        "$path" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1' or sys.base_prefix == '/usr')" 2>/dev/null &&
            { "$path" -c 'import sys; print(sys.base_prefix)'; return; }
    done
    return 1
}

make_from_host() { # X.Y IMAGE
    local prefix raw="rainbow-stand-in:$1-$$" pip=() log
    command -v dpkg-query >/dev/null || { say "no image registry answers and this is no Debian; run 'docker pull $2' where one does"; return 3; }
    prefix=$(python_of "$1") || { say "no image registry answers and there is no Python $1 outside of /usr to make $2 from"; return 3; }
    say "making $2 from this machine's packages and $prefix"
    log=$(mktemp)
    trap "rm -f $log; docker rmi -f $raw >/dev/null 2>&1 || true" EXIT
    "$prefix/bin/python$1" scripts/host_tree.py "$prefix" "$1" | docker import - "$raw" >/dev/null
    for name in SSL_CERT_FILE REQUESTS_CA_BUNDLE CURL_CA_BUNDLE PIP_CERT; do
        pip+=("ENV $name=/etc/ssl/certs/ca-certificates.crt")
    done
    {
        echo "FROM $raw"
        echo "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8"
        printf '%s\n' "${pip[@]}"
        echo "RUN ldconfig && python3 -m ensurepip >/dev/null 2>&1 && ln -sf pip3 /usr/local/bin/pip && pip --version"
        echo 'CMD ["python3"]'
        echo "LABEL rainbow.stand-in=1"
    } | docker build --network=none -t "$2" - >"$log" 2>&1 || { tail -5 "$log" >&2; return 1; }
}

exec 9>"${TMPDIR:-/tmp}/rainbow-base-image.$(id -u).lock" # two callers make one image
flock 9
for version in "$@"; do
    image=python:$version-slim
    if there "$image"; then say "$image is there"; continue; fi
    if timeout -k 5 "${RAINBOW_PULL_SECONDS:-60}" docker pull -q "$image" >/dev/null 2>&1 9>&-; then say "$image pulled"; continue; fi
    make_from_host "$version" "$image" 9>&-
    say "made $image: $(docker run --rm --network=none "$image" python -c 'import bz2, ctypes, hashlib, lzma, platform, sqlite3, ssl, uuid, zlib; print("Python", platform.python_version())' 9>&-)"
done
