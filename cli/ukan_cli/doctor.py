"""`ukan doctor`"""


def doctor() -> None:
    """Is this machine ready, and what to type if not."""
