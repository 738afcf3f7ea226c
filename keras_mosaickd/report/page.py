"""A report on the disk: one HTML file that needs no other, Markdown, PNG and CSV files."""

from __future__ import annotations

import base64
import html
import os
import re
from collections.abc import Sequence
from pathlib import Path

from keras_mosaickd.errors import InputError
from keras_mosaickd.files import write_file
from keras_mosaickd.report.content import Figure, Section, Table

# Colours are those of the reader's system; figures keep a light ground of their own, on which they
# are legible on both. On a phone they scroll: their letters would be too small.
_STYLE = """
:root { color-scheme: light dark; --ground: #fcfcfa; --ink: #1d1d1f; --faint: #5c5c62;
  --line: #d4d4d8; --head: #eeeeea; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #17181b; --ink: #e9e9ec; --faint: #a5a5ad; --line: #3c3d43; --head: #25262b; }
}
body { background: var(--ground); color: var(--ink); margin: 0 auto; max-width: 80rem;
  padding: 1.5rem; font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 0.5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.8rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: 0.3rem 0.5rem; text-align: left;
  vertical-align: top; }
td { overflow-wrap: anywhere; } td.whole { white-space: nowrap; }
th { background: var(--head); }
figure { margin: 1rem 0; }
img { background: #f7f7f4; border-radius: 6px; display: block; height: auto; max-width: 100%; }
figcaption, .note { color: var(--faint); font-size: 0.85rem; }
li, p { overflow-wrap: anywhere; }
@media (max-width: 40rem) { figure { overflow-x: auto; } img { max-width: none; width: 40rem; } }
"""


# By this a report's own page is known, whose files may be removed with it.
_MADE = "<!-- made by keras-mosaickd-report -->"


def write(out: str | os.PathLike[str], title: str, sections: Sequence[Section]) -> Path:
    """Writes ``report.html``, ``report.md``, ``NAME.png`` for each figure, ``NAME.csv`` per table.

    Args:
        out: Directory; made if it is not there. Files of an older report are replaced or removed.
        title: The report's title.
        sections: What stands in it.

    Returns:
        The path of ``report.html``.

    Raises:
        InputError: If the directory cannot be written to.
    """
    directory = Path(out)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        items = [item for section in sections for item in section.items]
        files: dict[str, bytes | str] = {
            f"{item.name}.png": item.png for item in items if isinstance(item, Figure)
        }
        files |= {f"{item.name}.csv": item.csv() for item in items if isinstance(item, Table)}
        for name in _linked(directory) - files.keys():
            (directory / name).unlink(missing_ok=True)
        for name, content in files.items():
            write_file(directory / name, content)
        write_file(directory / "report.md", _markdown(title, sections))
        target = directory / "report.html"
        write_file(target, _html(title, sections))
    except OSError as error:
        raise InputError(
            f"--out: expected a directory that can be written to. Received: {out} ({error})"
        ) from error
    return target


def _linked(directory: Path) -> set[str]:
    """The files that an older report in a directory shows."""
    report = directory / "report.md"
    text = report.read_text(encoding="utf-8", errors="replace") if report.is_file() else ""
    if _MADE not in text:
        return set()
    return set(re.findall(r"\]\(([^()/\\]+\.(?:png|csv))\)$", text, re.MULTILINE))


def _markdown(title: str, sections: Sequence[Section]) -> str:
    parts = [f"# {title}", _MADE]
    for section in sections:
        parts.append(f"## {section.title}")
        for item in section.items:
            if isinstance(item, Figure):
                parts += [f"![{item.name}]({item.name}.png)", item.caption]
            elif isinstance(item, Table):
                if item.shown:
                    parts.append(item.markdown())
                parts.append(f"[{item.name}.csv]({item.name}.csv)")
            else:
                parts.append(item)
    return "\n\n".join(parts) + "\n"


def _html(title: str, sections: Sequence[Section]) -> str:
    parts = []
    for section in sections:
        parts.append(f"<section><h2>{html.escape(section.title)}</h2>")
        for item in section.items:
            if isinstance(item, Figure):
                parts.append(_figure(item))
            elif isinstance(item, Table):
                if item.shown:
                    parts.append(item.html())
            else:
                parts.append(f"<p>{html.escape(item)}</p>")
        parts.append("</section>")
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<h1>{html.escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def _figure(figure: Figure) -> str:
    data = base64.b64encode(figure.png).decode()
    caption = html.escape(figure.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )
