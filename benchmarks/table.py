"""One row of the result, its verdict, and the Markdown table; nothing is measured here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


@dataclass(frozen=True)
class Row:
    """One measured thing. With a peer the bar is a ratio, else it is an amount in `unit` (s, MB).

    `bar` is None for rows that are only told, such as other tools.
    """

    what: str
    ours: float
    unit: str
    bar: float | None = None
    peer: float | None = None
    peer_name: str = ""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return None if self.peer is None else self.ours / self.peer

    @property
    def is_met(self) -> bool:
        """Whether the bar holds; a row without a bar always does."""
        if self.bar is None:
            return True
        return (self.ours if self.ratio is None else self.ratio) <= self.bar

    def cells(self) -> list[str]:
        """The texts of the row, in the order of the table's head."""
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        peer = "" if self.peer is None else f"{_amount(self.peer, self.unit)} ({self.peer_name})"
        bar = "" if self.bar is None else (f"{self.bar:g} x" if self.ratio is not None else f"{self.bar:g} {self.unit}")
        verdict = "" if self.bar is None else ("met" if self.is_met else "MISSED")
        return [self.what, _amount(self.ours, self.unit), peer, ratio, bar, verdict]


def _amount(value: float, unit: str) -> str:
    digits = 0 if unit == "MB" else (2 if value < 10 else 1)
    return f"{value:.{digits}f} {unit}"


HEAD = ["what", "rainbow", "peer", "ratio", "bar", ""]


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table; columns are padded so that a terminal shows it well too."""
    lines = [HEAD, *(row.cells() for row in rows)]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(HEAD))]
    texts = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([texts[0], rule, *texts[1:]])


def write(file: Path, text: str, markers: tuple[str, str] = (BEGIN, END)) -> None:
    """Replace what stands between the markers of `file`.

    Raises:
        ValueError: the file has no markers.
    """
    before, begin, rest = file.read_text().partition(markers[0])
    _, end, after = rest.partition(markers[1])
    if not begin or not end:
        raise ValueError(f"{file} has no '{markers[0]}' ... '{markers[1]}'")
    file.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")
