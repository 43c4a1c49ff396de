"""Secrets: where they are found, what is left alone, and what is known by its value."""

from __future__ import annotations

import logging
import warnings

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from headrace.configs import secrets
from headrace.configs.errors import DataError, RecipeError
from headrace.configs.secrets import concealed, mask, mask_exception, masked, note, resolve

FORMS = [
    ("postgresql://me:hunter2@host/db", "postgresql://me:***@host/db"),
    ("postgresql://me:p%40ss%2Fword@host:5432/db", "postgresql://me:***@host:5432/db"),
    ("postgresql://me:pa/ss@host/db", "postgresql://me:***@host/db"),
    ("postgresql://me:p@ss@host/db", "postgresql://me:***@host/db"),
    ("postgresql://me:hunter2@[::1]:5432/db", "postgresql://me:***@[::1]:5432/db"),
    ("redis://:hunter2@cache:6379/0", "redis://:***@cache:6379/0"),
    (
        "no login at mysql+pymysql://a:first1@h1/x and postgresql://b:second2@h2/y",
        "no login at mysql+pymysql://a:***@h1/x and postgresql://b:***@h2/y",
    ),
    ("a://u:first1@h/x,b://u:second2@h/y", "a://u:***@h/x,b://u:***@h/y"),
    (
        "postgresql://user@srv:hunter2@srv.postgres.database.azure.com/db",
        "postgresql://user@srv:***@srv.postgres.database.azure.com/db",
    ),
    ("s3://AKIAKEY:wJal/rXUtn+FEMI@bucket/rows.csv", "s3://AKIAKEY:***@bucket/rows.csv"),
    ("s3://AKIAKEY:12/abc@bucket/x", "s3://AKIAKEY:***@bucket/x"),
    (
        "simplecache::s3://AKIAKEY:wJalr@bucket/rows.csv",
        "simplecache::s3://AKIAKEY:***@bucket/rows.csv",
    ),
    ("zip://*.csv::s3://K:Sec@bucket/a.zip", "zip://*.csv::s3://K:***@bucket/a.zip"),
    (
        "https://host/x?user=me&password=hunter2&page=1",
        "https://host/x?user=me&password=***&page=1",
    ),
    (
        "https://acc.blob.core.windows.net/c/x.csv?sv=2024&sp=r&sig=abc%2Bdef%3D&se=2027",
        "https://acc.blob.core.windows.net/c/x.csv?sv=2024&sp=r&sig=***&se=2027",
    ),
    (
        "https://b.s3.amazonaws.com/x?X-Amz-Credential=AKIA%2F2026&X-Amz-Signature=0123abcd&X-Amz-Security-Token=FwoG",
        "https://b.s3.amazonaws.com/x?X-Amz-Credential=***&X-Amz-Signature=***&X-Amz-Security-Token=***",
    ),
    (
        "DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=abc+def/ghi==;EndpointSuffix=core.windows.net",
        "DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=***;EndpointSuffix=core.windows.net",
    ),
    (
        "Endpoint=sb://ns/;SharedAccessKeyName=root;SharedAccessKey=abcdef=",
        "Endpoint=sb://ns/;SharedAccessKeyName=root;SharedAccessKey=***",
    ),
    (
        "mssql+pyodbc:///?odbc_connect=DRIVER%3D%7BODBC%7D%3BSERVER%3Dh%3BUID%3Dme%3BPWD%3Dhunter2%3B",
        "mssql+pyodbc:///?odbc_connect=DRIVER%3D%7BODBC%7D%3BSERVER%3Dh%3BUID%3Dme%3BPWD%3D***%3B",
    ),
    (
        "DRIVER={ODBC};SERVER=h;UID=me;PWD=hunter2;DATABASE=x",
        "DRIVER={ODBC};SERVER=h;UID=me;PWD=***;DATABASE=x",
    ),
    ("DRIVER={ODBC};UID=me;PWD={hunt;er2};DATABASE=x", "DRIVER={ODBC};UID=me;PWD={***};DATABASE=x"),
    ("host=db user=me password=hunter2 dbname=x", "host=db user=me password=*** dbname=x"),
    ("host=db user=me password='hunter 2' dbname=x", "host=db user=me password='***' dbname=x"),
    ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
    ("{'Authorization': 'Basic dXNlcjpwdw=='}", "{'Authorization': 'Basic ***'}"),
    (
        '{"headers": "{\\"Authorization\\": \\"Bearer abc\\"}"}',
        '{"headers": "{\\"Authorization\\": \\"Bearer ***\\"}"}',
    ),
    ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG", "AWS_SECRET_ACCESS_KEY=***"),
    ('export MLFLOW_TRACKING_PASSWORD="hunter 2"', 'export MLFLOW_TRACKING_PASSWORD="***"'),
    (
        "{'key': 'AKIA', 'secret': 'wJalr', 'client_kwargs': {'region_name': 'x'}}",
        "{'key': 'AKIA', 'secret': '***', 'client_kwargs': {'region_name': 'x'}}",
    ),
    ('{"password": "hunter2", "user": "me"}', '{"password": "***", "user": "me"}'),
    ('{"url": "postgresql://me:hun\\"ter2@host/db"}', '{"url": "postgresql://me:***@host/db"}'),
    (
        '{\\"url\\": \\"postgresql://me:hunter2@host/db\\"}',
        '{\\"url\\": \\"postgresql://me:***@host/db\\"}',
    ),
    ("password: hunter2", "password: ***"),
    (
        "line one\npostgresql://me:hunter2@host/db\nline three",
        "line one\npostgresql://me:***@host/db\nline three",
    ),
    ("jdbc:oracle:thin:scott/tiger@//h:1521/x", "jdbc:oracle:thin:scott/***@//h:1521/x"),
    ("jdbc:sqlserver://h;user=me;password=hunter2;", "jdbc:sqlserver://h;user=me;password=***;"),
    (
        "cloned https://ghp_abcdefghijklmnopqrstuvwxyz0123@github.com/x",
        "cloned https://***@github.com/x",
    ),
    ("eyJhbGciOi.eyJzdWIi.abc", "***"),
    ("connect(host='h', password='hunter2', port=1)", "connect(host='h', password='***', port=1)"),
    ("connect(password=hunter2, user=me)", "connect(password=***, user=me)"),
    (
        "https://user:hunter2@proxy:3128/?email=x@y.com",
        "https://user:***@proxy:3128/?email=x@y.com",
    ),
    ("Cookie: session=abc; x=1", "Cookie: ***"),
    ("token=abcdef0123", "token=***"),
    ("?access_token=abc", "?access_token=***"),
    ("hf_abcdefghijklmnopqrstuvwxyzABCDEF", "***"),
    (
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN RSA PRIVATE KEY-----***-----END RSA PRIVATE KEY-----",
    ),
    ("smb://DOMAIN;me:hunter2@host/share", "smb://DOMAIN;me:***@host/share"),
]

