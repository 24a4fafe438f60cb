"""Placeholders in texts: what is replaced, by what, and what is left alone."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rainbow_prefect import variables
from rainbow_prefect.document import Float, Map, parse
from rainbow_prefect.variables import (
    Flaw,
    Level,
    Scope,
    Unbound,
    environment,
    placeholders,
    render,
    reveal,
    text_of,
    whole,
)


def nothing(name: str) -> None:
    return None


def scope(values: Mapping[str, Any] | None = None, **kwargs: Any) -> Scope:
    return Scope([Level("`variables`", values or {})], kwargs.pop("lookup", nothing), **kwargs)


def written(text: str) -> Map:
    data, problems = parse(text, shown="f.yml")
    assert data is not None and not problems
    return data


VALUES = {
    "a": "root",
    "b": "{{ a }}/mid",
    "c": "{{b}}/leaf",
    "n": 5,
    "flag": True,
    "none": None,
    "stage": "dev",
    "url-dev": "http://dev",
    "dotted.name_1": "x",
    "day": datetime.date(2024, 5, 1),
    "map": {"k": "{{a}}"},
    "list": [1, "{{n}}"],
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("{{a}}", "root"),
        ("{{  a  }}", "root"),
        ("{{\ta\n}}", "root"),
        ("{{a}}+{{a}}", "root+root"),
        ("{{c}}", "root/mid/leaf"),
        ("{{n}}", 5),
        ("{{flag}}", True),
        ("{{none}}", None),
        ("{{day}}", datetime.date(2024, 5, 1)),
        ("{{map}}", {"k": "root"}),
        ("{{list}}", [1, 5]),
        (" {{n}}", " 5"),
        ("n={{n}} f={{flag}} d={{day}} none={{none}}", "n=5 f=true d=2024-05-01 none="),
        ("{{url-{{stage}}}}", "http://dev"),
        ("{{ url-{{ stage }} }}", "http://dev"),
        ("{{dotted.name_1}}", "x"),
        ("select {{a}}\nfrom {{n}}\n", "select root\nfrom 5\n"),
        ("{{{a}}}", "{root}"),
        ('{"k": {{n}}}', '{"k": 5}'),
        ('{"k": {"l": {{n}}}}', '{"k": {"l": 5}}'),
    ],
)
def test_placeholders_are_replaced(text: str, value: Any) -> None:
    assert scope(VALUES).render(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "{{a b}}",
        "{{x|y}}",
        "{{}}",
        "{{ }}",
        "{{a",
        "a}}",
        "{a}",
        "{{ a(1) }}",
        "{{.Name}}",
        "{{-a}}",
        "{% if a %}",
        "}}{{",
    ],
)
def test_what_is_not_a_name_is_left_alone(text: str) -> None:
    assert scope(VALUES).render(text) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"\{{a}}", "{{a}}"),
        (r"\{{a}} {{a}}", "{{a}} root"),
        (r"C:\\{{a}}", r"C:\{{a}}"),
        ("{{a b {{a}} }}", "{{a b root }}"),
        ("{{ open {{a}}", "{{ open root"),
        (r"\{{ {{a}} }}", "{{ root }}"),
    ],
)
def test_braces_can_be_written(text: str, value: str) -> None:
    assert scope(VALUES).render(text) == value


def test_values_from_outside_are_not_rendered_again() -> None:
    from_outside = scope({"a": "{{ENV}}"}, lookup={"ENV": "{{a}}", "a": "no"}.get)

    assert from_outside.render("<{{a}}>") == "<{{a}}>"


def test_variables_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("stage", "no")
    monkeypatch.setenv("ONLY_ENV", "yes")

    assert scope({"stage": "dev"}, lookup=environment).render("{{stage}} {{ONLY_ENV}}") == "dev yes"


def test_the_first_level_wins() -> None:
    levels = [Level("one", {"a": 1}), Level("two", {"a": 2, "b": "{{a}}"})]

    assert Scope(levels, nothing).render("{{a}} {{b}}") == "1 1"


def test_a_variable_may_extend_the_one_it_hides() -> None:
    levels = [Level("one", {"a": "{{a}}-task"}), Level("two", {"a": "root"})]

    assert Scope(levels, nothing).render("{{a}}") == "root-task"


@pytest.mark.parametrize(
    ("values", "text", "message", "hint"),
    [
        (
            {"version": "1"},
            "img:{{ verzion }}",
            "variable 'verzion' is not defined; looked in `variables`, the environment",
            "did you mean 'version'?",
        ),
        (
            {},
            "{{x}}",
            "variable 'x' is not defined; looked in the environment",
            r"define it in `variables`, or write '\{{' for literal braces",
        ),
        (
            {"m": {"k": 1}},
            "a {{m}}",
            "variable 'm' is a mapping; it cannot stand inside a longer text",
            "use it as the whole value: '{{m}}'",
        ),
        (
            {"m": [1]},
            "a {{m}}",
            "variable 'm' is a list; it cannot stand inside a longer text",
            "use it as the whole value: '{{m}}'",
        ),
        ({"x": "{{x}}"}, "{{x}}", "variables form a cycle: x -> x", "give one of them a value of its own"),
        (
            {"a": "{{b}}", "b": ["-{{c}}"], "c": "{{a}}"},
            "{{c}}",
            "variables form a cycle: a -> b -> c -> a",
            "give one of them a value of its own",
        ),
    ],
)
def test_what_cannot_be_rendered_is_told(values: dict[str, Any], text: str, message: str, hint: str) -> None:
    with pytest.raises(Flaw) as flaw:
        scope(values).render(text)

    assert (str(flaw.value), flaw.value.hint) == (message, hint)


def test_a_flaw_of_a_variable_is_told_at_the_variable() -> None:
    values = written("a: 1\nb: 'x {{nope}}'\n")

    with pytest.raises(Flaw) as flaw:
        scope(values).render("{{b}}")

    assert (str(flaw.value.mark), flaw.value.path) == ("f.yml:2:4", "variables.b")


def test_a_cycle_is_told_at_its_first_variable_from_wherever_it_is_met() -> None:
    values = written("z: '{{y}}'\ny: '{{x}}'\nx: '{{z}}'\n")

    told = set()
    for name in values:
        with pytest.raises(Flaw) as flaw:
            scope(values).render(f"{{{{{name}}}}}")
        told.add((str(flaw.value), str(flaw.value.mark)))

    assert told == {("variables form a cycle: z -> y -> x -> z", "f.yml:1:4")}


# -- what is left for later


def test_secrets_stay_when_they_are_declared() -> None:
    inner = scope({"url": "db://{{secret.pw}}@host", "stage": "pw"}, secrets=["pw"])

    assert inner.render("{{url}} {{ secret.{{stage}} }}") == "db://{{secret.pw}}@host {{secret.pw}}"


def test_an_unknown_secret_is_told() -> None:
    with pytest.raises(Flaw) as flaw:
        scope(secrets=["db_password"]).render("{{secret.db_pasword}}")

    assert str(flaw.value) == "secret 'db_pasword' is not in the root `secrets`"
    assert flaw.value.hint == "did you mean 'db_password'?"


def test_prefect_variables_stay_until_they_are_known() -> None:
    assert scope().render("{{ prefect.variables.x }}") == "{{prefect.variables.x}}"
    assert scope(lookup={"prefect.variables.x": 5}.get).render("{{ prefect.variables.x }}") == 5


def test_a_parameter_without_a_value_has_a_stand_in_or_stays() -> None:
    levels = [Level("the parameters", {"day": Unbound("day", 1)}), Level("`variables`", {"v": "{{day}}"})]

    assert Scope(levels, nothing).render(["{{day}}", "on {{ day }}", "{{v}}", "{{v}}!"]) == [
        1,
        "on {{day}}",
        1,
        "{{day}}!",
    ]


def test_secrets_are_revealed_and_nothing_else() -> None:
    value = {"a": ["x{{ secret.pw }}y", "{{other}}", 5], "b": r"\{{secret.pw}}"}

    assert reveal(value, {"pw": "1"}.__getitem__) == {"a": ["x1y", "{{other}}", 5], "b": "{{secret.pw}}"}


def test_an_escaped_secret_is_never_revealed() -> None:
    rendered = scope(secrets=["pw"]).render(r"\{{secret.pw}} {{secret.pw}}")

    assert reveal(rendered, {"pw": "1"}.__getitem__) == "{{secret.pw}} 1"


@pytest.mark.parametrize("value", ["{{secret.pw}}", "{{ secret.pw }}", "{{{{secret.pw}}}}"])
def test_a_value_from_outside_cannot_ask_for_a_secret(value: str) -> None:
    levels = [Level("the parameters", {"x": value}, literal=True)]
    rendered = [
        Scope(levels, nothing, secrets=["pw"]).render(["{{x}}", "<{{x}}>"]),
        scope(lookup={"x": value}.get, secrets=["pw"]).render(["{{x}}", "<{{x}}>"]),
    ]

    assert reveal(rendered, {"pw": "HIDDEN"}.__getitem__) == [[value, f"<{value}>"]] * 2


# -- limits


def test_texts_do_not_explode() -> None:
    values = {"v0": "x" * 1000, **{f"v{index}": f"{{{{v{index - 1}}}}}" * 10 for index in range(1, 20)}}

    with pytest.raises(Flaw) as flaw:
        scope(values).render("{{v19}}")

    assert str(flaw.value) == "grows beyond 1,000,000 characters"


def test_many_long_texts_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variables, "MAX_CHARACTERS", 10_000)
    inner = scope({"v": "x" * 1000})

    with pytest.raises(Flaw) as flaw:
        inner.render(["-{{v}}"] * 20)

    assert str(flaw.value) == "the placeholders of this file write more than 10,000 characters"


def test_lists_do_not_explode() -> None:
    values = {"v0": [1] * 10, **{f"v{index}": [f"{{{{v{index - 1}}}}}"] * 10 for index in range(1, 20)}}

    with pytest.raises(Flaw) as flaw:
        scope(values).render("{{v19}}")

    assert str(flaw.value) == "the placeholders of this file add more than 1,000,000 values"


def test_long_chains_end() -> None:
    values = {"v0": 1, **{f"v{index}": f"{{{{v{index - 1}}}}}" for index in range(1, 500)}}

    with pytest.raises(Flaw) as flaw:
        scope(values).render("{{v499}}")

    assert str(flaw.value) == "more than 50 variables lead to each other"


@pytest.mark.parametrize("text", ["{{" * 5000 + "a" + "}}" * 5000, "{{" * 5000, "{{a " * 5000])
def test_deep_braces_end(text: str) -> None:
    with pytest.raises(Flaw) as flaw:
        scope(VALUES).render(text)

    assert str(flaw.value) == "placeholders are nested deeper than 50 levels"


# -- small functions


def test_the_names_of_placeholders_are_found_at_any_depth() -> None:
    value = {"a": ["{{x}} {{ y.z }}", {"b": "{{url-{{stage}}}}"}], "c": r"\{{no}} {{not this}}", "d": 5}

    assert placeholders(value) == {"x", "y.z", "stage"}


@pytest.mark.parametrize(
    ("text", "name"), [("{{ a }}", "a"), ("x{{a}}", None), ("{{a b}}", None), ("a", None), (5, None)]
)
def test_a_text_that_is_one_placeholder_is_known(text: Any, name: str | None) -> None:
    assert whole(text) == name


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (True, "true"), (False, "false"), (5, "5"), (1.5, "1.5"), (datetime.date(2024, 5, 1), "2024-05-01")],
)
def test_a_value_has_a_text(value: Any, text: str) -> None:
    assert text_of(value) == text


def test_a_number_in_a_text_is_as_it_was_written() -> None:
    assert scope(written("v: 3.10")).render("python:{{v}}") == "python:3.10"
    assert text_of(Float(1.5)) == "1.5"


def test_render_replaces_what_is_known_and_leaves_the_rest() -> None:
    assert render({"a": ["{{x}}", "{{y}} {{secret.z}}"]}, {"x": 1}.get) == {"a": [1, "{{y}} {{secret.z}}"]}


def test_render_says_when_it_cannot() -> None:
    with pytest.raises(ValueError, match="variable 'x' is a list; it cannot stand inside a longer text"):
        render("a {{x}}", {"x": [1]}.get)


# -- any text

pieces = st.lists(
    st.sampled_from(["{{", "}}", "{", "}", "\\", "a", "b", " ", "\n", ".", "-", "secret.", "|"]), max_size=25
)


@settings(max_examples=500, deadline=None)
@given(pieces.map("".join), st.dictionaries(st.sampled_from("ab"), pieces.map("".join)))
def test_any_text_is_rendered_or_told_the_same_way_twice(text: str, values: dict[str, str]) -> None:
    def outcome() -> Any:
        try:
            return scope(values, secrets=["a"]).render(text)
        except Flaw as flaw:
            return str(flaw)

    assert outcome() == outcome()


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_characters="{\\"), max_size=30), st.text(max_size=30))
def test_a_text_around_a_placeholder_is_kept(before: str, value: str) -> None:
    rendered = scope(lookup={"x": value}.get).render(f"{before}{{{{x}}}}{before}!")

    assert reveal(rendered, str) == f"{before}{value}{before}!"
