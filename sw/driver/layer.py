"""Running a compiled layer on a device."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hw.commands import PROGRAM_REGION
from sw.compiler import LayerProgram
from sw.driver.device import Device
from sw.driver.machine import TIMEOUT, RunResult

Bytes = npt.NDArray[np.uint8]
WEIGHTS, INPUT = 1, 2
"""Regions a layer only reads; the others hold what it wrote."""


@dataclass(frozen=True, kw_only=True)
class LayerRun:
    """What a run of a layer gave.

    Attributes
    ----------
    y : s16 [S, hidden]
    magnitudes : u16 [S], largest magnitude of each row of y
    regions : dict of int to uint8 array
        Every region the layer wrote, all of it.
    result : RunResult
    """

    y: npt.NDArray[np.int16]
    magnitudes: npt.NDArray[np.uint16]
    regions: dict[int, Bytes]
    result: RunResult

    def utilization(self, layer: LayerProgram) -> float:
        """The layer's own MACs (nothing padded) over cycles times processing elements."""
        elements = layer.config.rows * layer.config.columns
        return layer.shape.macs / (self.result.cycles * elements) if self.result.cycles else 0.0


def run_layer(
    device: Device,
    layer: LayerProgram,
    x: npt.NDArray[np.integer[Any]],
    length: int,
    *,
    timeout: int = TIMEOUT,
    progress: Callable[[int], None] | None = None,
) -> LayerRun:
    """Run a compiled layer from the state a run starts in: everything in DRAM.

    Parameters
    ----------
    device : Device
        Of the layer's configuration.
    layer : LayerProgram
    x : s16 [S, hidden]
    length : int
        Valid tokens, 0 … S; the others are masked.
    timeout : int
        Cycles.
    progress : callable, optional
        Told the cycles passed.

    Raises
    ------
    DeviceFault, DeviceTimeout
        As the machine or the time says.
    """
    if not 0 <= length <= layer.shape.sequence:
        raise ValueError(f"length = {length}: 0 to {layer.shape.sequence} is needed")
    contents: dict[int, Any] = {
        WEIGHTS: np.frombuffer(layer.weights, dtype=np.uint8),
        INPUT: np.frombuffer(layer.pack_input(x), dtype=np.uint8),
    }
    written = [r for r in layer.regions if r not in (PROGRAM_REGION, WEIGHTS, INPUT)]
    result = device.run_program(
        layer.program.to_bytes(),
        {**contents, **{region: layer.regions[region] for region in written}},
        scalars={layer.scalars["length"]: length},
        timeout=timeout,
        progress=progress,
    )
    regions = {region: device.read_region(region) for region in written}
    y, magnitudes = layer.unpack_output(regions[layer.buffers["y"].region].tobytes())
    return LayerRun(y=y, magnitudes=magnitudes, regions=regions, result=result)
