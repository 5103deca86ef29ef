"""Takes the clothes off an answer: LaTeX, markdown, typography. What is left means the same and reads plainly."""

from __future__ import annotations

import re
import unicodedata

from reftcli.grading.extraction import BOXED, braced, last_match

_SUPERSCRIPTS, _SUBSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "₀₁₂₃₄₅₆₇₈₉"
_SUPERSCRIPT_RUN = re.compile(f"[{_SUPERSCRIPTS}]+")
_SUBSCRIPT_RUN = re.compile(f"[{_SUBSCRIPTS}]+")
_FROM_SCRIPT = str.maketrans(_SUPERSCRIPTS + _SUBSCRIPTS, "0123456789+-0123456789")
_ENUMERATOR = re.compile("[\u2460-\u249b\u24ea\u24f5-\u24ff\u2776-\u2793\u3251-\u325f\u32b1-\u32bf]")
"""①, ⑴ and ⒈ number the items of a list; NFKC would make numbers of them."""
_SPACED_THOUSANDS = re.compile(r"(?<=\d)[\u00a0\u2007\u2009\u202f](?=\d{3}(?!\d|\s*/))", re.ASCII)
"""A space that does not break keeps one number together; an ordinary one may stand between two."""
_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad \t\r\n"
_VULGAR = "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
_GLUED_VULGAR = re.compile(f"(?<=[0-9])(?=[{_VULGAR}])")

_LATEX_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{([^{}]+)\}\s*\{([^{}]+)\}|(\d)\s*(\d))")
_SIMPLE_TERM = re.compile(r"[-+]?(?:[\d.,]+|[A-Za-z])")
_NUMBER_END, _NUMBER_START = re.compile(r"[\d.,]$"), re.compile(r"[\d.,]*\d")
_LATEX_WRAP = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt)?|math(?:rm|bf|it|sf|tt)|boldsymbol|bm|mbox|operatorname|underline|emph)\s*\{([^{}]*)\}"
)
_LATEX_GROUPING = re.compile(r"(?<=\d)(?:\\[,;: ]|\{,\})(?=\d{3}(?!\d))")
_LATEX_DEGREE = re.compile(r"\^\s*(?:\\circ|\{\s*\\circ\s*\})")
_LATEX_WORD = re.compile(r"\\(?:(approx|times|cdot|div|left|right|displaystyle|pounds|euro)(?![A-Za-z])|[%!])")
_LATEX_WORDS = {"approx": "≈", "times": "×", "cdot": "·", "div": "/", "pounds": "£", "euro": "€"}
_LATEX_SPACES = re.compile(r"\\[,;: ]|\\quad\b|~(?=\D)")
_ANNOTATION = re.compile(r"<<[^<>]*>>")  # GSM8K's calculator marks
_ANGLES = re.compile(r"<([^<>]*)>\.?")
_DOLLAR_MATH = re.compile(r"(?<![\w$])\$\$?([^$]+)\$\$?(?!\w)")
_EMPHASIS = tuple(
    re.compile(rf"(?<![\w.*]){mark}([^*`]+){mark}(?![\w*])") for mark in (r"\*\*", r"\*", "`", "__")
)  # bounded by non-words, or 2**3**4 would become 234


def plain_text(text: str) -> str:
    """``text`` without typography, LaTeX and markdown around it. Superscripts become ``^n``, since 10² is not 102."""
    if "<<" in text:
        text = _ANNOTATION.sub(" ", text)
    if not text.isascii():
        text = _plain_unicode(text)
    if "\\" in text or "{" in text:
        text = _plain_latex(text)
    if "$" in text:
        text = _DOLLAR_MATH.sub(r"\1", text)
    text = text.replace("\x00", "$")
    if "*" in text or "`" in text or "__" in text:
        for emphasis in _EMPHASIS:
            text = emphasis.sub(r"\1", text)
    text = text.strip(" \t\r*_`\"'“”‘’«»′:")
    bracketed = _ANGLES.fullmatch(text)
    return bracketed[1].strip() if bracketed else text


def _plain_unicode(text: str) -> str:
    text = _SUPERSCRIPT_RUN.sub(lambda run: "^" + run.group().translate(_FROM_SCRIPT), text.strip(_INVISIBLE))
    text = _SUBSCRIPT_RUN.sub(lambda run: "_" + run.group().translate(_FROM_SCRIPT), text)  # 10₂ is not 102
    text = _SPACED_THOUSANDS.sub(",", _ENUMERATOR.sub("\ufffd", text).replace("º", "°").replace("˚", "°"))
    text = _GLUED_VULGAR.sub(" ", text)  # before NFKC, which makes 1½ into 11/2
    text = unicodedata.normalize("NFKC", text)
    return text.replace("\u2212", "-").replace("\u2044", "/")


def _join(before: str, behind: str) -> str:
    """Two pieces side by side; digits that a frame kept apart stay apart."""
    return f"{before} {behind}" if _NUMBER_END.search(before) and _NUMBER_START.match(behind) else before + behind


def _term(text: str) -> str:
    """One side of a fraction's bar, in brackets where it is more than a number or a letter."""
    text = text.strip()
    return text if _SIMPLE_TERM.fullmatch(text) else f"({text})"


def _plain_latex(text: str) -> str:
    opened = last_match(BOXED, text)
    if opened is not None:
        inside = braced(text, opened.end())
        if inside is not None:
            text = _join(_join(text[: opened.start()], inside), text[opened.end() + len(inside) + 1 :])
    text = text.replace(r"\$", "\x00")
    for bracket in (r"\(", r"\)", r"\[", r"\]"):
        text = text.replace(bracket, " ")
    text = _LATEX_WRAP.sub(r" \1 ", text)
    text = _LATEX_GROUPING.sub(",", text)
    text = _LATEX_FRACTION.sub(lambda part: f" {_term(part[1] or part[3])}/{_term(part[2] or part[4])} ", text)
    text = _LATEX_DEGREE.sub("°", text)
    text = _LATEX_WORD.sub(lambda word: _LATEX_WORDS.get(word[1], "") if word[1] else word[0].strip("\\!"), text)
    return _LATEX_SPACES.sub(" ", text)
