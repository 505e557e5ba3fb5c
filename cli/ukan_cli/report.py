"""`ukan report`"""

from ukan_cli.evaluate import RunFolder
from ukan_cli.train import Data


def report(run: RunFolder, data: Data = None) -> None:
    """One HTML file of a run that opens offline."""
    from ukan.report.page import write_report

    print(write_report(run, data=data))
