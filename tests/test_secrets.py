"""Secrets: the places their values come from, and the many spellings in which they are hidden."""

from __future__ import annotations

import base64
import html
import json
import shlex
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rainbow_prefect.errors import RunError
from rainbow_prefect.masking import STARS, Masker, mask_url, redact, secret_values, sensitive
from rainbow_prefect.schema import Config
from rainbow_prefect.secrets import Secret, Secrets


def _secrets(*declared: dict[str, str], root: Path = Path(), environ: dict[str, str] | None = None) -> Secrets:
    return Secrets([Secret(**one) for one in declared], root, environ=environ or {})


@pytest.mark.parametrize(
    "name",
    "password db_password DB_PASSWORD dbPassword PGPASSWORD MYSQL_PWD passwd db_pass token HF_TOKEN authToken api_key "
    "apikey API_KEY OPENAI_API_KEY private-key secret secretKey client_secret AWS_SECRET_ACCESS_KEY AWS_ACCESS_KEY_ID "
    "basic_auth authorization passphrase credentials accountKey password2".split(),
)
def test_names_of_secrets(name: str) -> None:
    assert sensitive(name)


@pytest.mark.parametrize(
    "name",
    "name key PWD OLDPWD sort_key primary_key max_tokens token_count password_file secret_name token_url bypass passed "
    "compass author auth client_id SSH_AUTH_SOCK keyboard monkey tokens_per_second path cmd ''".split(),
)
def test_names_of_other_things(name: str) -> None:
    assert not sensitive(name)


def test_secret_needs_a_place() -> None:
    with pytest.raises(ValidationError) as told:
        Secret(secret="cloud")

    assert [(one["msg"], one["ctx"]["hint"]) for one in told.value.errors()] == [
        ("secret 'cloud' says nowhere where its value is", "add one of: env, local_path_file, block, aws_secret")
    ]


def test_secret_has_one_place_only() -> None:
    with pytest.raises(ValidationError) as told:
        Secret(secret="cloud", env="A", block="b")

    assert [(one["msg"], one["ctx"]["hint"]) for one in told.value.errors()] == [
        ("secret 'cloud' has more than one place: env, block", "keep one of them")
    ]


@pytest.mark.parametrize(
    ("declared", "at", "message", "hint"),
    [
        ({"env": "A", "region": "eu-west-1"}, "region", "`region` is for `aws_secret` only", "remove it"),
        (
            {"block": "a", "credentials": "block:aws-credentials/a"},
            "credentials",
            "`credentials` is for `aws_secret` only",
            "remove it",
        ),
        (
            {"aws_secret": "a", "credentials": "AKIA"},
            "credentials",
            "does not name a block of credentials",
            "write block:aws-credentials/NAME",
        ),
    ],
)
def test_what_only_aws_secrets_have(declared: dict[str, str], at: str, message: str, hint: str) -> None:
    with pytest.raises(ValidationError) as told:
        Secret(secret="cloud", **declared)

    assert [(one["msg"], one["ctx"]["hint"], one["ctx"]["at"]) for one in told.value.errors()] == [(message, hint, at)]


def test_value_from_the_environment() -> None:
    secrets = _secrets({"secret": "db", "env": "DB"}, environ={"DB": "hunter2"})

    assert secrets.get("db") == "hunter2"


def test_value_from_a_file_beside_the_yaml(tmp_path: Path) -> None:
    (tmp_path / "cloud.txt").write_text("hunter2\n")
    secrets = _secrets({"secret": "cloud", "local_path_file": "cloud.txt"}, root=tmp_path)

    assert secrets.get("cloud") == "hunter2"
    assert secrets.raw("cloud") == "hunter2\n"
    assert secrets.path("cloud") == tmp_path / "cloud.txt"


def test_value_from_a_block_is_read_once() -> None:
    asked: list[str] = []

    def load(reference: str) -> str:
        asked.append(reference)
        return "hunter2"

    secrets = Secrets([Secret(secret="db", block="db-main")], Path(), load, environ={})

    assert secrets.get("db") == secrets.get("db") == "hunter2"
    assert asked == ["secret/db-main"]


def test_block_may_name_its_type() -> None:
    assert Secret(secret="a", block="block:aws-secret/x").reference == "aws-secret/x"


def test_unknown_secret() -> None:
    with pytest.raises(RunError) as told:
        _secrets({"secret": "cloud", "env": "A"}).get("clod")

    assert str(told.value) == "secret 'clod' is not declared; did you mean 'cloud'?"


