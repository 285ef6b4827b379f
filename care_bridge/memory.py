"""How much memory a process of ours may take: what is free, so that a request for more is an error and not its end."""

from __future__ import annotations

import contextlib
import sys

_SHARE = 0.9  # the rest is for whoever else works on this machine


def hold_to_free_memory(least_bytes: int = 1 << 30) -> None:
    """Let this process take what is free now and no more, until it ends.

    Linux promises memory that is not there, and ends the process that uses it, without a word. Held to a limit, a runtime
    is refused the memory and says so. For processes that open networks of others and map no large files in private,
    which would count; nothing is done on systems where such a limit holds something else.

    Parameters
    ----------
    least_bytes : int
        So much may be taken even where less is free.
    """
    if sys.platform != "linux":
        return
    import resource

    import psutil

    used = psutil.Process().memory_info().data  # what the limit counts, the stack beside it
    free = int(_SHARE * (psutil.virtual_memory().available + psutil.swap_memory().free))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = used + max(free, least_bytes)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))


def free_bytes() -> int:
    """How much memory can be taken now, without what is swapped out."""
    import psutil

    return int(psutil.virtual_memory().available)
