"""Reasons to stop in good order: Ctrl-C, SIGTERM, the time allowed is over."""

import signal
import threading
import time
from types import FrameType
from typing import Self

from ukan.errors import UserError


class Stop:
    """Within the block, the first signal is only noted in `reason`; a second Ctrl-C stops at once, as ever."""

    def __init__(self, max_time_s: float | None = None) -> None:
        self.signal: str | None = None
        self.deadline = None if max_time_s is None else time.monotonic() + max_time_s
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"

    @property
    def reason(self) -> str | None:
        if self.signal:
            return self.signal
        return "--max-time" if self.deadline is not None and time.monotonic() >= self.deadline else None


def parse_time(text: str | None) -> float | None:
    """'90m', '8h', '1h30m', '45s' or plain seconds, in seconds."""
    import re

    if text is None:
        return None
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip().lower())
    if not match or not any(match.groups()):
        raise UserError(f"--max-time {text}: expected a time such as 90m, 8h or 1h30m")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds
