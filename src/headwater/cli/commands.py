"""The command line: words to calls. Results go to stdout, everything else to stderr.

Heavy modules are imported inside the commands, so that `--help` is instant.
"""

import signal
import sys
from typing import Annotated

import typer

from headwater.cli import attribute, bank, model, plan, results
from headwater.cli.options import say
from headwater.errors import Stopped, UserError

GROUPS = (attribute, model, results, plan, bank)

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Which training images did a diffusion model's picture come from?",
)
for group in GROUPS:
    app.registered_commands += group.app.registered_commands
app.add_typer(bank.bank_app, name="bank")


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (may stand anywhere).")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point: user errors become one paragraph on stderr and exit code 2."""
    debug = "--debug" in sys.argv
    argv = [word for word in sys.argv[1:] if word != "--debug"]
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    try:
        app(argv)
    except Stopped:
        say("Stopped. Run the same command again: it goes on where it stopped.")
        sys.exit(130)
    except UserError as error:
        if debug:
            raise
        say(f"headwater: {error.paragraph}")
        sys.exit(2)


def _stop(signum: int, frame: object) -> None:
    raise Stopped
