"""Silence for C libraries that print what they dislike about a file, whatever one asks of them."""

import os
import threading


class _Silence:
    """Sends stderr nowhere inside a `with` block, that of the whole process, so blocks are short. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._stderr = -1

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._stderr = os.dup(2)
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, 2)
                os.close(nowhere)
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                os.dup2(self._stderr, 2)
                os.close(self._stderr)


SILENCE = _Silence()
