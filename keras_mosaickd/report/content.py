"""The parts of a report: tables, figures, and sections that hold them."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        name: Name of its CSV file, without ending.
        columns: Headings.
        rows: Cells, as many in each row as there are columns.
        note: A sentence below it, or nothing.
        shown: Whether the page shows it; the CSV file is written in any case.
    """

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    shown: bool = True

    def csv(self) -> str:
        """The table as CSV, lines ending in a line feed."""
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows([self.columns, *self.rows])
        return buffer.getvalue()

    def markdown(self) -> str:
        """The table as GitHub's Markdown."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        text = "\n".join(
            f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
        )
        return f"{text}\n\n{self.note}".rstrip()

    def html(self) -> str:
        """The table as HTML, in a box that scrolls where the page is too narrow for it."""
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in self.columns)
        body = "\n".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in self.rows)
        note = f'<p class="note">{html.escape(self.note)}</p>' if self.note else ""
        return (
            f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>'
            f"</table></div>{note}"
        )


def _cell(text: str) -> str:
    # Long names may be broken where the page is narrow; numbers and words may not.
    kind = ' class="whole"' if len(text) <= 24 else ""
    return f"<td{kind}>{html.escape(text)}</td>"


@dataclasses.dataclass(frozen=True)
class Figure:
    """An image.

    Attributes:
        name: Name of its PNG file, without ending.
        caption: What it shows.
        png: The file's bytes.
    """

    name: str
    caption: str
    png: bytes


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading with what stands below it.

    Attributes:
        title: The heading.
        items: Tables, figures, and paragraphs of plain text.
    """

    title: str
    items: Sequence[Table | Figure | str]
