"""Compilation of a whole encoder: the embedding's LayerNorm and every layer in one program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from tilewright.hw.commands import SCALARS
from tilewright.hw.config import Config
from tilewright.sw.arguments import instance, integer
from tilewright.sw.compiler.blocks.embedding import normalize_embedding, place_embedding
from tilewright.sw.compiler.blocks.emitter import (
    INPUT,
    OUTPUT,
    SCRATCH,
    UNTRACKED,
    WEIGHTS,
    Emitter,
    StatePlace,
)
from tilewright.sw.compiler.errors import CompileError
from tilewright.sw.compiler.estimate import Estimate
from tilewright.sw.compiler.layer import (
    ALIGNMENT,
    EFFORT,
    Candidate,
    check_layer,
    emit_layer,
    layer_shape,
    plan_layer,
)
from tilewright.sw.compiler.pack import WeightImage
from tilewright.sw.compiler.place import DramMap
from tilewright.sw.compiler.products import head_products, norm_product, tail_products
from tilewright.sw.compiler.schedule import Schedule
from tilewright.sw.compiler.tile import Shape
from tilewright.sw.program import Buffer, Executable, Program
from tilewright.sw.program.layouts import MAGNITUDES
from tilewright.sw.quantize.formats import QModel
from tilewright.sw.quantize.precision import format_precision

BATCH_MAX = SCALARS
"""Sequences of a program: each has its length in a scalar register."""


@dataclass(frozen=True)
class _States:
    """Where the states of one sequence stand.

    What the host gives, layer 0's input, two that take turns between layers, the output.
    """

    z: StatePlace
    entry: StatePlace
    between: tuple[StatePlace, StatePlace]
    y: StatePlace

    def of(self, layer: int, layers: int) -> tuple[StatePlace, StatePlace]:
        """Input and output of a layer."""
        x = self.between[layer % 2] if layer else self.entry
        return x, self.y if layer == layers - 1 else self.between[(layer + 1) % 2]


def _suffix(item: int, batch: int) -> str:
    return "" if batch == 1 else str(item)


def _owner(item: int, batch: int) -> str:
    """What operations of a sequence are part of."""
    return "" if batch == 1 else f"sequence {item} / "


def _estimate(
    model: QModel, plans: dict[Shape, Candidate], config: Config, sequence: int, batch: int
) -> Estimate:
    """Layers one behind the other, each as if it ran alone."""
    total = Estimate(0, {})
    for layer in model.layers:
        one = plans[layer_shape(layer, config, sequence)].estimate
        for _ in range(batch):
            total = one + total
    return total


def check_sequence(model: QModel, sequence: int) -> None:
    """Refuse rows that the model has no positions for.

    Raises
    ------
    InputError
        If it is no number of rows.
    CompileError
        With the number of positions.
    """
    integer("sequence", sequence, 1)
    positions = len(model.embedding.position)
    if sequence > positions:
        raise CompileError(
            f"sequence = {sequence}: must be 1 to {positions}, the model's positions"
        )


def compile_model(
    model: QModel,
    config: Config,
    sequence: int,
    *,
    batch: int = 1,
    effort: int = EFFORT,
    progress: Callable[[int, int], None] | None = None,
) -> Executable:
    """Map a whole encoder onto a configuration.

    Parameters
    ----------
    model : QModel
    config : Config
    sequence : int
        Rows S of each sequence; how many of them are valid is a scalar of the run.
    batch : int
        Sequences in a run, 1 … `BATCH_MAX`.
    effort : int
        Choices of each part of a layer's plan that are compared; 1 takes the first that fits.
    progress : callable, optional
        Told the layers done and their number.

    Returns
    -------
    Executable
        Inputs "z" (s16 [S, H], what ``model.embedding.look_up`` gives), outputs "y" (s16 [S, H] in
        ``model.layers[-1].output``), scalars "length"; of a batch "z0", "y0", "length0" and so on.
        Metadata: "sequence", "batch", "hidden", "layers", "precision", "macs", "estimate",
        "operations", and "output" with the scale of y.

    Raises
    ------
    InputError
        If an argument cannot be.
    CompileError
        With the reason and the sizes, where the model does not fit; the layer is named.
    """
    instance("model", model, QModel)
    instance("config", config, Config)
    integer("batch", batch, 1, BATCH_MAX)
    integer("effort", effort, 1)
    check_sequence(model, sequence)
    count = len(model.layers)
    plans: dict[Shape, Candidate] = {}
    for index, layer in enumerate(model.layers):
        try:
            check_layer(layer, config, sequence)
            shape = layer_shape(layer, config, sequence)
            if shape not in plans:
                plans[shape] = plan_layer(layer, config, sequence, effort=effort)
        except CompileError as error:
            raise CompileError(f"layer {index}: {error}") from error
    shape = layer_shape(model.layers[0], config, sequence)
    state = shape.hidden_panels * sequence * config.word_bytes
    maps = {region: DramMap(ALIGNMENT) for region in (WEIGHTS, INPUT, OUTPUT, SCRATCH)}
    # Without a LayerNorm the machine has nothing to do in front of layer 0.
    constants = model.embedding.ln

    def place(region: int, name: str) -> StatePlace:
        panels = maps[region].add(name, state)
        return StatePlace(region, panels, maps[region].add(f"{name} magnitudes", 2 * sequence))

    items = []
    for item in range(batch):
        end = _suffix(item, batch)
        if constants is None:
            z = place(INPUT, f"z{end}")
        else:
            z = StatePlace(INPUT, maps[INPUT].add(f"z{end}", state), 0)
        between = place(SCRATCH, f"even{end}"), place(SCRATCH, f"odd{end}")
        entry = z if constants is None else between[0]
        items.append(_States(z, entry, between, place(OUTPUT, f"y{end}")))
    schedule = Schedule(config, UNTRACKED)
    image = WeightImage(maps[WEIGHTS], config.word_bytes)
    if constants is not None:
        placed, rows = place_embedding(config, shape)
        norm = norm_product("embedding", constants, shape.geometry)
        for item, states in enumerate(items):
            emitter = Emitter(
                schedule, placed, image, x=states.z, y=states.entry, owner=_owner(item, batch)
            )
            normalize_embedding(emitter, norm, constants, rows)
    for index, layer in enumerate(model.layers):
        shape = layer_shape(layer, config, sequence)
        owner = f"layer {index} "
        heads = head_products(layer, shape.geometry, owner)
        products = tail_products(layer, shape.geometry, owner)
        for item, states in enumerate(items):
            x, y = states.of(index, count)
            emit_layer(
                schedule,
                image,
                maps[SCRATCH],
                layer,
                plans[shape].plan,
                heads,
                products,
                x=x,
                y=y,
                length=item,
                owner=f"layer {index} / {_owner(item, batch)}",
            )
        if progress is not None:
            progress(index + 1, count)
    matrix = (sequence, shape.hidden)
    buffers = {}
    for item, states in enumerate(items):
        end = _suffix(item, batch)
        buffers[f"z{end}"] = Buffer(INPUT, states.z.panels, state, "s16 panels", matrix, "input")
        if constants is None:
            buffers[f"z{end} magnitudes"] = Buffer(
                INPUT,
                states.z.magnitudes,
                2 * sequence,
                MAGNITUDES,
                matrix[:1],
                "input",
                of=f"z{end}",
            )
        buffers[f"y{end}"] = Buffer(OUTPUT, states.y.panels, state, "s16 panels", matrix, "output")
    output = model.layers[-1].output
    return Executable(
        config=config,
        program=Program(config, schedule.commands()),
        constants={WEIGHTS: image.to_bytes()},
        regions={region: max(dram.size, ALIGNMENT) for region, dram in maps.items()},
        buffers=buffers,
        scalars={f"length{_suffix(item, batch)}": item for item in range(batch)},
        metadata={
            "sequence": sequence,
            "batch": batch,
            "hidden": shape.hidden,
            "layers": count,
            "precision": format_precision(model.precision),
            "macs": batch * sum(layer_shape(q, config, sequence).macs for q in model.layers),
            "estimate": asdict(_estimate(model, plans, config, sequence, batch)),
            "operations": schedule.operations().to_metadata(),
            "output": {"scale": output.scale, "smooth": output.smooth.tolist()},
        },
    )
