"""Models on the command line: reading texts, opening an engine, progress while it is made ready."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilewright.sw.cli._options import Derived
from tilewright.sw.cli._output import stages
from tilewright.sw.errors import UserError, reason
from tilewright.sw.words import plural

if TYPE_CHECKING:
    from tilewright.hw.config import Config
    from tilewright.sw.driver.machine import RunResult
    from tilewright.sw.pipeline.pipeline import Pipeline, Text
    from tilewright.sw.program import Executable

output_option = click.option(
    "--output",
    "outputs",
    multiple=True,
    metavar="NAME",
    cls=Derived,
    show_default="all outputs",
    help="Of an ONNX file: an output to use, or a tensor inside; may be repeated.",
)
"""Of every command that loads a model."""

BACKENDS = ("iss", "verilator", "reference")
"""Where programs run; `reference` is the golden functions, without a machine."""


def read_texts(
    texts: Sequence[str], file: Path | None, contexts: Sequence[str] = ()
) -> list["Text"]:
    """Texts of the options `--text`, `--file` (one a line) and `--context` (one for each text)."""
    found = list(texts)
    if file is not None:
        try:
            content = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--file {file}: {reason(error)}") from error
        # Not splitlines: a text may hold characters that Unicode counts as line ends.
        lines = content.rstrip().split("\n") if content.strip() else []
        for number, line in enumerate(lines, start=1):
            # Left out, the results' numbers would not be those of the lines.
            if not line.strip():
                raise UserError(f"--file {file}: line {number} is empty")
        found += lines
    if not found:
        raise UserError("no text: give --text or --file")
    if not contexts:
        return list(found)
    if len(contexts) != len(found):
        texts_given = plural(len(found), "text")
        raise UserError(f"{len(contexts)} --context for {texts_given}: expected one for each")
    return list(zip(found, contexts, strict=True))


@dataclass
class Session:
    """A model ready to run.

    Attributes
    ----------
    pipeline : Pipeline
    results : list of RunResult
        Of every run on a machine, in order.
    engine : DeviceEngine, optional
        What runs it on a machine; None for the golden functions.
    """

    pipeline: "Pipeline"
    results: "list[RunResult]" = field(default_factory=list)
    engine: Any = None

    def rows(self, tokens: int) -> int:
        """Rows of the program a text of so many tokens runs on; the tokens without a machine."""
        return tokens if self.engine is None else int(self.engine.rows(tokens))


@contextmanager
def open_session(
    where: str,
    config: "Config",
    *,
    backend: str,
    precision: str,
    outputs: Sequence[str] = (),
    sequence: int | None = None,
    executable: "Executable | None" = None,
) -> Iterator[Session]:
    """Load, quantize and connect a model, with progress on standard error."""
    from tilewright.sw.compiler.model import check_sequence
    from tilewright.sw.driver.device import Device
    from tilewright.sw.pipeline.device import DeviceEngine, check_model
    from tilewright.sw.pipeline.pipeline import Pipeline

    if backend not in BACKENDS:
        raise UserError(f"--backend {backend}: must be one of {', '.join(BACKENDS)}")
    with stages(f"load {where}") as tell:
        pipeline = Pipeline.load(where, outputs=outputs, precision=precision, tell=tell)
        if executable is not None:
            check_model(executable, pipeline.model, pipeline.quantized)
        if sequence is not None:
            check_sequence(pipeline.quantized, sequence)
        if backend == "reference":
            tell("run")
            yield Session(pipeline)
            return
        options: dict[str, Any] = {"progress": tell} if backend == "verilator" else {}
        with Device(backend, config, **options) as device:
            engine = DeviceEngine(
                pipeline.quantized,
                device,
                sequence=sequence,
                executable=executable,
                progress=lambda done, total: tell(f"run on {backend}", done, total),
            )
            pipeline.engine = engine
            tell(f"compile for {config.title} and run on {backend}")
            yield Session(pipeline, engine.results, engine)