INNOCENT = [
    "C:\\Users\\me\\rows.csv",
    "file:///C:/Users/me@corp/rows.csv",
    "write to me@example.com: today",
    "note: this is a text",
    "http://localhost:5000/models:/name@champion",
    "http://host:8080/a@b",
    "http://[::1]:8080/x@y",
    "models:/name@champion",
    "runs:/0123/model",
    "s3://bucket/prefix/day=2026-01-01/rows.csv",
    "https://example.com/a?page=2&sort=name",
    "postgresql://me:${env:SECRET}@host/db",
    "postgresql://${env:U}:${env:SECRET}@${env:H}/db",
    "postgresql://me@host:5432/db",
    "git@github.com:org/repo.git",
    "ssh://git@github.com:22/x",
    'password authentication failed for user "me"',
    "wrong password: try again",
    "first token: CLS",
    "pass `token=True` or `token=<your_token>`",
    "pad_token=[PAD] eos_token=</s>",
    "max_tokens=5 token_budget=1024 tokens: bpe",
    "PWD=/home/me",
    "signature=None",
    "key=value sort_key=abc",
    '{"tokens": "bpe", "token": null}',
    "Bearer authentication is required",
    "password=None",
    "password=${env:DB_PASSWORD}",
    "sqlite:////tmp/a.db",
    "data.source.url: 'sqlite:////no/folder'",
    "https://me@host/x:y",
    "see http://a.b/c:d and mail x@y.z",
    "recipe.yaml: 'name': String should match pattern '^[A-Za-z0-9][A-Za-z0-9._-]*$' (it is 'a b')",
]


@pytest.mark.parametrize(("text", "shown"), FORMS)
def test_secrets_are_masked(text: str, shown: str) -> None:
    assert mask(text) == shown
    assert mask(shown) == shown


@pytest.mark.parametrize("text", INNOCENT)
def test_what_holds_no_secret_is_left_as_it_is(text: str) -> None:
    assert mask(text) == text


PASSWORDS = st.text("abcXYZ019/@:+=&%!$*()[]{}~^|,.;_-", min_size=1)


@given(PASSWORDS)
def test_whatever_a_password_of_a_url_is_made_of(password: str) -> None:
    assume(not secrets.NOTHING.fullmatch(password) and not secrets.PORT.match(password))
    assert mask(f"no db://me:{password}@host/x, sorry") == "no db://me:***@host/x, sorry"


@given(st.lists(st.sampled_from([text for text, _ in FORMS])).map("\n".join))
def test_one_secret_does_not_hide_another(text: str) -> None:
    shown = mask(text)
    assert not any(secret in shown for secret in ("hunter2", "first1", "second2", "tiger"))


