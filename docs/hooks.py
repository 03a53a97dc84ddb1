"""The measured pages, as they stand in results/ and benchmarks/results/, become pages of the site.

Links to them are written as they are in the repository, so that they lead there on every view of it. In the site docs/
is the root, and a link has one step up fewer.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("results", "benchmarks/results")
LINK = re.compile(r"\]\(\.\./((?:\.\./)*(?:results|benchmarks)/)")


def on_files(files: Files, config: Any) -> Files:
    """Add pages and their pictures under the paths that they have in the repository."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".md", ".png"):
                files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Links from the pages of docs/ to the measured pages, one step shorter."""
    if (ROOT / "docs" / page.file.src_uri).exists():
        return LINK.sub(r"](\1", markdown)
    return markdown
