"""Fetch a model once, checked by its SHA-256; offline afterwards."""

import click

from tilewright.sw.cli._output import Column, emit, json_option


@click.command()
@click.argument("name")
@json_option
def command(name: str, json_path: str | None) -> None:
    """Fetch the model NAME into the cache, once, and print where it is.

    The version is pinned and the SHA-256 checked, also of what is in the cache already: it is
    fetched again if it is damaged. Else nothing goes over the network afterwards. Any local folder
    with the same files works in a model's place.

    \b
    Examples:
      tilewright fetch minilm
      tilewright fetch minilm --json -
    """
    from tilewright.sw.models.fetch import fetch

    path = fetch(name, full=True)
    emit(
        title="fetched",
        columns=[Column(key="name", header="model"), Column(key="path", header="folder")],
        rows=[{"name": name, "path": str(path)}],
        json_path=json_path,
    )
