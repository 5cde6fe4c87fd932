"""Rewrites imports of `hw`, `sim`, `sw` and `synth` to `tilewright.hw` and so on, in place.

For branches begun before the packages moved under one name: `scripts/prefix_imports.py FILE...`,
then `ruff check --fix` and `ruff format`. Running it twice changes nothing.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("hw", "sim", "sw", "synth")


def _modules(layer: str) -> str:
    """A pattern of the modules directly in a layer, so that `synth.ys` or `self.sim.x` stay."""
    names = {path.stem for path in (ROOT / layer).iterdir() if not path.name.startswith((".", "_"))}
    return "|".join(sorted(names | {"__main__"}))


PATTERNS = [
    # `from hw import config`, `import sw`
    re.compile(r"(?m)^(?P<head>[\s>\"]*(?:from|import) )(?P<layer>hw|sim|sw|synth)(?=\s|$|\\n)"),
    # `hw.config` in an import, in a string or in a text
    *(
        re.compile(rf"(?P<head>(?<![\w./-]))(?P<layer>{layer})(?=\.(?:{_modules(layer)})\b)")
        for layer in LAYERS
    ),
]


def prefixed(text: str) -> str:
    """The text with every import and dotted name of the project's own under `tilewright`."""
    for pattern in PATTERNS:
        text = pattern.sub(r"\g<head>tilewright.\g<layer>", text)
    return text


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        before = path.read_text(encoding="utf-8")
        if (after := prefixed(before)) != before:
            path.write_text(after, encoding="utf-8")
            print(path)
