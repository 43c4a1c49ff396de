"""Generated tables are read exactly or refused by name, never misread in silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headrace.configs.errors import DataError
from headrace.configs.schema import FilesSource
from headrace.serving.errors import InputError
from headrace.serving.tables.dialect import checked
from headrace.serving.tables.files import File
from headrace.serving.tables.readers import Block, column_names, find_files, read_table
from headrace.serving.tables.settle import Expected, settle
from headrace.tasks.data.sniff import Sniffed, sniff
from headrace.tasks.data.sources import open_source
from tests.tasks.data.generated_tables import Table, generate


def as_init_reads(table: Table, sniffed: Sniffed) -> Any:
    return read_table(sniffed.files, [table.text, table.label])


def as_check_reads(table: Table, sniffed: Sniffed) -> Any:
    source = FilesSource.model_validate(
        {"kind": "files", "train": str(table.path), "csv": sniffed.recipe_section}
    )
    columns = [table.text, table.label]
    return open_source(source, columns, table.path.parent).splits["train"].read()


def as_scoring_reads(table: Table, sniffed: Sniffed) -> Any:
    """Read with a model that was trained on the table."""
    trained = checked(sniffed.recipe_section)
    return _scored(table, Expected([table.text], [table.text], default=trained))


def as_scoring_reads_unprepared(table: Table, sniffed: Sniffed) -> Any:
    """Read with a model that was trained on tables as their endings say."""
    return _scored(table, Expected([table.text], [table.text]))


def _scored(table: Table, expected: Expected) -> Any:
    (file,) = find_files(table.path)
    file = replace(file, dialect=settle(file, expected).dialect)
    return read_table([file], [table.text, table.label], optional=[table.label])


def outcome(table: Table, blocks: Sequence[Block]) -> str:
    """`exact`, `rows refused` by a code of their own, or what is wrong."""
    found = [
        row
        for block in blocks
        for row in zip(
            block.columns[table.text], block.columns[table.label], block.errors, strict=True
        )
    ]
    if len(found) != len(table.rows):
        return f"{table.about}: {len(found)} rows instead of {len(table.rows)}"
    for (text, label, error), row in zip(found, table.rows, strict=True):
        if error is None and (text, label) != row:
            return f"{table.about}: {(text, label)} instead of {row}"
    return "rows refused" if any(error for _, _, error in found) else "exact"


READERS = (as_init_reads, as_check_reads, as_scoring_reads, as_scoring_reads_unprepared)


@pytest.mark.parametrize(
    "seeds", [range(150), pytest.param(range(150, 1_000), marks=pytest.mark.slow)]
)
def test_a_table_is_read_as_it_was_written_or_refused(tmp_path: Path, seeds: range) -> None:
    counts = {reads.__name__: Counter[str]() for reads in READERS}
    for seed in seeds:
        table = generate(seed, tmp_path)
        try:
            sniffed = sniff(table.path)
        except InputError:
            for reads in READERS:
                counts[reads.__name__]["refused"] += 1
            continue
        for reads in READERS:
            try:
                result = outcome(table, list(reads(table, sniffed)))
            except (InputError, DataError) as problem:
                is_clear = table.path.name in str(problem) and len(str(problem)) < 1_000
                result = "refused" if is_clear else f"unclear: {problem}"
            counts[reads.__name__][result] += 1
        table.path.unlink()
    print({name: dict(count) for name, count in counts.items()})
    for count in counts.values():
        assert set(count) <= {"exact", "rows refused", "refused"}
    for name in ("as_init_reads", "as_check_reads", "as_scoring_reads"):
        assert counts[name]["exact"] >= 0.9 * len(seeds)


# --- by hand --------------------------------------------------------------------------------------


ROWS = [(str(i), ["good", "bad"][i % 2], f"text {i}, so it is") for i in range(40)]


def written(folder: Path, name: str, lines: Sequence[str], encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes("\r\n".join(lines).encode(encoding))
    return path


def lines_of(delimiter: str, *, quote: str = '"', header: str = "id|label|text") -> list[str]:
    header_line = [delimiter.join(header.split("|"))] if header else []
    return header_line + [
        delimiter.join(f"{quote}{cell}{quote}" if "," in cell else cell for cell in row)
        for row in ROWS
    ]


@pytest.mark.parametrize(
    ("name", "lines", "encoding", "section", "words"),
    [
        ("t.csv", lines_of(","), "utf-8", {}, "40 rows read of 41 lines"),
        ("t.csv", lines_of(";", quote=""), "utf-8", {"delimiter": ";"}, "separated by ';'"),
        ("t.csv", lines_of("\t"), "utf-8", {"delimiter": "tab"}, "separated by tabs"),
        ("t.csv", lines_of(", "), "utf-8", {"skip_blanks": True}, "blanks behind delimiters"),
        ("t.csv", lines_of(",", header=""), "utf-8", {"header": False}, "of 40 lines; without a"),
        ("t.csv", lines_of(",", header="id|Größe|text"), "cp1252",
         {"encoding": "windows-1252"}, "; windows-1252"),
        ("t.tsv", [*lines_of("\t"), '40\tgood\t"so" he said'], "utf-8", {}, "41 rows"),
        ("t.tsv", [*lines_of("\t", quote=""), '40\tgood\t"so" he said'], "utf-8",
         {"quote": "none"}, "without quoting"),
        ("t.csv", [*lines_of(","), r'40,good,"a \"b\", c"'], "utf-8", {"escape": "\\"},
         "quotes escaped with \\"),
        ("t.csv", lines_of(","), "utf-16", {}, "40 rows read of 41 lines"),
        ("t.csv", lines_of(","), "utf-16-le", {"encoding": "utf-16-le"}, "utf-16-le"),
    ],
)  # fmt: skip
def test_what_is_found(
    tmp_path: Path,
    name: str,
    lines: list[str],
    encoding: str,
    section: dict[str, object],
    words: str,
) -> None:
    sniffed = sniff(written(tmp_path, name, lines, encoding))
    assert sniffed.recipe_section == section
    assert words in sniffed.note
    column = "text" if "text" in column_names(sniffed.files[0]) else "column_3"
    (block,) = read_table(sniffed.files, [column])
    assert block.columns[column][:40] == [text for _, _, text in ROWS]


def test_columns_nobody_asked_for_may_have_no_name_or_the_same(tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv", ["v1,v2,,,", "ham,hello,,,", "spam,win,,,"])
    sniffed = sniff(path)
    assert column_names(sniffed.files[0]) == ["v1", "v2", "", "", ""]
    (block,) = read_table(sniffed.files, ["v2"])
    assert block.columns == {"v2": ["hello", "win"]}


@pytest.mark.parametrize(
    ("text", "encoding", "found"),
    [
        ("Win £100 now; call 0", "cp1252", "windows-1252"),
        ("The naïve café – really", "cp1252", "windows-1252"),
        ("El niño pequeño no es muy bueno, la señal", "cp1252", "windows-1252"),
        ("Die Größe ist schön", "mac_roman", "mac-roman"),
        ("Źle działa, jakość nie jest dobra", "iso8859_2", "iso8859-2"),
        ("очень плохое качество", "koi8_r", "koi8-r"),
        ("とても良い商品です", "cp932", "cp932"),
        ("这个东西不是我想要的", "gb18030", "gb18030"),
    ],
)
def test_encodings_are_told_by_their_letters(
    tmp_path: Path, text: str, encoding: str, found: str
) -> None:
    lines = ["text,label", *(f'"{text}",{i % 2}' for i in range(20))]
    sniffed = sniff(written(tmp_path, "t.csv", lines, encoding))
    assert sniffed.recipe_section == {"encoding": found}


def test_an_encoding_that_cannot_be_told_is_refused_and_may_be_stated(tmp_path: Path) -> None:
    # ñ in one encoding and ń in another, and no word tells the language.
    path = written(tmp_path, "t.csv", ["text,label", "ni\u00f1o 1,a", "ni\u00f1o 2,b"], "cp1252")
    with pytest.raises(InputError, match=r"t\.csv is not UTF-8, .* cannot be told for sure .*say"):
        sniff(path)
    sniffed = sniff(path, {"encoding": "cp1252"})
    assert sniffed.recipe_section == {"encoding": "windows-1252"}
    assert isinstance(sniffed.files[0], File)