def test_missing_variable_of_the_environment() -> None:
    with pytest.raises(RunError) as told:
        _secrets({"secret": "db", "env": "DB"}).get("db")

    assert str(told.value) == "secret 'db': the environment variable DB is not set; set it before the run"


def test_empty_variable_of_the_environment() -> None:
    with pytest.raises(RunError) as told:
        _secrets({"secret": "db", "env": "DB"}, environ={"DB": ""}).get("db")

    assert str(told.value) == "secret 'db': the environment variable DB is empty; set it before the run"


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RunError) as told:
        _secrets({"secret": "db", "local_path_file": "x/db.txt"}, root=tmp_path).get("db")

    assert str(told.value) == "secret 'db': cannot read x/db.txt: No such file or directory; create the file"


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "db.txt").write_text("\n")

    with pytest.raises(RunError) as told:
        _secrets({"secret": "db", "local_path_file": "db.txt"}, root=tmp_path).get("db")

    assert str(told.value) == "secret 'db': db.txt is empty; write the value into it"


def test_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "db.bin").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(RunError) as told:
        _secrets({"secret": "db", "local_path_file": "db.bin"}, root=tmp_path).get("db")

    assert str(told.value) == "secret 'db': db.bin is not UTF-8 text; store it as base64 text"


def test_block_that_cannot_be_read_tells_no_value() -> None:
    def load(reference: str) -> str:
        raise ValueError("hunter2 is wrong")

    secrets = Secrets([Secret(secret="db", block="main")], Path(), load, environ={})

    with pytest.raises(RunError) as told:
        secrets.get("db")

    assert str(told.value) == (
        "secret 'db': cannot read the Prefect block secret/main (ValueError); create it in the Prefect UI under Blocks"
    )


def test_block_outside_of_a_run() -> None:
    with pytest.raises(RunError) as told:
        _secrets({"secret": "db", "block": "main"}).get("db")

    assert str(told.value) == "secret 'db': the block secret/main can be read only while a pipeline runs"


def test_placeholders_are_replaced_at_any_depth() -> None:
    secrets = _secrets({"secret": "ab", "env": "A"}, environ={"A": "x1y2"})

    value = {"k": ["u:{{secret.ab}}@h", {"deep": "{{ secret.ab }}"}], "n": 1}

    assert secrets.render(value) == {"k": ["u:x1y2@h", {"deep": "x1y2"}], "n": 1}


def test_a_config_is_rendered_as_a_copy() -> None:
    class Thing(Config):
        url: str
        more: tuple[str, ...] = ()

    secrets = _secrets({"secret": "a", "env": "A"}, environ={"A": "x1y2"})
    thing = Thing(url="db://{{secret.a}}", more=("{{secret.a}}", "b"))

    rendered = secrets.render(thing)

    assert (rendered.url, rendered.more) == ("db://x1y2", ("x1y2", "b"))
    assert thing.url == "db://{{secret.a}}"


def test_what_holds_no_secret_stays_the_same_object() -> None:
    value = {"a": ["b", 1]}

    assert _secrets().render(value) is value


def test_repr_shows_names_only() -> None:
    secrets = _secrets({"secret": "db", "env": "DB"}, environ={"DB": "hunter2"})
    secrets.get("db")

    assert repr(secrets) == "Secrets(db)"


NASTY = "p@ss \"w'ord\\é&<%/+?="


@pytest.mark.parametrize(
    "spell",
    [
        str,
        json.dumps,
        lambda one: json.dumps(one, ensure_ascii=False),
        lambda one: json.dumps(json.dumps({"a": one})),
        repr,
        ascii,
        lambda one: quote(one, safe=""),
        quote,
        quote_plus,
        lambda one: quote(one, safe="").replace("%C3", "%c3").replace("%A9", "%a9").replace("%3F", "%3f").lower(),
        html.escape,
        shlex.quote,
        lambda one: base64.b64encode(one.encode()).decode(),
        lambda one: base64.urlsafe_b64encode(one.encode()).decode(),
        lambda one: one.encode().hex(),
        lambda one: f"scheme://user:{quote(one, safe='')}@host/db",
    ],
)
def test_spellings_of_a_secret(spell: Any) -> None:
    masked = Masker([NASTY]).mask(f"before {spell(NASTY)} after")

    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert STARS in masked
    assert "ord" not in masked


@pytest.mark.parametrize("before", ["", "u", "us", "user:"])
@pytest.mark.parametrize("after", ["", ":", "::", ":::"])
def test_base64_of_a_longer_text(before: str, after: str) -> None:
    encoded = base64.b64encode(f"{before}correct-horse{after}".encode()).decode()

    masked = Masker(["correct-horse"]).mask(f"Basic {encoded}")

    assert "********" in masked
    assert len(masked.replace(STARS, "")) <= len("Basic ") + len(encoded) - 16


