#!/usr/bin/env bash
# A MariaDB server on loopback, for tests of SQL ETL.
#
#   scripts/mariadb.sh start DIR [PID]   start one that keeps its data in DIR, on a free port; print its URL
#                                        (root without a password); it ends when the process PID does
#   scripts/mariadb.sh stop DIR          stop it; its data stay in DIR
#
# The program is the machine's mariadbd, else Debian's: as root it installs what runs a server, without the service.
# Elsewhere it says what to install and exits with 3. Callers at the same time get the same server.
set -euo pipefail
export PATH="${PATH:-/bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME="${HOME:-/root}" LC_ALL=C
command=${1:-} dir=${2:-} parent=${3:-}
[[ $command =~ ^(start|stop)$ && -n $dir ]] || { echo "usage: scripts/mariadb.sh start|stop DIR [PID]" >&2; exit 2; }

give_up() { echo "mariadb.sh: $*" >&2; exit 3; }
lives() { [[ -s $dir/pid ]] && tr '\0' ' ' <"/proc/$(cat "$dir/pid")/cmdline" 2>/dev/null | grep -qF -- "--datadir=$dir/data "; }
greets() { (exec 3<>"/dev/tcp/127.0.0.1/$1" && timeout 5 head -c 5 <&3 | grep -qa .) 2>/dev/null; } # it speaks first
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

installed() { command -v mariadbd >/dev/null && command -v mariadb-install-db >/dev/null && command -v my_print_defaults >/dev/null; }

apt() { # another apt or dpkg may be at work; not each of its locks has a time-out
    local n
    for n in 1 2 3 4 5; do
        DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" >>"$dir/apt.log" 2>&1 </dev/null && return
        grep -qE 'Unable to locate|Failed to fetch|no installation candidate' <(tail -5 "$dir/apt.log") && return 1
        sleep $((n * 3))
    done
    return 1
}

install() {
    [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null ||
        give_up "MariaDB is not installed; get mariadb-server-core and mariadb-client-core (Debian, Ubuntu), or mariadb"
    # two folders, two callers: one installs
    exec 8>/tmp/rainbow-mariadb-install.lock
    flock 8
    ! installed || return 0
    local packages=(install -y --no-install-recommends mariadb-server-core mariadb-client-core)
    apt "${packages[@]}" || { apt update && apt "${packages[@]}"; } ||
        { tail -5 "$dir/apt.log" >&2; give_up "apt-get could not install ${packages[*]:3}"; }
    exec 8>&-
    hash -r
    installed || give_up "the packages ${packages[*]:3} lack mariadbd or mariadb-install-db"
}

serve() { # PORT
    # The socket is named from the data folder on: its whole path may be too long.
    setsid nohup mariadbd --no-defaults "${user[@]}" --datadir="$dir/data" --tmpdir="$dir/tmp" --socket=server.sock --port="$1" \
        --bind-address=127.0.0.1 --pid-file=server.pid --skip-name-resolve --skip-log-bin --max-connections=400 --max-connect-errors=1000000 \
        --innodb-flush-log-at-trx-commit=0 --innodb-buffer-pool-size=256M --innodb-fast-shutdown=2 --local-infile=1 \
        --character-set-server=utf8mb4 >>"$dir/log" 2>&1 </dev/null 9>&- &
    local pid=$! n
    echo "$pid" >"$dir/pid"
    if [[ -n $parent ]]; then
        setsid nohup bash -c 'while kill -0 "$0" && kill -0 "$1"; do sleep 1; done; kill -9 "$1"' "$parent" "$pid" >/dev/null 2>&1 </dev/null 9>&- &
    fi
    for ((n = 0; n < 600; n++)); do
        greets "$1" && { echo "mysql+pymysql://root@127.0.0.1:$1/" >"$dir/url"; return; }
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
mkdir -p "$dir/tmp"
dir=$(cd "$dir" && pwd)
exec 9>"$dir/lock"
flock 9
[[ $command != stop ]] || { stop; exit 0; }
if lives && greets "$(sed 's/.*:\([0-9]*\).*/\1/' "$dir/url" 2>/dev/null)"; then cat "$dir/url"; exit 0; fi
installed || install
user=()
[[ $(id -u) != 0 ]] || user=(--user=root)
if [[ ! -e $dir/made ]]; then
    rm -rf "$dir/data"
    mariadb-install-db --no-defaults "${user[@]}" --datadir="$dir/data" --auth-root-authentication-method=normal --skip-test-db >"$dir/install.log" 2>&1 ||
        { tail -5 "$dir/install.log" >&2; give_up "mariadb-install-db failed; see $dir/install.log"; }
    touch "$dir/made"
fi
for _ in 1 2 3; do # someone may take the port that was free
    stop
    if serve "$(free_port)"; then cat "$dir/url"; exit 0; fi
done
tail -3 "$dir/log" >&2
give_up "mariadbd does not answer; see $dir/log"
