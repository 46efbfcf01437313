"""The hooks of mkdocs (mkdocs.yml names this file): files of the repository outside docs/ that the site shows.

A page links to such a file by its path from the page, as GitHub wants it, and the hooks turn the link into the site's.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
# Path in the repository -> path in the site.
SHOWN = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security-policy.md",
    "kernels/README.md": "kernels.md",
} | {f"benchmarks/results/{path.name}": f"results/{path.name}" for path in ROOT.glob("benchmarks/results/*.json")}

LINK = re.compile(r"(?P<text>!?\[[^]]*\])\((?!\w+:|#)(?P<path>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")
LOADED = re.compile(r"""<(?:script|img|iframe)[^>]*\ssrc=["']?https?:|<link[^>]*rel=["']?stylesheet[^>]*https?:""")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path, uri in SHOWN.items():
        if (ROOT / path).exists():
            files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Point each relative link at the site's page of the file that the link names in the repository.

    The site shows no sources: a link to one becomes its text.
    """
    origin = {uri: path for path, uri in SHOWN.items()}
    folder = Path(origin.get(page.file.src_uri, f"docs/{page.file.src_uri}")).parent
    here = Path(page.file.src_uri).parent

    def in_site(match: re.Match[str]) -> str:
        path = os.path.normpath(folder / match["path"])
        if path in SHOWN or path.startswith("docs/"):
            uri = SHOWN.get(path) or path.removeprefix("docs/")
            return f"{match['text']}({os.path.relpath(uri, here)}{match['anchor'] or ''})"
        return match["text"].strip("[]") if (ROOT / path).exists() else match[0]

    return LINK.sub(in_site, markdown)


def on_post_page(output: str, page: Page, **_: object) -> str:
    """Refuse a page that would load something from another machine."""
    if found := LOADED.search(output):
        raise PluginError(f"[docs] expected {page.file.src_uri} to load nothing from elsewhere but got {found[0]!r}")
    return output
