"""`reft demo`: every stage on the embedded model and data, and the table that compares them.

SFT continued is the honest peer of RL: the same warm-up, trained on by SFT on the same problems until it has cost as
much compute as RL did.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reftcli.cli.console import TerminalProgress, quiet_libraries
from reftcli.cli.start import Start
from reftcli.metrics.intervals import Difference, paired_difference
from reftcli.models.source import resolve_model
from reftcli.recipe.layers import parse_assignments, resolve_recipe
from reftcli.recipe.schema import Recipe
from reftcli.reports.tables import AccuracyRow, accuracy_table
from reftcli.runs.files import write_json

if TYPE_CHECKING:
    from rich.table import Table

    from reftcli.evaluation.results import Results
    from reftcli.evaluation.stages import Evaluation
    from reftcli.runs.folder import Run

RECIPE = "tiny/toy-ncot"
_QUICK = (
    "data.train_size=1000",
    "data.test_size=100",
    "data.validation_size=50",
    "warmup.schedule_epochs=3",
    "rl.updates=4",
    "rl.validate_every=2",
    "sampling.k=4",
    "rerank.problems=100",
    "rerank.epochs=1",
)
_FORWARD_PER_SFT_TOKEN = 3
"""A forward pass counts 1 per token, a backward pass 2 (Kaplan et al., arXiv 2001.08361)."""


def _forward_per_rl_token(ppo_epochs: int) -> int:
    """Decoding, old log-probabilities and reference: 1 each; then a forward and a backward pass per PPO epoch."""
    return 3 + _FORWARD_PER_SFT_TOKEN * ppo_epochs


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo found. ``differences``: name -> paired difference on the test problems."""

    rows: Sequence[AccuracyRow]
    differences: Mapping[str, Difference]
    warmup_no_answer: float
    reward_model: Mapping[str, Any]
    """What ``reft rerank --json`` says of it: AUC and calibration on held-out samples and on the candidates."""
    seconds: Mapping[str, float]
    runs: Mapping[str, str]
    report: str
    seed: int

    def table(self) -> Table:
        """The table on the terminal."""
        return accuracy_table(self.rows, title=f"reft demo, seed {self.seed}: test problems that no choice was made on")

    @property
    def notes(self) -> list[str]:
        """The differences in words, and where things are."""
        lines = [
            f"{name}: {100 * found.mean:+.1f} points (95% interval {100 * found.interval.low:+.1f} to "
            f"{100 * found.interval.high:+.1f}, paired)"
            for name, found in self.differences.items()
        ]
        took = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.seconds.items())
        return [*lines, _in_words(self.reward_model), f"time: {took}", f"report: {self.report}"]

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        return {
            "seed": self.seed,
            "rows": [
                {"name": r.name, "accuracy": r.accuracy, "ci95": list(r.interval or ()), "n": r.n} for r in self.rows
            ],
            "differences": {
                name: {"mean": found.mean, "ci95": list(found.interval)} for name, found in self.differences.items()
            },
            "warmup_no_answer": self.warmup_no_answer,
            "held_out_auc": self.reward_model["held_out_auc"],
            "reward_model": dict(self.reward_model),
            "seconds": dict(self.seconds),
            "runs": dict(self.runs),
            "report": self.report,
        }


def run_demo(*, quick: bool, seed: int, assignments: Sequence[str], name: str | None, runs_dir: Path) -> DemoResult:
    """Runs every stage; about five minutes on two cores, one with ``quick``."""
    recipe = _demo_recipe(quick, seed, assignments)
    quiet_libraries()
    prefix = name or f"demo-{datetime.now().strftime('%Y%m%d-%H%M%S')}"
    return _Demo(recipe, prefix, runs_dir).run()


def demo_start(quick: bool, seed: int, assignments: Sequence[str]) -> Start:
    """What the demo starts from, for ``--dry-run``."""
    recipe = _demo_recipe(quick, seed, assignments)
    return Start(resolve_model(str(recipe.model.name)), None, recipe, f"model {recipe.model.name} (embedded)")


