"""Does every script for Fiji compile with the Groovy of older and newer Fijis?

    python benchmarks/groovy_versions.py groovy-all-2.4.21.jar groovy-3.0.22.jar [--java JAVA ...]

Compiles each script of fiji_macros by itself, without its `#@` lines, as SciJava gives it to Groovy, with each jar (from
Maven Central: org.codehaus.groovy:groovy-all up to 2.4, org.codehaus.groovy:groovy up to 3, org.apache.groovy:groovy from
4 on) under each Java (this package's own, when left out). Exit code 1 if one does not compile.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

COMPILER = "org.codehaus.groovy.tools.FileSystemCompiler"


def main() -> int:
    from care_bridge.java import runtimes
    from care_bridge.macros import shipped

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("groovy", type=Path, nargs="+")
    parser.add_argument("--java", type=Path, nargs="*", default=[runtimes.java_home() / "bin" / "java"])
    given = parser.parse_args()
    beside = [
        str(jar) for jar in (*runtimes.imagej_jars(), *runtimes.groovy_jars()) if "groovy" not in jar.name
    ]
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        scripts = []
        for entry in shipped():
            if entry.kind == "script":
                lines = entry.path.read_text(encoding="ascii").splitlines()
                scripts.append(Path(name, entry.path.name))
                plain = [line for line in lines if not line.startswith("#@")]
                scripts[-1].write_text("\n".join(plain), encoding="ascii")
        for java in given.java:
            for groovy in given.groovy:
                bad = []
                for script in scripts:
                    with tempfile.TemporaryDirectory() as out:
                        command = [str(java), "--add-opens", "java.base/java.lang=ALL-UNNAMED", "-cp"]
                        command += [os.pathsep.join([str(groovy), *beside]), COMPILER, "-d", out, str(script)]
                        done = subprocess.run(command, capture_output=True, text=True, check=False)
                    if done.returncode:
                        bad.append(script.stem)
                        print("\n".join((done.stderr or done.stdout).splitlines()[:4]))
                failed += len(bad)
                fine = f"{len(scripts) - len(bad)} of {len(scripts)} scripts compile"
                print(f"{groovy.name}, {java}: {fine}", *bad, flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
