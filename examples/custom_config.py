"""A machine of one's own: from a TOML file to its Verilog, and a product on it.

python examples/custom_config.py [--backend iss|verilator] [--output FOLDER]
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

import tilewright as tw

# `preset` gives what the file does not say; a value that cannot work is refused by its name.
TOML = """
preset = "tiny"
name = "wide"
rows = 4
columns = 8
lanes = 4
"""

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--backend", choices=("iss", "verilator"), default="iss")
parser.add_argument("--output", type=Path, help="keep the generated files in this folder")
options = parser.parse_args()

with tempfile.TemporaryDirectory() as scratch:
    path = Path(scratch) / "wide.toml"
    path.write_text(TOML, encoding="utf-8")
    config = tw.Config.from_toml(path)
    for file in tw.generate(config, options.output or Path(scratch) / "wide"):
        print(f"{file.name:<24} {file.stat().st_size:>9,} bytes")

rng = np.random.default_rng(2)
a = rng.integers(-128, 128, (9, 33)).astype(np.int8)
b = rng.integers(-128, 128, (33, 17)).astype(np.int8)
# The driver compares the machine's manifest hash with this configuration's before it runs anything.
with tw.Device(options.backend, config) as device:
    np.testing.assert_array_equal(device.matmul(a, b), tw.golden.matmul(a, b))
print(f"{config.rows}×{config.columns} machine on {options.backend}: product equal to golden")
