"""The app: one command a file, nothing heavy imported before a command runs."""

import io
import os
import sys
from typing import Annotated

import typer

# Threads that wait by spinning stop a machine whose cores are shared with other work; read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from ukan import __version__
from ukan_cli import (
    ablate,
    check,
    compare,
    demo,
    doctor,
    evaluate,
    explain,
    export_nnunet,
    fid,
    import_official,
    plan,
    predict,
    report,
    sample,
    train,
)

app = typer.Typer(
    name="ukan",
    help="Self-configuring medical image segmentation and diffusion around Kolmogorov-Arnold networks.",
    epilog="Exit codes: 0 well, 2 usage, 3 some inputs failed, 4 data, 5 out of memory, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # the help appears in half the time
)
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)
app.command("check")(check.check)
app.command("plan")(plan.plan)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("explain")(explain.explain)
app.command("sample")(sample.sample)
app.command("report")(report.report)
app.command("ablate")(ablate.ablate)
app.command("compare")(compare.compare)
app.command("fid")(fid.fid)
app.command("export-nnunet")(export_nnunet.export_nnunet)
app.command("import-official")(import_official.import_official)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"ukan {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


def main() -> None:
    """Run a command; an error meant for people becomes one line and an exit code."""
    debug = "--debug" in sys.argv
    if debug:  # wherever it stands on the line
        sys.argv = [sys.argv[0], *(word for word in sys.argv[1:] if word != "--debug")]
    from ukan.errors import UserError
    from ukan.runtime import explain_out_of_memory

    if isinstance(sys.stdout, io.TextIOWrapper):  # names that a console cannot show come out in escapes, as on stderr
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            with explain_out_of_memory(
                "lower train.batch_size, infer.batch_size or data.input_size (ukan plan ... --set KEY=VALUE)"
            ):
                app()
        finally:
            print(end="", flush=True)  # or a reader that went away would be met after us
    except UserError as error:
        if debug:
            raise
        print(f"ukan: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more
        sys.exit(0)
    except OSError as error:
        # A folder may not be read, a drive is gone: the system's own words say which.
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"ukan: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(4)
    except SystemExit as end:  # what typer makes of these two
        if isinstance(end.__context__, BrokenPipeError):
            sys.exit(0)
        if end.code == 130:
            print("ukan: interrupted", file=sys.stderr)
        raise
