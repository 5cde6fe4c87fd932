"""Turn the results of the layer matrix (JSON lines) into the Markdown table of docs/performance.md.

python scripts/matrix_table.py RESULTS.jsonl
"""

import json
import sys
from pathlib import Path

SEQUENCES = (1, 17, 32, 128, 512)


def main(path: Path) -> None:
    """Print the table: an array and lanes a row, a sequence length a column."""
    cells: dict[tuple[int, int, int], dict[int, str]] = {}
    names: dict[tuple[int, int, int], str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["config"] == "default":
            continue
        rows, columns = (int(part) for part in row["array"].split("×"))
        key = (rows * columns, rows, row["lanes"])
        names[key] = f"{row['array']} | {row['lanes']} | {row['onchip_bytes'] / 1024:,.0f} KiB"
        shown = f"{row['cycles']:,} ({row['utilization']:.1%})"
        cells.setdefault(key, {})[row["sequence"]] = shown
    print("| array | lanes | on chip | " + " | ".join(f"S = {s}" for s in SEQUENCES) + " |")
    print("| --- " * (3 + len(SEQUENCES)) + "|")
    for key in sorted(cells):
        values = [cells[key].get(sequence, "–") for sequence in SEQUENCES]
        print(f"| {names[key]} | " + " | ".join(values) + " |")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/matrix_table.py RESULTS.jsonl")
    main(Path(sys.argv[1]))
