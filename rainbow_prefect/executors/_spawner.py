"""The process that starts commands and ends whatever they leave; a script of the standard library, run by `_spawn`.

    run ──socket──▶ spawner ──fork──▶ guard (one per command) ──fork, exec──▶ command ──▶ its children ...

The spawner is warm, so a guard costs a fork and no start of an interpreter. A guard adopts every process below it
that loses its parent (Linux: PR_SET_CHILD_SUBREAPER), so `setsid` and double forks do not escape. When the command
ends, when it is told to, or when the run dies (its end of the control socket closes), the guard ends all of them.
Elsewhere than on Linux, process groups and a marker in the environment take the place of adoption.
Nothing of rainbow_prefect is imported here.
"""

from __future__ import annotations

import gc
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MARKER = "RAINBOW_SLICE"
LEFTOVERS_SECONDS = 1.0
"""How long what a finished command (or a dead run) left behind may take to end after SIGTERM."""
GIVE_UP_SECONDS = 10.0
"""After this long even SIGKILL did not help (a hung file system, a process of another user)."""

_PDEATHSIG = 1
_SUBREAPER = 36


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes; b"" when the other end closed."""
    parts = []
    while size:
        data = sock.recv(min(size, 1 << 20))
        if not data:
            return b""
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


def _parents() -> dict[int, list[int]]:
    """The children of every process of this machine."""
    children: dict[int, list[int]] = {}
    if sys.platform != "linux":
        for line in _ps("pid", "ppid"):
            pid, parent = line.split()
            children.setdefault(int(parent), []).append(int(pid))
        return children
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(name))
    return children


def _children(pid: int) -> list[int]:
    """The children of one process, where the kernel lists them (CONFIG_PROC_CHILDREN)."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    except OSError:
        pass
    return found


def _ps(*columns: str) -> list[str]:
    """One line for every process but the one that lists them; commands come with their environment."""
    options = [option for column in columns for option in ("-o", f"{column}=")]
    with subprocess.Popen(["ps", "-A", "-E", "-ww", *options], stdout=subprocess.PIPE) as ps:
        lines = ps.communicate()[0].decode(errors="replace").splitlines()
    return [line for line in lines if line.split()[:1] != [str(ps.pid)]]


def below(pid: int) -> list[int]:
    """All living processes below this one, parents first."""
    if os.path.exists(f"/proc/{pid}/task/{pid}/children"):
        children = _children
    else:
        all_children = _parents()

        def children(pid: int) -> list[int]:
            return all_children.get(pid, [])

    found: list[int] = []
    todo = [pid]
    while todo:
        more = children(todo.pop())
        found += more
        todo += more
    return found


