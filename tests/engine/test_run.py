"""Runs of pipelines against a real Prefect server: order, slices, failures, retries, reports."""

from __future__ import annotations

import gc
import json
import time
from typing import Any, ClassVar

import pytest
from pydantic import PrivateAttr

from rainbow_prefect import engine
from rainbow_prefect.errors import CallError, RunError, TaskFailed
from rainbow_prefect.observers.base import Observer, RecordingObserver
from rainbow_prefect.run import Event, Large

pytestmark = pytest.mark.usefixtures("prefect_api")


def states(report: Any) -> dict[str, str]:
    return {one.task: one.state for one in report.tasks}


def test_outputs_pass_from_task_to_task(load: Any, functions: Any) -> None:
    functions["double"] = lambda run: [2 * one for one in run.input]
    pipeline = load("""
        - {task: make, type: call, input: [1, 2]}
        - {task: double, type: call, input: task:make}
    """)

    report = pipeline.run()

    assert (report.state, report.message) == ("completed", "")
    assert report["double"].output == [2, 4]


def test_a_split_input_is_cut_into_exactly_so_many_slices(load: Any) -> None:
    pipeline = load("- {task: add, type: call, input: [1, 2, 3, 4, 5, 6, 7, 8], split_input: true, executors: 6}")

    report = pipeline.run()

    assert [one.input for one in report["add"].partitions] == [[1, 2], [3, 4], [5], [6], [7], [8]]
    assert report["add"].output == [[1, 2], [3, 4], [5], [6], [7], [8]]


def test_copies_get_the_whole_input(load: Any, functions: Any) -> None:
    functions["shard"] = lambda run: [run.index, run.count, run.input]
    pipeline = load("- {task: shard, type: call, input: [7], executors: 2}")

    assert pipeline.run()["shard"].output == [[0, 2, [7]], [1, 2, [7]]]


def test_at_most_executors_slices_of_a_size_run_at_once(load: Any, functions: Any) -> None:
    running: list[int] = []
    most: list[int] = []

    def work(run: Any) -> Any:
        running.append(run.index)
        most.append(len(running))
        time.sleep(0.05)
        running.remove(run.index)
        return sum(run.input)

    functions["work"] = work
    pipeline = load("- {task: work, type: call, input: [1, 2, 3, 4, 5, 6, 7], split_size: 2, executors: 2}")

    assert pipeline.run()["work"].output == [3, 7, 11, 7]
    assert max(most) == 2


def test_a_dependent_of_a_split_task_gets_the_list_of_its_outputs(load: Any) -> None:
    pipeline = load("""
        - {task: add, type: call, input: [1, 2, 3], split_input: true, executors: 2}
        - {task: gather, type: call, input: task:add}
        - {task: again, type: call, input: task:add, split_input: true, executors: 2}
    """)

    report = pipeline.run()

    assert report["gather"].output == [[1, 2], [3]]
    assert report["again"].output == [[[1, 2]], [[3]]]


def test_an_output_of_nothing_is_an_empty_mapping_for_others(load: Any, functions: Any) -> None:
    functions["nothing"] = lambda run: None
    pipeline = load("""
        - {task: nothing, type: call}
        - {task: next, type: call, input: task:nothing}
    """)

    report = pipeline.run()

    assert report["nothing"].output is None
    assert report["next"].output == {}


def test_a_graph_runs_each_task_after_what_it_needs(load: Any, calls: Any) -> None:
    pipeline = load("""
        - {task: join, type: call, depends_on: [left, right]}
        - {task: left, type: call, depends_on: [first]}
        - {task: right, type: call, depends_on: [first]}
        - {task: first, type: call, depends_on: []}
    """)

    report = pipeline.run()

    names = [name for name, _, _ in calls]
    assert (names[0], set(names[1:3]), names[3]) == ("first", {"left", "right"}, "join")
    assert [one.task for one in report.tasks][0] == "first"


