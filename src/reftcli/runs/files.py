"""Writing that survives a crash: a file or folder is complete under its name, or absent."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reftcli.errors import RuntimeFailure

_DISK_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission to write there",
    errno.EPERM: "no permission to write there",
    errno.ENOTDIR: "a part of that path is a file, not a folder",
    errno.EEXIST: "a part of that path is a file, not a folder",
    errno.EFBIG: "larger than a file may be here",
}
# safetensors and torch report what the disk refused as their own errors, with or without the system's words.
_WORDS_OF_A_FULL_DISK = ("No space left on device", "os error 28")
_WORDS_OF_A_FAILED_WRITE = ("iostream error", "inline_container.cc", "PytorchStreamWriter")


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns what the disk refuses into one line that names the path. Other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            what = _DISK_ERRORS[error.errno]
            raise RuntimeFailure(f"{path}: {what}; make room or choose another place") from error
        raise
    except Exception as error:
        if any(words in str(error) for words in _WORDS_OF_A_FULL_DISK):
            raise RuntimeFailure(f"{path}: the disk is full; make room or choose another place") from error
        if any(words in str(error) for words in _WORDS_OF_A_FAILED_WRITE):
            raise RuntimeFailure(f"{path}: torch could not write it; is the disk full?") from error
        raise


def write_text(path: Path, text: str) -> None:
    """Writes beside the file, flushes to disk, then renames over it."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            with aside.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """`write_text` of indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


@contextmanager
def folder_written_aside(path: Path) -> Iterator[Path]:
    """Yields a hidden folder beside ``path``; when the block succeeds it replaces ``path``, otherwise it vanishes."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with disk_errors(path):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            yield aside
            for file in aside.rglob("*"):
                if file.is_file():
                    _sync(file)
            _replace_folder(aside, path)
            _sync(path.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Takes a folder away at once: whoever looks while its files go, or after a crash, does not find half of it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        os.rename(path, aside)
    except OSError:
        return  # what cannot be removed is no reason to stop
    shutil.rmtree(aside, ignore_errors=True)


def clear_what_a_crash_left(folder: Path) -> None:
    """Removes folders below ``folder`` that were being written or removed.

    A folder that was being replaced comes back where its successor never took its place.
    """
    for left in folder.glob(".*.*.partial"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
    for old in folder.glob(".*.*.old"):
        path = old.with_name(old.name[1:].rsplit(".", 2)[0])
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(old, path)


def _replace_folder(aside: Path, path: Path) -> None:
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        os.rename(path, old)
    os.rename(aside, path)
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class JsonlWriter:
    """Appends one JSON object a line; a line is on disk before the next one starts.

    A line cut off by a crash at the end of an existing file is removed first.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _drop_partial_line(path)
            self._file = path.open("a", encoding="utf-8")

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends one row."""
        with disk_errors(self._path):
            self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
            self._file.flush()

    def close(self) -> None:
        with disk_errors(self._path):  # what a full disk did not take is tried once more
            self._file.close()

    def __enter__(self) -> JsonlWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _drop_partial_line(path: Path) -> None:
    if not path.is_file():  # absent, or a device: /dev/null takes the rows of all but one process
        return
    with path.open("rb+") as file:
        data = file.read()
        if data and not data.endswith(b"\n"):
            file.truncate(data.rfind(b"\n") + 1)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that `JsonlWriter` wrote; a cut-off last line is ignored, a missing file has no rows."""
    if not path.exists():
        return []
    rows = []
    *lines, _ = path.read_bytes().split(b"\n")  # not splitlines(): texts may hold U+2028 and the like
    for line in lines:
        if line.strip():
            rows.append(json.loads(line))
    return rows


def drop_rows_after(file: Path, step: int) -> None:
    """Forgets rows of a later step: what was written after the checkpoint that a resumed run goes on from."""
    rows = read_jsonl(file)
    kept = [row for row in rows if int(row.get("step") or 0) <= step]
    if len(kept) < len(rows):
        write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))


@contextmanager
def locked(path: Path, flags: int = os.O_RDONLY) -> Iterator[bool]:
    """Keeps other processes out of a file or folder until the block or this process ends, however it ends.

    Yields False where another process is in already. A file system without locks keeps nobody out.
    """
    with disk_errors(path):
        descriptor = os.open(path, flags, 0o666)
    try:
        yield _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def sha256_of(*paths: Path) -> str:
    """One hash over the contents of files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
