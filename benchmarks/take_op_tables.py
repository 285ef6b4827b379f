"""Take the lists of operations of TensorFlow 1.12 to 1.15 again, from the fetched runtimes themselves.

    python benchmarks/take_op_tables.py            # writes care_bridge/export/op_tables/*.json
    python benchmarks/take_op_tables.py --check    # says whether they are still the same

Every runtime is asked in a process of its own: `org.tensorflow.TensorFlow.registeredOpList()`.
"""

from __future__ import annotations

import argparse
import base64
import ctypes
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "care_bridge" / "export" / "op_tables"


def ask(version: str) -> None:
    """Print one runtime's list, in base64; runs in a process of its own."""
    import jpype

    from care_bridge.java import runtimes

    runtimes.require(f"tf1-{version}")
    library = runtimes.tensorflow_library(version)
    for file in sorted(Path(library).glob("libtensorflow_framework*")):
        ctypes.CDLL(str(file), mode=os.RTLD_LOCAL | os.RTLD_LAZY)
    jvm = next(Path(runtimes.java_home()).rglob("libjvm.so"))
    jar = str(runtimes.tensorflow_jar(version))
    jpype.startJVM(str(jvm), f"-Djava.library.path={library}", classpath=[jar])
    content = bytes(jpype.JClass("org.tensorflow.TensorFlow").registeredOpList())
    sys.stdout.write(base64.b64encode(content).decode())
    sys.stdout.flush()
    os._exit(0)  # the JVM with TensorFlow in it may not end by itself


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--check", action="store_true", help="compare with the tables that are there; write nothing"
    )
    parser.add_argument("--ask", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ask:
        ask(arguments.ask)
    from care_bridge.defaults import TF1_VERSIONS
    from care_bridge.export.ops import table_of, write_table

    same = True
    for version in TF1_VERSIONS:
        command = [sys.executable, __file__, "--ask", version]
        answer = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
        text = write_table(table_of(base64.b64decode(answer)))
        file = FOLDER / f"tf-{version}.json"
        equal = file.is_file() and file.read_text(encoding="utf-8") == text
        same &= equal
        sys.stdout.write(
            f"{version}: {text.count(chr(10)) - 2} operations, {'the same' if equal else 'changed'}\n"
        )
        if not arguments.check:
            file.write_text(text, encoding="utf-8")
    return 0 if same or not arguments.check else 1


if __name__ == "__main__":
    sys.exit(main())
