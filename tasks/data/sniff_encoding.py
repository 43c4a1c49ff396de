"""Find the encoding of a file that is not UTF-8, or say that it cannot be told.

charset-normalizer is often right, but never says how sure it is: of a file of Spanish it takes ñ
for ń (CP1250), of one of Japanese the kana for Hangul. So the likely encodings are compared by what
they make of the text: an encoding is certain if the letters of one of its languages explain the
text, and no other encoding's do. Those that read the same are one. charset-normalizer's proposal
only goes into the error (docs/decisions.md has both counted).
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

from charset_normalizer import from_bytes

from headrace.serving.errors import InputError
from headrace.serving.tables.compression import unpacked
from headrace.serving.tables.dialect import as_options, encoding_name
from headrace.serving.tables.encoding import LONGEST_MARK, PIECE, beyond_ascii, guess, mark
from headrace.serving.tables.faults import NO_TEXT_SHARE
from headrace.serving.tables.files import File
from headrace.tasks.data.languages import COMMON_HANZI, JOINERS, LANGUAGES, LIKELY, SYMBOLS

SAMPLE_BYTES = 2**17
"""Bytes of the lines that are not ASCII, which are all that tells encodings apart."""
SURE = 0.97
"""Share of the characters beyond ASCII that a language must explain."""
CLOSE, UNLIKELY = 0.02, 0.9
"""A rival explains nearly as much as the best; or more than this, with more frequent words."""
CLEARER = 1.5
"""Times as many frequent words or letters as a rival's."""


@dataclass(frozen=True, order=True)
class Reading:
    """A text as an encoding has it."""

    share: float
    """Share of the characters beyond ASCII that the best of its languages explains."""
    frequent: float
    """That language's share of frequent words, or of frequent letters."""
    encoding: str


def find_encoding(file: File) -> str | None:
    """Return the encoding of a file; None if it is UTF-8, or what its byte order mark says.

    Raises InputError if it is not certain.
    """
    is_utf8, has_more = beyond_ascii(file)
    if not (is_utf8 and has_more):
        name = guess(file)
        if name and name.startswith("utf-16"):
            return None if _has_mark(file) else name
    if is_utf8:
        return None
    sample = _sample(file)
    if _is_damaged_utf8(sample):
        return None
    certain = _certain(readings(sample))
    if certain and _is_text_in(file, certain):
        return encoding_name(certain)
    best = from_bytes(sample, cp_isolation=list(LIKELY)).best()
    raise InputError(
        f"{file} is not UTF-8, and its encoding cannot be told for sure"
        + (f" (it may be {encoding_name(best.encoding)})" if best else "")
        + f"; say it, as in {as_options({'encoding': 'windows-1252'})}"
    )


def readings(sample: bytes) -> list[Reading]:
    """Return what the likely encodings make of some bytes, best first, equal texts once."""
    texts: dict[str, str] = {}
    for name in LIKELY:
        try:
            text = sample.decode(name)
        except UnicodeDecodeError:
            continue
        if not re.search(r"[\x80-\x9f]", text):  # control characters, which no text has
            texts.setdefault(text, name)
    return sorted((_judged(text, name) for text, name in texts.items()), reverse=True)


def _certain(found: list[Reading]) -> str | None:
    if not found or found[0].share < SURE:
        return None
    best, *others = found
    for other in others:
        is_close = other.share >= best.share - CLOSE
        is_rival = is_close or (other.share > UNLIKELY and other.frequent > best.frequent)
        if is_rival and best.frequent <= CLEARER * other.frequent:
            return None
    return best.encoding


def _has_mark(file: File) -> bool:
    with unpacked(file) as raw:
        return mark(raw.peek(LONGEST_MARK)[:LONGEST_MARK]) is not None


def _sample(file: File) -> bytes:
    """Return distinct lines that are not ASCII."""
    lines, size = dict[bytes, None](), 0
    with unpacked(file) as raw:
        while size < SAMPLE_BYTES and (line := raw.readline(PIECE)):
            if not line.isascii() and line not in lines:
                lines[line] = None
                size += len(line)
    return b"".join(lines)


def _is_damaged_utf8(sample: bytes) -> bool:
    """Return whether nearly all lines with characters beyond ASCII are UTF-8."""
    lines = sample.splitlines()
    n_good = sum(line.decode(errors="replace").find("\ufffd") < 0 for line in lines)
    return n_good > (1 - NO_TEXT_SHARE) * len(lines)


def _is_text_in(file: File, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    with unpacked(file) as raw:
        try:
            while piece := raw.read(PIECE):
                decoder.decode(piece)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


# --- how plausible a text is ----------------------------------------------------------------------


def _judged(text: str, encoding: str) -> Reading:
    places = [found.start() for found in re.finditer(r"[^\x00-\x7f]", text)]
    words, letters = Counter(re.findall(r"\w+", text.lower())), Counter(text.lower())
    best = max(_explained(language, text, places, words, letters) for language in LIKELY[encoding])
    return Reading(*best, encoding)


def _explained(
    name: str, text: str, places: list[int], words: Counter[str], letters: Counter[str]
) -> tuple[float, float]:
    """Return the share of the characters at some places that a language explains, and of its
    frequent words, or of its frequent letters if it has no others in common with English.
    """
    if name in ("Japanese", "Chinese", "Korean"):
        return _explained_east_asian(name, [text[place] for place in places])
    language = LANGUAGES[name]
    n_fitting = sum(_fits(language.letters, text, place) for place in places)
    counts, n = (words, words.total()) if language.is_latin else (letters, len(places))
    n_frequent = sum(counts[item] for item in language.frequent)
    return n_fitting / len(places), n_frequent / max(n, 1)


def _fits(letters: frozenset[str], text: str, place: int) -> bool:
    """Return whether a character stands where it may: letters in words, symbols beside them."""
    character = text[place]
    before, after = text[max(place - 1, 0) : place], text[place + 1 : place + 2]
    if character in JOINERS:
        return True
    if character in SYMBOLS:
        return not (before.isalpha() and after.isalpha())
    if character.lower() not in letters or before.isdigit() or after.isdigit():
        return False
    if character.isupper() and before.islower():
        return False
    is_latin = unicodedata.name(character, "").startswith("LATIN")
    beside_latin = any(one.isascii() and one.isalpha() for one in (before, after))
    return is_latin or not beside_latin  # no word is in two scripts


def _explained_east_asian(name: str, beyond: list[str]) -> tuple[float, float]:
    n = len(beyond)
    kana = sum("\u3041" <= one <= "\u30ff" for one in beyond)
    hangul = sum("\uac00" <= one <= "\ud7a3" and _is_common_syllable(one) for one in beyond)
    hanzi = [one for one in beyond if "\u4e00" <= one <= "\u9fff"]
    marks = sum("\u3000" <= one <= "\u303f" or "\uff00" <= one <= "\uff9f" for one in beyond)
    common = sum(one in COMMON_HANZI for one in hanzi)
    if name == "Japanese":
        return ((kana + len(hanzi) + marks) / n if kana > n / 5 else 0.0), kana / n
    if name == "Korean":
        return ((hangul + marks) / n if hangul > n / 2 else 0.0), hangul / n
    is_chinese = common > len(hanzi) / 10 and not kana
    return ((len(hanzi) + marks) / n if is_chinese else 0.0), common / n


def _is_common_syllable(syllable: str) -> bool:
    """Return whether KS X 1001 has it; the codec spells out the others."""
    return len(syllable.encode("euc_kr", "ignore")) == 2
