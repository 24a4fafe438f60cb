"""`rainbow backfill PIPELINE --from D --to D --by day`: one run for each period, those that completed are not run again."""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import server
from ..errors import CallError
from ..periods import Period, periods
from .execution import given_parameters, param_option
from .options import json_option, load_pipeline, print_json

if TYPE_CHECKING:
    from ..api_client import Api
    from ..app import Pipeline
    from ..deployed import Deployment, RunState

START, END = "period_start", "period_end"
_DONE = "completed"
_POLL_SECONDS = 1.0


@dataclass
class Job:
    """The run of one period: `key` is the same whenever it is asked for."""

    period: Period
    key: str
    parameters: dict[str, Any]
    state: str = "to run"
    run_id: str | None = None
    attempt: int = 1

    def as_dict(self) -> dict[str, Any]:
        return {
            START: self.period.start,
            END: self.period.end,
            "state": self.state.replace(" ", "_"),
            "flow_run_id": self.run_id,
        }


@click.command()
@click.argument("pipeline")
@click.option("--path", type=click.Path(path_type=Path), default=".", help="Where its rainbow.yml is; default: here.")
@click.option("--from", "first", required=True, metavar="DATE", help="The first period begins with it.")
@click.option("--to", "last", required=True, metavar="DATE", help="The last period is the one it is in.")
@click.option(
    "--by", default="day", show_default=True, metavar="UNIT", help="How long a period is: hour, day, week, month."
)
@click.option("--parallel", type=click.IntRange(1, 64), default=1, show_default=True, help="How many runs at once.")
@click.option("--local", is_flag=True, help="Run it on this machine, also when it is deployed.")
@click.option("--again", is_flag=True, help="Run also what completed.")
@param_option
@click.option("--yes", is_flag=True, help="Run without asking.")
@json_option
def command(
    pipeline: str,
    path: Path,
    first: str,
    last: str,
    by: str,
    parallel: int,
    local: bool,
    again: bool,
    params: tuple[str, ...],
    yes: bool,
    as_json: bool,
) -> int:
    """Run a pipeline once for each period, with period_start and period_end as parameters.

    What completed in an earlier backfill is not run again. Without --yes the periods are shown and it asks first.

    Exit status: 0 all completed, 1 one did not, 2 the file or the call is wrong.
    """
    chosen = load_pipeline(path, pipeline)
    jobs = _jobs(chosen, periods(first, last, by), given_parameters(params))
    with _runner(chosen, path, is_local=local) as runner:
        runner.look(jobs)
        todo = [one for one in jobs if again or one.state != _DONE]
        if again:
            for one in jobs:
                one.attempt += one.state == _DONE
                one.state = "to run" if one.state == _DONE else one.state
        _show(jobs, todo, runner.where, err=as_json)
        if todo and not (yes or _agreed(as_json)):
            if as_json:
                print_json(_as_dict(chosen, jobs))
            else:
                click.echo("nothing was run; add --yes to run them")
            return 0
        runner.run(todo, parallel, lambda one: click.echo(f"{one.period}: {_words(one.state)}", err=as_json))
    failed = [one for one in jobs if one.state != _DONE]
    if as_json:
        print_json(_as_dict(chosen, jobs))
    elif todo:
        click.echo(f"{len(jobs) - len(failed)} of {len(jobs)} periods completed")
        if failed:
            click.echo("the same command runs only those that did not")
    return 1 if failed else 0


def _as_dict(pipeline: Pipeline, jobs: Sequence[Job]) -> dict[str, Any]:
    return {"pipeline": pipeline.pipeline, "periods": [one.as_dict() for one in jobs]}


def _words(state: str) -> str:
    return state.replace("_", " ")


def _agreed(as_json: bool) -> bool:
    return not as_json and sys.stdin.isatty() and click.confirm("run them?")


def _show(jobs: Sequence[Job], todo: Sequence[Job], where: str, *, err: bool) -> None:
    done = len(jobs) - len(todo)
    for one in jobs:
        click.echo(f"  {one.period}  {_words(one.state)}", err=err)
    click.echo(f"{len(todo)} to run {where}, {done} completed before", err=err)


def _jobs(pipeline: Pipeline, found: Sequence[Period], given: Mapping[str, str]) -> list[Job]:
    """A job for each period.

    Raises:
        CallError: the pipeline takes neither the start nor the end of a period, or a parameter is wrong.
    """
    known = {one.name for one in pipeline.parameters}
    if not known & {START, END}:
        raise CallError(
            f"pipeline '{pipeline.pipeline}' has no parameter `{START}`, so all its runs would be the same; add to it: "
            f"parameters: [{{name: {START}, type: date, default: {found[0].start}}}] and use {{{{{START}}}}}"
        )
    made = []
    for one in found:
        values = {**given, **{key: value for key, value in ((START, one.start), (END, one.end)) if key in known}}
        pipeline.values(values)
        rest = json.dumps(given, sort_keys=True) if given else ""
        words = "\0".join((pipeline.app.name, pipeline.pipeline, one.start, one.end, rest))
        digest = hashlib.blake2b(words.encode(), digest_size=8).hexdigest()
        made.append(Job(one, f"rainbow-backfill-{pipeline.pipeline}-{one.start}-{digest}", values))
    return made


