"""The commands under one name, and what becomes of their errors."""

import os
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import streaming
from streaming.cli.cache import cache
from streaming.cli.cat import cat
from streaming.cli.convert import convert
from streaming.cli.cp import cp
from streaming.cli.inspect import inspect
from streaming.cli.merge import merge
from streaming.cli.output import say
from streaming.cli.verify import verify
from streaming.errors import StreamingError

__all__ = ['app']

_DEBUG = 'STREAMING_DEBUG'


class _Commands(TyperGroup):
    """A group whose commands end with a line on stderr instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # Whoever read our output has seen enough. The interpreter flushes once more when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(141) from None
        except Exception as error:  # of whatever a command does, a line and no traceback
            if isinstance(error, typer.Abort) or hasattr(error, 'exit_code'):  # Typer's own, which it shows itself
                raise
            if ctx.params.get('debug'):
                traceback.print_exc()
            elif isinstance(error, (StreamingError, OSError)):
                say(f'error: {error}', err=True)
            else:
                say(
                    f'error: {type(error).__name__}: {error}\nThis should not happen; streaming --debug ... says where it did.',
                    err=True,
                )
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    context_settings={'help_option_names': ['-h', '--help']},
    pretty_exceptions_enable=False,
    epilog='Places are paths or URLs (oci://bucket@namespace/prefix, s3://bucket/prefix, ...). Credentials come from where each '
    "cloud's own tools have them, never from an argument. Exit status: 0 all is well, 1 it is not, 2 it was asked wrongly.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f'streaming-dataset {streaming.__version__}')
        raise typer.Exit


@app.callback()
def _streaming(
    debug: Annotated[bool, typer.Option('--debug', envvar=_DEBUG, help='Show tracebacks.')] = False,
    version: Annotated[
        bool, typer.Option('--version', callback=_show_version, is_eager=True, help='Show the version and exit.')
    ] = False,
) -> None:
    """Datasets in object storage: look at them, check them, copy them."""


for command in (inspect, cat, verify, cp, merge, convert):
    app.command()(command)
app.add_typer(cache, name='cache')
