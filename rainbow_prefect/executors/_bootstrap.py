"""Runs the command of one slice inside of a container that nothing can be copied into or out of.

Its text is the argument of `python3 -I -S -c`; the variable RAINBOW_PARCEL holds what to do, or the URL or the file where
that is. Standard library only, for any Python from 3.6 on, nothing of the user's is imported. `_remote.py` makes the
parcel and reads the outcome; this side never prints a URL.

It ends with the status of the command (128 + N for signal N), or with 125 when it failed itself.
"""

import base64
import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
import zlib
from typing import Any

BROKEN = 125  # as `docker run` ends when the container could not be run
INLINE_BYTES = 256 * 1024  # a larger output is an object or a file of its own
TERMINATION_BYTES = 4096  # Kubernetes keeps no more
CHUNK = 8000  # characters of the outcome in one line of the log
MAX_OUTPUT_BYTES = 1 << 30
TRIES = 6
FORWARDED = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")


class Broken(Exception):
    """Why the command could not be run, or what it left not be handed over; told to people."""


class Child:
    """The command while it runs."""

    pid = 0
    is_late = False


def forward(number: int, _frame: Any) -> None:
    """Pass a signal on to all processes of the command; before there is one it ends this process."""
    if not Child.pid:
        os._exit(128 + number)
    with contextlib.suppress(OSError):
        os.killpg(Child.pid, number)


def expire(_number: int, _frame: Any) -> None:
    """The deadline has passed and nobody stopped this container: end the command, at the second call by force."""
    with contextlib.suppress(OSError):
        os.killpg(Child.pid, signal.SIGKILL if Child.is_late else signal.SIGTERM)
    Child.is_late = True
    signal.alarm(10)


def main() -> int:
    """Unpack, run, hand over; the exit status."""
    for name in FORWARDED:
        signal.signal(getattr(signal, name), forward)
    parcel = {}  # type: dict[str, Any]
    try:
        parcel = unpack(os.environ.pop("RAINBOW_PARCEL", ""))
        outcome = run(parcel)
        if parcel["marks_log"] and parcel["hand"] != "log":
            sys.stdout.write(f"{parcel['marker']}end\n")
            sys.stdout.flush()
        deliver(parcel, outcome)
    except Broken as error:
        return give_up(parcel, str(error))
    except Exception as error:  # whatever it is, its text may hold a URL
        number = getattr(error, "strerror", None)
        return give_up(parcel, type(error).__name__ + (": " + number if isinstance(number, str) else ""))
    if "start" in outcome:
        return 127
    status = int(outcome["status"])
    return status if status >= 0 else 128 - status


def give_up(parcel: "dict[str, Any]", reason: str) -> int:
    """Tell that this script failed, by the outcome when that is possible and in the log."""
    try:
        deliver(parcel, {"error": reason})
    except Exception:
        sys.stderr.write("rainbow: " + reason + "\n")
        sys.stderr.flush()
    return BROKEN


# -- in


def unpack(text: str) -> "dict[str, Any]":
    """The parcel: the text itself, or where it is; there it is removed, since it may hold secrets."""
    if not text:
        raise Broken("the variable RAINBOW_PARCEL is empty")
    path = text[5:] if text.startswith("file:") else ""
    if path:
        try:
            with open(path, encoding="ascii") as file:
                text = file.read()
            os.unlink(path)
        except OSError as error:
            raise Broken(f"the exchange volume cannot be used: {error.strerror} ({path})") from None
    elif text.startswith("http"):
        text = fetch("GET", text, what="the input").decode("ascii")
    found = json.loads(zlib.decompress(base64.b64decode(text)).decode("utf-8"))  # type: dict[str, Any]
    if found.get("remove"):
        fetch("DELETE", found["remove"], what="the input")
    return found


