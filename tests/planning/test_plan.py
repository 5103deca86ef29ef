"""Which profile is named: over models, cards and settings, and where the answer flips."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reftcli.errors import UsageError
from reftcli.launch.profiles import PROFILES
from reftcli.models.source import ModelSource, resolve_model
from reftcli.planning.hardware import Hardware, machines_for
from reftcli.planning.plan import Plan, best_option, divisors_down, is_candidate, make_plan
from reftcli.planning.request import PlanRequest, plan_of, problems_of, short_form
from reftcli.planning.show import plan_lines
from reftcli.planning.units import GIB
from reftcli.recipe.layers import resolve_recipe


def planned(model: str, gpus: int, memory_gib: float, *assignments: str, **fields: Any) -> Plan:
    """A model with the paper's settings on a number of cards."""
    recipe = resolve_recipe("codellama-7b/gsm8k-pcot", {"model": {"name": model}}, assignments)
    hardware = Hardware(gpus, machines_for(gpus), gpu_memory=round(memory_gib * GIB))
    return plan_of(recipe, hardware, PlanRequest(**fields))


@pytest.mark.parametrize(
    ("model", "gpus", "memory_gib", "assignments", "profile"),
    [
        # 7B on eight GPUs, from the largest cards down: replicas need 27 + 27 (DDP's buckets) + 54 + 27 GB before
        # anything is drawn; ZeRO-1 keeps whole fp32 gradients (27 GB), ZeRO-2 a bf16 copy of the weights (13.5 GB)
        ("codellama", 8, 192, (), "multi"),
        ("codellama", 8, 141, (), "zero1"),
        ("codellama", 8, 80, (), "zero2"),
        ("codellama", 8, 62, (), "zero3"),
        ("codellama", 8, 40, (), None),
        ("galactica", 8, 80, (), "zero2"),
        # fewer rows in validation's cache: ZeRO-1 fits as well
        ("codellama", 8, 80, ("sampling.batch_size=8",), "zero1"),
        ("codellama", 8, 80, ("rl.value_model=separate",), "zero3-offload"),
        # more GPUs divide master weights and moments further
        ("codellama", 4, 80, (), "zero2"),
        ("codellama", 2, 80, (), "zero3-offload"),
        ("codellama", 16, 80, (), "zero1"),
        # one card
        ("codellama", 1, 80, (), "zero3-offload"),
        ("codellama", 1, 80, ("rl.lora_rank=16",), "single"),
        ("codellama", 1, 24, (), None),
        ("codegen-350m", 1, 24, (), "single"),
        ("smollm2", 1, 16, (), "single"),
        ("smollm2", 8, 16, (), "multi"),
        ("tiny", 1, 4, (), "single"),
    ],
)
def test_the_cheapest_profile_that_fits(
    model: str, gpus: int, memory_gib: float, assignments: tuple[str, ...], profile: str | None
) -> None:
    plan = planned(model, gpus, memory_gib, *assignments)
    assert (plan.chosen.profile if plan.chosen else None) == profile
    assert plan.fits == (profile is not None)


@pytest.mark.parametrize("model", ["codellama", "smollm2", "codegen-350m"])
@pytest.mark.parametrize("gpus", [1, 8])
def test_the_answer_flips_at_the_last_byte(model: str, gpus: int) -> None:
    recipe = resolve_recipe("codellama-7b/gsm8k-pcot", {"model": {"name": model}})
    for option in planned(model, gpus, 10_000).options:
        request = PlanRequest(profile=option.profile, micro_batch=option.micro_batch)
        for spare, fits in ((0, True), (-1, False)):
            hardware = Hardware(gpus, gpu_memory=option.needed + spare)
            assert plan_of(recipe, hardware, request).fits is fits, (option.profile, spare)


