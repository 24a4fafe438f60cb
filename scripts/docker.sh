#!/usr/bin/env bash
# See to it that a Docker engine answers, for the tests that run real containers.
#
#   scripts/docker.sh          nothing to do when one answers; else, as root on Debian or Ubuntu, install and start one
#   scripts/docker.sh stop     stop the engine that this script started, and no other
#
# Elsewhere it says what to install and exits with 3. The engine listens on its local socket only.
#   RAINBOW_ENGINE_DIR    pid, log and lock (default /var/lib/rainbow-engine)
#   RAINBOW_ENGINE_ARGS   more arguments for dockerd; a socket, data root and exec root of its own for a second engine
set -euo pipefail
export PATH="${PATH:-/bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME="${HOME:-/root}" LC_ALL=C
dir=${RAINBOW_ENGINE_DIR:-/var/lib/rainbow-engine}
run=/var/run
read -r -a more <<<"${RAINBOW_ENGINE_ARGS:-}"

say() { echo "docker.sh: $*" >&2; }
give_up() { say "$@"; exit 3; }

# A half-started engine takes the connection and says nothing: every question has a limit.
answers() { command -v docker >/dev/null && timeout -k 1 "${1:-10}" docker info --format '{{.ServerVersion}}' 2>/dev/null | grep -q '[0-9]'; }
engine() { timeout -k 1 10 docker info --format 'Docker {{.ServerVersion}} ({{.Driver}})'; }

# Whether this process lives and is a NAME: numbers are given again, and a dead one that nobody asks after has no command.
is() { # PID NAME
    [[ $(tr '\0' ' ' 2>/dev/null <"/proc/${1:-none}/cmdline" | cut -d ' ' -f 1) == ?(*/)"$2" ]]
}
lives() { is "$(cat "$1" 2>/dev/null)" "$2"; } # PIDFILE NAME

stop() {
    lives "$dir/dockerd.pid" dockerd || return 0
    local pid n
    pid=$(cat "$dir/dockerd.pid")
    kill "$pid"
    for ((n = 0; n < 300; n++)); do
        is "$pid" dockerd || return 0
        sleep 0.1
    done
    kill -9 "$pid" || true
}

apt() { # another apt or dpkg may be at work; not each of its locks has a time-out
    local n
    for n in 1 2 3 4 5 6; do
        DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 \
            -o Dpkg::Options::=--force-confold "$@" >>"$dir/apt.log" 2>&1 </dev/null && return
        ((n < 6)) || return 1
        grep -q 'dpkg was interrupted' <(tail -5 "$dir/apt.log") && dpkg --configure -a --force-confold >>"$dir/apt.log" 2>&1 </dev/null
        grep -qE 'Unable to locate|Failed to fetch|no installation candidate' <(tail -5 "$dir/apt.log") && return 1
        sleep $((n * 5))
    done
}

install() {
    local packages=(docker.io)
    command -v iptables >/dev/null || packages+=(iptables)
    # Debian 13 and newer have the client in a package of its own, which docker.io only recommends.
    command -v docker >/dev/null || { apt-cache show docker-cli 2>/dev/null | grep -q '^Package' && packages+=(docker-cli); } || true
    say "installing ${packages[*]} (half a minute)"
    apt install -y --no-install-recommends "${packages[@]}" || { apt update && apt install -y --no-install-recommends "${packages[@]}"; } ||
        { tail -5 "$dir/apt.log" >&2; give_up "apt-get could not install ${packages[*]}"; }
    hash -r
    # Without systemd the package may have started an engine itself, with an MTU that does not fit.
    [[ -d /run/systemd/system ]] || ! lives $run/docker.pid dockerd || /etc/init.d/docker stop >/dev/null 2>&1 || true
}

mtu() { # of the way out: packets larger than that vanish, and every TLS connection of a container hangs
    local device
    device=$(awk '$2 == "00000000" { print $1; exit }' /proc/net/route 2>/dev/null || true)
    cat "/sys/class/net/${device:-none}/mtu" 2>/dev/null || echo 1500
}

