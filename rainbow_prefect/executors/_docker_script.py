"""What runs first in a container: puts the input where it is looked for, starts the command, hands its output over.

Nothing is copied into a container for it, and in most cases nothing out of it: a copy costs the engine about as much as
a tenth of starting a container. The two streams of the container become one, so that lines keep their order; the other
one carries the output (`_docker_stream.Channel`).
"""

from __future__ import annotations

from pathlib import Path

from ..run import Command

INPUT = "rainbow_input.json"
ROOT_INPUT = f"/{INPUT}"

_SHELL = r"""
exec 3>&2 2>/dev/null
stopping=
trap stopping=1 TERM
unset TINI_KILL_PROCESS_GROUP
for file in $3; do
    { printf %s "$RAINBOW_INPUT" > "$file"; } || { printf '\000rainbow unwritable 0\n' >&3; exit 125; }
done
was=
if [ "$2" ] && { [ -s "$2" ] || [ -L "$2" ]; }; then was=1; fi
shell=sh
if command -v bash >/dev/null; then shell=bash; fi
(exec 2>&1 3>&-; exec "$shell" -c "$1")
status=$?
if [ "$stopping" ]; then while kill -s 0 -- -1; do sleep 0.1 || exit; done; fi
if [ "$status" = 0 ] && [ "$2" ] && [ ! "$was" ] && [ ! -L "$2" ]; then
    if [ ! -e "$2" ]; then
        printf '\000rainbow missing 0\n' >&3
    elif [ -f "$2" ] && [ -s "$2" ] && size=$(stat -c %s "$2") && [ "$size" -le 1073741824 ]; then
        { printf '\000rainbow output %s\n' "$size"; cat "$2"; } >&3
    fi
fi
exit "$status"
"""

_PYTHON = """
import os, sys
channel = os.dup(2)
os.dup2(1, 2)
def send(word, data):
    sys.stdout.flush()
    data = b"\\0rainbow %s %d\\n" % (word.encode(), len(data)) + data
    while data:
        data = data[os.write(channel, data[:1 << 20]):]
for file in sys.argv.pop().split():
    try:
        with open(file, "w") as out:
            out.write(os.environ["RAINBOW_INPUT"])
    except OSError:
        send("unwritable", b"")
        sys.exit(125)
exec(compile(TEXT, FILE, "exec"), {"__name__": "__main__", "__file__": FILE, "SEND": send})
"""
_CALL = Path(__file__).with_name("_call.py")
_CALL_IN_CONTAINER = "/rainbow/_call.py"

KILL_GROUP = "TINI_KILL_PROCESS_GROUP"
"""Set, the init process of the container sends signals to the user's command too, not to the shell around it only."""


def argv(command: Command, *, writes: tuple[str, ...]) -> list[str]:
    """The entrypoint of a container for this command; it writes the input into the files `writes` itself."""
    if command.argv is not None:
        return list(command.argv)
    files = " ".join(writes)
    if command.call is not None:
        text = f"TEXT, FILE = {_CALL.read_text(encoding='utf-8')!r}, {_CALL_IN_CONTAINER!r}{_PYTHON}"
        name = command.source.name if command.source is not None else ""
        return ["python", "-c", text, command.call, "", "", name, files]
    return ["sh", "-c", _SHELL, "sh", command.shell or ":", command.output_path or "", files]
