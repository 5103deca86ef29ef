"""Takes the clothes off an answer: LaTeX, markdown, typography. What is left means the same and reads plainly."""

from __future__ import annotations

import re
import unicodedata

from reftcli.grading.extraction import braced

_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
_SUPERSCRIPT_RUN = re.compile(f"[{_SUPERSCRIPTS}]+")
_FROM_SUPERSCRIPT = str.maketrans(_SUPERSCRIPTS, "0123456789")
_VULGAR = "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
_GLUED_VULGAR = re.compile(f"(?<=[0-9])(?=[{_VULGAR}])")

_LATEX_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{\s*([^{}]+?)\s*\}\s*\{\s*([^{}]+?)\s*\}|(\d)\s*(\d))")
_LATEX_WRAP = re.compile(r"\\(?:text(?:bf|it|rm)?|math(?:rm|bf|it)|mbox|operatorname)\s*\{([^{}]*)\}")
_LATEX_GROUPING = re.compile(r"(?<=\d)(?:\\[,;: ]|\{,\})(?=\d{3}(?!\d))")
_LATEX_DEGREE = re.compile(r"\^\s*(?:\\circ|\{\s*\\circ\s*\})")
_LATEX_WORDS = {r"\approx": "≈", r"\times": "*", r"\cdot": "*", r"\div": "/", r"\%": "%", r"\!": "", r"\left": "",
                r"\right": "", r"\displaystyle": ""}  # fmt: skip
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
        text = _ANNOTATION.sub("", text)
    if not text.isascii():
        text = _plain_unicode(text)
    if "\\" in text or "{" in text:
        text = _plain_latex(text)
    if "$" in text:
        text = _DOLLAR_MATH.sub(r"\1", text)
    text = text.replace("\x00", "$")
    for emphasis in _EMPHASIS:
        text = emphasis.sub(r"\1", text)
    text = text.strip(" \t\r*_`\"'“”:")
    bracketed = _ANGLES.fullmatch(text)
    return bracketed[1].strip() if bracketed else text


def _plain_unicode(text: str) -> str:
    text = _SUPERSCRIPT_RUN.sub(lambda run: "^" + run.group().translate(_FROM_SUPERSCRIPT), text)
    text = _GLUED_VULGAR.sub(" ", text)  # before NFKC, which makes 1½ into 11/2
    text = unicodedata.normalize("NFKC", text)
    return text.replace("\u2212", "-").replace("\u2044", "/")


def _plain_latex(text: str) -> str:
    opened = text.rfind("\\boxed{")
    if opened >= 0:
        inside = braced(text, opened + len("\\boxed{"))
        if inside is not None:
            text = text[:opened] + inside + text[opened + len("\\boxed{}") + len(inside) :]
    text = text.replace(r"\$", "\x00")
    for bracket in (r"\(", r"\)", r"\[", r"\]"):
        text = text.replace(bracket, " ")
    text = _LATEX_WRAP.sub(r" \1 ", text)
    text = _LATEX_GROUPING.sub(",", text)
    text = _LATEX_FRACTION.sub(lambda part: f" {part[1] or part[3]}/{part[2] or part[4]} ", text)
    text = _LATEX_DEGREE.sub("°", text)
    for word, meaning in _LATEX_WORDS.items():
        text = text.replace(word, meaning)
    return _LATEX_SPACES.sub(" ", text)
