"""What a person writes in plain Prefect for N small pieces of work: `task.map`."""

import sys

from prefect import flow, task


@task(name="noop")
def noop(item: int) -> int:
    return item


@flow(name="peer_mapped")
def mapped(count: int) -> list[int]:
    return noop.map(list(range(count))).result()


count = int(sys.argv[1])
assert mapped(count) == list(range(count))
