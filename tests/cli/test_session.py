"""The stages one after another on the tiny model, and what each leaves behind."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from reftcli.evaluation.chunks import plan_chunks

RUN_FIELDS = {
    "stage", "status", "parent", "started", "ended", "command", "seed", "versions", "commit", "model", "recipe_sha256",
    "data", "world_size", "hardware",
}  # fmt: skip
RL_METRICS = {
    "step", "time", "reward_mean", "accuracy", "kl", "entropy", "completion_length", "eos_rate", "truncated_rate",
    "ungradable", "policy_loss", "value_loss", "clip_fraction", "grad_norm", "lr", "seconds",
}  # fmt: skip
SAMPLE_KEYS = {
    "item_id", "split", "sample_index", "decoding", "prompt", "completion", "predicted_answer", "gold_answer",
    "verdict", "score", "reward", "why", "logprob", "step",
}  # fmt: skip
RESULT_KEYS = {"run", "dataset", "split", "n", "accuracy", "accuracy_ci95", "maj", "pass", "samples_file"}


# What each stage starts from.


def test_rl_takes_the_latest_warmup_of_the_same_form(session: Any) -> None:
    assert session.record("rl")["parent"] == "warm"
    assert session.record("other")["form"] == "pcot"
    assert session.record("other")["started"] >= session.record("warm")["started"]
    assert session.called["rl"].err.startswith("from warmup run warm (tiny, toy, ncot)\n")


def test_rl_of_the_other_form_takes_the_other_warmup(session: Any) -> None:
    called = session.call("rl", "--recipe", "small.yaml", "--cot", "pcot", "--dry-run")
    assert called.out.startswith("from warmup run other ")


def test_rl_without_a_recipe_looks_for_gsm8k_and_names_what_there_is(session: Any) -> None:
    called = session.call("rl")
    assert called.code == 2
    (line,) = called.errors
    assert "first run `reft warmup --model codellama`" in line
    assert "there is other, which can be named" in line


def test_eval_takes_the_latest_rl_run_its_data_and_the_test_split(session: Any) -> None:
    result = session.called["eval"].json
    assert (result["run"], result["dataset"], result["split"], result["n"]) == ("rl", "toy", "test", 12)
    assert session.called["eval"].err.startswith("from rl run rl ")


def test_a_named_run_brings_its_settings(session: Any) -> None:
    called = session.call("rl", "warm", "--dry-run", "--json", "--set", "rl.updates=7", "--keep", "5")
    recipe = called.json["recipe"]
    assert (recipe["rl"]["updates"], recipe["rl"]["keep"]) == (7, 5)
    assert recipe["grading"]["tolerance"] == 3
    assert recipe["data"]["dataset"] == "toy"


@pytest.mark.parametrize("place", ["runs/rl", "runs/rl/final", "runs/rl/checkpoints/step-2"])
def test_from_can_be_a_folder_a_model_in_it_or_a_checkpoint(session: Any, place: str) -> None:
    called = session.call("eval", place, "--dry-run", "--json")
    assert called.code == 0
    assert called.json["recipe"]["data"]["dataset"] == "toy"
    assert called.json["checks"][1] == "weights: found"


def test_a_reward_model_is_no_policy(session: Any) -> None:
    for command in (("eval", "reranked"), ("rl", "reranked", "--dry-run")):
        called = session.call(*command)
        assert called.code == 2
        (line,) = called.errors
        assert "--reward-model reranked" in line


def test_a_policy_is_no_reward_model(session: Any) -> None:
    before = sorted(path.name for path in (session.folder / "runs").iterdir())
    called = session.call("eval", "--majority-vote", "2", "--reward-model", "warm", "--name", "never")
    assert called.code == 2
    assert called.errors == ["reft: runs/warm holds no reward model (stage warmup, finished)"]
    assert sorted(path.name for path in (session.folder / "runs").iterdir()) == before


def test_the_hint_after_warmup_is_a_command_that_finds_it(session: Any) -> None:
    hint = session.called["other"].out.rsplit("Next: reft ", 1)[1].split()
    assert session.call(*hint, "--dry-run").out.startswith("from warmup run other")


# What a run's folder holds.


@pytest.mark.parametrize(
    ("name", "stage", "parent"),
    [("warm", "warmup", None), ("rl", "rl", "warm"), ("reranked", "rerank", "rl")],
)
def test_run_json(session: Any, name: str, stage: str, parent: str | None) -> None:
    record = session.record(name)
    assert set(record) >= RUN_FIELDS
    assert (record["stage"], record["status"], record["parent"]) == (stage, "finished", parent)
    assert (record["seed"], record["world_size"]) == (3, 1)
    assert record["started"] <= record["ended"]
    assert record["versions"]["trl"].startswith("1.12.")
    assert len(record["recipe_sha256"]) == 64
    assert record["data"]["rows"] == {"train": 640, "validation": 8, "test": 12}
    assert len(record["data"]["splits"]["train"]["sha256"]) == 64
    assert record["data"]["splits"]["train"]["path"] == "toy"


def test_run_json_says_which_weights_it_started_from(session: Any) -> None:
    models = {name: session.record(name)["model"] for name in ("warm", "other", "rl")}
    assert models["warm"]["source"] == "embedded"
    assert models["warm"]["sha256"] == models["other"]["sha256"]
    assert models["rl"]["source"] == "folder"
    assert models["rl"]["target"] == str((session.run("warm") / "final").resolve())
    assert len(models["rl"]["sha256"]) == 64
    assert models["rl"]["sha256"] != models["warm"]["sha256"]


def test_recipe_yaml_is_every_setting_and_can_be_used_again(session: Any) -> None:
    from reftcli.recipe.layers import recipe_sha256, resolve_recipe
    from reftcli.recipe.schema import Recipe

    file = session.run("rl") / "recipe.yaml"
    written = yaml.safe_load(file.read_text())
    again = resolve_recipe(str(file), {})
    assert again.model_dump() == written
    assert set(written) == set(Recipe.model_fields)
    assert recipe_sha256(again) == session.record("rl")["recipe_sha256"]
    called = session.call("rl", "--recipe", "runs/rl/recipe.yaml", "--dry-run", "--json")
    assert called.json["recipe"] == written


def test_metrics_of_rl(session: Any) -> None:
    rows = session.rows("rl/metrics.jsonl")
    updates = [row for row in rows if "reward_mean" in row]
    assert [row["step"] for row in updates] == [1, 2]
    assert all(set(row) >= RL_METRICS for row in updates)
    assert [row["step"] for row in rows if "val_accuracy" in row] == [0, 1, 2]
    assert all(0 <= row["val_accuracy"] <= 1 and row["val_n"] == 8 for row in rows if "val_accuracy" in row)


def test_metrics_of_warmup(session: Any) -> None:
    rows = session.rows("warm/metrics.jsonl")
    losses = [row for row in rows if "loss" in row]
    assert [row["step"] for row in losses] == list(range(1, 61))
    assert losses[-1]["loss"] < losses[0]["loss"] / 2
    assert "val_accuracy" in rows[-1]


@pytest.mark.parametrize(
    ("file", "rows", "split"),
    [
        ("rl/samples/test.jsonl", 12 + 12 * 4, "test"),
        ("rl/samples/validation-step-2.jsonl", 8, "validation"),
        ("rl/samples/rollouts.jsonl", 2 * 4, "train"),
        ("warm/samples/validation-step-60.jsonl", 8, "validation"),
        ("reranked/samples/train.jsonl", 24 * 4, "train"),
        ("reranked/samples/test.jsonl", 12 + 12 * 4, "test"),
    ],
)
def test_samples(session: Any, file: str, rows: int, split: str) -> None:
    found = session.rows(file)
    assert len(found) == rows
    assert all(set(row) >= SAMPLE_KEYS for row in found)
    assert {row["split"] for row in found} == {split}
    assert {row["verdict"] for row in found} <= {"correct", "wrong", "no_answer", "ungradable"}
    written = session.folder / "runs" / file
    beside = written.with_suffix(".grader.json")
    specification = json.loads((beside if beside.exists() else written.parent / "grader.json").read_text())
    assert (specification["form"], specification["answer"]) == ("ncot", "number")
    assert specification["policy"]["tolerance"] == 3


def test_rewards_in_samples_follow_the_verdicts(session: Any) -> None:
    rows = session.rows("rl/samples/test.jsonl")
    assert {(row["verdict"], row["score"], row["reward"]) for row in rows} <= {
        ("correct", 1.0, 1.0), ("wrong", 0.0, 0.1), ("no_answer", 0.0, 0.0),
    }  # fmt: skip
    assert len({row["verdict"] for row in rows}) >= 2


def test_models_load_with_from_pretrained(session: Any) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    for place in ("warm/final", "warm/best", "rl/best", "rl/final", "rl/checkpoints/step-2/model"):
        folder = session.folder / "runs" / place
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert len(AutoTokenizer.from_pretrained(folder)) <= model.get_input_embeddings().num_embeddings
    classifier = AutoModelForSequenceClassification.from_pretrained(session.run("reranked") / "final")
    assert classifier.num_labels == 2


def test_checkpoints_are_complete_and_the_newest_are_kept(session: Any) -> None:
    names = sorted(path.name for path in (session.run("rl") / "checkpoints").iterdir())
    assert names == ["step-1", "step-2"]
    assert (session.run("rl") / "checkpoints" / "step-2" / "trainer_state.pt").stat().st_size > 0


def test_nothing_unfinished_is_left(session: Any) -> None:
    left = [path.name for path in session.folder.rglob("*") if "partial" in path.name or path.name.endswith(".old")]
    assert left == []


# Results.


def test_eval_json(session: Any) -> None:
    result = session.called["eval"].json
    assert set(result) >= RESULT_KEYS
    assert list(result["maj"]) == list(result["pass"]) == ["1", "2", "4"]
    for measure in (*result["maj"].values(), *result["pass"].values()):
        low, high = measure["ci95"]
        assert 0 <= low <= measure["accuracy"] <= high <= 1
    low, high = result["accuracy_ci95"]
    assert 0 <= low <= result["accuracy"] <= high <= 1
    assert result["samples_file"] == "runs/rl/samples/test.jsonl"
    assert json.loads((session.run("rl") / "eval" / "test.json").read_text()) == result


def test_accuracy_is_that_of_the_rows(session: Any) -> None:
    greedy = [row for row in session.rows("rl/samples/test.jsonl") if row["decoding"] == "greedy"]
    assert len(greedy) == 12
    expected = sum(row["verdict"] == "correct" for row in greedy) / 12
    assert session.called["eval"].json["accuracy"] == pytest.approx(expected)


def test_vote_finds_the_numbers_of_eval_and_loads_no_torch(session: Any) -> None:
    script = (
        "import sys; from reftcli.cli.app import run; code = run(['vote', '--json']); "
        "print(code, 'torch' in sys.modules, 'transformers' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=session.folder, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stderr.splitlines()[-1] == "0 False False"
    evaluated = session.called["eval"].json
    assert evaluated["sampling"]["temperature"] == 1
    for key in ("grader", "limit", "identity"):
        evaluated.pop(key)
    assert json.loads(done.stdout) == evaluated


def test_vote_takes_a_run_or_a_file_and_sizes(session: Any) -> None:
    by_run = session.call("vote", "rl", "--k", "4,2", "--json").json
    by_file = session.call("vote", "runs/rl/samples/test.jsonl", "--k", "2,4", "--json").json
    assert list(by_run["maj"]) == ["2", "4"]
    assert by_run == by_file
    assert by_run["maj"]["4"] == session.called["eval"].json["maj"]["4"]


def test_vote_by_other_rules(session: Any) -> None:
    plain = session.call("vote", "rl", "--json").json
    assert plain["voting"] == {"weights": "none", "ties": "first", "subsets": 128, "seed": 3}
    by_rule = {}
    for flags in (("--weights", "logprob"), ("--ties", "random"), ("--tolerance", "1000"), ("--tolerance", "0")):
        called = session.call("vote", "rl", *flags, "--json")
        assert called.code == 0, called.err
        by_rule[flags] = called.json
        assert called.json["pass"] == plain["pass"]  # verdicts stay as graded
        assert called.json["accuracy"] == plain["accuracy"]
    assert by_rule["--weights", "logprob"]["voting"]["weights"] == "logprob"
    assert by_rule["--weights", "logprob"]["maj"]["1"] == plain["maj"]["1"]
    assert session.call("vote", "rl", "--ties", "random", "--json").json == by_rule["--ties", "random"]
    unscored = session.call("vote", "rl", "--weights", "reward")
    assert unscored.code == 4
    assert "no rm_score to weight" in unscored.errors[-1]
    scored = session.call("vote", "reranked", "--weights", "reward", "--json").json
    assert scored["maj"] == scored["weighted"]
    table = session.call("vote", "rl", "--weights", "logprob", "--ties", "random").out
    assert "weighted by" in table
    assert "random" in table


def test_vote_without_a_run_takes_the_rl_run_not_the_later_rerank(session: Any) -> None:
    assert session.call("vote", "--json").json["run"] == "rl"


def test_a_bare_samples_file_is_graded_as_asked(session: Any, tmp_path: Path) -> None:
    bare = tmp_path / "bare.jsonl"
    bare.write_bytes(session.kept["samples"])
    as_number = session.call("vote", bare, "--json").json
    assert (as_number["run"], as_number["n"]) == ("", 12)
    as_text = session.call("vote", bare, "--answer", "text", "--json").json
    assert as_text["accuracy"] == as_number["accuracy"]  # verdicts are the file's; only the votes are counted again


def test_rerank_picks_among_the_saved_candidates(session: Any) -> None:
    result = session.called["rerank"].json
    assert result["run"] == "reranked"
    assert "candidates: those in runs/rl/samples/test.jsonl" in session.called["rerank"].errors
    assert not (session.run("reranked") / "samples" / "candidates.jsonl").exists()
    assert result["sampling"] == session.called["eval"].json["sampling"]
    assert list(result["rerank"]) == ["1", "2", "4"]
    assert result["maj"] == session.called["eval"].json["maj"]
    assert result["rerank"]["1"]["accuracy"] == pytest.approx(result["maj"]["1"]["accuracy"])
    reward_model = result["reward_model"]
    assert 0 < reward_model["share_correct"] < 1
    assert reward_model["training_samples"] > 0
    assert session.record("reranked")["reward_model_of"] == str((session.run("warm") / "final").resolve())


def test_a_reward_model_in_eval(session: Any) -> None:
    called = session.call(
        "eval", "rl", "--majority-vote", "2", "--reward-model", "reranked", "--name", "picked", "--json"
    )
    assert called.code == 0, called.err
    assert list(called.json["rerank"]) == ["1", "2"]
    assert session.record("picked")["status"] == "finished"
    assert session.record("picked")["parent"] == "rl"


def test_report(session: Any) -> None:
    page = (session.folder / session.called["report"].json["report"]).read_text()
    assert session.called["report"].json["report"] == "runs/rl/report.html"
    result = session.called["eval"].json
    for shown in ("maj@4", f"{result['accuracy']:.1%}", "tolerance: 3.0", "How many"):
        assert shown in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


def test_runs(session: Any) -> None:
    rows = {row["run"]: row for row in session.call("runs", "--json").json["runs"]}
    assert {"warm", "other", "rl", "reranked"} <= set(rows)
    assert (rows["rl"]["stage"], rows["rl"]["status"], rows["rl"]["parent"]) == ("rl", "finished", "warm")
    table = session.call("runs").out
    assert all(name in table for name in ("warm", "other", "reranked", "toy ncot"))


def test_compare(session: Any) -> None:
    assert session.call("eval", "warm").code == 0
    found = session.call("compare", "rl", "warm", "--json").json
    greedy = {
        name: [
            r["verdict"] == "correct" for r in session.rows(f"{name}/samples/test.jsonl") if r["decoding"] == "greedy"
        ]
        for name in ("rl", "warm")
    }
    difference = (sum(greedy["rl"]) - sum(greedy["warm"])) / 12
    assert [value for value in found.values() if isinstance(value, float) and value == pytest.approx(difference)]
    assert found["sentence"] == session.call("compare", "rl", "warm").out.strip()
    called = session.call("compare", "rl", "warm", "--measure", "maj@4")
    assert called.code == 2
    assert "warm has no maj@4; it has greedy" in called.err


# A second evaluation.


@contextlib.contextmanager
def unchanged(*places: Path) -> Iterator[None]:
    before = {path: path.read_bytes() for place in places for path in place.rglob("*") if path.is_file()}
    yield
    assert {path: path.read_bytes() for path in before} == before


def test_a_second_eval_leaves_the_run_as_it_was(session: Any) -> None:
    run = session.run("rl")
    record = session.record("rl")
    with unchanged(run / "best", run / "final", run / "checkpoints"):
        again = session.call("eval", "--majority-vote", "4", "--json")
    assert again.json == {**session.called["eval"].json, "samples_file": "runs/rl/samples/test-2.jsonl"}
    assert (run / "samples" / "test-2.jsonl").read_bytes() == session.kept["samples"]
    assert session.record("rl") == record
    assert (run / "samples" / "test.jsonl").read_bytes() == session.kept["samples"]


@contextlib.contextmanager
def stopped_after(chunks: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if Ctrl-C were pressed in the middle of a chunk. A chunk is 4 completions."""

    class Asked:
        looks = 0

        def __bool__(self) -> bool:
            self.looks += 1
            return self.looks > chunks

    @contextlib.contextmanager
    def asked(say: object) -> Iterator[Asked]:
        yield Asked()

    with monkeypatch.context() as patch:
        patch.setattr("reftcli.evaluation.collecting.stop_on_signal", asked)
        yield


