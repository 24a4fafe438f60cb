"""Write to standard output, as a tar stream, what a small Debian image with Python holds: taken from this machine.

    python scripts/host_tree.py PREFIX X.Y | docker import - NAME

The files of the essential packages, of apt and of what Python's modules link to; their records in dpkg's database, so
that `apt-get install` works in the image; the Python below PREFIX as /usr/local; this machine's CA certificates and
the index that its pip asks. Nothing is written on this machine and no root is needed.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

WANTED = ("apt", "ca-certificates", "netbase", "tzdata", "openssl")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
EMPTY = (
    *(
        "dev",
        "proc",
        "sys",
        "run",
        "mnt",
        "opt",
        "srv",
        "home",
        "usr/local/sbin",
        "var/log/apt",
        "var/lib/dpkg/updates",
    ),
    *("var/cache/apt/archives/partial", "var/lib/apt/lists/partial", "etc/apt/apt.conf.d"),
)
WHOLE = (
    *("/etc/alternatives", "/var/lib/dpkg/alternatives", "/etc/apt", "/etc/ssl/certs", "/usr/share/keyrings"),
    *("/usr/share/ca-certificates", "/usr/local/share/ca-certificates"),
)
LEFT_OUT = re.compile(r"/usr/share/(doc|man|locale|info|lintian|bash-completion|help)/.")
NOT_OF_PYTHON = re.compile(
    r"(^|/)(test|tests|idlelib|tkinter|turtledemo)(/|$)|^[^/]+/site-packages/.|/config-[^/]+/.*\.[ao]$|\.a$|\.opt-[12]\.pyc$"
)


class Tree:
    """A tar stream that holds every path once and every folder before what is in it."""

    def __init__(self, out: tarfile.TarFile) -> None:
        self.out = out
        self.seen: set[str] = set()

    def folder(self, name: str, mode: int = 0o755) -> None:
        for path in [*reversed(Path(name).parents), Path(name)]:
            if str(path) != ".":
                info = tarfile.TarInfo(str(path))
                info.type, info.mode = tarfile.DIRTYPE, mode if str(path) == name else 0o755
                self._put(info)

    def text(self, name: str, content: str | bytes, mode: int = 0o644) -> None:
        data = content.encode() if isinstance(content, str) else content
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), mode
        self.folder(os.path.dirname(name))
        self._put(info, data)

    def link(self, name: str, target: str) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = tarfile.SYMTYPE, target
        self._put(info)

    def copy(self, path: str, name: str, *, owned: bool = True) -> None:
        """Put what is at `path` of this machine, with its mode, and its owner if `owned`."""
        status = os.lstat(path)
        info = tarfile.TarInfo(name)
        info.mode = status.st_mode & 0o7777
        info.mtime = int(status.st_mtime)  # Python's .pyc files hold that of their source
        if owned:
            info.uid, info.gid = status.st_uid, status.st_gid
        if os.path.islink(path):
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
            self._put(info)
        elif os.path.isdir(path):
            info.type = tarfile.DIRTYPE
            self._put(info)
        elif os.path.isfile(path) and os.access(path, os.R_OK):
            data = Path(path).read_bytes()
            info.size = len(data)
            self._put(info, data)

    def _put(self, info: tarfile.TarInfo, data: bytes = b"") -> None:
        if info.name not in self.seen:
            self.seen.add(info.name)
            self.out.addfile(info, io.BytesIO(data))


def main(prefix: str, version: str) -> None:
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.GNU_FORMAT) as out:
        tree = Tree(out)
        packages = closure([*WANTED, *packages_of(linked_by(prefix, version))])
        put_network(tree)  # first: what is there once is not put again
        put_system(tree, packages)
        put_python(tree, prefix, version)


def installed() -> tuple[dict[str, str], dict[str, str], list[str]]:
    """What each installed package depends on, which package provides a name, and the essential packages."""
    fields = "${Package}\t${Essential}\t${db:Status-Status}\t${Pre-Depends}, ${Depends}\t${Provides}\n"
    needs: dict[str, str] = {}
    provider: dict[str, str] = {}
    essential: list[str] = []
    for line in output("dpkg-query", "-W", "-f", fields).splitlines():
        name, is_essential, state, depends, provides = line.split("\t")
        if state != "installed":
            continue
        needs[name] = depends
        essential += [name] * (is_essential == "yes")
        for other in provides.split(","):
            provider.setdefault(plain(other), name)
    return needs, provider, essential


def closure(wanted: Iterable[str]) -> list[str]:
    """The installed packages among `wanted`, the essential ones, and all they depend on."""
    needs, provider, essential = installed()
    todo = [*essential, *(name for name in wanted if name in needs)]
    found: set[str] = set()
    while todo:
        package = todo.pop()
        if package in found:
            continue
        found.add(package)
        for dependency in needs[package].split(","):
            choices = [plain(choice) for choice in dependency.split("|")]
            todo += [
                name if name in needs else provider[name] for name in choices if name in needs or name in provider
            ][:1]
    return sorted(found)


def linked_by(prefix: str, version: str) -> set[str]:
    """The shared libraries of this machine that this Python and its modules are linked to."""
    modules = Path(prefix, "lib", f"python{version}", "lib-dynload").glob("*.so")
    binaries = [f"{prefix}/bin/python{version}", *(str(path) for path in modules if "_tkinter" not in path.name)]
    answer = subprocess.run(["ldd", *binaries], capture_output=True, text=True)  # fails for a static one
    return {path for path in re.findall(r"=> (/\S+)", answer.stdout) if not path.startswith(prefix)}


def packages_of(files: Iterable[str]) -> set[str]:
    # Where /lib is a link to /usr/lib, dpkg knows a file by one of the two names.
    names = {name for file in files for name in (file, f"/usr{file}", file.removeprefix("/usr"))}
    answer = subprocess.run(["dpkg-query", "-S", *sorted(names)], capture_output=True, text=True)
    return {line.split(":")[0] for line in answer.stdout.splitlines() if not line.startswith("diversion ")}


def put_system(tree: Tree, packages: list[str]) -> None:
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if os.path.islink(f"/{name}"):
            tree.copy(f"/{name}", name)
    for path in sorted(paths_of(packages)):
        tree.copy(path, path.lstrip("/"))
    for name in EMPTY:
        tree.folder(name)
    tree.folder("tmp", 0o1777)
    tree.folder("var/tmp", 0o1777)
    tree.folder("root", 0o700)
    tree.link("var/run", "/run")
    tree.link("var/lock", "/run/lock")
    put_accounts(tree)
    put_dpkg(tree, packages)


def paths_of(packages: list[str]) -> Iterator[str]:
    for line in output("dpkg-query", "-L", *packages).splitlines():
        if line.startswith("/") and line != "/." and not LEFT_OUT.match(line):
            path = os.path.join(os.path.realpath(os.path.dirname(line)), os.path.basename(line))
            if os.path.lexists(path):
                yield path
    for top in WHOLE:
        for folder, _, files in os.walk(top):
            yield folder
            yield from (os.path.join(folder, name) for name in files)
    yield from (path for path in ("/etc/ca-certificates.conf", "/etc/ld.so.cache") if os.path.exists(path))


def put_accounts(tree: Tree) -> None:
    master = Path("/usr/share/base-passwd")
    accounts = re.sub(r"^([^:]+):\*:", r"\1:x:", (master / "passwd.master").read_text(), flags=re.M)
    names = [line.split(":")[0] for line in accounts.splitlines()]
    tree.text("etc/passwd", accounts)
    tree.text("etc/group", (master / "group.master").read_text())
    tree.text("etc/shadow", "".join(f"{name}:*:19000:0:99999:7:::\n" for name in names), 0o640)
    tree.text("etc/hostname", "")
    tree.text("etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n")


def put_dpkg(tree: Tree, packages: list[str]) -> None:
    kept = set(packages)
    database = Path("/var/lib/dpkg")
    records = (database / "status").read_text().split("\n\n")
    mine = [record.strip("\n") for record in records if re.match(r"\s*Package: (\S+)", record)]
    tree.text(
        "var/lib/dpkg/status",
        "".join(f"{record}\n\n" for record in mine if record.split("\n", 1)[0].split(": ")[1] in kept),
    )
    for path in sorted((database / "info").iterdir()):
        if path.name == "format" or path.name.rsplit(".", 1)[0].split(":")[0] in kept:
            tree.copy(str(path), f"var/lib/dpkg/info/{path.name}")
    for name in ("available", "diversions", "statoverride"):
        tree.text(f"var/lib/dpkg/{name}", "")
    tree.text("var/log/dpkg.log", "")
    tree.text("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)  # a package starts no service in an image


def put_python(tree: Tree, prefix: str, version: str) -> None:
    library = f"lib/python{version}"
    tree.folder("usr/local/bin")
    tree.copy(f"{prefix}/bin/python{version}", f"usr/local/bin/python{version}", owned=False)
    tree.link("usr/local/bin/python3", f"python{version}")
    tree.link("usr/local/bin/python", "python3")
    tree.folder(f"usr/local/{library}/site-packages")
    for shared in sorted(Path(prefix, "lib").glob("libpython*")):
        tree.copy(str(shared), f"usr/local/lib/{shared.name}", owned=False)
    for part in (library, "include"):
        for folder, folders, files in os.walk(f"{prefix}/{part}"):
            folders.sort()
            for name in sorted([*folders, *files]):
                put_module(tree, Path(folder, name), prefix, library)


def put_module(tree: Tree, path: Path, prefix: str, library: str) -> None:
    inside = str(path.relative_to(prefix))
    if NOT_OF_PYTHON.search(inside.removeprefix("lib/")):
        return
    if path.name.startswith("_sysconfigdata") and path.suffix == ".py":
        tree.text(f"usr/local/{inside}", path.read_text().replace(prefix, "/usr/local"))
    else:
        tree.copy(str(path), f"usr/local/{inside}", owned=False)


def put_network(tree: Tree) -> None:
    """What `pip install` and `apt-get install` in the image need behind whatever this machine is behind."""
    source = os.environ.get("SSL_CERT_FILE", "")
    certificates = Path(source if os.path.isfile(source) else CERTIFICATES)
    tree.text(CERTIFICATES.lstrip("/"), certificates.read_bytes())
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True
    ).stdout.strip()
    index = f"index-url = {asked}\n" if asked.startswith("http") else ""
    tree.text(
        "etc/pip.conf",
        f"[global]\ncert = {CERTIFICATES}\ndisable-pip-version-check = true\nroot-user-action = ignore\n{index}",
    )


def plain(dependency: str) -> str:
    """The name in `libc6:amd64 (>= 2.36)`."""
    return re.sub(r"\(.*?\)|:\w+", "", dependency).strip()


def output(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main(*sys.argv[1:])
