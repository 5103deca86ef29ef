"""Bad input: one line on standard error for each thing that is wrong, the right exit code, nothing left behind."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reftcli.cli.app import run as run_app

Reft = Callable[..., Any]
TINY = ("warmup", "--model", "tiny", "--cot", "ncot")
GOOD_ROW = {"question": "Ann has 2 eggs. She buys 3. How many?", "answer": "2 + 3 = 5\n#### 5"}


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def fails(reft: Reft, tmp_path: Path) -> Callable[..., str]:
    """Calls `reft`, which must fail with this code, say one line, and leave the folder as it was."""

    def check(code: int, *arguments: object, lines: int = 1) -> str:
        before = files_below(tmp_path)
        called = reft(*arguments)
        assert called.code == code, called.err
        assert called.out == ""
        assert len(called.errors) == lines, called.err
        assert all(line.startswith("reft: ") for line in called.errors)
        assert "Traceback" not in called.err
        assert "unexpected" not in called.err
        assert files_below(tmp_path) == before
        assert not (tmp_path / "runs").exists() or any((tmp_path / "runs").iterdir())
        return str(called.err)

    return check


def write_rows(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


# Nothing to start from: one line names the command to run first.


@pytest.mark.parametrize(
    ("command", "first"),
    [
        (("rl", "--dataset", "gsm8k"), "`reft warmup --model codellama`"),
        (("rl", "--dataset", "svamp", "--cot", "ncot"), "`reft warmup --model codellama --dataset svamp --cot ncot`"),
        (("rl", "--recipe", "tiny/toy-ncot"), "`reft warmup --recipe tiny/toy-ncot`"),
        (("eval",), "`reft rl`"),
        (("eval", "--majority-vote", "100"), "`reft rl`"),
        (("vote",), "`reft rl`"),
        (("rerank",), "`reft rl`"),
        (("report",), "`reft rl`"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_nothing_to_start_from(fails: Callable[..., str], command: tuple[str, ...], first: str) -> None:
    assert f"first run {first}" in fails(2, *command)


@pytest.mark.parametrize("stage", ["warmup", "rl"])
def test_nothing_to_resume(fails: Callable[..., str], stage: str) -> None:
    assert f"no unfinished {stage} run" in fails(2, stage, "--resume")
    assert "no run 'gone'" in fails(2, stage, "--resume", "--name", "gone")


# Flags.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("frobnicate",), "No such command 'frobnicate'"),
        (("warmup", "--modell", "tiny"), "No such option: --modell"),
        (("warmup",), "which model?"),
        (("warmup", "--model", "codelama"), "did you mean codellama?"),
        (("warmup", "--model", "./no/such/folder"), "no such folder"),
        (("warmup", "--model", "tiny", "--dataset", "gsm8"), "did you mean gsm8k?"),
        (("warmup", "--model", "tiny", "--dataset", "no/such.jsonl"), "no such file: no/such.jsonl"),
        (("warmup", "--model", "tiny", "--train", "absent.json"), "no such file: absent.json"),
        (("warmup", "--model", "tiny", "--cot", "xcot"), "Invalid value for '--cot'"),
        (("warmup", "--recipe", "tiny/toy-nco"), "did you mean tiny/toy-ncot?"),
        (("warmup", "--model", "tiny", "--dataset", "toy", "--seed", "-1"), "seed: must be greater than"),
        (("warmup", "--model", "tiny", "--report-to", "wandbb"), "report_to: no tracker 'wandbb'; there are"),
        (("rl", "nothing-like-it"), "no run 'nothing-like-it' in runs, and no model"),
        (("eval", "nothing-like-it"), "no run 'nothing-like-it' in runs, and no model"),
        (("rerank", "tiny", "--dataset", "toy"), "rerank starts from a run"),
        (("eval", "--majority-vote", "0"), "--majority-vote"),
        (("eval", "--fail-under", "1.5"), "--fail-under"),
        (("eval", "tiny", "--dataset", "toy", "--reward-model", "x"), "add --majority-vote K"),
        (("eval", "tiny", "--dataset", "toy", "--majority-vote", "2", "--reward-model", "x"), "no run 'x'"),
        (("eval", "tiny", "--dataset", "toy", "--reward-model", "x", "--dry-run"), "add --majority-vote K"),
        (
            ("eval", "tiny", "--dataset", "toy", "--majority-vote", "2", "--reward-model", "x", "--dry-run"),
            "no run 'x'",
        ),
        (("vote", "absent.jsonl"), "no samples file 'absent.jsonl'"),
        (("vote", "absent"), "no run 'absent'"),
        (("report", "absent"), "no run 'absent'"),
        (("compare", "a", "b"), "no run 'a'"),
        (("compare", "a.jsonl", "b.jsonl"), "no samples file 'a.jsonl'"),
        (("grade", "absent.jsonl"), "absent.jsonl"),
        (("data", "show", "toy", "--split", "dev"), "--split 'dev'"),
        (("recipes", "show", "absent"), "no recipe 'absent'"),
        (("recipes", "show", "../pyproject"), "no recipe '../pyproject'"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_usage(fails: Callable[..., str], arguments: tuple[str, ...], said: str) -> None:
    assert said in fails(2, *arguments)


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    "call", [(*TINY, "--dataset", "toy"), ("rl", "tiny", "--dataset", "toy", "--cot", "ncot")], ids=["warmup", "rl"]
)
def test_a_tracker_that_is_not_installed(
    call: tuple[str, ...], dry_run: tuple[str, ...], fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("wandb", "tensorboard", "tensorboard.summary"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("reftcli.models.load.load_model", lambda source: pytest.fail("a model was loaded"))
    said = fails(2, *call, "--report-to", "tensorboard,wandb", *dry_run)
    assert "--report-to tensorboard,wandb: not usable here" in said
    assert "pip install tensorboard wandb" in said


@pytest.mark.parametrize("group", [(), ("recipes",), ("data",)])
def test_a_group_alone_prints_its_help(reft: Reft, group: tuple[str, ...]) -> None:
    called = reft(*group)
    assert (called.code, called.out) == (2, "")
    assert called.err.startswith(f"Usage: {' '.join(['reft', *group])} ")


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "/tmp/x", "../x", "x" * 300])
def test_a_run_is_a_plain_folder_name(fails: Callable[..., str], name: str) -> None:
    assert "must be a plain folder name" in fails(2, *TINY, "--dataset", "toy", "--name", name)


@pytest.mark.parametrize("k", ["5,x", "", "0", "1,-2", "1.5"])
def test_sizes_of_vote(fails: Callable[..., str], tmp_path: Path, k: str) -> None:
    row = {"item_id": "a", "sample_index": 0, "decoding": "sampled", "predicted_answer": "5", "verdict": "correct"}
    file = write_rows(tmp_path / "samples.jsonl", row)
    assert f"--k {k!r}" in fails(2, "vote", file, "--k", k)


def test_more_votes_than_samples(fails: Callable[..., str], tmp_path: Path) -> None:
    row = {"item_id": "a", "sample_index": 0, "decoding": "sampled", "predicted_answer": "5", "verdict": "correct"}
    file = write_rows(tmp_path / "samples.jsonl", row)
    assert "has 1 samples per problem" in fails(2, "vote", file, "--k", "2")


# Recipes.


def test_every_wrong_setting_of_a_file_is_said_at_once(fails: Callable[..., str], tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("rl: {klcoef: 0.1, gamma: 2}\nwarmp: {batch_size: 2}\nseed: many\n")
    said = fails(2, "recipes", "validate", recipe, lines=4)
    assert f"{recipe}: unknown key rl.klcoef; did you mean rl.kl_coef?" in said
    assert "rl.gamma: must be less than or equal to 1 (got 2)" in said
    assert "unknown key warmp" in said
    assert "seed: must be a valid integer" in said
    fails(2, *TINY, "--dataset", "toy", "--recipe", recipe, lines=4)


@pytest.mark.parametrize("content", ["- a\n- b\n", "rl: [1\n", "just words\n", "\x00"])
def test_a_recipe_that_is_no_mapping(fails: Callable[..., str], tmp_path: Path, content: str) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(content)
    assert str(recipe) in fails(2, "recipes", "validate", recipe)


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("rl.klcoef=1", "did you mean rl.kl_coef?"),
        ("kl_coef=1", "did you mean rl.kl_coef?"),
        ("rl.kl_coef=-0.1", "rl.kl_coef: must be greater than or equal to 0 (got -0.1)"),
        ("rl.kl_coef=.inf", "rl.kl_coef: must be a finite number"),
        ("rl.updates=many", "rl.updates: must be a valid integer"),
        ("rl.updates=1.5", "rl.updates: must be a valid integer"),
        ("rl=5", "rl: must be"),
        ("rl.kl_coef", "expected key=value"),
        ("=1", "expected key=value"),
        ("rl.kl_coef=[1", "not YAML"),
        ("rl.mini_batch_size=7", "batch_size 32 is not a multiple of mini_batch_size 7"),
        ("warmup.stop_epoch=90", "stop_epoch 90 is after the schedule's end"),
        ("prompt.template=absent.txt", "neither paper, chat nor a file"),
    ],
)
def test_set(fails: Callable[..., str], assignment: str, said: str) -> None:
    assert said in fails(2, *TINY, "--dataset", "toy", "--set", assignment)


def test_a_template_without_question(fails: Callable[..., str], tmp_path: Path) -> None:
    template = tmp_path / "mine.txt"
    template.write_text("Say something.")
    setting = ("--set", f"prompt.template={template}")
    assert "does not contain {question}" in fails(2, *TINY, "--dataset", "toy", *setting)
    assert "does not contain {question}" in fails(2, *TINY, "--dataset", "toy", *setting, "--dry-run")


# Data.


@pytest.mark.parametrize("command", ["warmup", "eval", "data check", "warmup --dry-run"])
def test_a_broken_line(fails: Callable[..., str], tmp_path: Path, command: str) -> None:
    data = write_rows(tmp_path / "mine.jsonl", GOOD_ROW, '{"question": "cut o', GOOD_ROW)
    calls = {
        "warmup": (*TINY, "--dataset", data),
        "warmup --dry-run": (*TINY, "--dataset", data, "--dry-run"),
        "eval": ("eval", "tiny", "--cot", "ncot", "--dataset", data),
        "data check": ("data", "check", data, "--cot", "ncot"),
    }
    assert f"{data}:2: not JSON" in fails(4, *calls[command])


def test_a_row_without_a_gold_answer(fails: Callable[..., str], tmp_path: Path) -> None:
    data = write_rows(tmp_path / "mine.jsonl", GOOD_ROW, {"question": "How many?", "answer": None})
    said = fails(4, *TINY, "--dataset", data)
    assert f"{data}:2" in said
    assert "1 of 2 rows cannot be used" in said


@pytest.mark.parametrize("content", ["", "[]", "\n\n"])
def test_a_file_without_rows(fails: Callable[..., str], tmp_path: Path, content: str) -> None:
    data = tmp_path / "mine.json"
    data.write_text(content)
    assert "no rows" in fails(4, *TINY, "--dataset", data)


def test_no_problem_left_after_filtering(fails: Callable[..., str], tmp_path: Path) -> None:
    # As numbers, choices whose right option is no number are dropped: here all of them.
    row = {"Problem": "Which?", "Rationale": "r", "options": "a ) red , b ) blue", "correct": "a"}
    data = write_rows(tmp_path / "mine.jsonl", {**row, "annotated_formula": "", "linear_formula": ""})
    assert "no problem is left" in fails(4, *TINY, "--dataset", data, "--set", "data.answer=number")


def test_samples_that_are_no_samples(fails: Callable[..., str], tmp_path: Path) -> None:
    file = write_rows(tmp_path / "samples.jsonl", {"item_id": "a"})
    assert f"{file}:1: sample_index is missing" in fails(4, "vote", file)


def test_completions_that_cannot_be_graded_as_rows(fails: Callable[..., str], tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", {"completion": "5", "gold_answer": "5"}, {"completion": "5"})
    assert f"{file}:2: gold_answer" in fails(4, "grade", file)


@pytest.mark.parametrize(
    "fields",
    [
        {"sample_index": 2**70},
        {"logprob": 10**400},
        {"rm_score": -1.0},
        {"rm_score": 7.0},
        {"item_id": "\ud800"},
    ],
    ids=lambda fields: next(iter(fields)),
)
@pytest.mark.parametrize("flags", [(), ("--ties", "random"), ("--json",)], ids=" ".join)
def test_values_that_no_sample_has(
    fails: Callable[..., str], tmp_path: Path, fields: dict[str, object], flags: tuple[str, ...]
) -> None:
    row = {"item_id": "a", "sample_index": 0, "decoding": "sampled", "predicted_answer": "5", "verdict": "correct"}
    file = write_rows(tmp_path / "samples.jsonl", {**row, **fields})
    assert f"{file}:1: {next(iter(fields))} must be" in fails(4, "vote", file, *flags)


@pytest.mark.parametrize("policy", [None, [], "loose"])
def test_a_grader_file_without_a_policy(fails: Callable[..., str], tmp_path: Path, policy: object) -> None:
    row = {"item_id": "a", "sample_index": 0, "decoding": "sampled", "predicted_answer": "5", "verdict": "correct"}
    file = write_rows(tmp_path / "samples.jsonl", row)
    grader = {"type": "answer", "form": "ncot", "answer": "number", "policy": policy}
    (tmp_path / "samples.grader.json").write_text(json.dumps(grader))
    assert "policy must be an object" in fails(2, "vote", file, "--tolerance", "0.1")


@pytest.mark.parametrize("command", [("vote", "samples.jsonl"), ("compare", "a", "b")], ids=lambda command: command[0])
def test_a_seed_below_zero(fails: Callable[..., str], command: tuple[str, ...]) -> None:
    assert "--seed" in fails(2, *command, "--seed", "-1")


@pytest.mark.parametrize("content", ["", "[]", "\n \n"])
@pytest.mark.parametrize("flags", [(), ("--dry-run",), ("--out", "grades.jsonl")], ids=" ".join)
def test_nothing_to_grade(fails: Callable[..., str], tmp_path: Path, content: str, flags: tuple[str, ...]) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(content)
    assert f"{file}: no row to grade" in fails(4, "grade", file, *flags)


# Names and disks.


def test_a_run_of_that_name_exists(fails: Callable[..., str], tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("keep me")
    assert "mine exists" in fails(2, *TINY, "--dataset", "toy", "--name", "mine")


def test_a_file_of_that_name_exists(fails: Callable[..., str], tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("keep me")
    assert "mine.yaml exists" in fails(2, "recipes", "copy", "tiny/toy-ncot", mine)
    assert "is a file, not a folder" in fails(1, "recipes", "copy", "tiny/toy-ncot", mine / "below.yaml")


def test_a_runs_folder_that_is_a_file(reft: Reft, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep me")
    called = reft(*TINY, "--dataset", "toy", "--runs-dir", "mine")
    assert (called.code, called.out) == (2, "")
    assert called.errors[-1] == "reft: mine is not a folder; choose another --runs-dir"
    assert files_below(tmp_path) == {"mine": b"keep me"}


def test_grades_where_no_file_can_be_made(reft: Reft, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", {"completion": "the answer is 5", "gold_answer": "5"})
    called = reft("grade", file, "--out", "/proc/x")
    assert (called.code, called.out) == (1, "")
    assert called.errors[-1] == "reft: /proc/x: no file can be made there; choose another place"


def test_results_that_cannot_be_read(reft: Reft, tmp_path: Path, session: Any) -> None:
    shutil.copytree(session.run("rl"), tmp_path / "runs" / "rl")
    broken = Path("runs/rl/eval/test-6.json")
    broken.write_text('{"n": 1')
    shutil.copy("runs/rl/samples/test.jsonl", "runs/rl/samples/test-6.jsonl")
    for command in (("report", "rl"), ("vote", "rl"), ("compare", "rl", "rl")):
        called = reft(*command)
        assert (called.code, len(called.errors)) == (4, 1), called.err
        assert f"reft: {broken}: cannot be read" in called.err


def test_a_read_only_runs_folder(reft: Reft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    called = reft(*TINY, "--dataset", "toy", "--name", "mine")
    assert (called.code, called.out) == (1, "")
    (line,) = [line for line in called.errors if line.startswith("reft: ")]
    assert line.startswith("reft: runs/mine: the file system is read-only")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_earlier_files_alone(
    reft: Reft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, session: Any
) -> None:
    shutil.copytree(session.run("rl"), tmp_path / "runs" / "rl")
    before = files_below(tmp_path)

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("reftcli.runs.files.os.fsync", refuse)
    called = reft("report", "rl")
    assert called.code == 1
    (line,) = called.errors
    assert "report.html: the disk is full" in line
    assert files_below(tmp_path) == before


def test_a_disk_that_fills_up_during_training(tmp_path: Path) -> None:
    """On a file system of 300 kB: what was written before stays, the run is marked as failed, one line says why."""
    disk = tmp_path / "disk"
    disk.mkdir()
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=300k tmpfs {disk}"
    if shutil.which("unshare") is None or subprocess.run([*inside, mount], capture_output=True, check=False).returncode:
        pytest.skip("no file system of our own can be mounted here")
    sizes = "--set data.train_size=16 --set data.validation_size=2 --set warmup.batch_size=8"
    train = f"{sys.executable} -m reftcli warmup --recipe tiny/toy-ncot {sizes} --runs-dir {disk}/runs --name mine"
    show = f"echo $?; cat {disk}/runs/mine/run.json; test -s {disk}/runs/mine/metrics.jsonl && echo metrics are there"
    done = subprocess.run(
        [*inside, f"{mount} && {train}; {show}"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    code, rest = done.stdout.split("\n", 1)
    assert code == "1"
    record = json.loads(rest.removesuffix("metrics are there\n"))
    assert record["status"] == "failed"
    assert "disk is full" in record["error"]
    assert rest.endswith("metrics are there\n")
    assert [line for line in done.stderr.splitlines() if line.startswith("reft: ")] == [f"reft: {record['error']}"]
    assert "Traceback" not in done.stderr


# The boundary itself.


def test_an_error_nobody_expected_is_one_line_and_a_traceback_only_with_debug(
    reft: Reft, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> list[str]:
        raise ZeroDivisionError("first line\nsecond line")

    monkeypatch.setattr("reftcli.recipe.library.recipe_names", fail)
    called = reft("recipes", "ls")
    assert called.code == 1
    assert called.errors == ["reft: unexpected ZeroDivisionError: first line (--debug shows where)"]
    assert "Traceback" in reft("recipes", "ls", "--debug").err


def test_ctrl_c_before_anything_is_at_stake(reft: Reft, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr("reftcli.recipe.library.recipe_names", interrupted)
    called = reft("recipes", "ls")
    assert (called.code, called.err) == (130, "reft: interrupted\n")


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m reftcli data show toy --limit 400 | head -n 1"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_run_returns_plain_numbers() -> None:
    assert type(run_app(["recipes", "show", "absent"])) is int
