"""Which operation loses how much: each one narrow while all others are 16 bits wide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tilewright.sw.models.errors import ModelError
from tilewright.sw.quantize.evaluation import Ids, Memory, Progress
from tilewright.sw.quantize.precision import OPERATIONS, Mode, ModelPrecision, uniform, with_width
from tilewright.sw.quantize.quantize import Quantizer


@dataclass(frozen=True, kw_only=True)
class EdgeLoss:
    """What one operation loses.

    Attributes
    ----------
    operation : str or None
        One of `tilewright.sw.quantize.precision.OPERATIONS`: a product, whose weights and operand
        are narrow, or "attention", whose q, k, v are. None: nothing is narrow, all is W16A16.
    layer : int or None
        None: the operation is narrow in every layer.
    width : str
        Its width: a mode such as "w8a8", or "8" or "16".
    mean, worst : float
        Cosine of the sentence embeddings against fp32.
    """

    operation: str | None
    layer: int | None
    width: str
    mean: float
    worst: float

    @property
    def loss(self) -> float:
        """``1 - mean``."""
        return 1 - self.mean


def edge_losses(
    quantizer: Quantizer,
    sequences: Sequence[Ids],
    precision: ModelPrecision,
    *,
    each_layer: bool = True,
    progress: Progress | None = None,
) -> Iterator[EdgeLoss]:
    """Measure every operation at its width of `precision`, all others at W16A16.

    The first row is W16A16 alone. Then each operation in all layers and, with `each_layer`, in each
    layer by itself. Operations that are at W16A16 in
    `precision` anyway are left out. Rows come as they are measured.

    Parameters
    ----------
    quantizer : Quantizer
    sequences : sequence of [S]
        Token ids, unpadded.
    precision : tuple of LayerPrecision
        One a layer of the model.
    each_layer : bool
    progress : callable, optional
        ``progress(done, total)``, rows.

    Raises
    ------
    ModelError
        If the precision has another number of layers than the model.
    """
    wide = uniform(Mode.W16A16, len(quantizer.model.layers))
    if len(precision) != len(wide):
        raise ModelError(f"a precision of {len(precision)} layers, the model has {len(wide)}")
    points: list[tuple[str | None, int | None, ModelPrecision]] = [(None, None, wide)]
    for operation in OPERATIONS:
        every = [_narrow(wide, precision, operation, i) for i in range(len(wide))]
        whole = tuple(point[i] for i, point in enumerate(every))
        points.append((operation, None, whole))
        if each_layer:
            points += [(operation, i, point) for i, point in enumerate(every)]
    points = [p for p in points if p[0] is None or p[2] != wide]
    memory = Memory()
    for done, (edge, layer, point) in enumerate(points, start=1):
        summary = memory.evaluate(quantizer.model, quantizer(point), sequences).summary
        yield EdgeLoss(
            operation=edge,
            layer=layer,
            width=_width(point, edge, layer),
            mean=summary.mean,
            worst=summary.worst,
        )
        if progress is not None:
            progress(done, len(points))


def _narrow(
    wide: ModelPrecision, precision: ModelPrecision, operation: str, layer: int
) -> ModelPrecision:
    changed = with_width(wide[layer], operation, getattr(precision[layer], operation))
    return (*wide[:layer], changed, *wide[layer + 1 :])


def _width(point: ModelPrecision, operation: str | None, layer: int | None) -> str:
    """Width of the operation; several, with slashes, where layers differ."""
    if operation is None:
        return Mode.W16A16.value
    chosen = point if layer is None else point[layer : layer + 1]
    widths = dict.fromkeys(getattr(widths, operation) for widths in chosen)
    return "/".join(w.value if isinstance(w, Mode) else str(w) for w in widths)
