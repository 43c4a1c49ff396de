"""The guide's code, from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

GUIDE = Path(__file__).parents[2] / "docs" / "transformers.md"


def test_every_block_runs() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    said: dict[str, Any] = {}
    blocks = list(re.finditer(r"```python\n(.*?)```", text, re.DOTALL))
    assert len(blocks) > 10
    for block in blocks:
        line = text[: block.start(1)].count("\n")
        # Its own lines in a traceback.
        exec(compile("\n" * line + block[1], str(GUIDE), "exec"), said)


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((\.\./[^)#]+)\)", GUIDE.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (GUIDE.parent / link).exists()] == []