def test_a_smaller_card_never_gets_a_cheaper_profile() -> None:
    order = [*PROFILES, None]
    for model in ("codellama", "codegen-350m", "smollm2"):
        for gpus in (1, 2, 8):
            plans = [planned(model, gpus, size) for size in (4, 8, 12, 16, 24, 40, 48, 64, 80, 96, 141, 192, 400)]
            places = [order.index(plan.chosen.profile if plan.chosen else None) for plan in plans]
            assert places == sorted(places, reverse=True), (model, gpus)


def test_the_largest_micro_batch_that_fits_is_named() -> None:
    sizes = {gib: planned("smollm2", 1, gib).shown.micro_batch for gib in (10, 12, 20, 40)}
    assert sizes == {10: 4, 12: 8, 20: 16, 40: 32}
    assert list(divisors_down(12)) == [12, 6, 4, 3, 2, 1]


def test_a_micro_batch_that_was_given_is_kept() -> None:
    assert planned("smollm2", 1, 80, "rl.micro_batch_size=2").shown.micro_batch == 2
    assert planned("smollm2", 1, 80, micro_batch=4).shown.micro_batch == 4
    assert planned("smollm2", 8, 80, micro_batch=32).shown.micro_batch == 4  # no more than a GPU's share


def test_what_would_make_it_fit() -> None:
    remedy = planned("codellama", 8, 40).remedy
    assert remedy is not None
    assert (remedy.assignments, remedy.profile) == (("sampling.batch_size=8",), "zero3")
    changed = planned("codellama", 8, 40, *remedy.assignments)
    assert changed.chosen is not None
    assert changed.chosen.profile == remedy.profile
    assert planned("codellama", 8, 80).remedy is None  # it fits


def test_one_small_card_trains_a_large_model_from_main_memory() -> None:
    plan = planned("codellama", 1, 24)
    assert plan.chosen is None
    assert plan.remedy is not None
    assert (plan.remedy.assignments, plan.remedy.profile) == (("sampling.batch_size=8",), "zero3-offload")


def test_another_profile_that_costs_less_is_told() -> None:
    plan = planned("codellama", 8, 192)
    assert plan.saving is not None
    assert (plan.shown.profile, plan.saving.profile) == ("multi", "zero2")
    assert plan.saving.price < plan.cost.price
    text = "\n".join(plan_lines(plan))
    assert "multi on 8 GPUs is the first profile that fits" in text
    assert f"zero2 would cost {plan.saving.price:,.0f} USD instead of {plan.cost.price:,.0f}" in text
    assert planned("codellama", 8, 80).saving is None


def test_what_is_short_is_named_also_where_it_is_main_memory() -> None:
    recipe = resolve_recipe("codellama-7b/gsm8k-pcot", {})
    lines = plan_lines(plan_of(recipe, Hardware(8, host_memory=100 * GIB), PlanRequest()))
    assert any("401.6 GiB of main memory on each machine, which has 100.0" in line for line in lines)
    assert "No setting that saves memory makes it fit: more main memory is needed." in lines


def test_a_smaller_micro_batch_is_the_first_remedy_unless_it_was_asked_for() -> None:
    settings = ("sampling.batch_size=8", "rl.micro_batch_size=4")
    remedy = planned("codellama", 8, 48, *settings, profile="zero2").remedy
    assert remedy is not None
    assert (remedy.assignments, remedy.micro_batch) == (("rl.micro_batch_size=1",), 1)
    assert planned("codellama", 8, 48, *settings, *remedy.assignments, profile="zero2").fits
    asked = planned("codellama", 8, 48, *settings, profile="zero2", micro_batch=4).remedy
    assert asked is not None
    assert asked.micro_batch == 4
    assert "micro_batch" not in asked.assignments[0]


def test_main_memory_counts_where_its_size_is_known() -> None:
    recipe = resolve_recipe("codellama-7b/gsm8k-pcot", {})
    request = PlanRequest(profile="zero3-offload")
    for host_gib, fits in ((500, True), (100, False)):
        hardware = Hardware(8, host_memory=host_gib * GIB)
        assert plan_of(recipe, hardware, request).fits is fits


