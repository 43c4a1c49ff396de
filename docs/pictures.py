"""Draw the pictures of transformers.md from what its own code computes: `make pictures`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from headrace.modeling.positions import sinusoids
from headrace.tasks.reporting import plots

GUIDE = Path(__file__).parent / "transformers.md"


def said() -> dict[str, Any]:
    """Run the code of the guide's first four sections and return the names it defines."""
    text = GUIDE.read_text(encoding="utf-8").partition("\n## 5.")[0]
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    return names


def main() -> None:
    names, folder = said(), GUIDE.parent / "pictures"
    folder.mkdir(exist_ok=True)
    given = [f"token {one}" for one in names["sources"][0].tolist()]
    written = [f"token {one}" for one in names["turned"][0].tolist()]
    made = {
        "curve": plots.curve(names["losses"], xlabel="step", ylabel="loss"),
        "attention": plots.attention_map(names["weights_ls"].detach(), written, given),
        "positions": plots.pattern(sinusoids(60, 64), xlabel="dimension", ylabel="position"),
    }
    plots.write_all(folder, made)


if __name__ == "__main__":
    main()
