"""Synthetic dates, written in many languages and in ISO 8601.

The patterns and the names of months come from Unicode's CLDR, in the package babel. A date, a
locale and a form are drawn, and babel formats the date. Forms without the month's name are left
out, because 03/04/2005 is a different day in different countries. So are forms with the day of the
week: a model would have to learn seven more names per language, which carry no information.
"""

from __future__ import annotations

import importlib.metadata
import random
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from functools import partial
from hashlib import blake2b

from headrace.configs.errors import DataError
from headrace.configs.schema import DatesSource
from headrace.tasks.data.sources import Block, Rows, Source

COLUMNS = ["source", "target", "locale", "seen"]
FORMS = ("medium", "long")
FIRST, LAST = date(1900, 1, 1), date(2099, 12, 31)
SHARES = {"train": 1.0, "validation": 0.05, "test": 0.1}
"""Rows of each split, as a share of the training rows."""
BLOCK_ROWS = 5_000

Form = tuple[str, str]
"""A locale and one of FORMS."""


def open_source(source: DatesSource, columns: Sequence[str] = (), folder: object = None) -> Source:
    """Open a source with columns `source`, `target`, `locale` and `seen`.

    `seen`: whether training has the locale too. Validation and test are drawn separately; a share
    `unseen` of the test rows is in locales that only they have. Raises DataError without babel.
    """
    try:
        digest = {**source.model_dump(mode="json"), "babel": importlib.metadata.version("babel")}
    except importlib.metadata.PackageNotFoundError:
        raise DataError('data.source: dates require babel: pip install "headrace[demo]"') from None
    splits = {name: Rows(COLUMNS, partial(_read, source, name)) for name in SHARES}
    return Source(digest, splits)


def _read(source: DatesSource, split: str) -> Iterator[Block]:
    forms = _forms()
    seen_forms = [form for form in forms if not _is_kept_back(form[0], source.unseen)]
    unseen_forms = [form for form in forms if form not in set(seen_forms)]
    rng = random.Random(f"{source.seed} {split}")
    n = round(source.rows * SHARES[split])
    for start in range(0, n, BLOCK_ROWS):
        rows = []
        for _ in range(min(BLOCK_ROWS, n - start)):
            is_seen = split != "test" or not unseen_forms or rng.random() >= source.unseen
            locale, form = rng.choice(seen_forms if is_seen else unseen_forms)
            day = FIRST + timedelta(rng.randrange((LAST - FIRST).days + 1))
            rows.append((_written(day, locale, form), day.isoformat(), locale, str(is_seen)))
        columns = dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True))
        yield Block(start, columns, [None] * len(rows))


def _written(day: date, locale: str, form: str) -> str:
    from babel.dates import format_date

    return str(format_date(day, form, locale=locale))


def _forms() -> list[Form]:
    """Return the forms with the month's name and a four-digit year, without those that repeat."""
    from babel import Locale
    from babel.localedata import locale_identifiers

    sample = [date(1987, month, 10 + month) for month in range(1, 13)]
    forms: dict[tuple[str, ...], Form] = {}
    for identifier in sorted(locale_identifiers()):
        formats = Locale.parse(identifier).date_formats
        for form in FORMS:
            pattern = formats[form].pattern
            if "MMM" not in pattern or "yy" in pattern.replace("yyyy", ""):
                continue
            texts = tuple(_written(day, identifier, form) for day in sample)
            # en_IE writes dates like en_GB: a locale that only repeats another is not unseen.
            if len(set(texts)) == len(sample):
                forms.setdefault(texts, (identifier, form))
    return list(forms.values())


def _is_kept_back(locale: str, share: float) -> bool:
    place = int.from_bytes(blake2b(locale.encode(), digest_size=8).digest())
    return place < share * 2**64
