"""Options that name a configuration, the same for every subcommand that takes one."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tilewright.sw.cli._options import Derived
from tilewright.sw.errors import UserError

if TYPE_CHECKING:
    from tilewright.hw.config import Config

F = TypeVar("F", bound=Callable[..., Any])


def config_options(default: str = "default") -> Callable[[F], F]:
    """Give a click command `--preset`, `--config` and `--set`; see `chosen_config`."""

    def decorate(function: F) -> F:
        for option in (
            click.option(
                "--set",
                "settings",
                multiple=True,
                metavar="KEY=VALUE",
                help="Change a parameter; may be repeated.",
            ),
            click.option(
                "--config",
                "config_file",
                metavar="FILE",
                type=click.Path(dir_okay=False, path_type=Path),
                help="TOML file with parameters, and `preset = …` for the rest.",
            ),
            click.option(
                "--preset",
                metavar="NAME",
                cls=Derived,
                show_default=default,
                help="Preset to start from.",
            ),
        ):
            function = option(function)
        return function

    return decorate


def config_words(
    preset: str | None, config_file: Path | None, settings: tuple[str, ...]
) -> list[str]:
    """The words of a command line that give these options again."""
    words = [] if preset is None else ["--preset", preset]
    if config_file is not None:
        words += ["--config", str(config_file)]
    for setting in settings:
        words += ["--set", setting]
    return words


def chosen_config(
    preset: str | None,
    config_file: Path | None,
    settings: tuple[str, ...],
    *,
    default: str = "default",
) -> "Config":
    """Return the configuration the options name; ValueError or UserError says what is wrong."""
    from tilewright.hw.config import Config, preset_config

    if preset is not None and config_file is not None:
        raise UserError("--preset and --config exclude each other; a file may name its preset")
    if config_file is not None:
        config = Config.from_toml(config_file)
    else:
        config = preset_config(preset or default)
    return config.with_settings(settings)
