"""A process that is held to the memory that is free."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

TRIED = """
    from types import SimpleNamespace

    import numpy as np
    import psutil

    from care_bridge.memory import hold_to_free_memory

    psutil.virtual_memory = psutil.swap_memory = lambda: SimpleNamespace(available=0, free=0)
    hold_to_free_memory(1 << 28)
    np.empty(1 << 27, np.uint8)
    try:
        np.empty(1 << 29, np.uint8)
    except MemoryError:
        print("refused")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only there the limit holds what is asked for")
def test_a_process_is_refused_what_is_not_free_and_lives_on() -> None:
    """Seen with a bundle of 1 kB that asked TensorFlow 1.15 for 36 GB; without the limit Linux ends the process."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TRIED)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "refused\n"