def test_what_follows_a_failure_does_not_run(load: Any, functions: Any, calls: Any, seen: Any) -> None:
    def boom(run: Any) -> None:
        raise TaskFailed("exit status 3", status=3, tail=["about to fail"])

    functions["boom"] = boom
    pipeline = load("""
        - {task: ok, type: call}
        - {task: boom, type: call}
        - {task: later, type: call}
        - {task: last, type: call}
    """)

    report = pipeline.run()

    assert report.state == "failed"
    assert report.message == "task 'boom' failed: exit status 3; last lines: about to fail"
    assert states(report) == {"ok": "completed", "boom": "failed", "later": "not_run", "last": "not_run"}
    assert report["boom"].partitions[0].exit_code == 3
    state = seen(report.flow_run_id).state
    assert (state.type.value, state.name, state.message) == ("FAILED", "Failed", report.message)
    assert seen(report.flow_run_id).states(2) == [("boom", "Failed"), ("ok", "Completed")]


def test_when_always_runs_after_a_failure_with_an_empty_input(load: Any, functions: Any) -> None:
    functions["boom"] = lambda run: 1 / 0
    pipeline = load("""
        - {task: boom, type: call}
        - {task: tidy, type: call, input: task:boom, when: always}
        - {task: after, type: call}
    """)

    report = pipeline.run()

    assert report.state == "failed"
    assert states(report) == {"boom": "failed", "tidy": "completed", "after": "not_run"}
    assert report["tidy"].output == {}
    assert report["boom"].message == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("root, more", [("always_run: true", ""), ("", "always_run: true")])
def test_always_run_of_the_file_or_the_pipeline_is_that_of_all_tasks(
    load: Any, functions: Any, root: str, more: str
) -> None:
    functions["boom"] = lambda run: 1 / 0
    pipeline = load("- {task: boom, type: call}\n- {task: tidy, type: call}", root=root, more=more)

    assert states(pipeline.run()) == {"boom": "failed", "tidy": "completed"}


def test_when_on_failure_runs_only_after_a_failure(load: Any, functions: Any) -> None:
    tasks = """
        - {task: first, type: call}
        - {task: alarm, type: call, when: on_failure}
        - {task: next, type: call}
    """

    assert states(load(tasks).run()) == {"first": "completed", "alarm": "skipped", "next": "completed"}
    functions["first"] = lambda run: 1 / 0
    assert states(load(tasks).run()) == {"first": "failed", "alarm": "completed", "next": "not_run"}


def test_a_failure_far_above_triggers_on_failure(load: Any, functions: Any) -> None:
    functions["first"] = lambda run: 1 / 0
    pipeline = load("""
        - {task: first, type: call}
        - {task: second, type: call}
        - {task: alarm, type: call, when: on_failure}
    """)

    assert states(pipeline.run()) == {"first": "failed", "second": "not_run", "alarm": "completed"}


def test_a_slice_that_fails_is_retried_alone(load: Any, functions: Any, calls: Any) -> None:
    def flaky(run: Any) -> Any:
        if run.index == 1 and run.attempt < 3:
            raise TaskFailed("not yet")
        return run.index

    functions["flaky"] = flaky
    pipeline = load("- {task: flaky, type: call, executors: 3, retries: 2}")

    report = pipeline.run()

    assert report.state == "completed"
    assert [one.attempts for one in report["flaky"].partitions] == [1, 3, 1]
    assert sorted(calls) == [("flaky", 0, 1), ("flaky", 1, 1), ("flaky", 1, 2), ("flaky", 1, 3), ("flaky", 2, 1)]


def test_the_retries_of_the_pipeline_are_those_of_its_tasks(load: Any, functions: Any, calls: Any) -> None:
    functions["boom"] = lambda run: 1 / 0
    pipeline = load("- {task: boom, type: call}", more="retries: 1\nretry_delay_seconds: 0.3")

    began = time.monotonic()
    report = pipeline.run()

    assert report["boom"].partitions[0].attempts == 2
    assert time.monotonic() - began >= 0.3
    assert calls == [("boom", 0, 1), ("boom", 0, 2)]


