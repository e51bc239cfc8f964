"""How the C library gives memory back to the kernel."""

from __future__ import annotations

import contextlib
import ctypes

from untrusted_s3.units import MIB

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc, malloc.h


def reuse_large_buffers() -> None:
    """Let glibc keep freed buffers of up to 32 MiB for reuse. Does nothing with other C libraries.

    By default glibc returns such buffers to the kernel, which then clears every page of the next one: for reads of
    8 MiB that costs about as much time as decryption.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 32 * MIB)
        mallopt(_M_TRIM_THRESHOLD, 256 * MIB)
