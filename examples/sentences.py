"""Embeddings of sentences by the whole MiniLM on the machine, and how alike they are.

python examples/sentences.py [--backend iss|verilator]   (verilator: minutes)
"""

import argparse

import numpy as np

import tilewright as tw

SENTENCES = ["A cat sleeps on the sofa.", "A kitten naps on the couch.", "Stocks fell sharply."]

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--backend", choices=("iss", "verilator"), default="iss")
backend = parser.parse_args().backend

# Weights are fetched and quantized once, then they come from the cache.
model = tw.load("minilm")
with tw.Device(backend, tw.preset("default")) as device:
    found = model.on(device)(SENTENCES)

# Without a machine a model runs the golden functions: the same integers, so the same states.
for ours, golden in zip(found, model(SENTENCES), strict=True):
    np.testing.assert_array_equal(ours.hidden, golden.hidden)

embeddings = np.array([output.result for output in found])
embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
similar = embeddings @ embeddings.T
for sentence, row in zip(SENTENCES, similar, strict=True):
    print(f"{sentence:<28}", *(f"{value:6.3f}" for value in row))
if not similar[0, 1] > max(similar[0, 2], similar[1, 2]):
    raise SystemExit("the two sentences about cats should be the most alike")
print(f"equal to the golden functions on {backend}: every element of every hidden state")
