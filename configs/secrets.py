"""Secrets: resolved where they are used, masked wherever something is printed, logged or stored.

`mask` finds secrets in two ways: by the place where they stand (a URL, `name=value`, a header, a
dictionary as text), and, wherever they stand, by their value where that is known: resolved from
`${env:NAME}`, seen in a URL that the user gave (`note`), or held by an environment variable whose
name says so. `guard` puts it behind logging, warnings and uncaught exceptions of a process.
Standard library only.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, ParamSpec, TypeVar
from urllib.parse import quote, unquote

from headrace.configs.errors import RecipeError

HIDDEN = "***"
PLACEHOLDER = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")
MIN_KNOWN = 6
"""Characters of a value that is masked wherever it stands: a shorter one is in too many words."""
MIN_VARIABLE = 8
"""The same for variables of the environment, which may have nothing to do with us."""

# --- where secrets stand --------------------------------------------------------------------------

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]{0,20}://"
URL = re.compile(
    rf"(?P<scheme>{_SCHEME})(?P<user>(?:\$\{{env:\w+\}}|[^/:\s\"'<>\[\]])*):"
    # A quote ends a URL, unless it is amid a word; so does the scheme of the next URL.
    rf"(?P<rest>(?:(?!{_SCHEME})(?:[^\s\"'<>]|[\"'](?=[^\s,:;)\]}}>\"'])))*)"
)
"""`scheme://user:` and what may be a password, or a port."""
PORT = re.compile(r"\d{1,5}(?=[/?#]|$)")
NO_PORTS = ("s3", "s3a", "s3n", "gs", "gcs", "abfs", "abfss", "az", "adl", "wasb", "wasbs", "oss")
"""Object stores: what follows a colon there is a secret, whatever it looks like."""

_NAME = r"""(?:
    password | passwd | passphrase | secret | (?<![A-Za-z0-9_-])(?:sig|sas|token)
  | (?:api|account|storage|private|shared|secret|access|encryption)(?:[._-]?access)?[._-]?key
  | (?:access|auth|bearer|refresh|session|security|sas|api|id|hf|hub|git|github|gitlab|private
      |personal|oauth|tracking|login|user)[_-]?token
  | shared[_-]?access[_-]?signature | x-(?:amz|goog)-(?:signature|credential)
  | auth[_-]?string | (?<=[;&?{"'])(?:\s*)pwd
)"""
# ... without what ends a sentence
_RUN = r"(?:\$\{env:\w+\}|(?:[^\s&;\"'`<>\\]|[\"'](?=\w))+(?<![,.)\]}:]))"
_QUOTED = r"(?P<q>\\*[\"'])(?P<quoted>(?:\\\\.|(?!(?P=q)).)+?)(?P=q)"
PLACES = tuple(
    re.compile(pattern, re.VERBOSE | re.IGNORECASE | re.MULTILINE)
    for pattern in (
        # name=value in a query, an environment, a connection string, code; {value} is ODBC's.
        rf"{_NAME}\s*=\s*(?:{_QUOTED}|\{{(?P<braced>[^}}\n]+)\}}|(?P<bare>{_RUN}))",
        # 'name': 'value', also as JSON within JSON
        rf"{_NAME}\\*[\"']\s*:\s*b?(?:{_QUOTED}|(?P<bare>\d{{6,}}))",
        # name: value, as YAML has it: to the end of the line, or it may be prose
        rf"{_NAME}:[ \t]+(?:{_QUOTED}|(?P<bare>[^\s\"',;]{{6,}}))(?=[ \t]*[,;}}]?$)",
        # percent-encoded within another value
        r"(?:password|pwd|secret|accountkey|accesskey|sig)%3D"
        r"(?P<bare>(?:(?!%3B|%26)[^\s&;\"'<>])+)",
        # headers
        r"\bauthorization\\*[\"']?\s*[:=]\s*\\*[\"']?(?:bearer|basic|token|negotiate|apikey)\s+"
        r"(?P<bare>[^\s\"'\\,]+)",
        r"\bauthorization\\*[\"']?\s*[:=]\s*\\*[\"']?(?:digest|aws4-hmac-sha256)\s+"
        r"(?P<bare>[^\"'\r\n\\]+)",
        r"\bbearer\s+(?=[^\s]*\d)(?P<bare>[A-Za-z0-9._~+/-]{12,}=*)",
        r"\b(?:set-)?cookie:\s*(?P<bare>[^\"'\r\n\\]+)",
        # what its maker made recognisable
        r"\b(?P<bare>gh[pousr]_\w{20,}|github_pat_\w{20,}|hf_[A-Za-z]{20,}|glpat-[\w-]{20,}"
        r"|xox[abprs]-[\w-]{10,}|sk-[\w-]{20,}|dapi[0-9a-f]{32}|pypi-[\w-]{20,}"
        r"|eyJ[\w-]+\.eyJ[\w-]+\.[\w-]*)",
        r"-----BEGIN\ [A-Z ]*PRIVATE\ KEY-----(?P<bare>[^-]+)-----END",
        r"\bjdbc:oracle:thin:[^/\s]{1,64}/(?P<bare>[^@\s]+)(?=@)",
    )
)
NOTHING = re.compile(
    r"(?:none|null|true|false|str|string|bytes|%s|\{\}|\.\.\."
    r"|(?:\*\*\*|(?:\$|%24)(?:\{|%7B)env(?::|%3A)\w+(?:\}|%7D))+)",
    re.IGNORECASE,
)
"""What stands in a secret's place and is none: a placeholder, or what we left there."""
KEY = re.compile(rf"(?:.*?{_NAME}|pwd|authorization)", re.VERBOSE | re.IGNORECASE)
"""A key of a dictionary whose value is a secret."""
VARIABLE = re.compile(
    r".*(?:PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|ACCESS_KEY|SECRET_KEY|ACCOUNT_KEY|STORAGE_KEY"
    r"|AUTH_STRING)",
    re.IGNORECASE,
)

P = ParamSpec("P")
R = TypeVar("R")
Span = tuple[int, int, str]
"""From, to, and what stands there instead."""

_known: dict[str, str] = {}
"""Secret to what stands in its place."""


# --- what the others call -------------------------------------------------------------------------


def resolve(text: str) -> str:
    """Replace `${env:NAME}` by that variable. Raises RecipeError naming one that is not set.

    The value is known from then on, and masked as its placeholder.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in os.environ:
            raise RecipeError(f"${{env:{name}}}: the environment variable {name} is not set")
        _remember(os.environ[name], match[0])
        return os.environ[name]

    return PLACEHOLDER.sub(value, text)


def note(given: Any) -> None:
    """Know the secrets of the URLs and settings that a user gave: strings, or values with strings.

    Libraries quote them in pieces, without what would tell where they stand.
    """
    for text in _strings(given):
        for start, end, _ in _placed(text):
            _remember(text[start:end])
        if whole := re.fullmatch(rf"(?s)(?:.*::)?({_SCHEME})([^/:]*):(.+)@[^@]*", text):
            scheme, user, password = whole.groups()
            if PORT.match(password) and scheme[:-3] not in NO_PORTS:
                continue
            if NOTHING.fullmatch(password):
                continue
            _remember(password)
            # A `/` or `@` in it ends the host, or the bucket, for others.
            pieces = re.split(r"[/@?#:]", password)
            _remember(f"{user}:{pieces[0]}", f"{user}:{HIDDEN}")
            for piece in pieces:
                _remember(piece)


def mask(text: str) -> str:
    """The text with `***` in place of every secret; what has none comes back as it is."""
    spans = sorted([*_literal(text), *_placed(text)], key=lambda one: (one[0], -one[1]))
    parts, at = [], 0
    for start, end, shown in spans:
        if start >= at:
            parts += [text[at:start], shown]
        at = max(at, end)
    return "".join([*parts, text[at:]])


def concealed(override: str) -> str:
    """`section.key=value` with `${env:...}` in place of its secrets, for what stores it.

    This process and its children resolve it; only sources are resolved at all.
    """
    if not override.startswith("data.source"):
        return override
    for start, end, _ in sorted(_placed(override), reverse=True):
        name = f"HEADRACE_SECRET_{hashlib.sha256(override[start:end].encode()).hexdigest()[:8]}"
        os.environ[name] = override[start:end]
        override = f"{override[:start]}${{env:{name}}}{override[end:]}"
    return override


def masked(value: Any) -> Any:
    """A JSON value whose strings are masked; those under a key like `password` whole."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if _names_secret(key) and _is_value(inner) else masked(inner)
            for key, inner in value.items()
        }
    return [masked(one) for one in value] if isinstance(value, list | tuple) else value


def mask_exception(problem: BaseException) -> None:
    """Mask what the exception and those behind it say, in place: others print and store them."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [problem]
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        todo += [one.__cause__, one.__context__]
        if mask(str(one)) == str(one) and mask(repr(one)) == repr(one):
            continue
        one.args = tuple(masked(list(one.args)))
        named = ("filename", "filename2", "strerror") if isinstance(one, OSError) else ()
        for name in (*named, *vars(one)):
            if isinstance(text := getattr(one, name, None), str):
                setattr(one, name, mask(text))


def masking(call: Callable[P, R]) -> Callable[P, R]:
    """The function, whose exceptions say no secret to whoever tells or stores them."""

    @functools.wraps(call)
    def masked_call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return call(*args, **kwargs)
        except BaseException as problem:
            mask_exception(problem)
            raise

    return masked_call


def guard() -> None:
    """Mask all that this process logs, warns of and dies of."""
    if getattr(logging.getLogRecordFactory(), "masks", False):
        return
    make, show = logging.getLogRecordFactory(), warnings.formatwarning

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made = make(*args, **kwargs)
        if type(made) is logging.LogRecord:
            made.__class__ = MaskedRecord
        if isinstance(made.exc_info, tuple) and made.exc_info[1] is not None:
            # A formatter takes this text where there is one.
            made.exc_text = mask("".join(traceback.format_exception(made.exc_info[1])).rstrip())
        return made

    record.masks = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(record)
    warnings.formatwarning = lambda *args, **kwargs: mask(show(*args, **kwargs))
    sys.excepthook = _die


class MaskedRecord(logging.LogRecord):
    def getMessage(self) -> str:
        return mask(super().getMessage())


def _die(kind: type[BaseException], problem: BaseException, where: TracebackType | None) -> None:
    sys.stderr.write(mask("".join(traceback.format_exception(kind, problem, where))))


# --- finding them ---------------------------------------------------------------------------------


def _placed(text: str) -> Iterator[Span]:
    """Secrets by where they stand."""
    for match in URL.finditer(text):
        start, rest = match.start("rest"), match["rest"]
        if PORT.match(rest) and match["scheme"][:-3].lower() not in NO_PORTS:
            continue
        # The last @ ends the password: one before the query, where there is one.
        end = re.split(r"[?#]", rest, maxsplit=1)[0].rfind("@")
        end = rest.rfind("@") if end < 0 else end
        if end > 0 and not NOTHING.fullmatch(rest[:end]):
            yield start, start + end, HIDDEN
    for pattern in PLACES:
        for match in pattern.finditer(text):
            name = next(name for name, found in match.groupdict().items() if found and name != "q")
            if not NOTHING.fullmatch(match[name].strip()):
                yield *match.span(name), HIDDEN


def _literal(text: str) -> Iterator[Span]:
    """Known secrets, wherever they stand."""
    for secret, shown in (_of_environment() | _known).items():
        start = text.find(secret)
        while start >= 0:
            yield start, start + len(secret), shown
            start = text.find(secret, start + 1)


def _of_environment() -> dict[str, str]:
    found = dict[str, str]()
    for name, value in os.environ.items():
        if len(value) >= MIN_VARIABLE and VARIABLE.fullmatch(name):
            found |= dict.fromkeys(_written(value), f"${{env:{name}}}")
        elif "://" in value and "@" in value:
            for start, end, _ in _placed(value):
                if end - start >= MIN_VARIABLE:
                    found |= dict.fromkeys(_written(value[start:end]), HIDDEN)
    return found


def _remember(secret: str, shown: str = HIDDEN) -> None:
    if len(secret) >= MIN_KNOWN and not PLACEHOLDER.search(secret):
        for text in _written(secret):
            _known.setdefault(text, shown)


def _written(secret: str) -> set[str]:
    """The ways in which others write it."""
    plain = unquote(secret)
    ways = {secret, plain, quote(plain), quote(plain, safe="")}
    ways |= {json.dumps(way)[1:-1] for way in ways} | {repr(way)[1:-1] for way in ways}
    return {way for way in ways if len(way) >= MIN_KNOWN}


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if _names_secret(key) and _is_value(inner):
                _remember(inner)
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


def _names_secret(key: Any) -> bool:
    return isinstance(key, str) and KEY.fullmatch(key) is not None


def _is_value(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and not PLACEHOLDER.search(value)