def some_fail(run: Any) -> Any:
    if run.index in (1, 3):
        raise TaskFailed(f"no {run.index}")
    return run.index


def test_slices_that_fail_are_listed_with_their_input(load: Any, functions: Any) -> None:
    functions["some"] = some_fail
    pipeline = load("- {task: some, type: call, input: [a, b, c, d], split_input: true, executors: 4}")

    report = pipeline.run()

    assert report["some"].state == "failed"
    assert report["some"].message == ('2 of 4 slices failed: some[1] (input ["b"]): no 1; some[3] (input ["d"]): no 3')
    assert [one.state for one in report["some"].partitions] == ["completed", "failed", "completed", "failed"]


def test_on_failure_continue_goes_on_with_what_completed(load: Any, functions: Any) -> None:
    functions["some"] = some_fail
    pipeline = load("""
        - {task: some, type: call, input: [a, b, c, d], split_input: true, executors: 4, on_failure: continue}
        - {task: next, type: call, input: task:some}
    """)

    report = pipeline.run()

    assert report.state == "completed"
    assert report["next"].output == [0, 2]
    assert report["some"].message == ('2 of 4 slices failed: some[1] (input ["b"]): no 1; some[3] (input ["d"]): no 3')


@pytest.mark.parametrize("share, state", [("50%", "completed"), ("51%", "failed")])
def test_min_success_decides_for_the_task(load: Any, functions: Any, share: str, state: str) -> None:
    functions["some"] = some_fail
    pipeline = load(f"- {{task: some, type: call, executors: 4, min_success: {share}}}")

    report = pipeline.run()

    assert report["some"].state == state
    assert report["some"].message.startswith(f"2 of 4 slices failed, at least {share} must complete: some[1]")


def test_splitting_what_is_no_list_fails_the_task(load: Any, functions: Any, seen: Any) -> None:
    functions["make"] = lambda run: {"a": 1}
    pipeline = load("""
        - {task: make, type: call}
        - {task: add, type: call, input: task:make, split_input: true, executors: 2, retries: 3}
    """)

    report = pipeline.run()

    assert report["add"].message == "split_input needs a list, but the output of task 'make' is a mapping"
    assert report["add"].partitions[0].attempts == 1
    assert seen(report.flow_run_id).states(2) == [("add", "Failed"), ("make", "Completed")]


class Odd(BaseException):
    pass