netfilter() { # put an iptables that works first on PATH, or fail
    iptables -w 10 -t nat -L -n >/dev/null 2>&1 && return
    command -v iptables-legacy >/dev/null && iptables-legacy -w 10 -t nat -L -n >/dev/null 2>&1 || return 1
    mkdir -p "$dir/bin"
    ln -sf "$(command -v iptables-legacy)" "$dir/bin/iptables"
    ln -sf "$(command -v ip6tables-legacy)" "$dir/bin/ip6tables"
    export PATH="$dir/bin:$PATH"
}

drop_stale() { # what a killed machine left makes dockerd wait for a containerd that is not there
    local file
    for file in "$dir/dockerd.pid" $run/docker.pid; do lives "$file" dockerd || rm -f "$file"; done
    lives $run/docker/containerd/containerd.pid containerd || rm -f $run/docker/containerd/containerd.pid
}

wait_for() { # SECONDS PID : until it answers; fails when the process is gone
    local born=$SECONDS until=$((SECONDS + $1))
    while ((SECONDS < until)); do
        answers 5 && return
        ((SECONDS < born + 2)) || is "$2" dockerd || return 1
        sleep 0.2
    done
    return 1
}

start() { # ARGS...
    say "starting dockerd $*"
    # A session of its own, and not the lock: the engine outlives this script and whoever called it.
    setsid nohup dockerd "$@" --pidfile "$dir/dockerd.pid" >>"$dir/dockerd.log" 2>&1 </dev/null 9>&- &
    wait_for 60 $! && return
    say "it did not come up: $(grep -E 'level=(error|fatal)|^failed' "$dir/dockerd.log" | tail -1 | cut -c1-300)"
    stop
    drop_stale
    return 1
}

bring_up() {
    if [[ -d /run/systemd/system && ${#more[@]} == 0 ]] && systemctl cat docker.service >/dev/null 2>&1; then
        systemctl start docker.service && wait_for 60 "$(systemctl show -P MainPID docker.service)" && return
    fi
    local file
    for file in "$dir/dockerd.pid" $run/docker.pid; do # someone's engine that is just starting
        if ((${#more[@]} == 0)) && lives "$file" dockerd && wait_for 60 "$(cat "$file")"; then return; fi
    done
    if ((${#more[@]} == 0)) && lives $run/docker.pid dockerd; then
        give_up "the Docker engine of process $(cat $run/docker.pid) runs but does not answer; restart it"
    fi
    stop
    drop_stale
    local args=(--mtu "$(mtu)")
    if ! netfilter; then
        say "no netfilter here: containers reach the network with --network=host only"
        args+=(--iptables=false --ip6tables=false)
    fi
    start "${args[@]}" "${more[@]}" || start "${args[@]}" "${more[@]}" --storage-driver=vfs
}

warn_of_disk() {
    local root free
    root=$(timeout -k 1 10 docker info --format '{{.DockerRootDir}}')
    free=$(df -Pm "$root" 2>/dev/null | awk 'NR == 2 { print $4 }')
    ((${free:-9999} >= 3000)) || say "only $free MB are free for images in $root; the tests need about 3000"
}

[[ ${1:-start} != stop ]] || { stop; exit 0; }
answers && { say "$(engine) answers"; exit 0; }
[[ -z ${DOCKER_HOST:-} || ${#more[@]} != 0 ]] || give_up "no engine answers at DOCKER_HOST=$DOCKER_HOST; start it, or unset DOCKER_HOST"
if [[ $(uname -s) != Linux || $(id -u) != 0 ]] || ! { command -v dockerd || command -v apt-get; } >/dev/null; then
    give_up "no Docker engine answers; install one (https://docs.docker.com/get-docker/), start it, and let 'docker info' work for this user"
fi
mkdir -p "$dir"
exec 9>"$dir/lock"
flock -w 900 9 || give_up "another docker.sh has held $dir/lock for 15 minutes"
answers && { say "$(engine) answers"; exit 0; }
command -v dockerd >/dev/null && command -v docker >/dev/null || install
bring_up || { tail -20 "$dir/dockerd.log" >&2; give_up "no Docker engine came up; see $dir/dockerd.log"; }
say "$(engine) started"
warn_of_disk
