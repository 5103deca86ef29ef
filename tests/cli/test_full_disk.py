"""A disk that fills up while an RL checkpoint is written: nothing earlier is lost, and with room it goes on."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

INSIDE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
UPDATES = "--set rl.updates=3 --set rl.validate_every=3 --set rl.checkpoint_every=1"


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_disk_that_fills_up_while_a_checkpoint_is_written(session: Any, tmp_path: Path) -> None:
    """One checkpoint (11 MB) and best/ (4 MB) fit on 22 MB, a second checkpoint does not."""
    disk, reft = tmp_path / "disk", f"{sys.executable} -m reftcli"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=22m tmpfs {disk}"
    if shutil.which("unshare") is None or subprocess.run([*INSIDE, mount], capture_output=True, check=False).returncode:
        pytest.skip("no file system of our own can be mounted here")
    train = f"{reft} rl {session.run('warm')} {UPDATES} --runs-dir {disk}/runs --name mine"
    script = f"""{mount}
        {train}; echo first $?
        ls -A {disk}/runs/mine/checkpoints
        sha256sum {disk}/runs/mine/checkpoints/step-1/model/model.safetensors {disk}/runs/mine/best/model.safetensors
        mount -o remount,size=200m {disk}
        {reft} rl --resume --runs-dir {disk}/runs --name mine; echo second $?
        cp {disk}/runs/mine/final/model.safetensors {tmp_path}/resumed.safetensors
    """
    done = subprocess.run([*INSIDE, script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert "first 1\nstep-1\n" in done.stdout, done.stderr  # no step-2, no half of one
    assert "second 0\n" in done.stdout, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("reft: ")]
    assert len(errors) == 1
    assert "disk is full" in errors[0] or "is the disk full?" in errors[0]
    whole = f"{reft} rl {session.run('warm')} {UPDATES} --runs-dir {tmp_path}/runs --name whole"
    subprocess.run(whole.split(), cwd=tmp_path, capture_output=True, check=True, timeout=300)
    assert sha256(tmp_path / "resumed.safetensors") == sha256(tmp_path / "runs/whole/final/model.safetensors")
