"""What a program's process sends is hostile until it has been read."""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from reftcli.sandbox.decode import decode_value, read_outcome
from reftcli.sandbox.interface import OtherValue, Status
from reftcli.sandbox.worker.lockdown import filter_rules
from reftcli.sandbox.worker.program import plain


@pytest.mark.parametrize(
    "value", [None, True, False, 0, -5, 2**4000, 0.1, -1e300, 3 + 4j, "text", "\ud800", Fraction(-1, 3), Fraction(7)]
)
def test_values_survive_the_way(value: Any) -> None:
    assert decode_value(json.loads(json.dumps(plain(value)))) == value


@pytest.mark.parametrize("value", [[1], (), {1}, 2**9000, object(), {"a": 1}, Fraction(2**9000, 3), len, range(3)])
def test_other_values_arrive_as_a_name(value: Any) -> None:
    assert isinstance(decode_value(plain(value)), OtherValue)


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "1",
        "[]",
        "{}",
        "null",
        "[" * 60_000,
        '{"ok": 1}',
        '{"ok": {"t": "int", "v": 5}}',
        '{"ok": {"t": "int", "v": "5 "}}x',
        '{"ok": {"t": "int", "v": "' + "f" * 60_000 + '"}}',
        '{"ok": {"t": "rational", "v": ["1", "0"]}}',
        '{"ok": {"t": "rational", "v": ["1"]}}',
        '{"ok": {"t": "complex", "v": [1, 2]}}',
        '{"ok": {"t": "bool", "v": 1}}',
        '{"ok": {"t": "no such tag", "v": "1"}}',
        '{"ok": {"t": ["int"], "v": "1"}}',
        '{"error": "x"}',
        '{"error": ["x"]}',
        '{"error": [1, 2]}',
        '{"ok": ' + "9" * 60_000 + "}",
    ],
)
def test_malformed_payloads_are_an_error_of_the_program(payload: str) -> None:
    outcome = read_outcome("done", payload, 0.0)
    assert (outcome.status, outcome.error) == (Status.ERROR, "UnreadableResult")


def test_ends_without_a_value() -> None:
    ends = {"timeout": "timeout", "stuck": "timeout", "oversize": "error", "exit": "error", "SIGSEGV": "killed"}
    assert {how: str(read_outcome(how, "", 0.0).status) for how in ends} == ends


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_jump_of_the_filter_lands_on_its_verdict(machine: str) -> None:
    rules = filter_rules(machine)
    assert rules is not None
    assert (rules[-1][3], rules[-2][3] >> 16) == (0x7FFF0000, 0x0005)
    for position, (code, if_true, if_false, operand) in enumerate(rules):
        if code == 0x15 and operand < 1000:  # a system call on the list
            assert position + 1 + if_true == len(rules) - 1
            assert if_false == 0
        elif code in (0x15, 0x35):
            assert position + 1 + max(if_true, if_false) < len(rules)


def test_an_unknown_machine_has_no_filter() -> None:
    assert filter_rules("riscv64") is None


def test_the_worker_needs_the_standard_library_only() -> None:
    folder = Path(__file__).resolve().parents[2] / "src/reftcli/sandbox/worker"
    sources = list(folder.glob("*.py"))
    assert len(sources) >= 4
    for source in sources:
        for line in source.read_text().splitlines():
            if line.startswith(("import ", "from ")):
                name = line.split()[1].split(".")[0]
                assert not name or name in sys.stdlib_module_names, (source, line)
