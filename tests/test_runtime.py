"""Out of memory is told from other errors, whoever's allocator speaks."""

import errno

import numpy as np
import pytest
import torch

from ukan.errors import DataError, OutOfMemory
from ukan.runtime import explain_out_of_memory, is_out_of_memory


def raised(call) -> Exception:
    with pytest.raises(Exception) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        raised(lambda: torch.empty(2**50, dtype=torch.uint8)),
        raised(lambda: np.empty(2**50, np.uint8)),
        raised(lambda: bytearray(2**50)),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.80 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB, other allocations: 1.00 GB, max allowed: 9.07 GB)"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:75] data. DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."
        ),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("std::bad_alloc"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
    ids=lambda error: f"{type(error).__name__}: {error}"[:60],
)
def test_an_allocator_that_gives_up_is_recognised(error: Exception) -> None:
    assert is_out_of_memory(error)
    with pytest.raises(OutOfMemory, match="^out of memory: lower it$"), explain_out_of_memory("lower it"):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("sizes do not match"),
        OSError(errno.ENOSPC, "No space left on device"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "out of memory.png"),
        DataError("out of memory.png: no such file"),
        KeyError("out of memory"),
    ],
)
def test_another_error_is_left_as_it_is(error: Exception) -> None:
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)) as caught, explain_out_of_memory("lower it"):
        raise error
    assert caught.value is error