def test_single_leaves_gpus_idle_and_multi_needs_two() -> None:
    assert [p for p in PROFILES if is_candidate(p, 1)] == ["single", "zero1", "zero2", "zero3", "zero3-offload"]
    assert [p for p in PROFILES if is_candidate(p, 8)] == ["multi", "zero1", "zero2", "zero3", "zero3-offload"]


def test_batches_are_dealt_out_evenly_or_not_at_all() -> None:
    with pytest.raises(UsageError, match=r"rl.batch_size 32 cannot be shared evenly by 64 processes"):
        planned("codellama", 64, 80)
    assert planned("codellama", 64, 80, "rl.batch_size=64").fits


def test_other_stages_have_no_rollouts() -> None:
    warmup, rerank = (planned("codellama", 8, 80, stage=stage) for stage in ("warmup", "rerank"))
    assert set(warmup.shown.memory.phases) == {"start", "validation", "update", "step"}
    assert set(rerank.shown.memory.phases) == {"start", "update", "step"}
    assert warmup.shown.memory.phases["update"]["reference"] == 0
    assert warmup.cost.steps == 2 * 146  # two epochs of 6,973 examples in batches of 48


def test_more_gpus_never_need_more_of_each(paper: Any) -> None:
    shape, work = paper()
    for profile in ("zero1", "zero2", "zero3"):
        needed = [best_option(shape, work, Hardware(n, 1), profile, 1).needed for n in (2, 4, 8, 16, 32)]  # type: ignore[arg-type]
        assert needed == sorted(needed, reverse=True)


def test_the_lines_name_profile_parts_and_assumptions() -> None:
    text = "\n".join(plan_lines(planned("codellama", 8, 80)))
    for words in (
        "zero2 on 8 GPUs is the cheapest profile that fits, with micro-batches of 4", "reference", "KV cache",
        "value head", "GPU-hours", "--tflops", "--price-per-gpu-hour", "65,372 batches",
    ):  # fmt: skip
        assert words in text, words
    none = "\n".join(plan_lines(planned("codellama", 1, 24)))
    assert "No profile fits; zero3-offload comes nearest" in none
    assert "zero2 does not fit" in "\n".join(plan_lines(planned("codellama", 1, 24, profile="zero2")))


def test_short_form_of_a_dry_run() -> None:
    recipe = resolve_recipe("codellama-7b/gsm8k-pcot", {})
    lines = short_form(recipe, resolve_model("codellama"), "zero2", 8)
    assert lines[0].startswith("plan: zero2 on 8 GPUs: 60.5 GiB each at the peak, in validation")
    assert lines[-1] == "plan: 65,372 updates of 32 rollouts, about 383 M tokens in all"
    absent = short_form(recipe, ModelSource("a/b", "folder", "/nowhere"), "zero2", 8)
    assert absent[0].startswith("not checked: memory (")


def test_problems_are_those_of_the_file_or_the_data_set(tmp_path: Any) -> None:
    file = tmp_path / "train.jsonl"
    rows = (f'{{"question": "{i} and 1?", "answer": "{i + 1}"}}' for i in range(40))
    file.write_text("\n".join(rows))
    recipe = resolve_recipe(None, {"data": {"dataset": str(file), "validation_size": 5, "test_size": 5}})
    assert problems_of(recipe) == 30
    assert problems_of(resolve_recipe(None, {})) == 7_473 - 500
    assert problems_of(resolve_recipe(None, {"data": {"dataset": "toy", "train_size": 700}})) == 700


def test_a_plan_without_a_model_asks_for_one() -> None:
    with pytest.raises(UsageError, match="--model"):
        plan_of(resolve_recipe(None, {}), Hardware(1), PlanRequest())


def test_a_plan_does_not_depend_on_what_is_shown(paper: Any) -> None:
    shape, work = paper()
    one = make_plan(shape, work, Hardware(8), "zero2")
    every = make_plan(shape, work, Hardware(8))
    assert one.options[0] == every.options[PROFILES.index("zero2")]
    assert make_plan(shape, replace(work, steps=1), Hardware(8)).chosen == every.chosen
