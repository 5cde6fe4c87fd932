"""One encoder layer of all-MiniLM-L6-v2, W8A8, against the integer reference and fp32.

python examples/layer.py [--backend iss|verilator]
"""

import argparse

import numpy as np

from tilewright.hw.config import preset_config
from tilewright.sw.compiler import compile_layer
from tilewright.sw.driver import Device
from tilewright.sw.models.fetch import resolve_model
from tilewright.sw.models.tokenize import Tokenizer
from tilewright.sw.quantize import reference
from tilewright.sw.quantize.evaluation import cosine
from tilewright.sw.quantize.quantize import quantize_folder

LAYER, ROWS = 0, 16

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--backend", choices=("iss", "verilator"), default="iss")
backend = parser.parse_args().backend

# Weights are fetched and quantized once, then they come from the cache.
folder = resolve_model("minilm")
model, quantized = quantize_folder(folder)
layer = quantized.layers[LAYER]

tokens = Tokenizer(folder).batch(["A tile of numbers goes through the array."], ROWS)
states = model.forward(tokens.ids[0], tokens.mask[0])[LAYER]
length = int(tokens.mask[0].sum())
padding = ((0, ROWS - len(states.x)), (0, 0))
x = np.pad(layer.input.to_int(states.x), padding)

config = preset_config("small")
program = compile_layer(layer, config, ROWS)
with Device.open(backend, config) as device:
    # The program is made for 16 rows; how many of them are tokens is said when it runs.
    outputs = device.run(program, {"x": x}, length=length)

y = outputs["y"][:length]
np.testing.assert_array_equal(y, reference.run_layer(layer, x, length)[:length])
near = cosine(layer.output.to_real(y), states.y[:length])
print(f"layer {LAYER} of MiniLM on {backend}: {len(program.program)} commands, {length} tokens")
print("equal to the integer reference: every element")
print(f"cosine against fp32: mean {near.mean():.5f}, worst token {near.min():.5f}")
if outputs.result.cycles:  # the instruction-set simulator has no time
    busy = program.utilization(outputs.result.cycles)
    print(f"{outputs.result.cycles:,} cycles, array busy with products {busy:.1%}")