def test_secrets_are_read_from_the_environment_when_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_LOGIN", "hush-hush")
    url = "postgresql://me:${env:DB_LOGIN}@db/x"
    assert resolve(url) == "postgresql://me:hush-hush@db/x"
    with pytest.raises(RecipeError, match="environment variable ABSENT is not set"):
        resolve("${env:ABSENT}")


@pytest.mark.parametrize("written", ["pä@ss/w'ord", "p%C3%A4%40ss%2Fw%27ord", "p\\u00e4@ss/w'ord"])
def test_what_was_resolved_is_known_however_it_is_written(
    monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.setenv("DB_LOGIN", "pä@ss/w'ord")
    assert mask(f"no login with {written}.") == f"no login with {written}."
    resolve("${env:DB_LOGIN}")
    assert mask(f"no login with {written}.") == "no login with ${env:DB_LOGIN}."


def test_a_value_of_a_few_letters_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_LOGIN", "test")
    resolve("${env:DB_LOGIN}")
    assert mask("the test rows") == "the test rows"
    assert mask("db://me:test@host") == "db://me:***@host"


def test_the_pieces_of_a_url_that_was_given_are_known() -> None:
    note(["s3://AKIAKEY:Se/cretkey@bucket/rows.csv"])
    assert mask('Invalid bucket name "AKIAKEY:Se": no') == 'Invalid bucket name "AKIAKEY:***": no'
    assert mask("cannot list cretkey@bucket") == "cannot list ***@bucket"
    note({"source": {"url": "db://me:with blank 'and quote'@host/x"}})
    assert mask("no: with blank 'and quote'") == "no: ***"


def test_a_url_without_secrets_makes_nothing_known() -> None:
    note(["http://localhost:5000/models:/name@champion", "s3://bucket/rows.csv", "me@example.com"])
    assert secrets._known == {}


def test_variables_whose_names_say_so_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "abcdefgh")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:very-long-one@host/")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "sometimes")
    assert mask("401 for abcdefgh") == "401 for ${env:MLFLOW_TRACKING_TOKEN}"
    assert mask("401 for very-long-one, sometimes") == "401 for ***, sometimes"


def test_values_are_masked_by_their_keys_and_by_themselves() -> None:
    given = {
        "storage_options": {"key": "AKIA", "secret": "abc", "client_kwargs": {"token": "abc"}},
        "url": ["db://me:pw@host", "s3://bucket"],
        "password": "${env:DB_LOGIN}",
        "tokens": "bpe",
        "n": 3,
        "none": None,
    }
    assert masked(given) == {
        "storage_options": {"key": "AKIA", "secret": "***", "client_kwargs": {"token": "***"}},
        "url": ["db://me:***@host", "s3://bucket"],
        "password": "${env:DB_LOGIN}",
        "tokens": "bpe",
        "n": 3,
        "none": None,
    }


def test_exceptions_are_masked_with_what_is_behind_them() -> None:
    def fails() -> None:
        try:
            raise OSError(2, "no file", "ftp://me:pw@host/x")
        except OSError as problem:
            raise DataError("db://me:pw@host cannot be had") from problem

    with pytest.raises(DataError) as told:
        fails()
    mask_exception(told.value)
    assert str(told.value) == "db://me:***@host cannot be had"
    assert repr(told.value) == "DataError('db://me:***@host cannot be had')"
    assert str(told.value.__cause__) == "[Errno 2] no file: 'ftp://me:***@host/x'"


def test_logs_and_warnings_are_masked_for_every_handler(caplog: pytest.LogCaptureFixture) -> None:
    secrets.guard()
    log = logging.getLogger("somebody.else")
    url = "db://me:pw@host"
    log.warning("at %s", url)
    log.warning("at %s, %d times", ValueError(url), 2)
    try:
        raise ValueError(url)
    except ValueError:
        log.exception("failed")
    assert caplog.messages == ["at db://me:***@host", "at db://me:***@host, 2 times", "failed"]
    assert "ValueError: db://me:***@host" in caplog.text
    assert "pw" not in caplog.text
    assert "db://me:***@host" in warnings.formatwarning(UserWarning(url), UserWarning, "x.py", 1)


def test_a_secret_of_an_override_goes_into_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.environ", dict(secrets.os.environ))
    hidden = concealed("data.source.url=db://me:pa/ss@host/x")
    assert hidden == "data.source.url=db://me:${env:HEADRACE_SECRET_5db246ff}@host/x"
    assert resolve(hidden) == "data.source.url=db://me:pa/ss@host/x"
    assert concealed("options.stop=[password=x]") == "options.stop=[password=x]"