def lay_out(parcel: "dict[str, Any]") -> str:
    """Write the input and the secret files; gives the path of the input."""
    folder = os.getcwd()
    if not os.access(folder, os.W_OK):
        folder = tempfile.mkdtemp(prefix="rainbow-")
    path = os.path.join(folder, "rainbow_input.json")
    source = parcel["input"]
    if "data" in source:
        with open(path, "wb") as file:
            file.write(base64.b64decode(source["data"]))
    elif "url" in source:
        with open(path, "wb") as file:
            fetch("GET", source["url"], what="the input", into=file)
    else:
        with open(source["file"], "rb") as answer, open(path, "wb") as file:
            copy(answer, file)
    show_input(path)
    for one in parcel["files"]:
        place(one["target"], base64.b64decode(one["data"]))
    return path


def show_input(path: str) -> None:
    """The input as /rainbow_input.json too: a link when one can be made there, its bytes when a file was mounted."""
    known = "/rainbow_input.json"
    if path == known:
        return
    try:
        if os.path.lexists(known):
            os.unlink(known)
        os.symlink(path, known)
    except OSError:
        with contextlib.suppress(OSError), open(path, "rb") as source, open(known, "r+b") as target:
            copy(source, target)


def place(target: str, data: bytes) -> None:
    """A secret file at its path, and below the working directory, where the executor `process` has it."""
    below = os.path.join(os.getcwd(), target.lstrip("/"))
    reason = ""
    for path in (target, below) if target.startswith("/") else (below,):
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if path == below and target != below and not reason and target.startswith("/"):
                if not os.path.lexists(below):
                    os.symlink(target, below)
                return
            if os.path.lexists(path):
                os.unlink(path)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
            with os.fdopen(file, "wb") as out:
                out.write(data)
        except OSError as error:
            reason = error.strerror or str(error)
    if reason and not os.path.exists(below):
        user = os.getuid()
        raise Broken(
            f"the secret file {target} cannot be written by user {user} of the image: {reason}; make its folder there"
        )


def copy(source: Any, target: Any) -> None:
    """All bytes of one file to another."""
    while True:
        data = source.read(1 << 20)
        if not data:
            return
        target.write(data)


# -- the command


def run(parcel: "dict[str, Any]") -> "dict[str, Any]":
    """Run the command to its end; gives the outcome, without its output when that is stored elsewhere."""
    known = "/rainbow_input.json" if os.path.exists("/rainbow_input.json") else "/"
    if os.getcwd() == "/" and not (os.access("/", os.W_OK) and os.access(known, os.W_OK)):
        os.chdir(tempfile.mkdtemp(prefix="rainbow-"))  # the image has no working directory of its own
    input_path = lay_out(parcel)
    places = output_places(parcel.get("output_path"))
    env = dict(os.environ)
    env.setdefault("PYTHONUNBUFFERED", "1")
    env.update(parcel["env"])
    env["RAINBOW_INPUT_PATH"] = input_path
    if places:
        env["RAINBOW_OUTPUT_PATH"] = places[0]
    before = [stamp(path) for path in places]
    ours = tempfile.mkdtemp(prefix="rainbow-")
    result, failure = os.path.join(ours, "result.json"), os.path.join(ours, "failure.txt")
    kills = oom_kills()
    try:
        status = execute(argv_of(parcel, ours, result, failure), env, parcel.get("until") or 0)
    except OSError as error:
        return {"start": error.errno or 0}
    outcome = {"status": status, "oom": oom_kills() > kills}  # type: dict[str, Any]
    if status != 0:
        if os.path.exists(failure):
            with open(failure, encoding="utf-8", errors="replace") as file:
                outcome["failure"] = file.read(2000)
        return outcome
    if parcel.get("call"):
        outcome["output"] = output_of([(result, None, None)], parcel)
    elif places:
        cwd = os.getcwd()
        checked = [(path, old, cwd if path.startswith(cwd) else None) for path, old in zip(places, before)]  # noqa: B905
        outcome["output"] = output_of(checked, parcel)
    return outcome


