import asyncio
import dataclasses
import os
import sys
import time
from datetime import date
from decimal import Decimal

from fastapi import HTTPException, UploadFile
from pydantic import BaseModel, Field


def setup():
    return {"greeting": os.environ["GREETING"], "loaded": time.time_ns()}


def shutdown(greeting):
    print(f"stopped after {greeting}", file=sys.stderr, flush=True)


def ping():
    return "pong"


def echo(data):
    return data


async def later():
    await asyncio.sleep(0)
    return {"later": True}


def tuple_of_three():
    return {"made": 1}, 202, {"X-Made": "yes", "content-type": "application/vnd.made+json"}


def item(id):
    return {"id": id, "type": type(id).__name__}


def named(name: str, rest, body):
    return {"name": name, "rest": rest, "body": body}


def typed(count: int, word: str = "x", many: bool = False):
    return {"words": [word] * max(0, min(count, 100)), "many": many}


class Point(BaseModel):
    x: float = Field(ge=0)
    y: float = 0
    when: date | None = None


@dataclasses.dataclass
class Pair:
    left: int
    right: str = "r"


def model(point: Point) -> Point:
    return point


async def data(pair: Pair):
    return pair


def raw(data: bytes):
    return data[::-1]


async def upload(file: UploadFile, note: str = ""):
    return {"name": file.filename, "size": len(await file.read()), "note": note}


def given(greeting, loaded, loud: bool = False):
    return {"greeting": greeting.upper() if loud else greeting, "loaded": loaded}


def stream():
    for number in range(3):
        yield {"number": number}


async def astream():
    for number in range(3):
        yield f"part {number}\n"


def batch(items):
    if any(one == "bad" for one in items):
        raise ValueError("a bad item")
    return [{"item": one, "of": len(items)} for one in items]


def typed_batch(items: list[Point]):
    return [one.x + one.y for one in items]


async def slow():
    await asyncio.sleep(30)


def block():
    """Takes its time in its thread."""
    time.sleep(3.0)
    return "done"


def numbers():
    return {"big": 2**80, "decimal": Decimal("1.5"), "day": date(2024, 1, 31), "nan": float("nan"), 1: {2}}


def refused():
    raise HTTPException(409, "already there", headers={"x-why": "twice"})


def injected():
    return "x", 200, {"x-a": "1\r\nset-cookie: stolen=1"}


def strange():
    return object()


def long_text():
    return "abcdefgh " * 1000
