"""One encoder layer of all-MiniLM-L6-v2, W8A8, against the integer reference and fp32.

python examples/layer.py [--backend iss|verilator]
"""

import argparse

import numpy as np

import tilewright as tw

LAYER, ROWS = 0, 16

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--backend", choices=("iss", "verilator"), default="iss")
backend = parser.parse_args().backend

# Weights are fetched and quantized once, then they come from the cache.
pipeline = tw.load("minilm")
layer = pipeline.quantized.layers[LAYER]

(tokens,) = pipeline.tokens(["A tile of numbers goes through the array."])
length = len(tokens)
states = pipeline.model.forward(tokens.ids)[LAYER]
x = np.pad(layer.input.to_int(states.x), ((0, ROWS - length), (0, 0)))

config = tw.preset("small")
program = tw.compile(pipeline, config, ROWS, layer=LAYER)
with tw.Device(backend, config) as device:
    # The program is made for 16 rows; how many of them are tokens is said when it runs.
    outputs = device.run(program, {"x": x}, length=length)

y = outputs["y"][:length]
np.testing.assert_array_equal(y, tw.reference.run_layer(layer, x, length)[:length])
ours, exact = layer.output.to_real(y), states.y
norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(exact, axis=1)
near = (ours * exact).sum(axis=1) / norms
print(f"layer {LAYER} of MiniLM on {backend}: {len(program.program)} commands, {length} tokens")
print("equal to the integer reference: every element")
print(f"cosine against fp32: mean {near.mean():.5f}, worst token {near.min():.5f}")
if outputs.result.cycles:  # the instruction-set simulator has no time
    busy = program.utilization(outputs.result.cycles)
    print(f"{outputs.result.cycles:,} cycles, array busy with products {busy:.1%}")
