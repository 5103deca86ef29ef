"""Votes, picks and comparisons among several evaluations of a run: which one is taken, and that it is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from reftcli.evaluation.data import data_request
from reftcli.models.load import files_sha256
from reftcli.models.source import resolve_model
from reftcli.problems.load import load_problem_sets
from reftcli.recipe.layers import check_recipe
from reftcli.sampling.torch_sampler import TorchSampler


@pytest.fixture
def runs(session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The session's runs as they were after one evaluation of each."""
    shutil.copy(session.folder / "small.yaml", tmp_path)
    for name in ("warm", "rl", "reranked"):
        copy = tmp_path / "runs" / name
        shutil.copytree(session.run(name), copy)
        for file in (*(copy / "samples").iterdir(), *(copy / "eval").glob("*")):
            if name != "warm" and file.name.split(".")[0] not in ("test", "train", "grader"):
                file.unlink()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


@pytest.fixture
def reft(runs: Path, reft: Any) -> Any:
    return reft


def no_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TorchSampler, "sample", lambda *_, **__: pytest.fail("sampled"))


def test_other_weights_have_a_label_of_their_own(reft: Any, runs: Path) -> None:
    before = reft("vote", "rl", "--json").json
    hot = ("--majority-vote", "4", "--set", "sampling.temperature=3", "--json")
    checkpoint = reft("eval", "runs/rl/checkpoints/step-1", *hot)
    assert checkpoint.json["samples_file"] == "runs/rl/samples/step-1-test.jsonl"
    assert checkpoint.json["sampling"]["temperature"] == 3
    final = reft("eval", "runs/rl/final", "--limit", "2", "--json")
    assert final.json["samples_file"] == "runs/rl/samples/final-test.jsonl"
    own = reft("eval", "runs/rl/best", "--limit", "2", "--json")
    assert own.json["samples_file"] == "runs/rl/samples/test-2.jsonl"
    assert (own.json["limit"], own.json["n"]) == (2, 2)
    model = files_sha256(resolve_model("runs/rl/checkpoints/step-1/model"))
    assert checkpoint.json["identity"]["weights"] == model
    assert reft("vote", "rl", "--json").json == before
    named = reft("eval", "runs/rl/checkpoints/step-1", "--limit", "2", "--name", "step", "--json")
    assert named.json["samples_file"] == "runs/step/samples/test.jsonl"


def test_the_newest_with_enough_samples_is_taken_and_said(reft: Any) -> None:
    warmer = ("--set", "sampling.temperature=0.5", "--seed", "11")
    limited = reft("eval", "rl", "--majority-vote", "2", "--limit", "3", *warmer, "--json")
    assert limited.code == 0, limited.err
    newest = reft("vote", "rl", "--json")
    assert newest.json["n"] == 3
    assert newest.errors == [
        "taking runs/rl/samples/test-2.jsonl: 3 problems (--limit 3), 2 samples each at temperature 0.5, top_k off, "
        "top_p 1.0, seed 11"
    ]
    # The same numbers as the evaluation's, though its seed is not the run's.
    left_out = ("grader", "limit", "identity")
    assert newest.json == {key: value for key, value in limited.json.items() if key not in left_out}
    assert newest.json["voting"]["seed"] == 11
    older = reft("vote", "rl", "--k", "4", "--json")
    assert (older.json["n"], older.json["sampling"]["temperature"]) == (12, 1.0)
    assert older.errors[0].startswith("taking runs/rl/samples/test.jsonl: 12 problems, 4 samples each at temperature 1")
    assert "--k 5: runs/rl/samples/test-2.jsonl has 2 samples" in reft("vote", "rl", "--k", "5").errors[-1]
    compared = reft("compare", "rl", "reranked", "--measure", "maj@4", "--json")
    assert compared.json["n"] == 12
    assert [line.split(":")[0] for line in compared.errors] == [
        "taking runs/rl/samples/test.jsonl",
        "taking runs/reranked/samples/test.jsonl",
    ]
    greedy = reft("compare", "rl", "reranked", "--json")
    assert greedy.json["n"] == 3
    assert greedy.errors[0].startswith("taking runs/rl/samples/test-2.jsonl: 3 problems (--limit 3)")


def test_a_vote_states_how_its_samples_were_drawn(reft: Any) -> None:
    assert "sampled at temperature 1.0, top_k off, top_p 1.0, seed 3" in reft("vote", "rl").err
    by_file = reft("vote", "runs/rl/samples/test.jsonl", "--json")
    assert by_file.json["sampling"]["seed"] == 3
    assert by_file.errors == []  # nothing was chosen