@pytest.fixture
def chunks_of_4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "reftcli.evaluation.collecting.plan_chunks", lambda problems, passes, size: plan_chunks(problems, passes, 4)
    )


def test_a_stopped_eval_is_gone_on_with(session: Any, chunks_of_4: None, monkeypatch: pytest.MonkeyPatch) -> None:
    run = session.run("rl")
    command = ("eval", "rl", "--majority-vote", "4")
    with stopped_after(5, monkeypatch):
        called = session.call(*command)
    assert called.code == 130
    assert called.errors[-1] == (
        "reft: stopped; 20 of 60 completions are kept beside runs/rl/samples/test-3.jsonl; "
        "the same command with --resume goes on"
    )
    assert (run / "samples" / "test.jsonl").read_bytes() == session.kept["samples"]
    other = session.call("eval", "rl", "--majority-vote", "3", "--resume")
    assert other.code == 2
    assert len(other.errors) == 2
    assert '(samples a problem: {"greedy": 1, "sampled": 4}, now {"greedy": 1, "sampled": 3}' in other.errors[-1]
    with stopped_after(2, monkeypatch):  # twice: the same command needs no --resume
        assert "28 of 60 completions are kept" in session.call(*command).errors[-1]
    finished = session.call("eval", "--resume", "--json")
    assert finished.code == 0, finished.err
    assert "going on: 28 of 60 completions are there already" in finished.err
    assert finished.json == {**session.called["eval"].json, "samples_file": "runs/rl/samples/test-3.jsonl"}
    for row, before in zip(session.rows("rl/samples/test-3.jsonl"), session.rows("rl/samples/test.jsonl"), strict=True):
        assert row == {**before, "logprob": pytest.approx(before["logprob"], abs=1e-3)}  # chunks were larger before
    assert not list((run / "samples").glob("*.partial*"))
    nothing = session.call("eval", "--resume")
    assert (nothing.code, nothing.errors[-1]) == (2, "reft: no unfinished evaluation in runs; leave out --resume")


