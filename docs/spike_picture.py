"""Draw docs/images/spike.svg from the spike's table in benchmarks/RESULTS.md."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "images" / "spike.svg"
_NAMES = {"postgresql": "PostgreSQL", "mariadb": "MariaDB"}
_POOLS = {"stock": ("SQLAlchemy's pool", "#9aa5b1"), "ours": ("dbconfig", "#2b7a78")}
_SCALE = 1.5  # pixels per millisecond


def measured() -> dict[str, dict[str, tuple[float, int]]]:
    """Return milliseconds and new connections, by system and pool."""
    text = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    found: dict[str, dict[str, tuple[float, int]]] = {}
    for system in _NAMES:
        section = text.split(f"### 3. spike of 50 callers on 5 warm connections, {system}", 1)[1].split("###", 1)[0]
        rows = re.findall(r"^\| (stock|ours) \| ([\d.]+) \| (\d+) \|", section, re.MULTILINE)
        found[system] = {pool: (float(took), int(made)) for pool, took, made in rows}
    return found


def picture() -> str:
    """Return the picture: one bar for each system and pool."""
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" width="780" height="196" viewBox="0 0 780 196" role="img"',
        '  font-family="system-ui, sans-serif" font-size="13" fill="#444">',
        "<title>Time until 50 callers are served by 5 warm connections</title>",
        '<rect width="780" height="196" fill="#fff" rx="6"/>',
        '<text x="16" y="26" font-size="15" font-weight="600">50 callers at once, 5 warm connections, '
        "150 ms for a connect: all served after</text>",
    ]
    y = 44
    for system, pools in measured().items():
        for pool, (took, made) in pools.items():
            label, color = _POOLS[pool]
            width = max(2, round(took * _SCALE))
            lines += [
                f'<text x="16" y="{y + 17}">{_NAMES[system]}, {label}</text>',
                f'<rect x="236" y="{y + 3}" width="{width}" height="20" rx="2" fill="{color}"/>',
                f'<text x="{244 + width}" y="{y + 18}">{took:.0f} ms, {made} new</text>',
            ]
            y += 28
        y += 8
    lines += [
        '<text x="16" y="186" font-size="11" fill="#777">python -m benchmarks.bench_3_spike, two cores</text>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"