def test_a_file_of_another_name_is_found_where_it_is_all_there_is(reft: Any, runs: Path) -> None:
    rows = [{"question": f"Ann has {n} eggs. She buys 3. How many?", "answer": f"so\n#### {n + 3}"} for n in range(4)]
    Path("other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ("--recipe", "small.yaml", "--dataset", "other.jsonl", "--majority-vote", "2")
    for name in ("bare", "bare-2"):
        assert reft("eval", "tiny", *asked, "--name", name).code == 0
    found = reft("vote", "bare", "--json")
    assert (found.code, found.json["samples_file"]) == (0, "runs/bare/samples/file-other.jsonl")
    sides = ("bare", "runs/bare-2/samples/file-other.jsonl")
    compared = reft("compare", *sides, "--json").json
    assert (compared["n"], compared["name_b"], compared["difference"]) == (4, sides[1], 0)
    assert reft("compare", sides[1], "bare", "--measure", "maj@2").code == 0
    assert reft("compare", "bare", "bare-2", "--split", "validation").code == 2
    shutil.copy(runs / "bare/eval/file-other.json", runs / "bare/eval/file-more.json")
    shutil.copy(runs / "bare/samples/file-other.jsonl", runs / "bare/samples/file-more.jsonl")
    several = reft("vote", "bare")
    assert several.code == 2
    assert several.errors == [
        "reft: runs/bare has no samples/test.jsonl; name one of what it has: runs/bare/samples/file-more.jsonl, "
        "runs/bare/samples/file-other.jsonl"
    ]


def test_the_only_evaluation_of_a_run_is_not_taken_for_its_own_where_it_is_of_a_checkpoint(
    reft: Any, runs: Path
) -> None:
    for file in (*runs.glob("rl/eval/*"), *runs.glob("rl/samples/test*")):
        file.unlink()
    assert reft("eval", "runs/rl/checkpoints/step-1", "--limit", "2", "--majority-vote", "2").code == 0
    called = reft("vote", "rl")
    assert called.code == 2
    assert called.errors[-1].endswith("name one of what it has: runs/rl/samples/step-1-test.jsonl")
    assert reft("vote", "runs/rl/samples/step-1-test.jsonl").code == 0


@pytest.mark.parametrize(
    ("field", "said"), [("question_sha256", "other questions"), ("gold_answer", "gold answers '99' and ")]
)
def test_equal_ids_are_not_yet_the_same_problems(field: str, said: str, reft: Any, runs: Path) -> None:
    file = runs / "rl/samples/test.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    other = Path("other.jsonl")
    other.write_text("".join(json.dumps({**row, field: "99"}) + "\n" for row in rows))
    called = reft("compare", other, "rl")
    assert called.code == 2
    assert "12 of their problems have the same id and are others (first: " in called.errors[-1]
    assert said in called.errors[-1]
    other.write_text("".join(json.dumps({**row, "prompt": "another template"}) + "\n" for row in rows))
    assert reft("compare", other, "rl").code == 0


@pytest.fixture
def trained_on(runs: Path) -> Path:
    """A file with the questions of the reward model's training samples."""
    recipe = check_recipe(yaml.safe_load((runs / "reranked/recipe.yaml").read_text()), "small")
    seen = {json.loads(line)["item_id"] for line in (runs / "reranked/samples/train.jsonl").read_text().splitlines()}
    problems = [p for p in load_problem_sets(data_request(recipe.data)).train if p.item_id in seen]
    file = Path("seen.jsonl")
    file.write_text(
        "".join(json.dumps({"question": p.question, "answer": f"#### {p.gold_answer}"}) + "\n" for p in problems)
    )
    return file


def test_problems_of_the_reward_model_are_refused_before_any_is_sampled(
    trained_on: Path, reft: Any, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_sampling(monkeypatch)
    Path("template.txt").write_text("Here is something else to do: {question}\nSo ")  # a template hides nothing
    pick = ("--majority-vote", "2", "--reward-model", "reranked", "--set", "prompt.template=template.txt")
    before = sorted(runs.rglob("*"))
    called = reft("eval", "rl", "--dataset", trained_on, *pick)
    assert called.code == 4
    assert "was trained on samples of" in called.errors[-1]
    assert sorted(runs.rglob("*")) == before


def test_an_evaluation_that_could_not_be_scored_is_scored_by_the_same_command(
    reft: Any, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reftcli.errors import RuntimeFailure

    def fail(*_: object) -> None:
        raise RuntimeFailure("out of memory")

    picking = ("eval", "rl", "--majority-vote", "2", "--limit", "5", "--reward-model", "reranked", "--json")
    own = ("eval", "tiny", "--recipe", "small.yaml", *picking[2:])
    with monkeypatch.context() as patch:
        patch.setattr("reftcli.evaluation.reward_scores.load_and_score", fail)
        assert reft(*picking).code == 1
        assert reft(*own, "--name", "own").code == 1
    assert json.loads((runs / "own/run.json").read_text())["status"] == "failed"
    assert not (runs / "rl/eval/test-2.json").exists()
    no_sampling(monkeypatch)
    resumed = reft("eval", "--resume", "--json")
    assert (resumed.json["run"], list(resumed.json["rerank"])) == ("own", ["1", "2"])
    assert json.loads((runs / "own/run.json").read_text())["status"] == "finished"
    again = reft(*picking)
    assert again.code == 0, again.err
    assert again.json["samples_file"] == "runs/rl/samples/test-2.jsonl"
    assert list(again.json["rerank"]) == ["1", "2"]
    assert not list(runs.rglob("*.partial*"))


def test_a_reward_model_scores_what_was_evaluated_without_one(
    reft: Any, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = reft("vote", "rl", "--json").json
    no_sampling(monkeypatch)
    picked = reft("eval", "rl", "--majority-vote", "4", "--reward-model", "reranked", "--json")
    assert picked.code == 0, picked.err
    assert picked.json["samples_file"] == "runs/rl/samples/test.jsonl"
    assert picked.json["maj"] == plain["maj"]
    assert picked.json["rerank"] == json.loads((runs / "reranked/eval/test.json").read_text())["rerank"]
    assert reft("vote", "rl", "--weights", "reward", "--json").json["maj"] == picked.json["weighted"]
