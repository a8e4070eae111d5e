"""Hooks of MkDocs: files from outside of docs/ become pages, and nothing on the site is loaded from another host.

Links on the pages lead to files of the repository, so that they work there too; here they are turned into links
between pages, which the strict build then checks.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
# Files of the repository that are shown, with their places on the site; reports/ is shown as it is.
SHOWN = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "baselines/weights/README.md": "weights.md",
}
_LINK = re.compile(r"(\]\()([^)#:\s]+)(#[^)\s]*)?(\))")
# What makes a browser fetch something: everything but the target of a link that a reader may click.
_LOADS = [
    (".html", re.compile(r"<(?!a\b)[a-z]+\b[^>]*\b(?:src|href|srcset)=[\"']?(?:https?:)?//[^>]*>")),
    (".css", re.compile(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\"';]*")),
]


def on_files(files, config):
    outside = {**SHOWN, **{f"reports/{path.name}": f"reports/{path.name}" for path in (ROOT / "reports").glob("*.*")}}
    for source, place in outside.items():
        if files.get_file_from_path(place) is None:
            files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown, page, config, files):
    place = page.file.src_uri
    sources = {shown: source for source, shown in SHOWN.items() if shown != "index.md"}
    source = sources.get(place, place if place.startswith("reports/") else f"docs/{place}")

    def moved(link):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[2]))
        shown = SHOWN.get(target, target.removeprefix("docs/"))
        if files.get_file_from_path(shown) is None:
            return link[0]  # MkDocs says that it leads nowhere
        return f"{link[1]}{posixpath.relpath(shown, posixpath.dirname(place) or '.')}{link[3] or ''}{link[4]}"

    return _LINK.sub(moved, markdown)


def on_post_build(config):
    """Fail where a page or a style sheet loads something from another host."""
    site = Path(config["site_dir"])
    found = [
        f"{path.relative_to(site)}: {load[0]}"
        for ending, pattern in _LOADS
        for path in sorted(site.rglob(f"*{ending}"))
        for load in pattern.finditer(path.read_text(encoding="utf-8"))
    ]
    if found:
        raise PluginError("\n".join(["these are loaded from another host:", *found]))
