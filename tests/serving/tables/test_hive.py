"""Folders of partitioned tables: any value, on any file system, and back again."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.serving.errors import InputError
from headrace.serving.tables import hive

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=90)
FORBIDDEN = set('<>:"/\\|?*') | set(map(chr, range(32)))
"""On Windows, in any name."""


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("spam", "label=spam"),
        ("World", "label=World"),
        ("Sci/Tech", "label=Sci%2FTech"),
        ("two words", "label=two words"),
        ("Жалоба на задержку", "label=Жалоба на задержку"),
        ("100%", "label=100%25"),
        ("a=b", "label=a%3Db"),
        ('C:\\x|y?*<>"', "label=C%3A%5Cx%7Cy%3F%2A%3C%3E%22"),
        ("CON", "label=CON"),  # reserved alone, not as part of a name
        (".", "label=%2E"),
        ("..", "label=.%2E"),
        ("etc.", "label=etc%2E"),
        ("blank ", "label=blank%20"),
        ("", "label="),
        (None, "label=__HIVE_DEFAULT_PARTITION__"),
        ("__HIVE_DEFAULT_PARTITION__", "label=%5F_HIVE_DEFAULT_PARTITION__"),
        ("caf\u00e9", "label=caf\u00e9"),
        ("cafe\u0301", "label=cafe%CC%81"),
        ("zero\u200bwidth", "label=zero%E2%80%8Bwidth"),
        ("x\u2026", "label=x%E2%80%A6"),
        ("\U0001f600", "label=\U0001f600"),
    ],
)
def test_a_value_has_a_folder_that_gives_it_back(value: str | None, name: str) -> None:
    assert hive.folder_name("label", value) == name
    assert hive.partition(name) == ("label", value)
    assert not hive.is_shortened(name)


@given(column=TEXTS.filter(lambda text: len(text) < 10 and text), value=TEXTS, escape=st.booleans())
def test_any_value(column: str, value: str, escape: bool) -> None:
    name = hive.folder_name(column, value, escape_case=escape)
    assert len(name.encode()) <= 255
    assert not FORBIDDEN & set(name)
    assert name[-1] not in ". "
    assert name[0] not in "._"
    assert name.startswith(hive.prefix_of(column))
    if not hive.is_shortened(name):
        assert hive.partition(name) == (column, value)
    else:
        found = hive.partition(name)
        assert found is not None
        assert found[0] == column


@given(
    st.lists(TEXTS | st.sampled_from(["Red", "red", "STRASSE", "straße", "ς", "σ"]), unique=True)
)
def test_values_have_folders_of_their_own_where_case_and_normal_form_do_not_count(
    values: list[str],
) -> None:
    escape = hive.differ_by_case(values)
    names = [hive.folder_name("c", value, escape_case=escape) for value in [*values, None]]
    same = {unicodedata.normalize("NFC", unicodedata.normalize("NFC", n).casefold()) for n in names}
    assert len(same) == len(names)


def test_upper_case_is_encoded_only_if_it_alone_tells_values_apart() -> None:
    assert not hive.differ_by_case(["World", "Sports", None])
    assert hive.differ_by_case(["World", "world"])
    assert hive.folder_name("label", "WoRld", escape_case=True) == "label=%57o%52ld"
    assert hive.partition("label=%57o%52ld") == ("label", "WoRld")


def test_a_long_value_is_cut_and_told_from_others_with_its_beginning() -> None:
    long = "Жалоба " * 30
    name, other = hive.folder_name("category", long), hive.folder_name("category", f"{long}!")
    assert name.startswith("category=Жалоба Жалоба ")
    assert hive.is_shortened(name)
    assert hive.is_shortened(other)
    assert name != other
    assert 240 < len(name.encode()) <= 255
    exact = "x" * (255 - len("category="))
    assert hive.folder_name("category", exact) == f"category={exact}"
    assert hive.is_shortened(hive.folder_name("category", f"{exact}x"))


@pytest.mark.parametrize(
    ("column", "prefix"),
    [("_x", "%5Fx="), (".x", "%2Ex="), ("a=b", "a%3Db="), ("a/b", "a%2Fb="), ("País", "País=")],
)
def test_a_column_of_any_name(column: str, prefix: str) -> None:
    assert hive.prefix_of(column) == prefix
    assert hive.partition(hive.folder_name(column, "v")) == (column, "v")


def test_a_column_whose_name_leaves_no_room_is_refused() -> None:
    with pytest.raises(InputError, match=r"name is too long .*\(130 bytes, at most 128\)"):
        hive.prefix_of("x" * 130)
