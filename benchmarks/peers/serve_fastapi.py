"""The endpoints of the case `serve` as one writes them with FastAPI by hand, on uvicorn with uvloop and httptools."""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Order(BaseModel):
    """What the endpoint takes."""

    prices: list[float]
    customer: str


class Total(BaseModel):
    """What the endpoint gives."""

    total: float
    customer: str


@app.get("/nothing")
async def nothing() -> dict[str, str]:
    """No argument."""
    return {"status": "fine"}


@app.post("/order")
async def order(body: Order) -> Total:
    """A dictionary in, a dictionary out."""
    return Total(total=sum(body.prices), customer=body.customer)


@app.post("/threaded")
def threaded(body: dict[str, object]) -> dict[str, object]:
    """The same in a thread."""
    return {"total": sum(body["prices"]), "customer": body["customer"]}  # type: ignore[call-overload]


if __name__ == "__main__":
    uvicorn.run(app, fd=int(sys.argv[1]), access_log=False, log_level="warning")