def test_each_line_of_a_long_secret() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\n  kqhkiG9w0BAQEF\n-----END KEY-----\n"

    masker = Masker([key])

    assert masker.mask("line MIIEvQIBADANBg here") == "line ******** here"
    assert masker.mask("kqhkiG9w0BAQEF") == STARS
    assert "MIIE" not in masker.mask(json.dumps(key))
    assert "MIIE" not in masker.mask(key.replace("\n", "\r\n"))


def test_values_inside_a_secret_file() -> None:
    masker = Masker(["[default]\nkey=AKIAFAKE\nregion = eu-west-1\n"])

    assert masker.mask("the key is AKIAFAKE in eu-west-1") == "the key is ******** in eu-west-1"


def test_values_inside_a_secret_json_file() -> None:
    text = json.dumps({"type": "service_account", "private_key": "abc-def", "user": "bob"}, indent=1)

    assert Masker([text]).mask("service_account of bob: abc-def") == "service_account of bob: ********"


def test_the_longest_secret_wins() -> None:
    assert Masker(["abcd", "abcdef"]).mask("abcdef abcd abcdx") == "******** ******** ********x"


@pytest.mark.parametrize(
    ("text", "masked"), [("a cat", "******** cat"), ("say: a.", "say: ********."), ("banana", "banana")]
)
def test_very_short_secrets_count_where_they_stand_alone(text: str, masked: str) -> None:
    assert Masker(["a"]).mask(text) == masked


@pytest.mark.parametrize("value", ["", " ", "\n"])
def test_nothing_is_no_secret(value: str) -> None:
    assert Masker([value]).mask("a b\nc") == "a b\nc"


def test_data_is_masked_with_its_keys_and_numbers() -> None:
    data = {"hunter2": ["x hunter2", 123456, 12, True, None]}

    assert Masker(["hunter2", "123456"]).mask_data(data) == {STARS: [f"x {STARS}", STARS, 12, True, None]}


def test_learned_values_are_masked() -> None:
    secrets = _secrets()

    secrets.learn("hunter2")
    secrets.learn(b"hunter3")
    secrets.learn(441122)
    secrets.learn(True)
    secrets.learn(None)

    assert secrets.mask("hunter2 hunter3 441122 True None") == "******** ******** ******** True None"


def test_variables_named_like_secrets_are_learned() -> None:
    secrets = _secrets()

    secrets.learn_from(
        {
            "variables": {"db_password": "hunter2", "tokens": 5, "use_password": True},
            "url": "postgres://bob:horse-7@db/x",
            "parameters": [{"name": "api_key", "default": "k-123"}, {"name": "day", "default": "monday"}],
        }
    )

    assert secrets.mask("hunter2 horse-7 k-123 monday 5 True bob") == "******** ******** ******** monday 5 True bob"


def test_environment_variables_named_like_secrets_are_known() -> None:
    secrets = _secrets(environ={"MY_TOKEN": "tok-1234", "PWD": "/home/bob", "N_TOKEN": "1"})

    assert secrets.mask("tok-1234 in /home/bob 1") == "******** in /home/bob 1"


def test_a_secret_is_known_before_a_task_asks() -> None:
    secrets = _secrets({"secret": "a", "env": "A"}, {"secret": "b", "env": "B"}, environ={"A": "hunter2"})

    secrets.learn_all()

    assert secrets.mask("hunter2") == STARS


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgres://u:p@h/db", "postgres://u:********@h/db"),
        ("postgres://u:p@ss@h/db", "postgres://u:********@h/db"),
        ("postgres://u:p/w@h/db", "postgres://u:********@h/db"),
        ("redis://:pw@h", "redis://:********@h"),
        ("https://tok123@github.com/x", "https://********@github.com/x"),
        ("postgres://bob@h/db", "postgres://bob@h/db"),
        ("http://h:8080/@scope/x", "http://h:8080/@scope/x"),
        ("http://h:80 and mail a@b", "http://h:80 and mail a@b"),
        ("see https://h/x?user=u&password=p1&y=2", "see https://h/x?user=u&password=********&y=2"),
        ("https://h/?X-Amz-Signature=ab12&n=1", "https://h/?X-Amz-Signature=********&n=1"),
        ("jdbc:postgresql://h/db?user=u&password=p", "jdbc:postgresql://h/db?user=u&password=********"),
        ("a=b", "a=b"),
    ],
)
def test_passwords_of_urls(text: str, masked: str) -> None:
    assert mask_url(text) == masked
    assert Masker().mask(text) == masked


