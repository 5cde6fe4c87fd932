"""The engine on a device: programs of whole encoders, one for each length of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tilewright.sw.arguments import instance, integer
from tilewright.sw.compiler import compile_model
from tilewright.sw.compiler.layer import EFFORT
from tilewright.sw.compiler.model import check_sequence
from tilewright.sw.driver.device import Device
from tilewright.sw.driver.machine import RunResult
from tilewright.sw.driver.programs import Programs
from tilewright.sw.driver.runs import Ticket
from tilewright.sw.models.bert import Bert
from tilewright.sw.models.errors import ModelError
from tilewright.sw.program import Executable
from tilewright.sw.quantize.fingerprint import fingerprint
from tilewright.sw.quantize.formats import QModel

I16 = npt.NDArray[np.int16]

_STEP = 16
"""Lengths share a program in steps of this many rows: a pass of the default array."""

_MODEL = "model"
"""Name in a program's metadata: the fingerprint of the fp32 model it was compiled from."""


def with_model(executable: Executable, model: Bert) -> Executable:
    """A program that says which model it is of; for one that is to be kept in a file."""
    return replace(executable, metadata={**executable.metadata, _MODEL: fingerprint(model)})


def check_model(executable: Executable, model: Bert, quantized: QModel) -> None:
    """Refuse a program of another model, whose results would be taken for this one's.

    The host looks embeddings up and reads the output by `quantized`; the rest is in the program.

    Raises
    ------
    ModelError
        In one line.
    """
    found, wanted = executable.metadata.get(_MODEL), fingerprint(model)
    if found is None:
        raise ModelError("the program does not say which model it is of: compile the model again")
    if found != wanted:
        raise ModelError(f"the program is of another model: fingerprint {found}, not {wanted}")
    state = quantized.layers[-1].output
    if executable.metadata["output"] != {"scale": state.scale, "smooth": state.smooth.tolist()}:
        raise ModelError("the program's output has another scale: compile the model again")


class DeviceEngine:
    """Compiles a model for the lengths that come, keeps the programs, runs them.

    Parameters
    ----------
    quantized : QModel
    device : Device
    sequence : int, optional
        Rows of every program; else each text takes the next multiple of 16.
    executable : Executable, optional
        A compiled program of this model to be used instead of compiling; it sets `sequence`, and
        texts share its runs if it is one of a batch.
    effort : int
        Of `compile_model`.
    progress : callable, optional
        Told the texts done and their number.

    Attributes
    ----------
    results : list of RunResult
        Of each text's run, in order of the texts.
    """

    def __init__(
        self,
        quantized: QModel,
        device: Device,
        *,
        sequence: int | None = None,
        executable: Executable | None = None,
        effort: int = EFFORT,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._quantized = instance("quantized", quantized, QModel)
        if sequence is not None:
            check_sequence(quantized, sequence)
        integer("effort", effort, 1)
        self._width = quantized.layers[0].hidden
        self._device = instance("device", device, Device)
        self._sequence = int(executable.metadata["sequence"]) if executable else sequence
        self._batch = int(executable.metadata["batch"]) if executable else 1
        self._executable = executable
        self._effort = effort
        self._progress = progress
        self._programs = Programs(device)
        self.results: list[RunResult] = []
        self.executables: dict[int, Executable] = {}

    @property
    def limit(self) -> int | None:
        """The rows of the program, where they are given."""
        return self._sequence

    def rows(self, length: int) -> int:
        """Rows of the program a text of this length runs on."""
        if self._sequence is not None:
            return self._sequence
        return min(-(-length // _STEP) * _STEP, len(self._quantized.embedding.position))

    def executable(self, rows: int) -> Executable:
        """The program of so many rows; compiled when it is asked for the first time."""
        if rows not in self.executables:
            self.executables[rows] = self._executable or compile_model(
                self._quantized, self._device.config, rows, effort=self._effort
            )
        return self.executables[rows]

    def encode(self, batch: Sequence[I16], lengths: Sequence[int]) -> list[I16]:
        """See `tilewright.sw.pipeline.engine.Engine.encode`."""
        tickets: list[Ticket] = []
        out: list[I16] = []
        texts = list(zip(batch, lengths, strict=True))
        for first in range(0, len(texts), self._batch):
            tickets.append(self._submit(texts[first : first + self._batch]))
            # Two in the queue keep the machine busy; more would hold inputs that need not wait.
            if len(tickets) > 1:
                self._take(tickets.pop(0), lengths, out)
        while tickets:
            self._take(tickets.pop(0), lengths, out)
        return out

    def _slots(self) -> list[str]:
        """What the names of a run's sequences end with."""
        return [str(slot) for slot in range(self._batch)] if self._batch > 1 else [""]

    def _submit(self, texts: Sequence[tuple[I16, int]]) -> Ticket:
        """Queue a run of as many texts as the program takes, or fewer."""
        rows = self.rows(max(length for _, length in texts))
        loaded = self._programs.get(rows, lambda: self.executable(rows))
        inputs, scalars = {}, {}
        # A slot that stays empty runs one row of zeros: 0 is no length.
        empty = [(np.zeros((1, self._width), np.int16), 1)] * (self._batch - len(texts))
        for slot, (z, length) in zip(self._slots(), [*texts, *empty], strict=True):
            padded = np.zeros((rows, self._width), dtype=np.int16)
            padded[:length] = z[:length]
            inputs[f"z{slot}"], scalars[f"length{slot}"] = padded, length
        return loaded.submit(inputs, scalars)

    def _take(self, ticket: Ticket, lengths: Sequence[int], out: list[I16]) -> None:
        outputs = ticket.result()
        for slot, length in zip(self._slots(), lengths[len(out) :], strict=False):
            self.results.append(outputs.result)
            out.append(outputs.values[f"y{slot}"][:length].astype(np.int16, copy=False))
        if self._progress is not None:
            self._progress(len(out), len(lengths))
