"""Lists and objects written as text: JSON, Python's repr, or numpy's repr without commas.

Tables without list columns hold them so. pandas writes `['a', 'b']` to CSV for a list and
`['a' 'b']` for an array; with numpy 2, a list of an array's values is `[np.str_('a')]`.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator

MAX_NESTING = 100
TOKEN = re.compile(
    r"""(?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<mark>[\[\](){},:])"""
    r"""|(?P<atom>[^\s\[\](){},:'"]+)|\s+""",
    re.DOTALL,
)
CLOSE = {"[": "]", "(": ")", "{": "}"}
ATOMS = {"True": True, "False": False, "None": None, "nan": None}
WRAPPER = re.compile(r"array|list|(np|numpy)\.\w+")
"""Name of a call around a value: `array(['a'], dtype=object)`, `np.str_('a')`."""
# A backslash before any other letter stands for itself.
ESCAPE, ESCAPED = re.compile(r"\\(.)", re.DOTALL), frozenset("\\'\"abfnrtvxuUN01234567")


def parsed(value: object) -> object:
    """Return the list or object that a string holds; return any other value unchanged.

    Tuples and sets become lists.
    """
    if not isinstance(value, str) or value[:64].lstrip()[:1] not in CLOSE:
        return value
    if value[-64:].rstrip()[-1:] not in CLOSE.values():
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        pass
    else:
        return found if _is_shallow(found) else value
    try:
        return _Repr(value).parse()
    except (ValueError, SyntaxError):
        return value


def _is_shallow(value: object) -> bool:
    """True for at most MAX_NESTING levels; json itself reads more, in Python 3.13 thousands."""
    level = [value]
    for _ in range(MAX_NESTING + 1):
        if not level:
            return True
        inner = [list(one.values()) if isinstance(one, dict) else one for one in level]
        level = [item for one in inner if isinstance(one, list) for item in one]
    return False


class _Repr:
    """A parser of Python's and numpy's repr. Its methods raise ValueError for any other text."""

    def __init__(self, text: str) -> None:
        self._tokens = [*_tokens(text), ("end", "")]
        self._i = 0

    def parse(self) -> object:
        value = self._value(0)
        if self._next()[0] != "end":
            raise ValueError("text behind the value")
        return value

    def _next(self) -> tuple[str, str]:
        self._i += 1
        return self._tokens[self._i - 1]

    def _skip(self, mark: str) -> bool:
        """True if the next token is this mark, which is then read."""
        is_next = self._tokens[self._i] == ("mark", mark)
        self._i += is_next
        return is_next

    def _value(self, depth: int) -> object:
        kind, token = self._next()
        if depth > MAX_NESTING:
            raise ValueError("nested too deeply")
        if kind == "string":
            return _string(token)
        if kind == "mark" and token in CLOSE:
            return self._items(CLOSE[token], depth + 1)
        if kind == "atom" and WRAPPER.fullmatch(token) and self._skip("("):
            value = self._value(depth + 1)
            while not self._skip(")"):  # dtype=object
                if self._next()[0] == "end":
                    raise ValueError("a call without an end")
            return value
        return _atom(token)

    def _items(self, close: str, depth: int) -> object:
        """Return the list or dict up to the closing mark. A comma between items may be missing."""
        items, members = list[object](), dict[object, object]()
        while not self._skip(close):
            item = self._value(depth)
            if close == "}" and self._skip(":"):
                members[str(item)] = self._value(depth)
            else:
                items.append(item)
            self._skip(",")
        if items and members:
            raise ValueError("both a set and a dict")
        return items if items or close != "}" else members


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None:
            raise ValueError("a quote without an end")
        if match.lastgroup:
            yield match.lastgroup, match[0]
        position = match.end()


def _string(token: str) -> str:
    if "\\" not in token:
        return token[1:-1]
    plain = ESCAPE.sub(lambda m: m[0] if m[1] in ESCAPED else "\\" + m[0], token)
    return str(ast.literal_eval(plain.replace("\n", "\\n").replace("\r", "\\r")))


def _atom(token: str) -> object:
    """Return a number, a truth value or None. Raises ValueError for a mark or another word."""
    if token in ATOMS:
        return ATOMS[token]
    return float(token) if token.endswith(".") else json.loads(token)  # numpy writes 1. for 1.0