def test_passwords_of_connection_strings_are_secrets() -> None:
    data = ["host=db password=hunter2 user=bob", "AccountName=x;AccountKey=Zm9v+/==;Suffix=y", "url: $PASSWORD=$x"]

    assert set(secret_values(data)) == {"hunter2", "Zm9v+/=="}


def test_a_quoted_password_of_a_url_is_a_secret_unquoted_too() -> None:
    assert set(secret_values({"url": "db://u:p%40ss1@h"})) == {"p%40ss1", "p@ss1"}


def test_config_is_shown_without_secrets() -> None:
    data = {
        "secrets": [{"secret": "cloud", "env": "CLOUD"}],
        "variables": {"db_password": "hunter2", "region": "eu", "pin_token": 99887},
        "tasks": [
            {
                "task": "load",
                "cmd": "load --pw hunter2 --url db://u:horse@h",
                "secrets": [{"secret": "cloud", "remote_path": "/s"}],
                "env_vars": {"API_KEY": "{{secret.cloud}}", "TOKEN": "t", "DEBUG_TOKEN": ""},
            }
        ],
        "executors": [{"executor": "k", "image_credentials": {"user": "bob", "password": ["a-b-c"]}}],
        "parameters": [{"name": "token", "default": "abcdef"}],
    }

    assert redact(data) == {
        "secrets": [{"secret": "cloud", "env": "CLOUD"}],
        "variables": {"db_password": STARS, "region": "eu", "pin_token": STARS},
        "tasks": [
            {
                "task": "load",
                "cmd": f"load --pw {STARS} --url db://u:{STARS}@h",
                "secrets": [{"secret": "cloud", "remote_path": "/s"}],
                "env_vars": {"API_KEY": "{{secret.cloud}}", "TOKEN": STARS, "DEBUG_TOKEN": ""},
            }
        ],
        "executors": [{"executor": "k", "image_credentials": {"user": STARS, "password": [STARS]}}],
        "parameters": [{"name": "token", "default": STARS}],
    }


def test_redact_leaves_its_argument() -> None:
    data = {"password": "hunter2"}

    redact(data)

    assert data == {"password": "hunter2"}


@settings(max_examples=150, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=4, max_size=30).filter(lambda one: len(one.strip()) > 3)
)
def test_no_secret_survives_json_urls_or_base64(value: str) -> None:
    masker = Masker([value])

    for spelled in (value, json.dumps(value)[1:-1], quote(value, safe=""), quote_plus(value)):
        assert masker.mask(f"<{spelled}>") == f"<{STARS}>"


def test_many_threads_may_learn_and_mask() -> None:
    masker = Masker()
    failures: list[str] = []

    def work(number: int) -> None:
        for turn in range(30):
            value = f"secret-{number}-{turn}-x"
            masker.learn(value)
            if value in masker.mask(f"a {value} b"):
                failures.append(value)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []


def test_a_hundred_thousand_lines_are_masked_fast() -> None:
    masker = Masker([f"hunter-{number}-horse" for number in range(5)])
    line = "2024-01-01 12:00:00 INFO wrote 1200 rows to dim_user in 0.8 s, from a table with many columns"
    masker.mask(line)

    began = time.process_time()
    for _ in range(100_000):
        masker.mask(line)

    assert time.process_time() - began < 3


@pytest.mark.parametrize("part", ["a", "a-", "http://", "http://a:", "x:@", "password=", "token", "QUJD+/", "://"])
def test_a_line_made_to_be_slow_is_not(part: str) -> None:
    line = f"{part * 10_000} http://u:hunter2@h"
    began = time.process_time()

    masked = Masker(["horse-1"]).mask(line)

    assert time.process_time() - began < 3
    assert "hunter2" not in masked


def test_password_in_json_of_one_line_is_hidden() -> None:
    masker = Masker([json.dumps({"username": "bob", "password": "hunter2", "port": 5432})])

    assert masker.mask("bob hunter2 5432") == f"bob {STARS} 5432"


def test_names_of_blocks_and_of_secrets_kept_elsewhere_are_shown() -> None:
    data = {
        "secrets": [{"secret": "db", "aws_secret": "prod/db", "credentials": "block:aws-credentials/keys"}],
        "images": [{"image": "i", "credentials": "block:docker-registry-credentials/hub"}],
        "env_vars": {"aws_secret": "hunter2", "credentials": "block:hunter2"},
    }

    assert redact(data) == {**data, "env_vars": {"aws_secret": STARS, "credentials": STARS}}
