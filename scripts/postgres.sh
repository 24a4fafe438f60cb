#!/usr/bin/env bash
# A throw-away PostgreSQL on loopback, for tests.
#
#   scripts/postgres.sh start DIR [PID]   start one of its own for DIR on a free port, and print its URL (the user may all);
#                                         it ends when the process PID does
#   scripts/postgres.sh stop DIR          stop it and remove what it kept
#
# The server is the machine's, the newest one; as root on Debian or Ubuntu it is installed when there is none. Elsewhere it
# says what to install and exits with 3. Two callers at once get the same server. It is made for speed: nothing is synced.
set -euo pipefail
project=$(cd "$(dirname "$0")/.." && pwd)
export PATH="${PATH:-/bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$project/.venv/bin" HOME="${HOME:-/root}" LC_ALL=C
unset "${!PG@}"
command=${1:-} dir=${2:-} parent=${3:-}
[[ $command =~ ^(start|stop)$ && -n $dir ]] || { echo "usage: scripts/postgres.sh start|stop DIR [PID]" >&2; exit 2; }

say() { echo "postgres.sh: $*" >&2; }
give_up() { say "$@"; exit 3; }
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# PostgreSQL refuses root, and its own user may not enter every folder: what it keeps is in a folder of /tmp.
as_user() { if [[ $(id -u) == 0 ]]; then setpriv --reuid=postgres --regid=postgres --clear-groups -- "$@"; else "$@"; fi; }
place() { cat "$dir/place" 2>/dev/null; }
pid() { head -1 "$(place)/data/postmaster.pid" 2>/dev/null; }
lives() { local one; one=$(pid) && tr '\0' ' ' <"/proc/$one/cmdline" 2>/dev/null | grep -qF "$(place)/data"; }
answers() { "$bin/pg_isready" -q -t 5 -h 127.0.0.1 -p "$(sed -n 4p "$(place)/data/postmaster.pid" 2>/dev/null)"; }

binaries() { # the folder of initdb and pg_ctl, the newest one
    local found
    found=$(printf '%s\n' /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb | grep -v '\*' | sort -V | tail -1)
    [[ -n $found ]] || found=$(readlink -f "$(command -v initdb || true)")
    [[ -n $found ]] && dirname "$found"
}

apt() { # another apt or dpkg may be at work; not each of its locks has a time-out
    local n
    for n in 1 2 3 4 5 6; do
        DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 \
            -o Dpkg::Options::=--force-confold "$@" >>"$dir/apt.log" 2>&1 </dev/null 9>&- && return
        ((n < 6)) || return 1
        grep -qE 'Unable to locate|Failed to fetch|no installation candidate' <(tail -5 "$dir/apt.log") && return 1
        sleep $((n * 5))
    done
}

install() {
    [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null ||
        give_up "there is no PostgreSQL server on this machine; install one (Debian: apt-get install postgresql; macOS: brew install postgresql)"
    exec 8>/tmp/rainbow-postgres.lock # callers with folders of their own install it once
    flock 8
    bin=$(binaries) && return
    say "installing postgresql (half a minute)"
    mkdir -p /etc/postgresql-common
    [[ -e /etc/postgresql-common/createcluster.conf ]] || echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
    apt install -y --no-install-recommends postgresql || { apt update && apt install -y --no-install-recommends postgresql; } ||
        { tail -5 "$dir/apt.log" >&2; give_up "apt-get could not install postgresql"; }
    bin=$(binaries) || give_up "the package postgresql brought no server"
    exec 8>&-
}

make() { # an empty cluster, whose user `postgres` has a password nobody else knows
    local new
    new=$(mktemp -d /tmp/rainbow-postgres-XXXXXX)
    echo "$new" >"$dir/place"
    head -c 18 /dev/urandom | base64 | tr '+/' 'ab' >"$dir/password"
    cp "$dir/password" "$new/password"
    [[ $(id -u) != 0 ]] || chown -R postgres: "$new"
    (cd "$new" && as_user "$bin/initdb" -D "$new/data" -U postgres -A scram-sha-256 --pwfile="$new/password" -E UTF8 --no-locale --no-sync) \
        >"$dir/initdb.log" 2>&1 9>&- || { tail -5 "$dir/initdb.log" >&2; give_up "initdb failed; see $dir/initdb.log"; }
    as_user tee -a "$new/data/postgresql.conf" >/dev/null <<END
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 200
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum = off
max_parallel_workers_per_gather = 0
END
}

serve() { # PORT
    (cd / && as_user "$bin/pg_ctl" -D "$(place)/data" -s -w -t 60 -l "$(place)/log" -o "-c port=$1" start) >/dev/null 2>&1 </dev/null 9>&- || return 1
    if [[ -n $parent ]]; then
        setsid nohup bash -c 'while kill -0 "$0" && kill -0 "$1"; do sleep 1; done; kill -QUIT "$1"; sleep 1; rm -rf "$2"' \
            "$parent" "$(pid)" "$(place)" >/dev/null 2>&1 </dev/null 9>&- &
    fi
    echo "postgresql://postgres:$(cat "$dir/password")@127.0.0.1:$1/postgres" >"$dir/url"
}

stop() {
    local n one
    if lives; then
        one=$(pid)
        kill -INT "$one"
        for ((n = 0; n < 100; n++)); do
            lives || break
            ((n != 50)) || kill -QUIT "$one" || true
            sleep 0.1
        done
        ! lives || kill -9 "$one" || true
    fi
    [[ $(place) != /tmp/rainbow-postgres-* ]] || rm -rf "$(place)"
    rm -f "$dir"/{place,password,url}
}

[[ $command == start || -d $dir ]] || exit 0
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
exec 9>"$dir/lock"
flock -w 900 9 || give_up "another postgres.sh has held $dir/lock for 15 minutes"
[[ $command != stop ]] || { stop; exit 0; }
bin=$(binaries) || install
if lives && answers; then cat "$dir/url"; exit 0; fi
stop
make
for _ in 1 2 3; do # someone may take the port that was free
    if serve "$(free_port)"; then cat "$dir/url"; exit 0; fi
done
tail -5 "$(place)/log" >&2 || true
give_up "PostgreSQL did not start; see $(place)/log"
