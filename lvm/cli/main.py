"""The `lvm` command: one subcommand a stage, tables for people, `--json` for programs.

Exit codes: 0 success, 1 a training that diverged, 2 bad usage or input, 3 a gate refuses.
"""

import os
import sys

import typer

from lvm.cli.decode import decode
from lvm.cli.diagnose import diagnose
from lvm.cli.explain import explain
from lvm.cli.extract import extract
from lvm.cli.generate import generate
from lvm.cli.import_vectors import import_vectors
from lvm.cli.migrate import migrate
from lvm.cli.serve import serve
from lvm.cli.settings import settings
from lvm.cli.train import train
from lvm.cli.train_decoder import train_decoder
from lvm.cli.validate import validate
from lvm.errors import OUT_OF_MEMORY, GateRefused, InputError, TrainingDiverged, ran_out_of_memory

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Latent vector models: extract or import, diagnose, train, validate, text out, serve."
)
for command in (settings, extract, import_vectors, diagnose, train, validate, explain, decode, generate, train_decoder, serve, migrate):
    app.command("import" if command is import_vectors else None)(command)


def main() -> None:
    """Run the command; turn the library's refusals into sentences and exit codes."""
    # Nothing is fetched unless a hub model is asked for; progress bars of libraries stay off.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        app()
    except (InputError, GateRefused, TrainingDiverged) as error:
        print(f"lvm: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        # A path of the command line that is not what it should be, found where it is written.
        print(f"lvm: {error.filename}: {error.strerror}: give another path", file=sys.stderr)
        sys.exit(InputError.exit_code)
    except RuntimeError as error:
        if not ran_out_of_memory(error):
            raise
        print(f"lvm: {OUT_OF_MEMORY} ({error})", file=sys.stderr)
        sys.exit(InputError.exit_code)
