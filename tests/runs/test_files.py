from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path

import pytest

from reftcli.errors import RuntimeFailure
from reftcli.runs import files
from reftcli.runs.files import (
    JsonlWriter,
    clear_what_a_crash_left,
    disk_errors,
    folder_written_aside,
    read_jsonl,
    remove_folder,
    sha256_of,
    write_json,
    write_text,
)


class Broke(Exception):
    """What ends a writer midway in these tests."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# write_text


def test_writes_and_replaces(tmp_path: Path) -> None:
    file = tmp_path / "new" / "file.txt"
    write_text(file, "äöü\n")
    write_text(file, "second\n")
    assert file.read_text(encoding="utf-8") == "second\n"
    assert names(file.parent) == ["file.txt"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_writer_that_fails_midway_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    file = tmp_path / "file.txt"
    write_text(file, "old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, step, fail)
    with pytest.raises(RuntimeFailure, match=r"file\.txt: the disk is full"):
        write_text(file, "new")
    assert file.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_text_that_cannot_be_encoded_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    write_text(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "\ud800")
    assert file.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_json_that_cannot_be_built_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    write_json(file, {"a": 1, "path": Path("x")})
    assert json.loads(file.read_text()) == {"a": 1, "path": "x"}
    circle: dict[str, object] = {}
    circle["self"] = circle
    with pytest.raises(ValueError, match="Circular"):
        write_json(file, circle)
    assert json.loads(file.read_text())["a"] == 1


# Disk errors


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "no permission"),
        (errno.ENOTDIR, "is a file, not a folder"),
    ],
)
def test_what_the_disk_refuses_is_one_line_with_the_path(code: int, words: str) -> None:
    with pytest.raises(RuntimeFailure) as raised, disk_errors(Path("runs/x")):
        raise OSError(code, os.strerror(code))
    assert str(raised.value).startswith("runs/x: ")
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "message",
    [
        "Error while serializing: I/O error: No space left on device (os error 28)",
        "[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534",
        "basic_ios::clear: iostream error",
        "PytorchStreamWriter failed writing file data/1: file write failed",
    ],
)
def test_words_of_libraries_for_a_full_disk(message: str) -> None:
    with pytest.raises(RuntimeFailure, match=r"runs/x: .*disk"), disk_errors(Path("runs/x")):
        raise RuntimeError(message)


@pytest.mark.parametrize("error", [OSError(errno.EBADF, "Bad file"), RuntimeError("shapes differ"), KeyError("x")])
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, disk_errors(Path("runs/x")):
        raise error
    assert raised.value is error


# folder_written_aside


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    folder = tmp_path / "step-1"
    with folder_written_aside(folder) as aside:
        (aside / "model").mkdir()
        (aside / "model" / "weights").write_text("w")
        assert not folder.exists()
    assert (folder / "model" / "weights").read_text() == "w"
    assert names(tmp_path) == ["step-1"]


@pytest.mark.parametrize("error", [Broke(), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_folder_whose_writer_fails_stays_as_it_was(tmp_path: Path, error: BaseException) -> None:
    folder = tmp_path / "best"
    with folder_written_aside(folder) as aside:
        (aside / "old").write_text("old")

    def fail_midway() -> None:
        with folder_written_aside(folder) as aside:
            (aside / "new").write_text("new")
            raise error

    with pytest.raises((Broke, KeyboardInterrupt, RuntimeFailure)):
        fail_midway()
    assert names(tmp_path) == ["best"]
    assert names(folder) == ["old"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "best"
    for name in ("old", "new"):
        with folder_written_aside(folder) as aside:
            (aside / name).write_text(name)
    assert names(tmp_path) == ["best"]
    assert names(folder) == ["new"]


def test_what_a_killed_writer_left_is_not_mixed_in(tmp_path: Path) -> None:
    folder = tmp_path / "best"
    left = tmp_path / f".best.{os.getpid()}.partial"
    left.mkdir()
    (left / "stale").write_text("stale")
    with folder_written_aside(folder) as aside:
        (aside / "new").write_text("new")
    assert names(folder) == ["new"]


# JsonlWriter


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    with JsonlWriter(file) as writer:
        writer.write({"step": 1, "text": "a\nb\u2028c"})
        writer.write({"step": 2})
    return file


def test_a_row_is_on_disk_before_the_next(tmp_path: Path) -> None:
    file = tmp_path / "new" / "rows.jsonl"
    writer = JsonlWriter(file)
    writer.write({"step": 1})
    assert file.read_text() == '{"step": 1}\n'
    writer.close()


def test_appends(rows: Path) -> None:
    with JsonlWriter(rows) as writer:
        writer.write({"step": 3})
    assert [row["step"] for row in read_jsonl(rows)] == [1, 2, 3]


@pytest.mark.parametrize("cut", ['{"step": 3, "los', '{"step": 3}', '{"step": 3, "t": "\xe4'])
def test_a_line_cut_off_by_a_crash_is_dropped(rows: Path, cut: str) -> None:
    with rows.open("ab") as file:
        file.write(cut.encode()[:-1] if cut.endswith("\xe4") else cut.encode())
    with JsonlWriter(rows) as writer:
        writer.write({"step": 4})
    assert [row["step"] for row in read_jsonl(rows)] == [1, 2, 4]


def test_a_file_that_is_only_a_cut_off_line(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"step"')
    assert read_jsonl(file) == []
    JsonlWriter(file).close()
    assert file.read_bytes() == b""


def test_reading_ignores_a_cut_off_last_line(rows: Path) -> None:
    with rows.open("a") as file:
        file.write('{"step": 3')
    assert [row["step"] for row in read_jsonl(rows)] == [1, 2]


def test_line_separators_inside_a_text_do_not_end_a_row(rows: Path) -> None:
    assert read_jsonl(rows)[0] == {"step": 1, "text": "a\nb\u2028c"}


def test_a_missing_file_has_no_rows(tmp_path: Path) -> None:
    assert read_jsonl(tmp_path / "absent.jsonl") == []


def test_rows_on_a_full_disk(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullDisk(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer = JsonlWriter(rows)
    monkeypatch.setattr(writer, "_file", FullDisk())
    with pytest.raises(RuntimeFailure, match=r"rows\.jsonl: the disk is full"):
        writer.write({"step": 3})
    assert [row["step"] for row in read_jsonl(rows)] == [1, 2]


def test_sha256_of_files_is_over_their_contents_in_order(tmp_path: Path) -> None:
    for name, content in (("a", b"one"), ("b", b"two"), ("c", b"onetwo")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (tmp_path / name for name in "abc")
    assert sha256_of(a, b) == sha256_of(c) != sha256_of(b, a)
    assert sha256_of(a) == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"


def test_a_folder_is_removed_at_once_also_when_the_process_ends_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("step-1", "step-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text("w")
    remove_folder(tmp_path / "step-1")
    assert [path.name for path in tmp_path.iterdir()] == ["step-2"]
    with monkeypatch.context() as patch:
        patch.setattr("reftcli.runs.files.shutil.rmtree", lambda *_, **__: None)  # killed before it came to that
        remove_folder(tmp_path / "step-2")
    assert not (tmp_path / "step-2").exists()
    clear_what_a_crash_left(tmp_path)
    assert list(tmp_path.iterdir()) == []
    remove_folder(tmp_path / "absent")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_row_that_a_full_disk_does_not_take_is_one_line_with_its_path() -> None:
    with pytest.raises(RuntimeFailure, match="/dev/full: the disk is full"), JsonlWriter(Path("/dev/full")) as file:
        file.write({"step": 1})


def test_what_a_crash_left_goes_and_what_it_had_moved_away_comes_back(tmp_path: Path) -> None:
    for name in ("best", ".step-3.77.partial", ".best.77.old", ".final.77.old", ".notes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / ".report.html.77.partial").write_text("somebody is writing this")
    clear_what_a_crash_left(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".notes", ".report.html.77.partial", "best", "final"]
    assert (tmp_path / "best/file").read_text() == "best"
    assert (tmp_path / "final/file").read_text() == ".final.77.old"
    clear_what_a_crash_left(tmp_path / "absent")
