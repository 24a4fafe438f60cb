#!/usr/bin/env bash
# An image registry on loopback, for tests that push.
#
#   scripts/registry.sh start DIR [PID]   start one that keeps its images in DIR, on a free port; print host:port;
#                                         it ends when the process PID does
#   scripts/registry.sh stop DIR          stop it; its images stay in DIR
#
# The program is the machine's docker-registry, else Debian's, unpacked below .cache: no root, and no service.
# Where neither is to be had it says what to install and exits with 3. An engine trusts 127.0.0.0/8 without TLS.
set -euo pipefail
project=$(cd "$(dirname "$0")/.." && pwd)
export PATH="${PATH:-/bin}:/usr/local/bin:/usr/bin:/bin:$project/.venv/bin" HOME="${HOME:-/root}" LC_ALL=C
command=${1:-} dir=${2:-} parent=${3:-}
[[ $command =~ ^(start|stop)$ && -n $dir ]] || { echo "usage: scripts/registry.sh start|stop DIR [PID]" >&2; exit 2; }
cache=$project/.cache/registry

give_up() { echo "registry.sh: $*" >&2; exit 3; }
lives() { [[ -s $dir/pid ]] && tr '\0' ' ' <"/proc/$(cat "$dir/pid")/cmdline" 2>/dev/null | grep -qF "$dir/config.yml"; }
answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'GET /v2/ HTTP/1.0\r\n\r\n' >&3 && timeout 5 head -1 <&3 | grep -q ' 200') 2>/dev/null; }
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

program() { # its path
    command -v docker-registry && return
    [[ ! -x $cache/usr/bin/docker-registry ]] || { echo "$cache/usr/bin/docker-registry"; return; }
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
        give_up "docker-registry is not installed; get it from https://github.com/distribution/distribution/releases"
    local work n
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/XXXXXX")
    for n in 1 2 3; do
        if (cd "$work" && apt-get -qq -o Acquire::Retries=3 -o APT::Sandbox::User=root download docker-registry) >"$work/log" 2>&1; then break; fi
        # the lists of packages may be old, or being renewed by another apt
        [[ $(id -u) != 0 ]] || apt-get -qq update >>"$work/log" 2>&1 || sleep $((n * 5))
    done
    dpkg-deb -x "$work"/docker-registry_*.deb "$work/tree" 2>>"$work/log" ||
        { tail -3 "$work/log" >&2; rm -rf "$work"; give_up "apt-get could not download the package docker-registry"; }
    mkdir -p "$cache/usr/bin"
    mv "$work/tree/usr/bin/docker-registry" "$cache/usr/bin/docker-registry" # at once: another caller may look
    rm -rf "$work"
    echo "$cache/usr/bin/docker-registry"
}

serve() { # PROGRAM PORT
    cat >"$dir/config.yml" <<END
version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: "$dir/images"}, delete: {enabled: true}}
http: {addr: "127.0.0.1:$2"}
END
    setsid nohup "$1" serve "$dir/config.yml" >>"$dir/log" 2>&1 </dev/null 9>&- &
    local pid=$! n
    echo "$pid" >"$dir/pid"
    if [[ -n $parent ]]; then
        setsid nohup bash -c 'while kill -0 "$0" && kill -0 "$1"; do sleep 1; done; kill "$1"' "$parent" "$pid" >/dev/null 2>&1 </dev/null 9>&- &
    fi
    for ((n = 0; n < 300; n++)); do
        answers "$2" && { echo "127.0.0.1:$2" >"$dir/address"; return; }
        lives || ((n < 5)) || return 1
        sleep 0.1
    done
    return 1
}

stop() {
    lives || { rm -f "$dir/pid"; return 0; }
    local n pid
    pid=$(cat "$dir/pid")
    kill "$pid"
    for ((n = 0; n < 100; n++)); do
        lives || { rm -f "$dir/pid"; return 0; }
        sleep 0.1
    done
    kill -9 "$pid" || true
    rm -f "$dir/pid"
}

[[ $command == start || -d $dir ]] || exit 0
mkdir -p "$dir/images"
dir=$(cd "$dir" && pwd)
exec 9>"$dir/lock"
flock 9
[[ $command != stop ]] || { stop; exit 0; }
if lives && answers "$(sed 's/.*://' "$dir/address" 2>/dev/null)"; then cat "$dir/address"; exit 0; fi
binary=$(program)
for _ in 1 2 3; do # someone may take the port that was free
    stop
    if serve "$binary" "$(free_port)"; then cat "$dir/address"; exit 0; fi
done
tail -3 "$dir/log" >&2
give_up "docker-registry does not answer; see $dir/log"
