"""Run texts through a whole model on the generated hardware."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilewright.sw.cli._config import chosen_config, config_options
from tilewright.sw.cli._model import BACKENDS, open_session, output_option, read_texts
from tilewright.sw.cli._options import Derived
from tilewright.sw.cli._output import Column, emit_tables, json_option, size
from tilewright.sw.errors import UserError

if TYPE_CHECKING:
    from tilewright.sw.pipeline.pipeline import Output


@click.command()
@click.argument("model")
@output_option
@click.option("--text", "texts", multiple=True, metavar="TEXT", help="A text; may be repeated.")
@click.option(
    "--file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Texts, one a line.",
)
@click.option(
    "--context",
    "contexts",
    multiple=True,
    metavar="TEXT",
    help="Second text of a pair, one for each --text: where to find the answer to a question.",
)
@click.option("--backend", default="iss", metavar="NAME", help=f"One of {', '.join(BACKENDS)}.")
@click.option(
    "--precision",
    metavar="TEXT",
    cls=Derived,
    show_default="w8a8",
    help="w8a8, w8a16, w16a16, w4a8, w4a16, with overrides like ffn2=w8a16, 2.attention=16, or a "
    "TOML file.",
)
@click.option(
    "--seq",
    "sequence",
    type=int,
    metavar="N",
    cls=Derived,
    show_default="as each text needs",
    help="Rows of a sequence.",
)
@click.option(
    "--program",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A program of `tilewright compile` of this model, instead of compiling; it has its own "
    "precision, rows and batch.",
)
@click.option("--truncate", is_flag=True, help="Cut texts that are too long.")
@config_options()
@json_option
def command(
    model: str,
    outputs: tuple[str, ...],
    texts: tuple[str, ...],
    file: Path | None,
    contexts: tuple[str, ...],
    backend: str,
    precision: str | None,
    sequence: int | None,
    program: Path | None,
    truncate: bool,
    preset: str | None,
    config_file: Path | None,
    settings: tuple[str, ...],
    json_path: str | None,
) -> None:
    """Run texts through a whole model on the generated hardware.

    MODEL is `minilm`, a folder with config.json and model.safetensors, or an ONNX file. Tokens,
    embedding look-up and the head are the host's, everything between runs on the machine: on the
    instruction-set simulator, on the Verilog itself (verilator), or as golden functions
    (reference); all three give the same bits.

    \b
    Examples:
      tilewright run minilm --text "A cat sits on the mat." --text "A dog lies on the rug."
      tilewright run minilm --text "Hello." --backend verilator --preset small --seq 16
      tilewright run minilm --file texts.txt --precision w8a16 --json embeddings.json
      tilewright run ./my-squad-model --text "Who came?" --context "Ann came at noon."
    """
    config = chosen_config(preset, config_file, settings)
    given = read_texts(texts, file, contexts)
    executable = None
    if program is not None:
        from tilewright.sw.program.file import load

        for option, value in (("--precision", precision), ("--seq", sequence)):
            if value is not None:
                raise UserError(f"{option} {value}: the program of --program has its own")
        if backend == "reference":
            raise UserError("--program needs a machine: --backend iss or verilator")
        executable = load(program, config)
        precision = executable.metadata.get("precision")
    if precision is None:
        precision = "w8a8"
    with open_session(
        model,
        config,
        backend=backend,
        precision=precision,
        outputs=outputs,
        sequence=sequence,
        executable=executable,
    ) as session:
        found = session.pipeline(given, truncate=truncate)
        rows = []
        for number, output in enumerate(found):
            row = _row(number, output)
            if session.engine is not None:
                result = session.results[number]
                row["rows"] = session.rows(len(output.tokens))
                row["cycles"] = result.cycles or None
                program_of = session.engine.executable(row["rows"])
                row["utilization"] = (
                    program_of.utilization(result.cycles) if result.cycles else None
                )
                row["seconds"] = result.seconds
            rows.append(row)
    machine = f"{config.title} {config.rows}×{config.columns}, {size(config.onchip_bytes)} on chip"
    where = "golden functions" if backend == "reference" else f"{backend}, {machine}"
    tables: list[tuple[str, list[Column], list[dict[str, Any]]]] = [
        (f"{Path(model).name}, {precision}, {where}", _columns(rows, backend), rows)
    ]
    embeddings = [row["embedding"] for row in rows if "embedding" in row]
    if len(embeddings) > 1:
        tables.append(("cosine similarity", *_similarity(embeddings)))
    left_out = session.pipeline.left_out
    emit_tables(
        tables,
        json_path=json_path,
        keys=["similarity"],
        notes=[f"{left_out}: its head is not run, these are sentence embeddings"]
        if left_out
        else [],
        extra={"config": config.to_dict(), "left_out": left_out},
    )


def _row(number: int, output: "Output") -> dict[str, Any]:
    from tilewright.sw.models.heads import Classes, Span, TokenClasses

    result = output.result
    text = " | ".join(output.text) if isinstance(output.text, tuple) else output.text
    row: dict[str, Any] = {"number": number + 1, "text": text, "tokens": len(output.tokens)}
    if isinstance(result, Classes):
        best = int(result.logits.argmax())
        row["result"] = f"{result.label} ({result.scores[best]:.3f})"
        row["label"] = result.label
        row["scores"] = dict(zip(result.labels, map(float, result.scores), strict=True))
        row["logits"] = result.logits.tolist()
    elif isinstance(result, TokenClasses):
        row["result"] = " ".join(result.tags)
        row["tags"] = list(result.tags)
        row["logits"] = result.logits.tolist()
    elif isinstance(result, Span):
        row["result"] = output.answer or "(no answer)"
        row["answer"], row["score"] = output.answer, float(result.score)
    else:
        row["result"] = " ".join(f"{value:+.4f}" for value in result[:4]) + " …"
        row["embedding"] = result.tolist()
    return row


def _columns(rows: list[dict[str, Any]], backend: str) -> list[Column]:
    def short(text: str) -> str:
        return text if len(text) <= 40 else text[:39] + "…"

    columns = [
        Column(key="number", header="#", right=True),
        Column(key="text", header="text", show=short),
        Column(key="tokens", header="tokens", right=True),
        Column(key="result", header="embedding" if "embedding" in rows[0] else "result"),
    ]
    if backend != "reference":
        columns.append(Column(key="rows", header="rows", right=True))
    if backend == "verilator":
        columns += [
            Column(key="cycles", header="cycles", right=True),
            Column(key="utilization", header="util.", right=True, show=lambda u: f"{u:.2%}"),
        ]
    return columns


def _similarity(
    embeddings: list[list[float]],
) -> tuple[list[Column], list[dict[str, Any]]]:
    import numpy as np

    whole = np.array(embeddings)
    unit = whole / np.maximum(np.linalg.norm(whole, axis=1, keepdims=True), 1e-12)
    cosines = unit @ unit.T
    names = [str(i + 1) for i in range(len(unit))]
    columns = [Column(key="text", header="#", right=True)]
    columns += [Column(key=n, header=n, right=True, show=lambda v: f"{v:.3f}") for n in names[:12]]
    rows = [
        {"text": name, **{n: float(v) for n, v in zip(names, line, strict=True)}}
        for name, line in zip(names, cosines, strict=True)
    ]
    return columns, rows