def send(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:
            continue


def kill(find: Callable[[], list[int]]) -> None:
    """SIGKILL to all that `find` gives; they are stopped first, so that none can fork in between."""
    stopped: set[int] = set()
    for _ in range(100):
        new = [pid for pid in find() if pid not in stopped]
        if not new:
            break
        send(new, signal.SIGSTOP)
        stopped.update(new)
    send(sorted(stopped), signal.SIGKILL)


class Guard:
    """Starts one command and ends all below it; runs in its own process."""

    def __init__(self, control: socket.socket, out: int, wakeup: int) -> None:
        self.control = control
        self.out = out
        self.wakeup = wakeup
        self.status: int | None = None
        self.orphaned = False
        self.until: float | None = None
        self.killed_at: float | None = None
        self.pause = 0.01

    def main(self) -> None:
        size = receive(self.control, 8)
        spec = json.loads(receive(self.control, int.from_bytes(size, "big"))) if size else None
        if spec is None:
            return
        self.marker = f"{MARKER}={spec['env'].get(MARKER, '')}"
        self.grace = spec["grace"]
        failed = self.start(spec)
        os.close(self.out)
        if failed:
            self.tell(error=failed)
            return
        self.watch()
        if self.orphaned:
            shutil.rmtree(spec["folder"], ignore_errors=True)
        else:
            self.tell(status=self.status, left=self.left())

    def tell(self, **message: object) -> None:
        try:
            self.control.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return

    def start(self, spec: dict[str, object]) -> list[object] | None:
        """Start the command; what failed as [errno, step], None when it runs."""
        ready, done = os.pipe()
        guard = os.getpid()
        try:
            self.pid = os.fork()
        except OSError as error:
            return [error.errno, "fork"]
        if self.pid == 0:
            self.become(spec, guard, done)
        os.close(done)
        with os.fdopen(ready, "rb") as file:
            failed = file.read()
        if not failed:
            return None
        os.waitpid(self.pid, 0)
        number, _, step = failed.decode().partition(":")
        return [int(number), step]

    def become(self, spec: dict[str, object], guard: int, done: int) -> None:
        """In the child: turn into the command."""
        step = "prepare"
        try:
            os.setsid()
            _prctl(_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != guard:
                os._exit(127)
            for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            null = os.open(os.devnull, os.O_RDONLY)
            for target, source in ((0, null), (1, self.out), (2, self.out)):
                os.dup2(source, target)
            step = "chdir"
            os.chdir(str(spec["cwd"]))
            step = "exec"
            argv, env = spec["argv"], spec["env"]
            assert isinstance(argv, list) and isinstance(env, dict)
            os.execvpe(argv[0], argv, env)  # noqa: S606
        except OSError as error:
            os.write(done, f"{error.errno}:{step}".encode())
        except BaseException as error:
            os.write(done, f"0:{error!r}".encode())
        finally:
            os._exit(127)

    def find(self) -> list[int]:
        """All that must end."""
        found = below(os.getpid())
        if sys.platform != "linux":
            found += [int(pid) for pid, group in map(str.split, _ps("pid", "pgid")) if int(group) == self.pid]
            found += [int(line.split()[0]) for line in _ps("pid", "command") if self.marker in line]
            found = [pid for pid in dict.fromkeys(found) if pid not in (os.getpid(), os.getppid())]
        return found

    def reap(self) -> bool:
        """Collect the dead; whether any child lives."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.pid:
                self.status = os.waitstatus_to_exitcode(status)

    def end(self, grace: float) -> None:
        """SIGTERM to all, and a time by which they must be gone."""
        until = time.monotonic() + grace
        if self.until is not None:
            self.until = min(self.until, until)
            return
        self.until = until
        if grace > 0:
            # When the run died there may be hundreds of guards: only what takes no search.
            pids = [-self.pid] if self.orphaned else self.find()
            send(pids, signal.SIGTERM)
            send(pids, signal.SIGCONT)

    def watch(self) -> None:
        poll = select.poll()
        poll.register(self.wakeup, select.POLLIN)
        poll.register(self.control, select.POLLIN)
        while self.reap():
            if self.status is not None and self.until is None:
                self.end(LEFTOVERS_SECONDS)
            now = time.monotonic()
            if self.until is not None and now >= self.until:
                if self.killed_at is None:
                    self.killed_at = now
                    send([-self.pid], signal.SIGKILL)
                elif now - self.killed_at > GIVE_UP_SECONDS and self.pause > 1:
                    return
                else:
                    kill(self.find)
            for fd, _ in poll.poll(self.wait(now)):
                if fd == self.wakeup:
                    os.read(fd, 4096)
                else:
                    self.listen(poll)
        if sys.platform != "linux":
            kill(self.find)

    def wait(self, now: float) -> float | None:
        if self.killed_at is not None:
            self.pause = min(2, 2 * self.pause)
            return 1000 * self.pause
        return None if self.until is None else max(1.0, (self.until - now) * 1000)

    def listen(self, poll: select.poll) -> None:
        try:
            word = self.control.recv(1)
        except OSError:
            word = b""
        if word == b"t":
            self.end(self.grace)
        elif word == b"k":
            self.end(0)
        elif not word:
            poll.unregister(self.control)
            self.orphaned = True
            self.end(min(self.grace, LEFTOVERS_SECONDS))

    def left(self) -> int:
        return len(self.find()) if self.killed_at is not None else 0


class Spawner:
    """Forks a guard for every pair of descriptors that arrives; ends when the run is gone and all guards ended."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.guards: set[int] = set()
        self.wakeup = -1

    def main(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        _prctl(_SUBREAPER, 1)
        self.wakeup = _wakeup()
        gc.disable()
        gc.freeze()
        poll = select.poll()
        poll.register(self.wakeup, select.POLLIN)
        poll.register(self.sock, select.POLLIN)
        is_open = True
        while is_open or self.guards:
            for fd, _ in poll.poll():
                if fd == self.wakeup:
                    os.read(fd, 4096)
                    self.reap()
                elif not self.accept():
                    poll.unregister(self.sock)
                    is_open = False

    def accept(self) -> bool:
        try:
            word, fds, _, _ = socket.recv_fds(self.sock, 1, 2)
        except OSError:
            return False
        if not word:
            return False
        control, out = fds
        for fd in fds:
            os.set_inheritable(fd, False)
        try:
            pid = os.fork()
        except OSError as error:
            with socket.socket(fileno=control) as answer:
                answer.sendall(json.dumps({"error": [error.errno, "fork"]}).encode() + b"\n")
            os.close(out)
            return True
        if pid == 0:
            self.guard(control, out)
        os.close(control)
        os.close(out)
        self.guards.add(pid)
        return True

    def guard(self, control: int, out: int) -> None:
        try:
            self.sock.close()
            _prctl(_SUBREAPER, 1)
            answer = socket.socket(fileno=control)
            guard = Guard(answer, out, _wakeup())
            try:
                guard.main()
            except Exception as error:
                guard.tell(error=[0, repr(error)])
        finally:
            os._exit(0)

    def reap(self) -> None:
        """Collect guards that ended; when one was killed, end what it left."""
        broken = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid in self.guards:
                self.guards.discard(pid)
                broken = broken or os.waitstatus_to_exitcode(status) != 0
        if broken and sys.platform == "linux":
            kill(self.strays)

    def strays(self) -> list[int]:
        mine = _children(os.getpid()) or _parents().get(os.getpid(), [])
        strays = [pid for pid in mine if pid not in self.guards]
        return [*strays, *(pid for stray in strays for pid in below(stray))]


def _wakeup() -> int:
    """A descriptor that can be read whenever a child ended."""
    ready, write = os.pipe()
    os.set_blocking(ready, False)
    os.set_blocking(write, False)
    signal.signal(signal.SIGCHLD, _noted)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    return ready


def _noted(number: int, frame: object) -> None:
    """A handler must exist for the wake-up descriptor to be written to."""


def main() -> None:
    Spawner(socket.socket(fileno=int(sys.argv[1]))).main()


if __name__ == "__main__":
    main()
