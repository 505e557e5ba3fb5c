"""`ukan report`"""

from ukan_cli.evaluate import RunFolder
from ukan_cli.train import Data


def report(run: RunFolder, data: Data = None) -> None:
    """One HTML file of a run that opens offline: its scores, pictures, dataset, plan, and how all of it was made.

    Scores of an official test part and of other datasets are in it as well, once `ukan evaluate` has made them.
    """
    from ukan.tasks import write_report

    print(write_report(run, data=data))