def argv_of(parcel: "dict[str, Any]", folder: str, result: str, failure: str) -> "list[str]":
    """The program and its arguments."""
    if parcel.get("call"):
        script = os.path.join(folder, "call.py")
        with open(script, "w", encoding="utf-8") as file:
            file.write(parcel["call_text"])
        return [sys.executable, script, parcel["call"], result, failure, parcel["call_name"]]
    if parcel.get("argv"):
        return list(parcel["argv"])
    shell = next((one for one in ("/bin/bash", "/usr/bin/bash") if os.path.exists(one)), "/bin/sh")
    return [shell, "-c", parcel.get("shell") or ":"]


def execute(argv: "list[str]", env: "dict[str, str]", until: float) -> int:
    """Run it in a process group of its own, taking care of orphans; its status, negative for a signal; `until` is a time."""
    sys.stdout.flush()
    child = subprocess.Popen(
        argv, env=env, start_new_session=True, stderr=subprocess.STDOUT
    )  # one pipe keeps the order
    Child.pid = child.pid
    if until:
        signal.signal(signal.SIGALRM, expire)
        signal.alarm(max(1, int(until - time.time())))
    while True:
        try:
            pid, status = os.waitpid(-1, 0)
        except InterruptedError:
            continue
        if pid == child.pid:
            signal.alarm(0)
            child.returncode = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            with contextlib.suppress(OSError):  # what it left behind holds the log open, and writes to the output
                os.killpg(child.pid, signal.SIGKILL)
            return child.returncode


def oom_kills() -> int:
    """How many processes of this container were ended for want of memory, by its control group."""
    for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        try:
            with open(path) as file:
                for line in file:
                    words = line.split()
                    if words[:1] == ["oom_kill"]:
                        return int(words[1])
        except (OSError, ValueError):
            continue
    return 0


# -- its output


def output_places(written: "str | None") -> "list[str]":
    """Where the output may be; the first is RAINBOW_OUTPUT_PATH."""
    if not written:
        return []
    below = os.path.join(os.getcwd(), written.lstrip("/"))
    if not written.startswith("/"):
        return [below]
    for path in (written, below):
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(path), exist_ok=True)
    folder = os.path.dirname(written)
    can = os.access(written, os.W_OK) if os.path.exists(written) else os.access(folder, os.W_OK)
    return [written, below] if can else [below, written]