@pytest.mark.parametrize("again", [("tiny", "--recipe", "small.yaml", "--limit", "7", "--majority-vote", "2"), ()])
def test_an_eval_of_its_own_is_gone_on_with(
    again: tuple[str, ...], session: Any, chunks_of_4: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("eval", "tiny", "--recipe", "small.yaml", "--limit", "7", "--majority-vote", "2")
    name = f"whole-{len(again)}"
    assert session.call(*asked, "--name", name).code == 0
    with stopped_after(2, monkeypatch):
        assert session.call(*asked, "--name", f"cut-{len(again)}").code == 130
    assert session.record(f"cut-{len(again)}")["status"] == "interrupted"
    finished = session.call("eval", *again, "--resume", "--json")
    assert finished.code == 0, finished.err
    assert finished.json["run"] == f"cut-{len(again)}"
    assert session.record(f"cut-{len(again)}")["status"] == "finished"
    samples = [(session.run(run) / "samples" / "test.jsonl").read_bytes() for run in (name, f"cut-{len(again)}")]
    assert samples[0] == samples[1]


def test_a_named_eval_of_a_run_is_gone_on_with_by_resume_alone(
    session: Any, chunks_of_4: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stopped_after(2, monkeypatch):
        assert session.call("eval", "rl", "--majority-vote", "3", "--name", "named").code == 130
    validation = session.call("eval", "--resume", "--split", "validation")  # asks for something
    assert validation.code == 2
    assert "no unfinished evaluation 'validation' in runs/rl" in validation.errors[-1]
    finished = session.call("eval", "--resume", "--json")
    assert finished.code == 0, finished.err
    assert (finished.json["run"], finished.json["samples_file"]) == ("named", "runs/named/samples/test.jsonl")
    assert session.record("named")["status"] == "finished"


def test_a_file_is_used_whole_and_the_runs_own_samples_stay(session: Any) -> None:
    rows = [{"question": f"Ann has {n} eggs. She buys 3. How many?", "answer": f"so\n#### {n + 3}"} for n in range(9)]
    file = session.folder / "test.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    called = session.call("eval", "--dataset", "test.jsonl", "--json")
    assert called.json["n"] == 9
    assert called.json["samples_file"] == "runs/rl/samples/file-test.jsonl"
    assert {row["gold_answer"] for row in session.rows("rl/samples/file-test.jsonl")} == {str(n + 3) for n in range(9)}
    assert (session.run("rl") / "samples" / "test.jsonl").read_bytes() == session.kept["samples"]
    dry = session.call("eval", "--dataset", "test.jsonl", "--dry-run")
    assert "problems of test.jsonl (ncot): 9" in dry.out


def test_limit_and_fail_under(session: Any) -> None:
    limited = session.call("eval", "warm", "--limit", "5", "--name", "limited", "--json", "--fail-under", "0")
    assert (limited.code, limited.json["n"]) == (0, 5)
    gate = session.call("eval", "runs/other", "--limit", "2", "--name", "gated", "--json", "--fail-under", "1")
    assert gate.code == 3
    assert gate.json["accuracy"] < 1
    assert gate.errors[-1].startswith("reft: greedy accuracy 0.0000 is below --fail-under 1")


def test_eval_of_a_bare_model_makes_a_run_of_its_own(session: Any) -> None:
    called = session.call("eval", "tiny", "--recipe", "small.yaml", "--limit", "2", "--name", "bare", "--json")
    assert called.json["run"] == "bare"
    record = session.record("bare")
    assert (record["stage"], record["status"], record["parent"]) == ("eval", "finished", None)
    assert record["ended"] is not None


def test_an_eval_of_its_own_that_fails_says_so(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from reftcli.errors import RuntimeFailure

    def fail(*_: object) -> None:
        raise RuntimeFailure("no")

    monkeypatch.setattr("reftcli.evaluation.stages.evaluate", fail)
    assert session.call("eval", "tiny", "--recipe", "small.yaml", "--name", "failing").code == 1
    assert session.record("failing")["status"] == "failed"


# Stopping and going on.


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], limit_s: float = 120) -> None:
    until = time.monotonic() + limit_s
    while not condition():
        assert process.poll() is None, "it ended before it could be stopped"
        assert time.monotonic() < until
        time.sleep(0.02)


def test_ctrl_c_keeps_everything_and_resume_finishes(session: Any) -> None:
    runs_dir = session.folder / "stopped-runs"
    run = runs_dir / "stopped"
    settings = ("--set", "rl.updates=30", "--set", "rl.validate_every=100", "--set", "rl.checkpoint_every=100")
    arguments = ["rl", "runs/warm", "--name", "stopped", "--runs-dir", "stopped-runs", *settings]
    process = subprocess.Popen(
        [sys.executable, "-m", "reftcli", *arguments],
        cwd=session.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        metrics = run / "metrics.jsonl"
        _wait_for(lambda: metrics.exists() and metrics.read_text().count("reward_mean") >= 2, process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    stopped_at = int(err.splitlines()[-1].removeprefix("reft: stopped after update ").split()[0])
    assert err.splitlines()[-1] == f"reft: stopped after update {stopped_at} of 30; go on with --resume"
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "interrupted"
    assert record["command"] == " ".join(["reft", *arguments])
    assert [path.name for path in (run / "checkpoints").iterdir()] == [f"step-{stopped_at}"]
    assert (run / "checkpoints" / f"step-{stopped_at}" / "model" / "config.json").is_file()

    assert (
        f"going on with stopped-runs/stopped from step {stopped_at}"
        in session.call("rl", "--runs-dir", runs_dir.name, "--resume", "--dry-run").out
    )
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    other = session.call("rl", "--runs-dir", runs_dir.name, "--resume", "--set", "rl.updates=3")
    assert other.code == 2
    assert "goes on with its own settings" in other.err

    resumed = session.call("rl", "--runs-dir", runs_dir.name, "--resume", "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.json["updates"] == 30
    assert f"from step {stopped_at}" in resumed.err
    after = json.loads((run / "run.json").read_text())
    assert (after["status"], after["started"]) == ("finished", record["started"])
    steps = [row["step"] for row in session.rows("../stopped-runs/stopped/metrics.jsonl") if "reward_mean" in row]
    assert steps == list(range(1, 31))

    again = session.call("rl", "--runs-dir", runs_dir.name, "--resume", "--name", "stopped")
    assert again.code == 0
    assert again.errors == ["reft: stopped-runs/stopped has finished; there is nothing left to do"]


def test_resume_wants_a_run_of_the_same_stage(session: Any) -> None:
    called = session.call("rl", "--resume", "--name", "warm")
    assert called.code == 2
    assert called.errors == ["reft: runs/warm is a warmup run, not rl"]
