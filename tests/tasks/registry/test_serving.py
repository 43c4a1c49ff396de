"""A registered model behind `mlflow models serve`: a real server, and a request of every format."""

import io
import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.error import HTTPError

import pandas as pd
import pytest

from headrace.tasks.registry import tracking
from tests import fabricated
from tests.serving.tiny_model import FEATURES

SPORT, SOUP, MOON = "the goal of the match", "soup", "moon, near a planet"
JSON, CSV, PARQUET = "application/json", "text/csv", "application/vnd.apache.parquet"


@pytest.fixture(scope="module")
def server(workspace: Any) -> Iterator[str]:
    fabricated.stored_model("served")
    with serving("served") as address:
        yield address


@contextmanager
def serving(name: str) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", tracking.uri())
        command = ["mlflow", "models", "serve", "-m", f"models:/{name}@champion"]
        with fabricated.server([*command, "--env-manager", "local"], "/ping") as address:
            yield f"{address}/invocations"


def ask(server: str, body: Any, kind: str = JSON) -> list[dict[str, Any]]:
    """The rows of the answer, which is JSON without NaN."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(server, content, {"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=60) as answer:
        rows: list[dict[str, Any]] = json.loads(answer.read(), parse_constant=pytest.fail)[
            "predictions"
        ]
    return rows


def refusal(server: str, body: Any, kind: str = JSON) -> dict[str, Any]:
    """The body of an answer with status 400."""
    with pytest.raises(HTTPError, match="400") as refused:
        ask(server, body, kind)
    with refused.value as answer:
        told: dict[str, Any] = json.loads(answer.read())
    return told


@pytest.mark.parametrize(
    "request_body",
    [
        {"inputs": [SPORT, SOUP]},
        {"inputs": {"text": [SPORT, SOUP]}},
        {"inputs": [{"text": SPORT}, {"text": SOUP}]},
        {"inputs": [[SPORT], [SOUP]]},
        {"instances": [SPORT, SOUP]},
        {"instances": [{"id": 1, "text": SPORT}, {"text": SOUP}]},
        {"dataframe_split": {"columns": ["text"], "data": [[SPORT], [SOUP]]}},
        {"dataframe_split": {"index": [7, 8], "data": [[SPORT], [SOUP]]}},
        {"dataframe_split": {"columns": ["id", "text"], "data": [[1, SPORT], [2, SOUP]]}},
        {"dataframe_split": {"columns": ["text", "note"], "data": [[SPORT, MOON], [SOUP, MOON]]}},
        {"dataframe_records": [{"text": SPORT}, {"text": SOUP}]},
        {"dataframe_records": [{"note": MOON, "text": SPORT}, {"text": SOUP}]},
        {"dataframe_records": [{"message": SPORT}, {"message": SOUP}]},
        {"dataframe_records": [{"id": 1, "message": SPORT}, {"id": 2, "message": SOUP}]},
        {"dataframe_split": {"columns": ["", "text", ""], "data": [[1, SPORT, 1], [2, SOUP, 2]]}},
        {"inputs": [SPORT, SOUP], "params": None},
    ],
)
def test_every_format_of_json_with_columns_in_any_order(server: str, request_body: Any) -> None:
    assert [row["label"] for row in ask(server, request_body)] == ["sport", "food"]


@pytest.mark.parametrize(
    ("body", "labels"),
    [
        (b'text\nthe goal\n"moon, near a planet"\n', ["sport", "space"]),
        (b'\xef\xbb\xbftext\r\nthe goal\r\n"the\r\nsoup"', ["sport", "food"]),
        (b"id,text\n1,the goal\n2,soup\n", ["sport", "food"]),
        (b"text,note\nthe goal,moon\nsoup,moon\n", ["sport", "food"]),
        (b",text\n0,the goal\n1,soup\n", ["sport", "food"]),  # DataFrame.to_csv()
        (b",message\n0,the goal\n1,soup\n", ["sport", "food"]),
        (b",id,text,id\n0,7,the goal,7\n1,8,soup,8\n", ["sport", "food"]),
        (b"text\n", []),
    ],
)
@pytest.mark.parametrize("kind", [CSV, "text/csv; charset=utf-8", 'text/csv;charset="UTF-8";'])
def test_csv(server: str, body: bytes, labels: list[str], kind: str) -> None:
    assert [row["label"] for row in ask(server, body, kind)] == labels


def test_csv_cells_are_texts_even_if_they_look_like_something_else(server: str) -> None:
    rows = ask(server, b'text,id\nNA,1\nnull,2\n007,3\n1e5,4\n"",5\n', CSV)
    assert [row["error"] for row in rows] == [None, None, None, None, "empty_text"]


def in_parquet(columns: dict[str, list[Any]], index: list[str] | None = None) -> bytes:
    """As pandas stores a frame, whose index is a column of the file."""
    body = io.BytesIO()
    pd.DataFrame(columns, index=index).to_parquet(body)
    return body.getvalue()


def test_parquet_with_columns_in_any_order(server: str) -> None:
    for columns in (
        {"id": [1, 2, 3], "text": [SPORT, None, SOUP]},
        {"message": [SPORT, None, SOUP]},
    ):
        rows = ask(server, in_parquet(columns, index=["a", "b", "c"]), PARQUET)
        assert [row["label"] for row in rows] == ["sport", None, "food"]
        assert [row["error"] for row in rows] == [None, "null_text", None]


@pytest.mark.parametrize("rows", [[["soup", "goal"]], [["soup", "goal"], [SOUP, SPORT]], [[]]])
def test_a_list_in_a_row_is_no_text_and_no_further_rows(server: str, rows: list[Any]) -> None:
    records = {"dataframe_records": [{"text": row} for row in rows]}
    assert [row["error"] for row in ask(server, records)] == ["wrong_type"] * len(rows)


def test_a_null_among_records_is_a_row(server: str) -> None:
    rows = ask(server, {"instances": [None, {"text": SOUP}, {"text": None}]})
    assert [row["error"] for row in rows] == ["null_text", None, "null_text"]
    assert [row["label"] for row in rows] == [None, "food", None]


@pytest.mark.parametrize(
    "request_body",
    [
        {"inputs": [None, 3, "", SOUP]},
        {"inputs": {"text": [None, 3, "", SOUP]}},
        {"instances": [{"text": None}, {"text": 3}, {"text": ""}, {"text": SOUP}]},
        {"dataframe_split": {"columns": ["text"], "data": [[None], [3], [""], [SOUP]]}},
        {"dataframe_records": [{"text": None}, {"text": 3}, {"text": ""}, {"text": SOUP}]},
        {"dataframe_records": [{"id": 1}, {"text": 3}, {"text": ""}, {"text": SOUP}]},
    ],
)
def test_a_null_stays_null_and_a_number_is_no_text(server: str, request_body: Any) -> None:
    rows = ask(server, {**request_body, "params": {"probabilities": True}})
    assert [row["error"] for row in rows] == ["null_text", "wrong_type", "empty_text", None]
    assert [row["label"] for row in rows] == [None, None, None, "food"]
    assert [row["probabilities"] for row in rows[:3]] == [None] * 3
    by_label = rows[3]["probabilities"]
    assert list(by_label) == ["food", "space", "sport"]
    assert by_label["food"] == pytest.approx(rows[3]["probability"])
    assert sum(by_label.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            {"inputs": [SOUP], "params": {"probabilites": True}},
            "this model has no parameter 'probabilites'; did you mean 'probabilities'?",
        ),
        (
            {"inputs": [SOUP], "params": {"temperature": 1}},
            "this model has no parameter 'temperature'; it has variant, device, probabilities, "
            "min_probability",
        ),
        (
            {"inputs": [SOUP], "params": {"probabilities": "true"}},
            "the parameter probabilities must be true or false, not 'true'",
        ),
        (
            {"inputs": [SOUP], "params": ["probabilities"]},
            "params must be a JSON object, not a list",
        ),
        (
            {"inputs": [SOUP], "parms": {"probabilities": True}},
            "the request has an unknown key 'parms'; did you mean 'params'?",
        ),
        (
            {"inputs": [SOUP], "probabilities": True},
            "the request has an unknown key 'probabilities'; parameters belong into 'params', and "
            "texts into one of dataframe_split, dataframe_records, instances, inputs",
        ),
        (
            {"inputs": [SOUP], "params": {"variant": "int9"}},
            "this model has no variant 'int9'; available: fp32, fused",
        ),
        (
            {"dataframe_records": [{"title": SOUP, "body": SPORT}]},
            "the request has no column 'text', and of its 2 columns 2 hold text: name the one with "
            "the texts 'text'",
        ),
        (
            {"dataframe_split": {"columns": ["id", "text"], "data": [[1]]}},
            "row 0 of the request has 1 field, and there are 2 columns",
        ),
        (
            b'{"inputs": ["soup"], "inputs": ["goal"]}',
            "the request is not valid JSON: it has the key 'inputs' 2 times in one object",
        ),
        ({"inputs": {}}, "inputs must have columns of one length, with a value for each row"),
        ({"inputs": [SOUP], "params": []}, "params must be a JSON object, not a list"),
        ({"inputs": [SOUP], "params": ""}, "params must be a JSON object, not a string"),
        (
            {"instances": [{"text": SOUP}, SOUP]},
            "instances must be a list of JSON objects, one a row",
        ),
        (
            {"dataframe_split": {"columns": ["text", "text"], "data": [["a", "b"]]}},
            "the request has 2 columns 'text'; send one",
        ),
        (
            {"dataframe_records": {"text": SOUP}},
            "dataframe_records must be a list of JSON objects, one a row",
        ),
        (
            {"inputs": [SOUP], "instances": [SOUP]},
            "the request must have one of dataframe_split, dataframe_records, instances, inputs; "
            "it has inputs and instances",
        ),
        (
            [SOUP],
            "the request must be a JSON object with one of the keys dataframe_split, "
            "dataframe_records, instances, inputs, not a list",
        ),
    ],
)
def test_a_wrong_request_gets_one_sentence(server: str, body: Any, message: str) -> None:
    told = refusal(server, body)
    assert (told["error_code"], told["message"]) == ("INVALID_PARAMETER_VALUE", message)
    assert "stack_trace" not in told


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b'{"inputs": [', JSON, "the request is not valid JSON: Expecting value"),
        (b"", CSV, "the request is empty; a CSV request begins with a line of column names"),
        (b"id,text\n1,a,b\n", CSV, "record 0 of the request has 3 fields, and there are 2 columns"),
        (b'text\n"never closed', CSV, "the request is not valid CSV: unexpected end of data"),
        (b"text\nsm\xf8rrebr\xf8d\n", CSV, "the request is not UTF-8: invalid start byte at 7"),
        (b"title,body\nsoup,goal\n", CSV, "the request has no column 'text'"),
        (b"text,text\nsoup,goal\n", CSV, "the request has 2 columns 'text'; send one"),
        (b"text;id\nsoup;1\n", CSV, "the request's only column is 'text;id'; a CSV request has"),
        (b"PAR1 cut off", PARQUET, "the request is not valid Parquet: "),
        (in_parquet({"a": [SOUP], "b": [SOUP]}), PARQUET, "the request has no column 'text'"),
    ],
)
def test_a_damaged_body_gets_one_sentence(
    server: str, body: bytes, kind: str, message: str
) -> None:
    told = refusal(server, body, kind)
    assert "stack_trace" not in told
    assert told["message"].startswith(message)
    assert "\n" not in told["message"]


# --- a model of pairs with features ---------------------------------------------------------------

ROW = {"text": SOUP, "text_pair": "bread", "amount": 10, "shop": "south"}


@pytest.fixture(scope="module")
def of_features(workspace: Any) -> Iterator[str]:
    fabricated.stored_model("featured", **FEATURES)
    with serving("featured") as address:
        yield address


@pytest.mark.parametrize(
    ("rows", "labels", "errors"),
    [
        ([ROW, {**ROW, "amount": 100}], ["food", "sport"], [None, None]),
        ([{**ROW, "shop": "north"}, {**ROW, "shop": "unheard of"}], ["space", "food"], [None] * 2),
        ([{**ROW, "amount": None}, {**ROW, "shop": None}], ["food", "food"], [None] * 2),
        ([{**ROW, "amount": "100"}, {**ROW, "amount": True}], ["sport", "food"], [None] * 2),
        ([{**ROW, "id": 7, "note": {"a": [1]}}], ["food"], [None]),
        (
            [{**ROW, "amount": "much"}, {**ROW, "shop": ["a", "b"]}, {**ROW, "text_pair": None}],
            [None] * 3,
            ["not_a_number", "not_a_category", "null_text_pair"],
        ),
    ],
)
def test_features_in_every_format(
    of_features: str, rows: list[dict[str, Any]], labels: list[str | None], errors: list[Any]
) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    split = {"columns": names, "data": [[row.get(name) for name in names] for row in rows]}
    columns = {name: [row.get(name) for row in rows] for name in names}
    renamed = [
        {{"text": "a", "text_pair": "b"}.get(k, k): v for k, v in row.items()} for row in rows
    ]
    for body in (
        {"dataframe_records": rows},
        {"dataframe_split": split},
        {"instances": rows},
        {"inputs": columns},
        {"inputs": renamed},
    ):
        answer = ask(of_features, body)
        assert [row["label"] for row in answer] == labels, body
        assert [row["error"] for row in answer] == errors, body


def test_features_in_csv(of_features: str) -> None:
    body = b"shop,amount,b,id,a\nsouth,100,bread,1,soup\n,,bread,2,soup\nnorth,x,bread,3,soup\n"
    answer = ask(of_features, body, CSV)
    assert [row["label"] for row in answer] == ["sport", "food", None]
    assert [row["error"] for row in answer] == [None, None, "not_a_number"]


@pytest.mark.parametrize("name", ["text_pair", "shop"])
def test_a_request_without_one_of_the_columns(of_features: str, name: str) -> None:
    rows = [{key: value for key, value in ROW.items() if key != name}]
    told = refusal(of_features, {"dataframe_records": rows})
    wanted = {"text_pair": "b"}.get(name, name)
    assert told["message"] == (
        f"the request has no column {wanted!r}; this model reads the columns a, b, amount, shop"
    )
