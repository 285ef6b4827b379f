"""`python -m care_bridge`: the command line where the folder of scripts is not on PATH."""

from __future__ import annotations

from care_bridge.cli import main

if __name__ == "__main__":
    main()
