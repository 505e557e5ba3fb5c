"""`ukan doctor`"""

from typing import Annotated

import typer

from ukan_cli import show


def doctor(
    device: Annotated[str | None, typer.Option(help="Ask whether training can start on this device.")] = None,
) -> None:
    """Is this machine ready, and what to type if not.

    The exit code says whether training can start: 0 yes, 2 no.
    """
    from ukan.doctor import examine

    findings = examine(device)
    show.table(("", "what", "found", "to do"), [(f.state, f.what, f.found, f.do) for f in findings])
    broken = [finding for finding in findings if finding.state == "missing"]
    print("\ntraining cannot start: see above" if broken else "\ntraining can start")
    if broken:
        raise typer.Exit(2)
