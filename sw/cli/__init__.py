"""The command line `tilewright`.

A subcommand is one file in this folder: `sw/cli/some_name.py` with a click command `command` in it
becomes `tilewright some-name`, and the first line of its docstring the help in the list, under its
heading of `SECTIONS`. Options of the same meaning have the same name, metavar and parameter in all
of them; a model is the argument MODEL. Files that start with an underscore are helpers. Nothing is
imported before it is called.

Exit codes: 0, done; 1, it ran and the result is not what it must be (`ResultError`), or a simulator
or tool failed (any other `Error`); 2, bad usage or input, with one line that names it; 130, Ctrl-C.
"""

import ast
import contextlib
import errno
import importlib
import io
import os
import resource
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from tilewright import Error, __version__
from tilewright.hw.config import ConfigError
from tilewright.sw.errors import UserError

_FOLDER = Path(__file__).parent

SECTIONS = {
    "Set-up": ("doctor", "fetch", "cache"),
    "Hardware": ("presets", "fit", "generate", "synth"),
    "Models": ("demo", "run", "compile", "inspect"),
    "Precision": ("compare", "search"),
    "Measurements": ("profile", "sweep", "bench"),
}
"""Commands by what they are for, as `--help` lists them."""


class _Group(click.Group):
    """A group whose commands are the files of this folder."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        names = (path.stem for path in _FOLDER.glob("*.py"))
        return sorted(name.replace("_", "-") for name in names if not name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"tilewright.sw.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        command.name = cmd_name
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.list_commands(ctx)))
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), _summary(name)) for name in names])


def _summary(name: str) -> str:
    source = (_FOLDER / f"{name.replace('-', '_')}.py").read_text(encoding="utf-8")
    lines = (ast.get_docstring(ast.parse(source)) or "").splitlines()
    return lines[0] if lines else ""


@click.group(
    cls=_Group,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "show_default": True,
    },
    epilog="`tilewright COMMAND --help` shows examples.",
)
@click.version_option(__version__, message="tilewright %(version)s")
@click.option("--traceback", is_flag=True, help="Show where an error came from.")
def cli(traceback: bool) -> None:
    """Generate a transformer accelerator, prove it bit for bit, run models on it.

    \b
    Examples:
      tilewright doctor           is everything installed?
      tilewright presets          the configurations that come along
      tilewright COMMAND --help   what a command does, with examples
    """


def _limited() -> str:
    """What is said behind a want of memory: it may be a limit and not the machine's."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return "" if limit == resource.RLIM_INFINITY else f" (`ulimit -v` is {limit // 1024} KiB)"


def _line(error: BaseException) -> str:
    """The error in one line."""
    if isinstance(error, click.ClickException):
        text = error.format_message()
        context = getattr(error, "ctx", None)
        if isinstance(error, click.UsageError) and context is not None:
            text = f"{text} (see `{context.command_path} --help`)"
    elif isinstance(error, MemoryError):
        text = f"out of memory{f': {error}' if str(error) else ''}{_limited()}"
    elif isinstance(error, OSError) and error.strerror:
        names = [os.fspath(n) for n in (error.filename, error.filename2) if isinstance(n, str)]
        text = ": ".join([*names, error.strerror])
        if error.errno == errno.ENOMEM:
            text += _limited()
    else:
        text = str(error) or type(error).__name__
    return " ".join(text.split())


def _fail(error: BaseException, code: int, *, show: bool) -> int:
    if show:
        traceback.print_exception(error)
    # What a failed tool printed.
    output = getattr(error, "output", None)
    if isinstance(output, str) and output:
        print(output, file=sys.stderr)
    print(f"tilewright: {_line(error)}", file=sys.stderr)
    return code


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """A cache that cannot be written is no error: one line says so, once."""
    from tilewright.sw.cache import CacheWarning

    with warnings.catch_warnings():
        warnings.simplefilter("once", CacheWarning)
        show = warnings.showwarning

        def tell(message: Warning | str, category: type[Warning], *rest: Any) -> None:
            if issubclass(category, CacheWarning):
                print(f"tilewright: {message}", file=sys.stderr)
            else:
                show(message, category, *rest)

        warnings.showwarning = tell  # type: ignore[assignment]
        yield


def call(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; errors are on standard error by then."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    show = "--traceback" in words
    try:
        with _told():
            result: Any = cli.main(words, prog_name="tilewright", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        # Not an error in one line: the help, as click prints it.
        error.show()
        return 2
    except (UserError, ConfigError, click.ClickException) as error:
        return _fail(error, 2, show=show)
    except (click.Abort, KeyboardInterrupt):
        print("tilewright: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # `tilewright … | head`: nobody reads any more. Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except (OSError, MemoryError) as error:
        return _fail(error, 2, show=show)
    except Error as error:
        return _fail(error, 1, show=show)
    return result if isinstance(result, int) else 0


def main() -> None:
    """Entry point of the console script."""
    from tilewright.sw.cli._children import end_children_on_interrupt

    # Before NumPy is imported: the matrices are small, and BLAS threads contend with simulations.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    # A table holds × and –, and names of all kinds, whatever the terminal's encoding has.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    end_children_on_interrupt()
    sys.exit(call())
