"""Measure every figure of docs/performance.md."""

from collections.abc import Mapping
from pathlib import Path

import click

from tilewright.sw.cli._output import Column, emit, json_option, progress, write_json
from tilewright.sw.errors import ResultError, UserError
from tilewright.sw.files import write_whole
from tilewright.sw.words import plural


@click.command()
@click.argument("parts", nargs=-1, metavar="[PART]...")
@click.option(
    "-o",
    "--out",
    "output",
    metavar="DIR",
    default=Path("build") / "bench",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for results.jsonl, bench.json and bench.md; made if need be.",
)
@click.option("--quick", is_flag=True, help="A short selection of each part.")
@click.option(
    "--page",
    metavar="FILE",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="Write the tables between the markers <!-- bench PART --> and <!-- end --> of a page too "
    "(not with --quick).",
)
@json_option
def command(
    parts: tuple[str, ...],
    output: Path,
    quick: bool,
    page: Path | None,
    json_path: str | None,
) -> None:
    """Measure every figure of docs/performance.md.

    Without PART all are measured, which takes an hour or two. Every result is kept at once in
    DIR/results.jsonl: what was broken off goes on where it was, and nothing is measured again
    before the sources it depends on have changed.

    \b
    Examples:
      tilewright bench --quick
      tilewright bench layers
      tilewright bench --page docs/performance.md
    """
    from tilewright.sw.bench.parts import PARTS, Bench
    from tilewright.sw.bench.results import Item, Results

    for name in parts:
        if name not in PARTS:
            raise UserError(f"part {name!r} is unknown; one of {', '.join(PARTS)}")
    names = list(parts or PARTS)
    bench = Bench(Results(output / "results.jsonl"), quick=quick)
    if page is not None:
        # Refused before all is measured.
        _filled(page, dict.fromkeys(names, ""))
    with progress("bar", "count", "time", "text", keep=True) as bar:
        task = bar.add_task("", total=len(bench.items(names)))

        def done(item: Item, ok: bool) -> None:
            bar.advance(task)
            if not ok:
                label, reason = (bench.failed + bench.skipped)[-1]
                bar.console.print(f"{label}: {reason}", markup=False)

        bench.measure(names, lambda text: bar.update(task, description=text), done)
        bar.update(task, description="")

    output.mkdir(parents=True, exist_ok=True)
    write_whole(output / "bench.md", bench.markdown(names).encode())
    document = bench.document(names)
    write_json(document, str(output / "bench.json"))
    if page is not None and not quick:
        write_whole(page, _filled(page, bench.sections(names)).encode())
    rows = [
        {
            "part": name,
            "about": PARTS[name].about,
            "items": len(PARTS[name].items(quick)),
            "measured": len(document["parts"][name]),
        }
        for name in names
    ]
    emit(
        title="benchmark",
        columns=_COLUMNS,
        rows=rows,
        json_path=json_path,
        notes=[f"tables in {output / 'bench.md'}"],
        extra={key: value for key, value in document.items() if key != "tilewright"},
    )
    if bench.failed:
        raise ResultError(f"{plural(len(bench.failed), 'item')} failed: {bench.failed[0][1]}")


def _filled(page: Path, sections: Mapping[str, str]) -> str:
    """A page with the text of each part it has a place for."""
    from tilewright.sw.bench.markdown import has_marker, insert

    try:
        text = page.read_text(encoding="utf-8")
        for name, made in sections.items():
            if has_marker(text, name):
                text = insert(text, name, f"\n{made}\n")
    except (UserError, UnicodeDecodeError) as error:
        raise UserError(f"--page {page}: {error}") from error
    return text


_COLUMNS = (
    Column(key="part", header="part"),
    Column(key="about", header="what"),
    Column(key="measured", header="measured", right=True),
    Column(key="items", header="of", right=True),
)
