"""What mkdocs.yml does not say: pages from outside docs/, and those of the API."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

import keras_mosaickd

ROOT = Path(__file__).resolve().parent.parent
# Files of the checkout that are pages of the site.
PAGES = {
    "README.md": "readme.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
ROOMS = (
    "losses optimizers networks data teachers methods callbacks evaluation export report runs "
    "tuning cli"
).split()


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages of `PAGES`, the public names and a page for each room."""
    for name, page in PAGES.items():
        text = _of_readme((ROOT / name).read_text(encoding="utf-8"))
        files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, "api/index.md", content=_public_names()))
    for room in ROOMS:
        # The page's title stands for the package's own heading.
        options = "    options:\n      show_root_heading: false\n"
        content = f"# {room}\n\n::: keras_mosaickd.{room}\n{options}"
        files.append(File.generated(config, f"api/{room}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Leads links out of docs/ to the pages that were made of those files."""
    for name, target in PAGES.items():
        markdown = markdown.replace(f"](../{name}", f"]({target}")
    return markdown


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Leads the notebooks' links to pages; MkDocs itself sees to those of Markdown alone."""
    if page.file.src_uri.endswith(".ipynb"):
        return re.sub(r'href="(\.\./\w+)\.md', r'href="\1.html', html)
    return html


def _of_readme(text: str) -> str:
    """The text with its links as they are seen from docs/."""
    text = re.sub(r"\]\(docs/", "](", text)
    for name, page in PAGES.items():
        text = text.replace(f"]({name}", f"]({page}")
    return text


def _public_names() -> str:
    lines = [
        "# keras_mosaickd",
        "",
        "The names that `import keras_mosaickd as km` gives. They are loaded on first use, so that "
        "the import itself loads no Keras.",
        "",
    ]
    for name in sorted(keras_mosaickd._HOMES, key=str.lower):
        found = getattr(keras_mosaickd, name)
        lines += [f"::: {found.__module__}.{found.__qualname__}", ""]
    return "\n".join(lines)
