"""Requests of all kinds that the OpenAPI document of a service allows, and many that it does not."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from .conftest import Served

OWN_FAILURES = ("/injected", "/strange", "/batch", "/slow", "/block")
"""Endpoints whose functions fail, on purpose or for some data, or take their time."""


@pytest.mark.slow
@pytest.mark.timeout(250)
@pytest.mark.filterwarnings("ignore")
def test_no_request_makes_the_service_fail(every: Served) -> None:
    import schemathesis
    from schemathesis.checks import not_a_server_error

    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{every.port}/openapi.json")
    tried = []

    for operation in schema.get_all_operations():
        found = operation.ok()
        if found.path in OWN_FAILURES:
            continue
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            run(found, mode, not_a_server_error)
        tried.append(found.path)

    assert {"/echo", "/item/{id}", "/typed", "/model", "/data", "/bytes", "/file", "/typed_batch"} <= set(tried)
    assert every("GET", "/ping").text == "pong"


def run(operation: object, mode: object, check: object) -> None:
    cases = operation.as_strategy(generation_mode=mode)  # type: ignore[attr-defined]

    @given(cases)
    @settings(max_examples=5, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def one(case: object) -> None:
        case.call_and_validate(checks=[check])  # type: ignore[attr-defined]

    with contextlib.suppress(Unsatisfiable):  # an operation without parameters cannot be asked wrongly
        one()
