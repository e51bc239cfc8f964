"""How the C library gives memory back."""

from __future__ import annotations

import contextlib
import ctypes

from untrusted_s3.limits import MIB

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


def reuse_large_buffers() -> None:
    """Lets glibc keep freed buffers of up to 32 MiB for the next ones; other C libraries are left alone.

    By default it gives each back to the kernel, which then has to clear every page of the next one: at 8 MiB a read
    that costs about as much as decryption.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 32 * MIB)
        mallopt(_M_TRIM_THRESHOLD, 256 * MIB)
