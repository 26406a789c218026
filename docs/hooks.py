"""The pages of the documentation that are made when it is built (hooks of MkDocs).

- Each notebook in ``docs/notebooks`` is executed, and becomes a page with its results.
- The pages that notebooks export, and the pages of the pretrained models, become part of the site.
- The changelog, the license and other files in the root of the repository become pages.
"""

from __future__ import annotations

import os
import re
import runpy
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parent.parent
ROOT_PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "LICENSE": "license.md",
    "SECURITY.md": "security.md",
}
"""The files in the root of the repository that are pages, and the names of the pages."""
WIDGET = "application/vnd.jupyter.widget-view+json"
TIMEOUT = 300
"""The time in seconds after which a cell of a notebook fails."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the files of the site."""
    output = build_output()
    for path in sorted(output.rglob("*")):
        if path.is_file():
            name = path.relative_to(output).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Let links to a notebook lead to its page."""
    return re.sub(r"(\]\([\w/-]+)\.ipynb(?=[#)])", r"\1.md", markdown)


@cache  # for ``mkdocs serve``, which builds the site after every change
def build_output() -> Path:
    """Write all generated files into a temporary folder, and return it."""
    output = Path(tempfile.mkdtemp(prefix="revgen-docs-"))
    for name, page in ROOT_PAGES.items():
        (output / page).write_text(with_page_links((ROOT / name).read_text("utf-8")), "utf-8")
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        write_notebook(path, output / "notebooks")
    gallery = runpy.run_path(str(ROOT / "examples" / "gallery.py"))
    gallery["main"]([str(output / "live")])
    return output


def with_page_links(text: str) -> str:
    """Return Markdown from the root of the repository with links that are right in the site."""
    text = text.replace("](docs/", "](")
    return re.sub(r"\]\(([A-Z]+(?:\.md)?)\)", lambda match: f"]({ROOT_PAGES.get(match[1], match[1])})", text)


def write_notebook(path: Path, folder: Path) -> None:
    """Execute a notebook, and write it as Markdown with its images, and the HTML files that it writes."""
    folder.mkdir(exist_ok=True)
    notebook = nbformat.read(path, 4)
    with tempfile.TemporaryDirectory() as directory:
        execute(notebook, directory)
        for page in Path(directory).rglob("*.html"):
            page.rename(folder / page.name)
    notebook.cells = [cell for cell in notebook.cells if "install" not in cell.metadata.get("tags", ())]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = list(visible_outputs(cell.outputs))
    resources = {"output_files_dir": path.stem}
    markdown, resources = MarkdownExporter(exclude_input_prompt=True).from_notebook_node(notebook, resources)
    for name, data in resources["outputs"].items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / f"{path.stem}.md").write_text(markdown, "utf-8")


def execute(notebook: nbformat.NotebookNode, directory: str) -> None:
    """Execute a notebook in a directory. It computes on one thread, which is faster for small networks."""
    client = NotebookClient(notebook, timeout=TIMEOUT, resources={"metadata": {"path": directory}})
    client.execute(env=os.environ | {"OMP_NUM_THREADS": "1"})


def visible_outputs(outputs: list[nbformat.NotebookNode]) -> Iterator[nbformat.NotebookNode]:
    """Yield the outputs that a page can show, with consecutive lines of text as one."""
    last = None
    for output in outputs:
        if WIDGET in output.get("data", ()):
            continue
        if output.output_type == "stream" and last is not None and last.output_type == "stream":
            last.text += output.text
            continue
        last = output
        yield output