@contextmanager
def _runner(pipeline: Pipeline, path: Path, *, is_local: bool) -> Iterator[_Deployed | _Local]:
    """Where the runs go: to the workers of its deployment, else into processes of this machine."""
    from .. import deployed
    from ..api_client import connect

    if not is_local and server.lasting() is not None:
        with connect(tell=lambda text: click.echo(text, err=True)) as api:
            found = deployed.find(api, pipeline.pipeline, pipeline.app.name)
            if found is not None:
                yield _Deployed(api, found)
                return
    yield _Local(pipeline, path)


class _Deployed:
    """Runs of the deployment; what ran before is what the server says."""

    where = "by workers"

    def __init__(self, api: Api, deployment: Deployment) -> None:
        self.api, self.deployment = api, deployment

    def look(self, jobs: Sequence[Job]) -> None:
        from .. import deployed

        known: dict[str, tuple[int, RunState]] = {}
        for run in deployed.backfilled(self.api, self.deployment):
            key, _, attempt = (run.key or "").partition("#")
            number = int(attempt or 1)
            if number >= known.get(key, (0, run))[0]:
                known[key] = (number, run)
        for job in jobs:
            if job.key in known:
                job.attempt, run = known[job.key]
                job.state, job.run_id = run.state, run.id

    def run(self, jobs: Sequence[Job], parallel: int, tell: Callable[[Job], None]) -> None:
        from .. import deployed

        waiting, under_way = list(jobs), list[Job]()
        while waiting or under_way:
            while waiting and len(under_way) < parallel:
                under_way.append(self._started(waiting.pop(0)))
            for job in list(under_way):
                assert job.run_id is not None
                job.state = deployed.read(self.api, job.run_id).state
                if job.state in deployed.OVER:
                    under_way.remove(job)
                    tell(job)
            if under_way:
                time.sleep(_POLL_SECONDS)

    def _started(self, job: Job) -> Job:
        """Start it, unless it is under way already; one that ended without completing is a new attempt."""
        from .. import deployed

        if job.run_id is not None and job.state not in (*deployed.OVER, "to run"):
            return job
        job.attempt += job.state in deployed.OVER
        key = job.key if job.attempt == 1 else f"{job.key}#{job.attempt}"
        given = deployed.typed(self.deployment, {name: str(value) for name, value in job.parameters.items()})
        name = f"{self.deployment.flow} {job.period.start}" + (f" #{job.attempt}" if job.attempt > 1 else "")
        run, _ = deployed.start(self.api, self.deployment, given, key=key, tags=[deployed.BACKFILL], name=name)
        job.run_id, job.state = run.id, run.state
        return job


class _Local:
    """Runs in processes of this machine; what completed is remembered in a file."""

    where = "on this machine"

    def __init__(self, pipeline: Pipeline, path: Path) -> None:
        self.pipeline, self.path = pipeline, path
        self.file = server.state_folder() / "backfills" / f"{pipeline.pipeline}.json"

    def look(self, jobs: Sequence[Job]) -> None:
        known = _read(self.file)
        for job in jobs:
            if job.key in known:
                job.state, job.run_id = _DONE, known[job.key]

    def run(self, jobs: Sequence[Job], parallel: int, tell: Callable[[Job], None]) -> None:
        if not jobs:
            return
        server.connect(tell=lambda text: click.echo(text, err=True))  # one for all of them
        with ThreadPoolExecutor(max_workers=parallel) as pool:
            for job in pool.map(self._ran, jobs):
                tell(job)

    def _ran(self, job: Job) -> Job:
        words = [sys.executable, "-m", "rainbow_prefect", "run", str(self.path), "--json", "--quiet"]
        words += ["--pipeline", self.pipeline.pipeline]
        words += [word for key, value in job.parameters.items() for word in ("--param", f"{key}={value}")]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        try:
            report = json.loads(done.stdout)
        except ValueError:
            report = {}
        job.state, job.run_id = report.get("state") or "failed", report.get("flow_run_id")
        if job.state == _DONE:
            self._remember(job)
        else:
            why = report.get("message") or report.get("error") or done.stderr.strip().split("\n")[-1]
            click.echo(f"{job.period}: {why[:2000]}", err=True)
        return job

    def _remember(self, job: Job) -> None:
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = {**_read(self.file), job.key: job.run_id}
            fresh = self.file.with_suffix(".new")
            fresh.write_text(json.dumps(known))
            fresh.replace(self.file)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return dict(found)
