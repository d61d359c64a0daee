"""Hooks for MkDocs: the home page from the README, links into the repository, llms.txt."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
_WIDE, _HIGH = 400, 80  # of a box of a flowchart, with the space around it


def on_config(config: Any) -> Any:
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    config.site_url, config.repo_url, config.repo_name = urls["Documentation"], urls["Source"], "GitHub"
    return config


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=_with_repository_links(text, config.repo_url)))
    files.append(File.generated(config, "llms.txt", content=_llms(config)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    # A title that only tells the test of the tutorial what to do with the block.
    markdown = markdown.replace('title="shown: ', 'title="')
    markdown = re.sub(r"<!-- (?:setup\n.*?|[^\n]*?)-->\n?", "", markdown, flags=re.DOTALL)
    markdown = re.sub(r"```mermaid\n(.*?)```", lambda found: _drawn(found[1]), markdown, flags=re.DOTALL)
    return re.sub(r"\]\(\.\./([^)]+)\)", rf"]({config.repo_url}/blob/main/\1)", markdown)


def _with_repository_links(text: str, repository: str) -> str:
    """Return the README as a page of docs/: what lies beside docs/ is in the repository."""
    beside = r"\]\(((?:examples|benchmarks/|CHANGELOG|CONTRIBUTING|SECURITY)[^)]*)\)"
    return re.sub(beside, rf"]({repository}/blob/main/\1)", text)


def _llms(config: Any) -> str:
    """Return the list of pages for language models: https://llmstxt.org."""
    lines = [f"# {config.site_name}", "", f"> {config.site_description}", ""]
    for section in config.nav:
        ((title, found),) = section.items() if isinstance(section, dict) else ((section, section),)
        pages = (
            [found] if isinstance(found, str) else [next(iter(p.values())) if isinstance(p, dict) else p for p in found]
        )
        lines += [f"## {title}", ""]
        for name in pages:
            path = ROOT / "docs" / name
            text = path.read_text(encoding="utf-8") if path.exists() else "# dbconfig"
            heading = text.partition("\n")[0].lstrip("# ")
            place = name.removesuffix(".md").replace("index", "")
            lines.append(f"- [{heading}]({config.site_url}{place}{'/' if place else ''}){_first_sentence(text)}")
        lines.append("")
    return "\n".join(lines)


def _first_sentence(text: str) -> str:
    """Return what a page is about, after a colon; "" for one that does not begin with prose."""
    body = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL).partition("\n")[2].strip()
    paragraph = " ".join(body.partition("\n\n")[0].split())
    found = re.search(r"(This page .*?|^In .*?)[.:](?= |$)", paragraph)
    return f": {found[1]}." if found else ""


def _drawn(source: str) -> str:
    """Return a flowchart of Mermaid as SVG: the theme would fetch the program that draws it from elsewhere."""
    labels = dict(re.findall(r'(\w+)\["([^"]+)"\]', source))
    edges = re.findall(r'^\s*(\w+)(?:\["[^"]*"\])? --> (\w+)', source, re.MULTILINE)
    ranks = dict.fromkeys(labels, 0)
    for _ in labels:  # the longest way from the top
        for above, below in edges:
            ranks[below] = max(ranks[below], ranks[above] + 1)
    rows = [[name for name in labels if ranks[name] == rank] for rank in range(max(ranks.values()) + 1)]
    places = {
        name: (_WIDE * (number + 0.5) + (2 - len(row)) * _WIDE / 2, _HIGH * rank + 30)
        for rank, row in enumerate(rows)
        for number, name in enumerate(row)
    }
    parts = [
        f'<line x1="{places[a][0]}" y1="{places[a][1] + 22}" x2="{places[b][0]}" y2="{places[b][1] - 24}"'
        ' stroke="currentColor" marker-end="url(#arrow)"/>'
        for a, b in edges
    ]
    for name, (x, y) in places.items():
        title, _, text = labels[name].partition(": ")
        parts.append(
            f'<rect x="{x - 175}" y="{y - 22}" width="350" height="44" rx="4"'
            ' style="fill:var(--md-default-bg-color)" stroke="currentColor"/>'
            f'<text x="{x}" y="{y - 3}" text-anchor="middle" font-weight="bold" fill="currentColor">{title}</text>'
            f'<text x="{x}" y="{y + 13}" text-anchor="middle" font-size="11" fill="currentColor">{text}</text>'
        )
    arrow = '<marker id="arrow" markerWidth="8" markerHeight="8" refX="6" refY="3" orient="auto">'
    arrow += '<path d="M0,0L6,3L0,6z" fill="currentColor"/></marker>'
    size = f'viewBox="0 0 {2 * _WIDE} {_HIGH * len(rows)}"'
    return (
        f'<svg {size} role="img" font-size="13" font-family="sans-serif"><defs>{arrow}</defs>{"".join(parts)}</svg>\n'
    )
