"""Secrets: resolved where they are used, masked wherever something is printed, logged or stored.

`mask` finds secrets in two ways: by their context (a URL, `name=value`, a header, a dictionary as
text) and, in any context, by a value that is known: resolved from `${env:NAME}`, seen in a URL that
the user gave (`note`), or held by an environment variable whose name says that it is a secret.
`guard` applies it to the logging, warnings and uncaught exceptions of a process; flows/__init__.py
and tasks/runtime/supervised_process.py install it. What is written to files and to MLflow is masked
where it is written.
Imports nothing but the standard library and configs/errors.py.
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
"""Characters of the shortest value masked in any context; shorter ones are in too many words."""
MIN_VARIABLE = 8
"""MIN_KNOWN for environment variables, which may have nothing to do with us."""

# --- contexts of secrets --------------------------------------------------------------------------

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]{0,20}://"
URL = re.compile(
    rf"(?P<scheme>{_SCHEME})(?P<user>(?:\$\{{env:\w+\}}|[^/:\s\"'<>\[\]])*):"
    # A quote ends a URL, unless it is inside a word; so does the scheme of the next URL.
    rf"(?P<rest>(?:(?!{_SCHEME})(?:[^\s\"'<>]|[\"'](?=[^\s,:;)\]}}>\"'])))*)"
)
"""`scheme://user:` and the text after it, which may be a password or a port."""
PORT = re.compile(r"\d{1,5}(?=[/?#]|$)")
NO_PORTS = ("s3", "s3a", "s3n", "gs", "gcs", "abfs", "abfss", "az", "adl", "wasb", "wasbs", "oss")
"""Object stores, which have no ports: text after the colon is always a secret."""

_NAME = r"""(?:
    password | passwd | passphrase | secret | (?<![A-Za-z0-9_-])(?:sig|sas|token)
  | (?:api|account|storage|private|shared|secret|access|encryption)(?:[._-]?access)?[._-]?key
  | (?:access|auth|bearer|refresh|session|security|sas|api|id|hf|hub|git|github|gitlab|private
      |personal|oauth|tracking|login|user)[_-]?token
  | shared[_-]?access[_-]?signature | x-(?:amz|goog)-(?:signature|credential)
  | auth[_-]?string | (?<=[;&?{"'])(?:\s*)pwd
)"""
# ... without the punctuation that ends a sentence
_RUN = r"(?:\$\{env:\w+\}|(?:[^\s&;\"'`<>\\]|[\"'](?=\w))+(?<![,.)\]}:]))"
_QUOTED = r"(?P<q>\\*[\"'])(?P<quoted>(?:\\\\.|(?!(?P=q)).)+?)(?P=q)"
PLACES = tuple(
    re.compile(pattern, re.VERBOSE | re.IGNORECASE | re.MULTILINE)
    for pattern in (
        # name=value in a query, an environment, a connection string, code; {value} in ODBC
        rf"{_NAME}\s*=\s*(?:{_QUOTED}|\{{(?P<braced>[^}}\n]+)\}}|(?P<bare>{_RUN}))",
        # 'name': 'value', also as JSON within JSON
        rf"{_NAME}\\*[\"']\s*:\s*b?(?:{_QUOTED}|(?P<bare>\d{{6,}}))",
        # name: value, as in YAML: only to the end of the line, since it may be prose otherwise
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
        # secrets with a prefix that makes them recognizable
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
"""Text in the place of a secret that is not one: a placeholder, or our own mask."""
KEY = re.compile(rf"(?:.*?{_NAME}|pwd|authorization)", re.VERBOSE | re.IGNORECASE)
"""Key of a dictionary whose value is a secret."""
VARIABLE = re.compile(
    r".*(?:PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|ACCESS_KEY|SECRET_KEY|ACCOUNT_KEY|STORAGE_KEY"
    r"|AUTH_STRING)",
    re.IGNORECASE,
)

P = ParamSpec("P")
R = TypeVar("R")
Span = tuple[int, int, str]
"""Start, end, and the replacement."""

_known: dict[str, str] = {}
"""Known secrets and their replacements."""


# --- public functions -----------------------------------------------------------------------------


def resolve(text: str) -> str:
    """Replace each `${env:NAME}` by the variable. Raises RecipeError naming one that is not set.

    From then on the value is known, and masked as its placeholder.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in os.environ:
            raise RecipeError(f"${{env:{name}}}: the environment variable {name} is not set")
        _remember(os.environ[name], match[0])
        return os.environ[name]

    return PLACEHOLDER.sub(value, text)


def note(content: object) -> None:
    """Remember the secrets in the URLs and settings that a user gave, in any JSON value.

    Libraries quote them in pieces, without the context by which `mask` would find them.
    """
    for text in _strings(content):
        for start, end, _ in _placed(text):
            _remember(text[start:end])
        if match := re.fullmatch(rf"(?s)(?:.*::)?({_SCHEME})([^/:]*):(.+)@[^@]*", text):
            scheme, user, password = match.groups()
            if PORT.match(password) and scheme[:-3] not in NO_PORTS:
                continue
            if NOTHING.fullmatch(password):
                continue
            _remember(password)
            # For other parsers, a `/` or `@` in the password ends the host or the bucket.
            pieces = re.split(r"[/@?#:]", password)
            _remember(f"{user}:{pieces[0]}", f"{user}:{HIDDEN}")
            for piece in pieces:
                _remember(piece)


def mask(text: str) -> str:
    """Return the text with each secret replaced, by `***` or by its placeholder if it has one."""
    spans = sorted([*_literal(text), *_placed(text)], key=lambda span: (span[0], -span[1]))
    parts, position = [], 0
    for start, end, replacement in spans:
        if start >= position:
            parts += [text[position:start], replacement]
        position = max(position, end)
    return "".join([*parts, text[position:]])


def concealed(override: str) -> str:
    """Return `section.key=value` with its secrets replaced by `${env:...}`, so it can be stored.

    This process and its children can resolve it. Only sources are ever resolved, so only an
    override of `data.source` is changed.
    """
    if not override.startswith("data.source"):
        return override
    for start, end, _ in sorted(_placed(override), reverse=True):
        name = f"HEADRACE_SECRET_{hashlib.sha256(override[start:end].encode()).hexdigest()[:8]}"
        os.environ[name] = override[start:end]
        override = f"{override[:start]}${{env:{name}}}{override[end:]}"
    return override


def masked(value: object) -> Any:
    """Return a JSON value with its strings masked, and those under a key like `password` hidden."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if _names_secret(key) and _is_value(inner) else masked(inner)
            for key, inner in value.items()
        }
    return [masked(item) for item in value] if isinstance(value, list | tuple) else value


def mask_exception(problem: BaseException) -> None:
    """Mask the texts of an exception and its causes, in place: libraries print and store them."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [problem]
    while todo:
        exception = todo.pop()
        if exception is None or id(exception) in seen:
            continue
        seen.add(id(exception))
        todo += [exception.__cause__, exception.__context__]
        if mask(str(exception)) == str(exception) and mask(repr(exception)) == repr(exception):
            continue
        exception.args = tuple(masked(list(exception.args)))
        attributes = ("filename", "filename2", "strerror") if isinstance(exception, OSError) else ()
        for name in (*attributes, *vars(exception)):
            if isinstance(text := getattr(exception, name, None), str):
                setattr(exception, name, mask(text))


def masking(call: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function: its exceptions are masked, since its callers print or store them."""

    @functools.wraps(call)
    def masked_call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return call(*args, **kwargs)
        except BaseException as problem:
            mask_exception(problem)
            raise

    return masked_call


def guard() -> None:
    """Mask all logs, warnings and uncaught exceptions of this process."""
    if getattr(logging.getLogRecordFactory(), "masks", False):
        return
    make_record, format_warning = logging.getLogRecordFactory(), warnings.formatwarning

    def record(*args: object, **kwargs: object) -> logging.LogRecord:
        log_record = make_record(*args, **kwargs)
        if type(log_record) is logging.LogRecord:
            log_record.__class__ = MaskedRecord
        if isinstance(log_record.exc_info, tuple) and log_record.exc_info[1] is not None:
            # A formatter uses this text if it is set.
            log_record.exc_text = mask(
                "".join(traceback.format_exception(log_record.exc_info[1])).rstrip()
            )
        return log_record

    record.masks = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(record)
    warnings.formatwarning = lambda *args, **kwargs: mask(format_warning(*args, **kwargs))
    sys.excepthook = _die


class MaskedRecord(logging.LogRecord):
    def getMessage(self) -> str:
        return mask(super().getMessage())


def _die(kind: type[BaseException], problem: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(mask("".join(traceback.format_exception(kind, problem, trace))))


# --- finding them ---------------------------------------------------------------------------------


def _placed(text: str) -> Iterator[Span]:
    """Yield the secrets that are found by their context."""
    for match in URL.finditer(text):
        start, rest = match.start("rest"), match["rest"]
        if PORT.match(rest) and match["scheme"][:-3].lower() not in NO_PORTS:
            continue
        # The last @ ends the password; one before the query, if there is any.
        end = re.split(r"[?#]", rest, maxsplit=1)[0].rfind("@")
        end = rest.rfind("@") if end < 0 else end
        if end > 0 and not NOTHING.fullmatch(rest[:end]):
            yield start, start + end, HIDDEN
    for pattern in PLACES:
        for match in pattern.finditer(text):
            name = next(name for name, value in match.groupdict().items() if value and name != "q")
            if not NOTHING.fullmatch(match[name].strip()):
                yield *match.span(name), HIDDEN


def _literal(text: str) -> Iterator[Span]:
    """Yield the known secrets, in any context."""
    for secret, replacement in (_of_environment() | _known).items():
        start = text.find(secret)
        while start >= 0:
            yield start, start + len(secret), replacement
            start = text.find(secret, start + 1)


def _of_environment() -> dict[str, str]:
    replacements = dict[str, str]()
    for name, value in os.environ.items():
        if len(value) >= MIN_VARIABLE and VARIABLE.fullmatch(name):
            replacements |= dict.fromkeys(_written(value), f"${{env:{name}}}")
        elif "://" in value and "@" in value:
            for start, end, _ in _placed(value):
                if end - start >= MIN_VARIABLE:
                    replacements |= dict.fromkeys(_written(value[start:end]), HIDDEN)
    return replacements


def _remember(secret: str, replacement: str = HIDDEN) -> None:
    if len(secret) >= MIN_KNOWN and not PLACEHOLDER.search(secret):
        for text in _written(secret):
            _known.setdefault(text, replacement)


def _written(secret: str) -> set[str]:
    """Return the forms in which a secret is written: percent-encoded, as JSON, as a Python repr."""
    plain = unquote(secret)
    forms = {secret, plain, quote(plain), quote(plain, safe="")}
    forms |= {json.dumps(form)[1:-1] for form in forms} | {repr(form)[1:-1] for form in forms}
    return {form for form in forms if len(form) >= MIN_KNOWN}


def _strings(value: object) -> Iterator[str]:
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


def _names_secret(key: object) -> bool:
    return isinstance(key, str) and KEY.fullmatch(key) is not None


def _is_value(value: object) -> bool:
    return isinstance(value, str) and bool(value) and not PLACEHOLDER.search(value)