def _demo_recipe(quick: bool, seed: int, assignments: Sequence[str]) -> Recipe:
    layer = parse_assignments([*(_QUICK if quick else ()), *assignments])
    return resolve_recipe(RECIPE, {**layer, "seed": layer.get("seed", seed)}, ())


class _Demo:
    """The stages one after another; each leaves a run of its own under a common prefix."""

    def __init__(self, recipe: Recipe, prefix: str, runs_dir: Path) -> None:
        from reftcli.cli.start import problem_sets

        self._recipe, self._prefix, self._runs_dir = recipe, prefix, runs_dir
        self._sets = problem_sets(recipe)
        self._progress = TerminalProgress()
        self._seconds: dict[str, float] = {}

    def run(self) -> DemoResult:
        from reftcli.training.rerank import rerank_stage
        from reftcli.training.stages import rl_stage, warmup_stage

        started = time.perf_counter()
        warmup, warmup_outcome = self._timed("warm-up", warmup_stage, self._request("warmup"))
        warmup_test = self._timed("warm-up, test", self._measure, warmup, warmup.final, None)

        rl, rl_outcome = self._timed("RL", rl_stage, self._request("rl", parent=warmup, start=warmup.final))
        rl_test = self._timed("ReFT, test and votes", self._measure, rl, rl.best, self._recipe.sampling.k)

        budget = rl_outcome.tokens * _forward_per_rl_token(self._recipe.rl.ppo_epochs) / _FORWARD_PER_SFT_TOKEN
        epochs = budget / (warmup_outcome.tokens / self._recipe.warmup.epochs)
        sft_request = self._request("sft", parent=warmup, start=warmup.final, recipe=self._sft_recipe(epochs))
        sft, _ = self._timed("SFT continued", warmup_stage, sft_request)
        sft_test = self._timed("SFT, test", self._measure, sft, sft.final, None)

        rerank, rerank_outcome = self._timed(
            "re-ranking",
            rerank_stage,
            self._request("rerank", parent=rl, start=rl.best),
            self._request("rl", start=warmup.final).source,
            rl,
        )
        self._seconds["all"] = time.perf_counter() - started
        tests = {"warm-up": warmup_test, "SFT": sft_test, "ReFT": rl_test, "rerank": rerank_outcome.evaluation}
        runs = {"warm-up": warmup, "SFT": sft, "ReFT": rl, "rerank": rerank}
        return self._result(tests, runs, rerank_outcome.reward_model())

    def _timed(self, title: str, function: Any, *arguments: Any) -> Any:
        self._progress.say(f"{title} ...")
        started = time.perf_counter()
        passed = (*arguments, self._progress) if function != self._measure else arguments
        result = function(*passed)
        self._seconds[title] = time.perf_counter() - started
        return result

    def _request(
        self, name: str, parent: Run | None = None, start: Path | None = None, recipe: Recipe | None = None
    ) -> Any:
        from reftcli.training.stages import StageRequest

        recipe = recipe or self._recipe
        source = resolve_model(str(start) if start else str(recipe.model.name))
        return StageRequest(recipe, self._sets, source, self._runs_dir, f"{self._prefix}-{name}", parent)

    def _sft_recipe(self, epochs: float) -> Recipe:
        warmup = self._recipe.warmup.model_copy(update={"schedule_epochs": epochs, "stop_epoch": None})
        return self._recipe.model_copy(update={"warmup": warmup})

    def _measure(self, run: Run, weights: Path, k: int | None) -> Evaluation:
        from reftcli.evaluation.experiment import open_experiment
        from reftcli.evaluation.stages import evaluate

        with open_experiment(self._recipe, self._sets, resolve_model(str(weights)), self._progress) as experiment:
            return evaluate(run, experiment, self._sets.test, "test", k, "test")

    def _vote_by_likelihood(self, measured: Evaluation) -> Results:
        """The same samples, counted again."""
        from reftcli.evaluation.experiment import grader_of
        from reftcli.evaluation.results import VoteRule
        from reftcli.evaluation.stages import recount

        grader, kind = grader_of(self._recipe, self._sets), self._sets.test[0].answer_kind
        try:
            k, rule = self._recipe.sampling.k, VoteRule("logprob")
            return recount(measured.samples_file, grader, kind, [k], self._recipe.seed, rule)[0]
        finally:
            grader.close()

    def _result(
        self, tests: Mapping[str, Evaluation], runs: Mapping[str, Run], reward_model: Mapping[str, Any]
    ) -> DemoResult:
        from reftcli.reports.run_page import write_run_page

        k, temperature = self._recipe.sampling.k, self._recipe.sampling.temperature
        likely = self._vote_by_likelihood(tests["ReFT"])
        per_problem = {
            "warm-up": tests["warm-up"].results.per_problem["greedy"],
            "SFT": tests["SFT"].results.per_problem["greedy"],
            "ReFT": tests["ReFT"].results.per_problem["greedy"],
            "vote": tests["ReFT"].results.per_problem[f"maj@{k}"],
            "likely": likely.per_problem[f"maj@{k}"],
            "rerank": tests["rerank"].results.per_problem[f"rerank@{k}"],
            "weighted": tests["rerank"].results.per_problem[f"weighted@{k}"],
        }
        rows = [
            _row("warm-up, greedy", tests["warm-up"], "greedy"),
            _row("SFT continued, greedy", tests["SFT"], "greedy", "as much compute as ReFT"),
            _row("ReFT, greedy", tests["ReFT"], "greedy"),
            _row(f"ReFT, maj@{k}", tests["ReFT"], f"maj@{k}", f"majority vote, temperature {temperature:g}"),
            _row_of(f"ReFT, maj@{k} by likelihood", likely, f"maj@{k}", "each vote weighs its probability"),
            _row(f"ReFT, rerank@{k}", tests["rerank"], f"rerank@{k}", "reward model's pick"),
            _row(f"ReFT, weighted@{k}", tests["rerank"], f"weighted@{k}", "vote weighted by the reward model"),
        ]

        def difference(a: str, b: str) -> Difference:
            items = list(per_problem[a])
            return paired_difference(
                [per_problem[a][i] for i in items], [per_problem[b][i] for i in items], self._recipe.seed
            )

        verdicts = tests["warm-up"].results.verdicts["greedy"]
        result = DemoResult(
            rows=rows,
            differences={
                "ReFT - warm-up": difference("ReFT", "warm-up"),
                "ReFT - SFT continued": difference("ReFT", "SFT"),
                f"maj@{k} - greedy": difference("vote", "ReFT"),
                f"maj@{k} by likelihood - greedy": difference("likely", "ReFT"),
                f"rerank@{k} - greedy": difference("rerank", "ReFT"),
                f"weighted@{k} - greedy": difference("weighted", "ReFT"),
            },
            warmup_no_answer=verdicts.get("no_answer", 0) / tests["warm-up"].results.n,
            reward_model=reward_model,
            seconds=self._seconds,
            runs={name: str(run.folder) for name, run in runs.items()},
            report="",
            seed=self._recipe.seed,
        )
        page = write_run_page(runs["ReFT"], rows, result.notes[:-1])
        result = dataclasses.replace(result, report=str(page))
        write_json(runs["ReFT"].folder / "demo.json", result.to_json())
        return result


def _row(name: str, evaluation: Evaluation, measure: str, note: str = "") -> AccuracyRow:
    return _row_of(name, evaluation.results, measure, note)


def _row_of(name: str, results: Results, measure: str, note: str = "") -> AccuracyRow:
    found = results.measures[measure]
    return AccuracyRow(name, found.accuracy, found.ci95, results.n, note)


def _in_words(reward_model: Mapping[str, Any]) -> str:
    def told(found: Mapping[str, Any]) -> str:
        auc = "undefined" if found["auc"] is None else f"{found['auc']:.2f}"
        return f"AUC {auc}, Brier score {found['brier']:.3f} on {found['samples']:,}"

    return (
        f"reward model: {told(reward_model['held_out'])} held-out samples of training problems; "
        f"{told(reward_model['candidates'])} candidates"
    )
