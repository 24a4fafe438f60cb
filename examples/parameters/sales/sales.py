"""Reads the rows of a CSV file, which come as text."""


def read(rows):
    """The rows with their amounts as numbers."""
    return [{"day": row["day"], "amount": float(row["amount"])} for row in rows]
