"""What functions are given and how what they return is answered, over real sockets."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from .conftest import Served

pytestmark = pytest.mark.timeout(200)


def test_untyped_functions_get_the_decoded_body_or_none(every: Served) -> None:
    assert every("POST", "/echo", {"a": [1]}).json == {"a": [1]}
    assert every("POST", "/echo", [1, 2]).json == [1, 2]
    assert every("POST", "/echo", data=b'"text"').text == "text"
    assert every("GET", "/echo").status == 204
    assert every("GET", "/ping").text == "pong"
    assert every("GET", "/later").json == {"later": True}


@pytest.mark.parametrize(
    "body", [b"{bad", b"\xff\xfe{\x00}\x00", b'"\xe9"', b"nan", b"[" * 5000 + b"]" * 5000, b"[" * 400 + b"]" * 400]
)
def test_a_body_that_is_no_json_is_refused_before_the_function(every: Served, body: bytes) -> None:
    found = every("POST", "/echo", data=body, headers={"content-type": "application/json"})

    assert found.status == 400
    assert found.json["detail"].startswith("the body is n")


def test_answers_have_ids_and_security_headers(every: Served) -> None:
    found = every("GET", "/ping", headers={"x-request-id": "mine-1"})
    other = every("GET", "/ping", headers={"x-request-id": "not mine\t<script>"})

    assert found.headers["x-request-id"] == "mine-1"
    assert other.headers["x-request-id"] not in ("", "not mine\t<script>")
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["x-frame-options"] == "DENY"
    assert "server" not in found.headers
    assert "access-control-allow-origin" not in found.headers


def test_status_and_headers_of_functions(every: Served) -> None:
    made = every("GET", "/tuple")

    assert every("POST", "/made", {"a": 1}).status == 201
    assert every("POST", "/made").status == 201
    assert (made.status, made.json, made.headers["x-made"]) == (202, {"made": 1}, "yes")
    assert made.headers["content-type"] == "application/vnd.made+json"


def test_head_and_options(every: Served) -> None:
    head = every("HEAD", "/ping")

    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "4")
    assert every("HEAD", "/typed?count=1").status == 200
    assert every("OPTIONS", "/ping").headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert every("DELETE", "/model").headers["allow"] == "OPTIONS, POST"
    assert every("DELETE", "/model").status == 405


def test_parameters_of_the_path(every: Served) -> None:
    assert every("GET", "/item/7").json == {"id": 7, "type": "int"}
    assert every("GET", "/item/seven").status == 404
    assert every("POST", "/named/a%20b/c/d", {"e": 1}).json == {"name": "a b", "rest": "c/d", "body": {"e": 1}}
    assert every("GET", "/named/a/c").json == {"name": "a", "rest": "c", "body": None}


def test_types_are_validated(every: Served) -> None:
    wrong = every("GET", "/typed?count=many")

    assert every("GET", "/typed?count=2&word=a&many=true").json == {"words": ["a", "a"], "many": True}
    assert wrong.status == 422
    assert wrong.headers["content-type"] == "application/problem+json"
    assert wrong.json["errors"][0]["at"] == "query.count"
    assert every("POST", "/model", {"x": 1, "when": "2024-01-31"}).json == {"x": 1.0, "y": 0.0, "when": "2024-01-31"}
    assert every("POST", "/model", {"x": -1}).json["errors"][0]["at"] == "body.x"
    assert every("POST", "/model", data=b"{bad", headers={"content-type": "application/json"}).status == 400
    assert every("POST", "/data", {"left": 1}).json == {"left": 1, "right": "r"}
    assert every("POST", "/bytes", data=b"abc\0\xff").body == b"\xff\0cba"


def test_a_file_is_uploaded(every: Served) -> None:
    body = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nhello\r\n--edge--\r\n'
    found = every("POST", "/file?note=n", data=body, headers={"content-type": "multipart/form-data; boundary=edge"})

    assert found.json == {"name": "a.txt", "size": 5, "note": "n"}


def test_what_on_start_returned_is_given_by_name(every: Served) -> None:
    first, second = every("GET", "/given").json, every("GET", "/given?loud=true").json

    assert (first["greeting"], second["greeting"]) == ("hello", "HELLO")
    assert first["loaded"] == second["loaded"]


def test_generators_are_streamed(every: Served) -> None:
    found = every("GET", "/stream")

    assert found.text == '{"number":0}\n{"number":1}\n{"number":2}\n'
    assert found.headers["content-type"] == "application/x-ndjson"
    assert found.headers["transfer-encoding"] == "chunked"
    assert every("GET", "/astream").text == "part 0\npart 1\npart 2\n"


def test_requests_are_gathered_and_a_bad_one_fails_alone(every: Served) -> None:
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda one: every("POST", "/batch", one), [*range(15), "bad"]))

    assert [one.json["item"] for one in found[:15]] == list(range(15))
    assert found[15].status == 500
    with ThreadPoolExecutor(8) as pool:
        sizes = [one.json["of"] for one in pool.map(lambda one: every("POST", "/batch", one), range(40))]
    assert max(sizes) > 1
    assert max(sizes) <= 8
    assert "rainbow_batch_size_bucket" in every("GET", "/metrics").text


def test_items_of_a_typed_batch_are_validated_one_by_one(every: Served) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: every("POST", "/typed_batch", {"x": x, "y": 1}), [1, 2, -1, 3]))

    assert [one.status for one in found] == [200, 200, 422, 200]
    assert [found[index].json for index in (0, 1, 3)] == [2.0, 3.0, 4.0]


def test_a_function_that_takes_too_long_is_answered(every: Served) -> None:
    found = every("GET", "/slow")

    assert found.status == 504
    assert found.json["detail"] == "the function took longer than 0.3 s"


def test_a_slow_function_lets_others_be_served(every: Served) -> None:
    slow = threading.Thread(target=every, args=("GET", "/block"))
    slow.start()
    began = time.monotonic()

    for _ in range(5):
        assert every("GET", "/ping").text == "pong"

    took = time.monotonic() - began
    assert slow.is_alive() or took >= 3.0
    slow.join()


def test_values_that_json_lacks(every: Served) -> None:
    found: dict[str, Any] = every("GET", "/numbers").json

    assert found["big"] == 2**80
    assert (found["decimal"], found["day"], found["1"]) == ("1.5", "2024-01-31", [2])


def test_errors_tell_nothing_and_the_log_all(every: Served) -> None:
    refused = every("GET", "/refused")
    injected = every("GET", "/injected")
    strange = every("GET", "/strange")

    assert (refused.status, refused.json["detail"], refused.headers["x-why"]) == (409, "already there", "twice")
    assert injected.status == 500
    assert "set-cookie" not in injected.headers
    assert strange.status == 500
    assert "object" not in strange.text
    assert strange.json["request_id"] == strange.headers["x-request-id"]
    assert "it holds a object" in every.logged(strange.json["request_id"]).replace("\n", "")


def test_what_every_service_has(every: Served) -> None:
    metrics = every("GET", "/metrics").text

    assert every("GET", "/healthz").json == {"status": "ok"}
    assert every("GET", "/readyz").json == {"status": "ready", "service": "every"}
    assert every("GET", "/favicon.ico").status == 204
    assert every("GET", "/nothing/here").status == 404
    assert every("GET", "/ping/").status == 404
    assert 'rainbow_requests_total{service="every",endpoint="/ping",method="GET",status="200"}' in metrics
    assert 'rainbow_request_seconds_bucket{service="every",endpoint="/ping",le="+Inf"}' in metrics
    assert every("GET", "/docs").status == 200


def test_the_document_tells_all_endpoints(every: Served) -> None:
    found = every("GET", "/openapi.json").json

    assert set(found["paths"]) >= {"/ping", "/echo", "/item/{id}", "/model", "/file", "/bytes", "/typed_batch"}
    assert found["paths"]["/model"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert [one["name"] for one in found["paths"]["/given"]["get"]["parameters"]] == ["loud"]
    ids = [one["operationId"] for path in found["paths"].values() for one in path.values()]
    assert len(ids) == len(set(ids))


READER, WRITER = ({"authorization": f"Bearer {one}"} for one in ("reader-token-4711", "writer-token-4712"))


def test_tokens_open_a_service_and_scopes_an_endpoint(every: Served) -> None:
    def status(path: str, headers: dict[str, str]) -> int:
        return every("GET", path, headers=headers, service="guarded").status

    assert [status("/read", one) for one in ({}, {"authorization": "Bearer x"}, READER, WRITER)] == [401, 401, 200, 200]
    assert [status("/write", one) for one in ({}, READER, WRITER)] == [401, 403, 204]
    assert status("/read", {"x-api-key": "reader-token-4711"}) == 200
    assert [status(path, {}) for path in ("/open", "/healthz", "/readyz")] == [200, 200, 200]
    assert [status(path, {}) for path in ("/metrics", "/docs", "/openapi.json")] == [401, 401, 401]
    assert status("/metrics", READER) == 200
    refused = every("GET", "/read", service="guarded")
    assert refused.headers["www-authenticate"] == "Bearer"


def test_too_many_at_once_are_refused(every: Served) -> None:
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: every("GET", "/block", service="guarded"), range(6)))

    statuses = [one.status for one in found]
    assert statuses.count(200) >= 2
    assert 503 in statuses
    assert next(one for one in found if one.status == 503).headers["retry-after"] == "1"


def test_gzip_and_cors_by_key(every: Served) -> None:
    squeezed = every("GET", "/read", headers={**READER, "accept-encoding": "gzip"}, service="guarded")
    asked = {"origin": "https://example.com", "access-control-request-method": "GET"}
    preflight = every("OPTIONS", "/read", headers=asked, service="guarded")
    crossed = every("GET", "/open", headers={"origin": "https://example.com"}, service="guarded")

    assert squeezed.headers["content-encoding"] == "gzip"
    assert len(squeezed.body) < 1000
    assert preflight.headers["access-control-allow-origin"] == "https://example.com"
    assert crossed.headers["access-control-allow-origin"] == "https://example.com"


def test_who_calls_too_often_is_told_when_to_come_back(every: Served) -> None:
    asked = (every("GET", "/open", service="guarded") for _ in range(300))

    refused = next(one for one in asked if one.status == 429)

    assert 1 <= int(refused.headers["retry-after"]) <= 61
