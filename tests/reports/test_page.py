from __future__ import annotations

from html.parser import HTMLParser

import pytest

from reftcli.metrics.intervals import Interval
from reftcli.reports.markup import preformatted, text
from reftcli.reports.page import RunSummary, ShownSample, render_page
from reftcli.reports.tables import AccuracyRow

ATTACK = "</pre></style></title></script><script>alert(1)</script><img src=x onerror=alert(2)>\"' onload='x' &lt;b&gt;"

VOID = {"meta", "br", "img", "link", "input", "hr"}
SELF_CLOSED = {"path", "circle", "polyline"}


class Page(HTMLParser):
    """Checks the nesting while parsing, and keeps tags, attributes and the text of each element."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.texts.setdefault(tag, []).append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SELF_CLOSED
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data


def summary(evil: str = "plain") -> RunSummary:
    return RunSummary(
        run=evil,
        model=evil,
        dataset=evil,
        form=evil,
        seed=1,
        command=evil,
        results=[
            AccuracyRow(evil, 0.7131, Interval(0.6881, 0.7369), 1319, note=evil),
            AccuracyRow("not measured", None, None, 0),
        ],
        metrics=[
            {"step": 1, "accuracy": 0.2, "reward_mean": 0.3, "kl": 0.0, "completion_length": 80},
            {"step": 2, "val_accuracy": 0.25},
            {"step": 2, "accuracy": 0.4, "reward_mean": 0.5, "kl": float("nan"), "completion_length": None},
            {"step": "x", "accuracy": evil},
        ],
        samples=[
            ShownSample(evil, evil, evil, evil, "correct", evil),
            ShownSample("p", "c", None, "4", "no_answer"),
            ShownSample(evil, evil, evil, evil, evil),
        ],
        recipe=evil,
        facts={evil: evil},
        notes=[evil],
    )


def test_the_page_shows_what_it_was_given() -> None:
    page = Page(render_page(summary("some text")))
    assert page.texts["h1"] == ["some text"]
    assert page.texts["h2"] == ["Results", "Training", "Sample completions", "Settings"]
    assert page.texts["td"][:4] == ["71.3%", "68.8 to 73.7", "", "1,319"]
    assert page.texts["td"][4:] == ["-", "-", "", "0"]
    assert [t.split(" ")[0] for t in page.texts["figcaption"]] == ["Accuracy", "KL", "Completion"]
    assert "step 2: 0.25" in page.texts["title"]  # the validation mark's tooltip
    assert page.texts["pre"][1].strip() == "some text"


def test_a_hostile_text_is_inert_everywhere() -> None:
    harmless, hostile = Page(render_page(summary("plain"))), Page(render_page(summary(ATTACK)))
    assert hostile.tags == harmless.tags  # not one element more
    assert [(tag, name) for tag, name, _ in hostile.attributes] == [(t, n) for t, n, _ in harmless.attributes]
    assert "script" not in hostile.tags
    assert not any(name.startswith("on") for _, name, _ in hostile.attributes)
    assert hostile.texts["pre"][1] == f"\n{ATTACK}"  # and it is shown as it is


def test_the_completion_of_the_brief_is_inert() -> None:
    evil = "</script><script>alert(1)</script>"
    page = render_page(summary(evil))
    assert "<script" not in page
    assert text(evil) in page


def test_nothing_is_loaded_from_elsewhere() -> None:
    source = render_page(summary("plain"))
    page = Page(source)
    assert "http://" not in source
    assert "https://" not in source
    assert "url(" not in source
    assert "@import" not in source
    assert not {"script", "link", "img", "iframe", "object", "base", "a"} & set(page.tags)
    assert not {"src", "href", "xlink:href", "srcset"} & {name for _, name, _ in page.attributes}
    assert ("meta", "http-equiv", "Content-Security-Policy") in page.attributes
    assert any(name == "content" and value.startswith("default-src 'none'") for _, name, value in page.attributes)


def test_a_link_in_a_completion_stays_text() -> None:
    page = Page(render_page(summary("see https://example.org/x.js")))
    assert not [value for _, name, value in page.attributes if "https:" in value and name != "aria-label"]


def test_an_empty_run_has_a_page() -> None:
    page = Page(render_page(RunSummary("r", "m", "d", "pcot", 1, "reft rl")))
    assert page.texts["h1"] == ["r"]
    assert "h2" not in page.texts


def test_a_resumed_step_counts_once_with_its_later_row() -> None:
    metrics = [{"step": 1, "kl": 0.1}, {"step": 2, "kl": 9.0}, {"step": 2, "kl": 0.2}]
    page = render_page(RunSummary("r", "m", "d", "pcot", 1, "c", metrics=metrics))
    assert "KL <b>0.2</b>" in page
    assert "9" not in Page(page).texts["figure"][0]


@pytest.mark.parametrize("odd", ["\x00", "\x1b", "\ud800", "\u202e", "\x85"])
def test_what_cannot_be_shown_is_replaced(odd: str) -> None:
    shown = text(f"a{odd}b")
    assert shown == "a\N{REPLACEMENT CHARACTER}b"
    shown.encode("utf-8")


def test_a_leading_newline_survives_the_parser() -> None:
    assert preformatted("\n  x") == "<pre>\n\n  x</pre>"  # the first newline is the parser's


def test_a_long_text_says_what_was_left_out() -> None:
    shown = preformatted("a" * 50 + "b" * 50, limit=20)
    assert shown == f"<pre>\n{'a' * 10}\n[... 80 characters left out ...]\n{'b' * 10}</pre>"