def stamp(path: str) -> "tuple[int, int, int] | None":
    """What tells a file that was there before from one that was written."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, max(found.st_mtime_ns, found.st_ctime_ns)


def output_of(places: "list[tuple[str, Any, str | None]]", parcel: "dict[str, Any]") -> "dict[str, Any]":
    """What is at the first of these places that was written: its bytes, that they are stored, or what is wrong."""
    was_there = False
    for path, before, inside in places:
        if not os.path.lexists(path):
            continue
        if before is not None and stamp(path) == before:
            was_there = was_there or before[1] > 0  # an empty one may be there for the code to write into
            continue
        wrong = flaw(path, inside)
        if wrong:
            return {"wrong": wrong}
        return packed(path, parcel)
    return {"missing": "old" if was_there else "none"}


def flaw(path: str, inside: "str | None") -> str:
    """Why this is no file that can be read, '' when it is one."""
    try:
        real = os.path.realpath(path)
        if inside is not None and not (real + "/").startswith(os.path.realpath(inside).rstrip("/") + "/"):
            return "is a link to a place outside of the working directory; write the file itself"
        found = os.stat(path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if stat.S_ISDIR(found.st_mode):
        return "is a folder, not a file; write JSON into a file"
    if stat.S_ISFIFO(found.st_mode):
        return "is a pipe, not a file; write JSON into a file"
    if not stat.S_ISREG(found.st_mode):
        return "is something else, not a file; write JSON into a file"
    if found.st_size > MAX_OUTPUT_BYTES:
        return (
            f"has {found.st_size / 1048576:.0f} MiB; an output may have {MAX_OUTPUT_BYTES / 1048576:.0f} MiB: "
            "write large data to a store and give its address"
        )
    if not os.access(path, os.R_OK):
        return "cannot be read: Permission denied"
    return ""


def packed(path: str, parcel: "dict[str, Any]") -> "dict[str, Any]":
    """The bytes themselves when they are few, else that they are in the exchange."""
    size = os.stat(path).st_size
    limit = min(INLINE_BYTES, parcel["inline_bytes"])
    if size <= INLINE_BYTES:
        with open(path, "rb") as file:
            data = base64.b64encode(zlib.compress(file.read())).decode("ascii")
        if len(data) <= limit:
            return {"data": data}
    if parcel.get("folder"):
        with open(path, "rb") as source, open(os.path.join(parcel["folder"], "output"), "wb") as target:
            copy(source, target)
        return {"stored": size}
    if parcel.get("put_output"):
        with open(path, "rb") as source:
            fetch("PUT", parcel["put_output"], what="the output", body=source, size=size)
        return {"stored": size}
    return {"large": size}


# -- out


def deliver(parcel: "dict[str, Any]", outcome: "dict[str, Any]") -> None:
    """Hand the outcome over, by the way that the parcel asks for."""
    if not parcel:
        raise Broken("no parcel")
    outcome["token"] = parcel["token"]
    data = json.dumps(outcome).encode("ascii")
    hand = parcel["hand"]
    if hand == "either":
        hand = "termination" if len(data) <= TERMINATION_BYTES else "log"
    if hand == "termination":
        with open(parcel["termination_path"], "wb") as file:
            file.write(data)
    elif hand == "log":
        lines = base64.b64encode(zlib.compress(data)).decode("ascii")
        chunks = [lines[at : at + CHUNK] for at in range(0, len(lines), CHUNK)]
        for index, chunk in enumerate(chunks):
            sys.stdout.write(f"{parcel['marker']}{index + 1}/{len(chunks)}:{chunk}\n")
        sys.stdout.flush()
    elif parcel.get("folder"):
        path = os.path.join(parcel["folder"], "outcome")
        with open(path + ".part", "wb") as file:
            file.write(data)
        os.rename(path + ".part", path)
    else:
        fetch("PUT", parcel["put_outcome"], what="the outcome", body=data, size=len(data))


def fetch(method: str, url: str, what: str, body: Any = None, size: int = 0, into: Any = None) -> bytes:
    """The answer of the bucket, written to the file `into` when there is one; tried again when that may help."""
    import urllib.error
    import urllib.request

    reason = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(min(8, 0.25 * 2**attempt))
        for file in (body, into):
            if hasattr(file, "seek"):
                file.seek(0)
        request = urllib.request.Request(url, data=body, method=method)  # noqa: S310
        if body is not None:
            request.add_header("Content-Length", str(size))
            request.add_header("Content-Type", "application/octet-stream")
        try:
            with contextlib.closing(urllib.request.urlopen(request, timeout=60)) as answer:  # noqa: S310
                if into is None:
                    return bytes(answer.read())
                copy(answer, into)
                into.truncate()
                if answer.length:
                    raise OSError(0, "the answer broke off")
                return b""
        except urllib.error.HTTPError as error:
            reason = f"it answered {error.code}{code_of(error.read(4096))}"
            error.close()
            if error.code in (301, 307, 400):
                reason += "; name the `region` of the bucket in `exchange`"
            if error.code < 500 and error.code not in (408, 409, 429):
                break
        except OSError as error:  # also URLError and SSLError
            cause = getattr(error, "reason", error)
            reason = getattr(cause, "strerror", None) or type(cause).__name__
            if "CERTIFICATE" in str(cause).upper():
                reason = "its certificate cannot be checked; install ca-certificates in the image"
                break
        except Exception as error:  # a broken answer
            reason = type(error).__name__
    host = url.split("/")[2] if url.count("/") > 2 else "?"
    raise Broken(f"the exchange bucket at {host} cannot be used for {what}: {reason}")


def code_of(answer: bytes) -> str:
    """` (AccessDenied)`: the code in an error of S3, whose other elements may hold what must not be shown."""
    text = answer.decode("utf-8", "replace")
    code = text.partition("<Code>")[2].partition("</Code>")[0]
    return f" ({code})" if code.isalnum() else ""


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)
