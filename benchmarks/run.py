"""Run benchmarks one after another: all of them, or those named, e.g. ``python benchmarks/run.py training_step``.

Each file here stands alone, prints what it measured, and says in its first line what it is held against. Ratios are
taken by turns in one run; seconds mean little on a shared machine.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main(names: list[str]) -> int:
    """Run them; 1 if any failed."""
    there = sorted(path.stem for path in HERE.glob("*.py") if path.stem != "run")
    unknown = sorted(set(names) - set(there))
    if unknown:
        sys.stderr.write(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(there)}\n")
        return 2
    failed = []
    for name in names or there:
        sys.stdout.write(f"\n=== {name}\n")
        sys.stdout.flush()
        if subprocess.run([sys.executable, str(HERE / f"{name}.py")], check=False).returncode:
            failed.append(name)
    if failed:
        sys.stderr.write(f"failed: {', '.join(failed)}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