@pytest.mark.parametrize(
    "error, message",
    [
        (ValueError("odd"), "ValueError: odd"),
        (KeyError(), "KeyError"),
        (SystemExit(4), "SystemExit: 4"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (GeneratorExit("g"), "GeneratorExit: g"),
        (Odd("base"), "Odd: base"),
        (RunError("the disk is full"), "the disk is full"),
        (RecursionError("deep"), "RecursionError: deep"),
        (MemoryError(), "MemoryError"),
        (TimeoutError("late"), "TimeoutError: late"),
        (StopIteration(3), "StopIteration: 3"),
    ],
)
def test_whatever_a_task_raises_fails_only_its_slice(
    load: Any, functions: Any, error: BaseException, message: str
) -> None:
    def odd(run: Any) -> int:
        if run.index == 0:
            raise error
        return 1

    functions["odd"] = odd
    pipeline = load("- {task: odd, type: call, executors: 2}")

    report = pipeline.run()

    assert [one.state for one in report["odd"].partitions] == ["failed", "completed"]
    assert report["odd"].partitions[0].message == message


def test_an_exception_that_cannot_tell_itself_fails_its_slice(load: Any, functions: Any) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    def odd(run: Any) -> None:
        raise Mute

    functions["odd"] = odd

    assert load("- {task: odd, type: call}").run()["odd"].message == "Mute"


@pytest.mark.parametrize(
    "output, message",
    [
        ({1, 2}, "its output is not JSON data: Object of type set is not JSON serializable"),
        (float("nan"), "its output is not JSON data: Out of range float values are not JSON compliant"),
        (b"x", "its output is not JSON data: Object of type bytes is not JSON serializable"),
    ],
)
def test_an_output_must_be_json_data(load: Any, functions: Any, output: Any, message: str) -> None:
    functions["odd"] = lambda run: output

    assert load("- {task: odd, type: call}").run()["odd"].message.startswith(message)


def test_an_output_that_holds_itself_fails_its_slice(load: Any, functions: Any) -> None:
    loop: list[Any] = []
    loop.append(loop)
    functions["odd"] = lambda run: loop

    assert (
        load("- {task: odd, type: call}").run()["odd"].message
        == "its output is not JSON data: Circular reference detected"
    )


def test_an_output_is_the_same_for_all_who_read_it(load: Any, functions: Any) -> None:
    functions["make"] = lambda run: {1: (2, 3)}
    pipeline = load("- {task: make, type: call}\n- {task: next, type: call, input: task:make}")

    assert pipeline.run()["next"].output == {"1": [2, 3]}


def test_a_large_output_is_passed_by_reference(load: Any, functions: Any) -> None:
    given: list[Any] = []

    def count(run: Any) -> int:
        given.append(run.input)
        return len(json.loads(run.input_bytes()))

    functions["make"] = lambda run: ["x" * 1000] * 2000
    functions["count"] = count
    pipeline = load("""
        - {task: make, type: call}
        - {task: count, type: call, input: task:make}
        - {task: part, type: call, input: task:make, split_input: true, executors: 2, do: count}
    """)

    report = pipeline.run()

    assert report["count"].output == 2000
    assert report["part"].output == [1000, 1000]
    assert isinstance(given[0], Large)
    assert given[0].items == 2000
    assert report.as_dict()["tasks"][0]["output"] == ["x" * 1000] * 2000


def test_large_outputs_of_slices_are_joined_for_the_next_task(load: Any, functions: Any) -> None:
    functions["make"] = lambda run: "y" * 1_500_000 if run.index else "small"
    functions["count"] = lambda run: [len(one) for one in json.loads(run.input_bytes())]
    pipeline = load("""
        - {task: make, type: call, executors: 2}
        - {task: count, type: call, input: task:make}
    """)

    report = pipeline.run()

    assert report["count"].output == [5, 1_500_000]
    assert report.as_dict()["tasks"][1]["partitions"][0]["input"] == ["small", "y" * 1_500_000]


def test_a_large_input_may_be_the_output(load: Any, functions: Any) -> None:
    functions["make"] = lambda run: "y" * 1_500_000
    pipeline = load("- {task: make, type: call}\n- {task: next, type: call, input: task:make}")

    report = pipeline.run()

    assert [one["output"] for one in report.as_dict()["tasks"]] == ["y" * 1_500_000] * 2


def test_the_files_of_a_run_are_gone_with_its_report(load: Any, functions: Any) -> None:
    functions["make"] = lambda run: "y" * 1_500_000
    report = load("- {task: make, type: call, executors: 2}\n- {task: next, type: call, input: task:make}").run()
    joined = report["next"].partitions[0].input
    assert isinstance(joined, Large) and joined.path.is_file()

    del report
    gc.collect()

    assert not joined.path.exists()


def test_lines_are_in_the_logs_of_their_task_run(load: Any, functions: Any, seen: Any) -> None:
    def speak(run: Any) -> None:
        for number in range(3):
            run.write(f"line {number} of {run.index}")

    functions["speak"] = speak

    report = load("- {task: speak, type: call, executors: 2}").run()

    logs = seen(report.flow_run_id).logs("line 2 of 0", "line 2 of 1")
    assert [one for one in logs if one.endswith("of 1")] == ["line 0 of 1", "line 1 of 1", "line 2 of 1"]
    assert set(report["speak"].log_tail) == {f"line {number} of {index}" for number in range(3) for index in range(2)}


def test_the_traceback_of_a_plugin_is_in_the_logs(load: Any, functions: Any, seen: Any) -> None:
    functions["boom"] = lambda run: 1 / 0

    report = load("- {task: boom, type: call}").run()

    logs = seen(report.flow_run_id).logs("ZeroDivisionError: division by zero")
    assert any("conftest.py" in one for one in logs)
    assert not any("NoneType: None" in one for one in logs)


def test_parameters_are_values_and_types_of_the_flow(load: Any, seen: Any) -> None:
    pipeline = load(
        "- {task: make, type: call, input: '{{count}}'}\n- {task: word, type: call, input: {say: '{{word}}'}}",
        more="parameters:\n- {name: count, type: int}\n- {name: word, default: hi}",
    )

    report = pipeline.run({"count": "3"})

    assert report["make"].output == 3
    assert report["word"].output == {"say": "hi"}
    assert seen(report.flow_run_id).run.parameters == {"count": 3, "word": "hi"}


def test_a_missing_parameter_starts_nothing(load: Any) -> None:
    pipeline = load("- {task: make, type: call, input: '{{count}}'}", more="parameters:\n- {name: count, type: int}")

    with pytest.raises(CallError) as caught:
        pipeline.run()

    assert str(caught.value) == "pipeline 'p' needs a value for parameter 'count' (a whole number)"


def test_a_secret_parameter_is_not_stored(load: Any, seen: Any) -> None:
    pipeline = load(
        "- {task: make, type: call, input: {key: '{{api_token}}'}}", more="parameters:\n- {name: api_token}"
    )

    report = pipeline.run({"api_token": "hush-hush-42"})

    assert seen(report.flow_run_id).run.parameters == {"api_token": "********"}
    assert "hush-hush-42" not in json.dumps(report.as_dict())


def test_no_secret_is_in_logs_or_report(load: Any, functions: Any, seen: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("SHOP_PIN", "open-sesame-77")

    def tell(run: Any) -> Any:
        value = run.secrets.get("pin")
        run.write(f"the pin is {value}")
        if run.index:
            raise TaskFailed(f"wrong pin {value}")
        return {"pin": value, "big": [value] * 100_000}

    functions["tell"] = tell
    pipeline = load(
        "- {task: tell, type: call, executors: 2, note: '{{secret.pin}}'}",
        root="secrets:\n- {secret: pin, env: SHOP_PIN}",
    )

    report = pipeline.run()

    assert report["tell"].partitions[1].message == "wrong pin ********"
    assert "open-sesame-77" not in json.dumps(report.as_dict())
    logs = seen(report.flow_run_id).logs("the pin is ********")
    assert not any("open-sesame-77" in one for one in logs)
    assert "open-sesame-77" not in json.dumps(seen(report.flow_run_id).task_runs(2))


def test_the_owner_and_the_tags_are_on_the_run(load: Any, seen: Any) -> None:
    pipeline = load("- {task: make, type: call}", more="tags: [daily]\nlabels: {team: a}", root="owner: B. A.")

    report = pipeline.run()

    assert sorted(seen(report.flow_run_id).run.tags) == ["app:shop", "daily", "owner:B. A.", "team:a"]


def test_edges_between_task_runs_are_known_to_prefect(load: Any, seen: Any) -> None:
    pipeline = load("""
        - {task: a, type: call, executors: 2}
        - {task: b, type: call}
    """)

    report = pipeline.run()

    runs = {one["name"]: one for one in seen(report.flow_run_id).task_runs(3)}
    before = {one["id"] for one in runs["b"]["task_inputs"]["index"]}
    assert before == {runs["a[0]"]["id"], runs["a[1]"]["id"]}


def test_observers_are_told_in_order(load: Any) -> None:
    recording = RecordingObserver()

    load("- {task: a, type: call, executors: 2}\n- {task: b, type: call}").run(observers=[recording])

    kinds = [(one.kind, one.task) for one in recording.events]
    assert kinds[0] == ("run_started", None)
    assert kinds[1] == ("task_started", "a")
    assert kinds.index(("task_finished", "a")) < kinds.index(("task_started", "b"))
    assert kinds[-2:] == [("task_finished", "b"), ("run_finished", None)]
    assert (recording.events[-1].state, recording.events[1].count) == ("completed", 2)
    assert sum(kind == "slice_finished" for kind, _ in kinds) == 3


def test_an_observer_that_fails_is_one_warning(load: Any) -> None:
    class Broken(Observer):
        type: str = "broken"

        def on_event(self, event: Event) -> None:
            raise OSError("no network")

    report = load("- {task: a, type: call}").run(observers=[Broken()])

    assert report.state == "completed"
    assert report.warnings == ["observer 'broken' failed: OSError: no network"]


def test_only_who_wants_logs_is_told_of_lines(load: Any, functions: Any) -> None:
    class Deaf(Observer):
        type: str = "deaf"
        _lines: list[str] = PrivateAttr(default_factory=list)

        def on_log(self, event: Event) -> None:
            self._lines.append(event.line)

    class Hearing(Deaf):
        wants_logs: ClassVar[bool] = True

    functions["a"] = lambda run: run.write("hello")
    deaf, hearing = Deaf(), Hearing()

    load("- {task: a, type: call}").run(observers=[deaf, hearing])

    assert (deaf._lines, hearing._lines) == ([], ["hello"])


def test_metrics_of_the_config_are_in_the_report(load: Any, functions: Any) -> None:
    functions["a"] = lambda run: 1 / 0

    report = load("- {task: a, type: call}", more="metrics: {namespace: Shop, backends: [log]}").run()

    assert [(one.name, one.value, one.dimensions) for one in report.metrics] == [
        ("JobStarted", 1, {"ApplicationName": "p"}),
        ("JobResult", 0, {"ApplicationName": "p"}),
        ("JobDuration", 0, {"ApplicationName": "p"}),
    ]


def test_prepare_is_called_once_for_all_slices(load: Any, monkeypatch: Any) -> None:
    from .conftest import Call

    prepared: list[Any] = []
    monkeypatch.setattr(Call, "prepare", lambda self, run: prepared.append(run.input))

    load("- {task: a, type: call, input: [1, 2], split_input: true, executors: 2}").run()

    assert prepared == [None]


def test_a_failed_prepare_fails_all_slices_and_is_retried(load: Any, monkeypatch: Any) -> None:
    from .conftest import Call

    tries: list[int] = []

    def prepare(self: Any, run: Any) -> None:
        tries.append(run.attempt)
        if run.attempt == 1:
            raise TaskFailed("no network")

    monkeypatch.setattr(Call, "prepare", prepare)

    report = load("- {task: a, type: call, executors: 3, retries: 1}").run()

    assert report.state == "completed"
    assert max(one.attempts for one in report["a"].partitions) == 2  # a slice that starts late needs no second try
    assert tries == [1, 2]


def test_on_started_tells_the_run_before_the_first_task(load: Any, calls: Any) -> None:
    told: list[Any] = []
    pipeline = load("- {task: a, type: call}")

    report = engine.run(pipeline.plan(), on_started=lambda run_id, link: told.append((run_id, link, list(calls))))

    assert told == [(report.flow_run_id, report.link, [])]
    assert report.link.endswith(f"/runs/flow-run/{report.flow_run_id}")


def test_a_run_says_that_it_is_alive(load: Any, functions: Any) -> None:
    functions["slow"] = lambda run: time.sleep(2.5)

    report = load("- {task: slow, type: call}").run()

    assert _wait_for_events("prefect.flow-run.heartbeat", f"prefect.flow-run.{report.flow_run_id}")


def _wait_for_events(name: str, resource: str, seconds: float = 60) -> list[Any]:
    """The events of a resource with this name, once there are any."""
    from prefect.client.orchestration import get_client

    wanted = {"filter": {"event": {"name": [name]}, "resource": {"id": [resource]}}}
    until = time.monotonic() + seconds
    with get_client(sync_client=True) as client:
        while time.monotonic() < until:
            found = client._client.post("/events/filter", json=wanted).json()["events"]
            if found:
                return list(found)
            time.sleep(0.5)
    return []
