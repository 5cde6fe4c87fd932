"""MiniLM for tests: quantized once a process, samples of its layers, configurations by array."""

import functools
from collections.abc import Mapping

import numpy as np

from tilewright.hw.config import Config, preset_config
from tilewright.sw.driver.device import Device
from tilewright.sw.driver.runs import Outputs
from tilewright.sw.models.bert import Bert
from tilewright.sw.models.fetch import resolve_model
from tilewright.sw.models.tokenize import Tokenizer
from tilewright.sw.program import Executable
from tilewright.sw.quantize.formats import QModel
from tilewright.sw.quantize.quantize import quantize_folder
from tilewright.sw.quantize.texts import texts


@functools.cache
def minilm() -> tuple[Bert, QModel]:
    """The fp32 model and its W8A8 integers."""
    return quantize_folder(resolve_model("minilm"))


@functools.cache
def layer_input(layer: int, sequence: int) -> tuple[np.ndarray, int, np.ndarray]:
    """Input s16 of a layer for a real sentence, its valid length, and the fp32 output."""
    model, quantized = minilm()
    folder = resolve_model("minilm")
    # Longer than the sequence is cut; a short one among the first few leaves padding to mask.
    tokens = Tokenizer(folder).batch(texts("evaluation", 8), max(sequence, 8))
    pick = int(np.argsort(tokens.mask.sum(axis=1), kind="stable")[-2])
    ids, mask = tokens.ids[pick][:sequence], tokens.mask[pick][:sequence]
    states = model.forward(ids, mask)[layer]
    return quantized.layers[layer].input.to_int(states.x), int(mask.sum()), states.y


PRESET_OF_ARRAY = {(4, 4): "tiny", (8, 8): "small", (16, 16): "default", (32, 32): "large"}
ARRAYS = [*PRESET_OF_ARRAY, (8, 16), (16, 4)]


def array_config(rows: int, columns: int, lanes: int | None = None) -> Config:
    """The preset of a square array, or `default` with another array; lanes C / 2 if not given."""
    lanes = columns // 2 if lanes is None else lanes
    preset = preset_config(PRESET_OF_ARRAY.get((rows, columns), "default"))
    return preset.with_settings(
        [f"name=a{rows}x{columns}l{lanes}", f"rows={rows}", f"columns={columns}", f"lanes={lanes}"]
    )


def run_whole(
    device: Device,
    executable: Executable,
    inputs: Mapping[str, np.ndarray],
    scalars: Mapping[str, int],
) -> tuple[Outputs, dict[int, np.ndarray]]:
    """Run a program and return all it wrote: outputs, and every region but what it only reads."""
    with device.load(executable) as loaded:
        outputs = loaded.run(inputs, scalars)
        inner = {r: loaded.read_region(r) for r in executable.regions_of("internal")}
    return outputs, {**outputs.regions, **inner}
