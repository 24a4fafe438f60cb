"""The folder for the files of a run: gone with its report, or at the next start when its process was killed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from rainbow_prefect.engine.storage import scratch_folder

HOLD = """
import time
from rainbow_prefect.engine.storage import scratch_folder
with scratch_folder(lambda: None) as folder:
    (folder / "data.json").write_text("1")
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_a_folder_is_gone_at_the_end_of_its_run() -> None:
    with scratch_folder(lambda: None) as folder:
        (folder / "data.json").write_text("1")

    assert not folder.exists()


def test_the_next_start_removes_the_folder_of_a_killed_process_only() -> None:
    holders = [subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    killed, alive = (Path(one.stdout.readline().strip()) for one in holders)  # type: ignore[union-attr]
    holders[0].kill()
    holders[0].wait()

    with scratch_folder(lambda: None):
        left = (killed.exists(), (alive / "data.json").exists())
    holders[1].kill()
    holders[1].communicate()

    assert left == (False, True)
