"""P-CoT programs as text: a docstring that always parses, the prompt's header, the body that is learned."""

from __future__ import annotations

import ast
import re

INDENT = "    "

_DEFINES_SOLUTION = re.compile(r"^def\s+solution\s*\(", re.MULTILINE)
# Besides quotes and backslashes: what source text cannot hold (NUL, lone surrogates) or would change (CR).
_UNSAFE = re.compile(r'"{3,}|"+\Z|\\|[\x00\r\ud800-\udfff]')


def defines_solution(text: str) -> bool:
    """Whether a text defines ``solution()`` at module level, so that it is a program and not prose."""
    return _DEFINES_SOLUTION.search(text) is not None


def docstring_of(question: str) -> str:
    r"""The question as it may stand between triple double quotes.

    Plain questions stay as they are. Backslashes, ``\"\"\"``, quotes at the end, NUL, CR and lone surrogates are
    escaped; the docstring's value is always the question again.
    """
    return _UNSAFE.sub(_escaped, question)


def _escaped(match: re.Match[str]) -> str:
    found = match[0]
    if found[0] == '"':
        return '\\"' * len(found)
    if found == "\\":
        return "\\\\"
    return f"\\u{ord(found):04x}"


def program_header(question: str) -> str:
    """``def solution():`` and its docstring, without a newline at the end: there the prompt is cut (see prompts)."""
    return f'def solution():\n{INDENT}"""{docstring_of(question)}"""'


def program_of(question: str, statements: list[str]) -> str:
    """A whole program: the header, then each statement on a line of its own."""
    return program_header(question) + "".join(f"\n{INDENT}{statement}" for statement in statements)


def split_program(program: str) -> str:
    """What follows the docstring of ``solution()``, starting with a newline and indented by four spaces.

    ``program_header(question) + split_program(program)`` is a whole program again. Imports and helpers that stood
    before ``solution()`` move inside it, because the prompt leaves no other place for them; what follows the function
    is dropped. Raises ``ValueError`` when the text is not Python or defines no ``solution()``.
    """
    text = program.replace("\r\n", "\n").replace("\r", "\n")
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"not valid Python: {error}") from error
    lines = text.encode(errors="surrogatepass").split(b"\n")  # ast counts columns in bytes
    index, function = _find_solution(tree)
    blocks = [_block(lines, _first_line(node), node, node) for node in tree.body[:index]]
    has_docstring = ast.get_docstring(function, clean=False) is not None
    body = function.body[1:] if has_docstring else function.body
    if body:
        start = (function.body[0].end_lineno or 0) if has_docstring else _first_line(body[0])
        blocks.append(_block(lines, start, body[0], body[-1]))
    return "".join("\n" + block for block in blocks)


def _find_solution(tree: ast.Module) -> tuple[int, ast.FunctionDef]:
    for index, node in enumerate(tree.body):
        if isinstance(node, ast.FunctionDef) and node.name == "solution":
            return index, node
    raise ValueError("without a solution() at its top level")


def _first_line(node: ast.stmt) -> int:
    """The line on which a statement begins, decorators included, counted from 0."""
    decorators = node.decorator_list if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
    return min([node.lineno, *(decorator.lineno for decorator in decorators)]) - 1


def _block(lines: list[bytes], start: int, first: ast.stmt, last: ast.stmt) -> str:
    """The source from line ``start`` to the end of ``last``, comments included, indented by four spaces."""
    chosen = lines[start : last.end_lineno]
    chosen[-1] = chosen[-1][: last.end_col_offset]
    width = first.col_offset
    if lines[first.lineno - 1][:width].strip():  # shares its line: "def solution(): return 5"
        chosen = [lines[first.lineno - 1][width:], *lines[first.lineno : last.end_lineno]]
        chosen[-1] = chosen[-1][: (last.end_col_offset or 0) - (width if len(chosen) == 1 else 0)]
        width = 0
    if width == len(INDENT):  # the ordinary case stays as it was written, to the byte
        return b"\n".join(chosen).decode(errors="surrogatepass")
    return "\n".join(_reindented(line.decode(errors="surrogatepass"), width) for line in chosen)


def _reindented(line: str, width: int) -> str:
    kept = line[width:] if not line[:width].strip() else line.lstrip()
    return INDENT + kept if kept.strip() else ""
