"""The steps of the pipeline, each one a plain function of its input."""


def fetch(wanted):
    """Three orders; one of them is wrong when the parameter `spoil` says so."""
    orders = [{"id": 1, "price": 20}, {"id": 2, "price": 5}, {"id": 3, "price": 12}]
    if wanted["spoil"]:
        orders[1]["price"] = -5
    return orders


def validate(orders):
    """Fail when a price is below 0."""
    wrong = [order["id"] for order in orders if order["price"] < 0]
    if wrong:
        raise ValueError(f"orders with a price below 0: {wrong}")
    return {"checked": len(orders)}


def total(orders):
    """The sum of all prices."""
    return {"total": sum(order["price"] for order in orders)}


def publish(summary):
    """Runs only when both `validate` and `total` completed."""
    return f"published a total of {summary['total']}"


def call_for_help():
    """Runs only when one of `validate` and `total` failed."""
    return "told the people on call"


def tidy():
    """Runs however the others ended."""
    return "tidied up"
