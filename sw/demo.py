"""The demonstration: one real encoder layer, from its weights to generated RTL, bit for bit."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import Any

import numpy as np

from tilewright.hw.config import Config
from tilewright.sim.compare import Comparison, Matrix, compare
from tilewright.sw.compiler import compile_layer
from tilewright.sw.driver.device import Device
from tilewright.sw.driver.runs import Outputs
from tilewright.sw.driver.simulators import simulator_library
from tilewright.sw.errors import UserError
from tilewright.sw.models.bert import Bert
from tilewright.sw.models.text import passages
from tilewright.sw.models.tokenize import Tokenizer
from tilewright.sw.quantize.calibrate import (
    CALIBRATION_PASSAGES,
    CALIBRATION_SEED,
    PASSAGE_WORDS,
    calibration_texts,
    unseen_texts,
)
from tilewright.sw.quantize.evaluation import cosine
from tilewright.sw.quantize.formats import QModel
from tilewright.sw.quantize.quantize import Tell, quantize_folder

LEAST_MEAN = 0.9995
LEAST_WORST = 0.985
"""Bounds of the cosine of a token's output against fp32, mean and worst."""
MOST_SENTENCES = 256
"""Sentences the collection has for `Demo.texts`: of each length, and none of the calibration."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A sentence's way through one layer.

    Attributes
    ----------
    text : str
    length : int
        Valid tokens.
    x : s16 [S, hidden], the layer's input, from the fp32 states of the layer before
    reference : f32 [S, hidden], the layer's fp32 output
    """

    text: str
    length: int
    x: np.ndarray
    reference: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What RTL and simulator made of a sample."""

    sample: Sample
    rtl: Outputs
    comparison: Comparison
    cosines: np.ndarray


class Demo:
    """A layer compiled, and sentences to run through it.

    Parameters
    ----------
    folder : Path
        Model folder.
    layer : int
    config : Config
    sequence : int
        Rows the sentences are padded to.
    tell : callable, optional
        Told the progress of calibration and quantization.
    """

    def __init__(
        self,
        folder: Path,
        *,
        layer: int,
        config: Config,
        sequence: int,
        tell: Tell | None = None,
    ) -> None:
        self.tokenizer = Tokenizer(folder)
        self.model: Bert
        self.quantized: QModel
        self.model, self.quantized = quantize_folder(folder, tell=tell)
        if not 0 <= layer < len(self.quantized.layers):
            raise UserError(f"layer {layer}: must be 0 to {len(self.quantized.layers) - 1}")
        self.number = layer
        self.layer = self.quantized.layers[layer]
        self.config = config
        self.sequence = sequence
        self.program = compile_layer(self.layer, config, sequence)

    @staticmethod
    def texts(count: int) -> list[str]:
        """Real sentences of different lengths, none of them used to calibrate."""
        # Passages behind those of the calibration, without a sentence of it.
        used = calibration_texts()
        drawn = passages(CALIBRATION_PASSAGES + 4 + count, PASSAGE_WORDS, seed=CALIBRATION_SEED)
        long = [
            passage
            for passage in drawn[CALIBRATION_PASSAGES:]
            if not any(text in passage for text in used)
        ][: max(1, count // 4)]
        by_length = sorted(set(unseen_texts(50 * count)), key=lambda text: (len(text), text))
        short = max(1, count - len(long))
        picked = [by_length[(2 * i + 1) * len(by_length) // (2 * short)] for i in range(short)]
        return (picked + long)[:count]

    def samples(self, texts: Sequence[str]) -> list[Sample]:
        """Embed the texts and run the layers before in fp32."""
        tokens = self.tokenizer.batch(list(texts), self.sequence)
        out = []
        for text, ids, mask in zip(texts, tokens.ids, tokens.mask, strict=True):
            states = self.model.forward(ids, mask)[self.number]
            out.append(
                Sample(
                    text=text,
                    length=int(mask.sum()),
                    x=self.layer.input.to_int(states.x),
                    reference=states.y,
                )
            )
        return out

    def buffers(self) -> dict[str, Matrix]:
        """The output's matrices, for the comparison's words."""
        y, magnitudes = self.program.buffers["y"], self.program.buffers["y magnitudes"]
        return {
            "y": Matrix(
                region=y.region,
                offset=y.offset,
                shape=y.shape,
                dtype="int16",
                panel=self.config.panel,
            ),
            "y magnitudes": Matrix(
                region=magnitudes.region,
                offset=magnitudes.offset,
                shape=magnitudes.shape,
                dtype="uint16",
            ),
        }

    def build(self, *, trace: bool, progress: Callable[[str], None] | None = None) -> None:
        """Build the RTL simulator, if it is not in the cache."""
        simulator_library(self.config, trace=trace, progress=progress)

    def run(
        self,
        samples: Sequence[Sample],
        *,
        workers: int = 2,
        rerun: Callable[[str], str] | None = None,
        trace: tuple[Path, int | None, int] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Iterator[Outcome]:
        """Run every sample on the simulator and in RTL, and compare all they wrote.

        Parameters
        ----------
        samples : sequence of Sample
        workers : int
            RTL simulations at a time.
        rerun : callable, optional
            Text of a sample → the command line that traces it, for a mismatch.
        trace : (Path, first cycle, cycles), optional
            Waveform of the first sample.
        progress : callable, optional
            Told the cycles simulated, of all samples together.

        Notes
        -----
        Where it ends early, by Ctrl-C or a fault, the simulations under way are given up.
        """
        with (
            Device("iss", self.config) as iss,
            ThreadPoolExecutor(workers) as pool,
            ExitStack() as end,
        ):
            total, guard, stopped = [0], Lock(), Event()
            # The pool itself would wait for all that was submitted.
            end.callback(pool.shutdown, wait=False, cancel_futures=True)
            end.callback(stopped.set)

            def in_rtl(index: int) -> Outputs:
                with Device("verilator", self.config, trace=trace is not None) as device:
                    if trace is not None and index == 0:
                        path, begin, cycles = trace
                        device.transport.trace(path, begin, cycles)  # type: ignore[attr-defined]
                    before = 0

                    def tell(cycles: int) -> None:
                        nonlocal before
                        if stopped.is_set():
                            raise CancelledError
                        with guard:
                            total[0] += cycles - before
                            before = cycles
                            if progress is not None:
                                progress(total[0])

                    sample = samples[index]
                    return device.run(
                        self.program, {"x": sample.x}, length=sample.length, progress=tell
                    )

            futures = [pool.submit(in_rtl, index) for index in range(len(samples))]
            for sample, future in zip(samples, futures, strict=True):
                expected = iss.run(self.program, {"x": sample.x}, length=sample.length)
                rtl = future.result()
                comparison = compare(
                    expected.regions,
                    rtl.regions,
                    self.buffers(),
                    program=self.program.commands,
                    scalars={self.program.scalars["length"]: sample.length},
                    operations=list(self.program.operations.commands()),
                    rerun=None if rerun is None else rerun(sample.text),
                )
                valid = slice(0, sample.length)
                real = self.layer.output.to_real(rtl["y"][valid])
                yield Outcome(
                    sample=sample,
                    rtl=rtl,
                    comparison=comparison,
                    cosines=cosine(real, sample.reference[valid]),
                )

    def simulate_layers(self, texts: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Every layer's program on the instruction-set simulator, fed with fp32 states.

        Yields layer, tokens, mean and worst cosine of a token's output against fp32.
        """
        tokens = self.tokenizer.batch(list(texts), self.sequence)
        states = [
            self.model.forward(ids, mask) for ids, mask in zip(tokens.ids, tokens.mask, strict=True)
        ]
        lengths = [int(mask.sum()) for mask in tokens.mask]
        with Device("iss", self.config) as iss:
            for number, layer in enumerate(self.quantized.layers):
                program = compile_layer(layer, self.config, self.sequence)
                found = []
                for layers, length in zip(states, lengths, strict=True):
                    x = layer.input.to_int(layers[number].x)
                    y = iss.run(program, {"x": x}, length=length)["y"][:length]
                    found.append(cosine(layer.output.to_real(y), layers[number].y[:length]))
                cosines = np.concatenate(found)
                yield {
                    "layer": number,
                    "tokens": len(cosines),
                    "mean": float(cosines.mean()),
                    "worst": float(cosines.min()),
                }
