"""The same files in a person's own Fiji with the real plugin: run where CARE_BRIDGE_FIJI names one."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from care_bridge.images import read_image

pytestmark = [pytest.mark.fiji, pytest.mark.timeout(280)]

MACROS = Path(__file__).resolve().parents[2] / "fiji_macros"
OPTIONS = (
    "normalizeinput=true percentilebottom=3.0 percentiletop=99.8 clip=false ntiles=1 blockmultiple=32 overlap=32 "
    "batchsize=1"
)
# Against a live TensorFlow 1.15.0 of the same processor; other versions and threads differ by up to 1e-5.
ONCE, TWICE = 1e-5, 5e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Fiji of links to the person's own, with our scripts in its menu; theirs is left as it is."""
    named = os.environ.get("CARE_BRIDGE_FIJI")
    if not named:
        pytest.skip("no Fiji of your own is named in CARE_BRIDGE_FIJI")
    from care_bridge.macros import fiji_root, install

    root = fiji_root(named)
    if not list((root / "jars").glob("groovy*.jar")):
        pytest.skip(f"{root} has no Groovy among its jars, which every Fiji has")
    copy = tmp_path_factory.mktemp("linked") / "Fiji.app"
    copy.mkdir()
    for entry in root.iterdir():
        if entry.name not in ("scripts", "models", "macros"):
            (copy / entry.name).symlink_to(entry)
    install(copy)
    return copy


@pytest.fixture(scope="module")
def fiji(folder: Path) -> Iterator[Any]:
    """That Fiji without windows, through pyimagej."""
    from care_bridge.java.pyimagej import FijiSession

    with FijiSession(folder) as session:
        yield session


@pytest.fixture
def screen() -> Iterator[str]:
    """A screen that nobody looks at, by its DISPLAY."""
    if shutil.which("Xvfb") is None:
        pytest.skip("no Xvfb here, so Fiji's windows have no screen: apt-get install xvfb")
    reading, writing = os.pipe()
    xvfb = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1280x900x24"],
        pass_fds=[writing],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    try:
        with os.fdopen(reading) as told:
            yield f":{told.readline().strip()}"
    finally:
        xvfb.kill()
        xvfb.wait()


@contextlib.contextmanager
def started(folder: Path, home: Path, *arguments: str, screen: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """Fiji as a person starts it, its output in `home/log.txt`; ended with all that it started."""
    from care_bridge.java.installation import FijiFolder

    home.mkdir(exist_ok=True)
    jars = [str(jar) for part in ("jars", "plugins") for jar in sorted((folder / part).rglob("*.jar"))]
    command = [
        str(FijiFolder(folder).java() / "bin" / "java"),
        "-Xmx2g",
        "--add-opens=java.base/java.lang=ALL-UNNAMED",
        *(f"-D{name}.dir={folder}" for name in ("imagej", "imagej2", "fiji")),
        f"-Dimagej.tensorflow.models.dir={home / 'models'}",
        f"-Djava.util.prefs.userRoot={home}",
        f"-Duser.home={home}",
        f"-Djava.awt.headless={'false' if screen else 'true'}",
        *("-cp", os.pathsep.join(jars), "net.imagej.Main", *arguments),
    ]
    environment = {**os.environ, "DISPLAY": screen} if screen else dict(os.environ)
    with (home / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(file: Path, process: subprocess.Popen[bytes], home: Path, *, seconds: float = 120) -> None:
    """Until a file has content; a dialog that blocks, or a Fiji that ended without it, fails with the log."""
    until = time.monotonic() + seconds
    while not (file.is_file() and file.stat().st_size):
        if time.monotonic() > until or process.poll() is not None:
            pytest.fail(f"{file.name} did not come; Fiji said: {(home / 'log.txt').read_text()[-3000:]}")
        time.sleep(0.2)


def expected(tf1: Any, bundle: Path, path: Path) -> tuple[Any, Any]:
    """Applied once and twice, by the plugin's rule with TensorFlow 1.15.0."""
    from care_bridge.plugin.emulation import EmulatedPlugin
    from care_bridge.plugin.options import PluginOptions
    from care_bridge.predictor import apply_repeatedly

    predictor = EmulatedPlugin(tf1.open(bundle), PluginOptions(nTiles=1))
    once, twice = apply_repeatedly(predictor, read_image(path), applications=2)
    return once.data, twice.data


def difference(path: Path, reference: Any) -> float:
    return float(np.abs(read_image(path).data - reference).max())


def ended(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    path.unlink()
    return content


def assert_ended(path: Path, wanted: dict[str, Any]) -> None:
    found = ended(path)
    assert found == found | wanted


def test_macros_run_as_they_are(fiji, bundles, tf1, write_image, bad_files, tmp_path):
    source, sentinel = write_image("in/cell.tif"), tmp_path / "sentinel.json"
    once, twice = expected(tf1, bundles.planes, source)
    common = f"model=[{bundles.planes}] ntiles=1 sentinel=[{sentinel}]"

    def run(name: str, arguments: str) -> dict[str, Any]:
        printed = fiji.run_macro(f'runMacro("{MACROS}/{name}.ijm", "{common} {arguments}");')
        assert sentinel.exists(), printed
        return ended(sentinel)

    image = run("restore_image", f"input=[{source}] output=[{tmp_path}/out.tif]")
    assert image["status"] == "done"
    assert difference(tmp_path / "out.tif", once) <= ONCE
    assert run("restore_twice", f"input=[{source}] output=[{tmp_path}/twice]")["done"] == 2
    assert difference(tmp_path / "twice" / "cell_twice.tif", twice) <= TWICE
    bad_files(tmp_path / "in")
    folder = run("restore_folder", f"input=[{tmp_path}/in] output=[{tmp_path}/all]")
    assert folder == {**folder, "done": 1, "failed": 6}
    assert difference(tmp_path / "all" / "cell.tif", once) <= ONCE
    series = write_image("series.tif", "TYX", (3, 48, 50))
    made = run("restore_time_series", f"input=[{series}] output=[{tmp_path}/series_out.tif]")
    assert made["done"] == 3
    colours = write_image("colours.tif", "CYX", (2, 48, 50))
    made = run("restore_channels", f"input=[{colours}] output=[{tmp_path}/colours_out.tif]")
    assert made["done"] == 2
    for name in ("series_out", "colours_out"):
        given = read_image(tmp_path / f"{name.removesuffix('_out')}.tif")
        kept = read_image(tmp_path / f"{name}.tif")
        assert kept.axes == given.axes
        assert dict(kept.pixel_size_um) == pytest.approx(dict(given.pixel_size_um))


def test_installed_scripts_are_commands_of_this_fiji(fiji, bundles, tf1, write_image, bad_files, tmp_path):
    source, sentinel = write_image("in/cell.tif"), tmp_path / "sentinel.json"
    once, twice = expected(tf1, bundles.planes, source)
    common = f"model=[{bundles.planes}] {OPTIONS} sentinel=[{sentinel}]"

    def run(command: str, arguments: str, before: str = f'open("{source}");') -> dict[str, Any]:
        printed = fiji.run_macro(f'{before} run("{command}", "{common} {arguments}"); close("*");')
        assert sentinel.exists(), printed
        return ended(sentinel)

    image = run("Restore Image", f"imp=[cell.tif] bits=32 output=[{tmp_path}/out.tif]")
    assert image["status"] == "done"
    assert difference(tmp_path / "out.tif", once) <= ONCE
    assert run("Restore Twice", f"imp=[cell.tif] normalizeagain=true output=[{tmp_path}/two]")["done"] == 2
    assert difference(tmp_path / "two" / "cell_twice.tif", twice) <= TWICE
    compared = run("Compare With Python", f"imp=[cell.tif] python=[{tmp_path}/out.tif] tolerance=0.0001")
    assert compared["status"] == "done"
    bad_files(tmp_path / "in")
    folder = run(
        "Restore Folder",
        f"input=[{tmp_path}/in] outputfolder=[{tmp_path}/all] pattern=*.tif recursive=true overwrite=false "
        "applications=1 normalizeagain=true bits=32",
        before="",
    )
    assert folder == {**folder, "done": 1, "failed": 6}
    assert difference(tmp_path / "all" / "cell.tif", once) <= ONCE
    fiji.run_macro(f'run("Forget Remembered Model", "sentinel=[{sentinel}]");')
    assert ended(sentinel)["message"] == "no model was remembered"


DRIVER = """#@ org.scijava.ui.UIService ui
#@ String (persist=false) jobs
#@ String (persist=false) ended
ui.showUI()
Thread.sleep(1000)
new File(jobs).eachLine { ij.IJ.runMacro(it) }
new File(ended).text = ij.WindowManager.getImageTitles().join(',')
"""
"""Shows the windows and then runs a line of macro after the other, as a person presses one command after the other."""


def test_macros_and_scripts_run_with_windows(folder, bundles, tf1, write_image, bad_files, tmp_path, screen):
    source = write_image("in/cell.tif")
    series, colours = (
        write_image("series.tif", "TYX", (3, 48, 50)),
        write_image("colours.tif", "CYX", (2, 48, 50)),
    )
    once, twice = expected(tf1, bundles.planes, source)
    bad_files(tmp_path / "in")
    model, jobs = f"model=[{bundles.planes}]", []

    def sentinel(name: str) -> str:
        return f"sentinel=[{tmp_path}/{name}.json]"

    for name, arguments in {
        "restore_folder": f"input=[{tmp_path}/in] output=[{tmp_path}/all]",
        "restore_image": f"input=[{source}] output=[{tmp_path}/out.tif]",
        "restore_twice": f"input=[{source}] output=[{tmp_path}/twice]",
        "restore_time_series": f"input=[{series}] output=[{tmp_path}/series_out.tif]",
        "restore_channels": f"input=[{colours}] output=[{tmp_path}/colours_out.tif]",
    }.items():
        line = f"{model} ntiles=1 {arguments} {sentinel(name)}"
        jobs.append(f'runMacro("{MACROS}/{name}.ijm", "{line}");')
    jobs.append(f'close("*"); open("{source}");')
    for name, arguments in {
        "Restore Image": f"imp=[cell.tif] bits=32 output=[{tmp_path}/script.tif]",
        "Restore Twice": f"imp=[cell.tif] normalizeagain=true output=[{tmp_path}/two]",
        "Compare With Python": f"imp=[cell.tif] python=[{tmp_path}/script.tif] tolerance=0.0001",
        "Restore Folder": f"input=[{tmp_path}/in] outputfolder=[{tmp_path}/every] pattern=*.tif "
        "recursive=true overwrite=false applications=1 normalizeagain=true bits=32",
    }.items():
        jobs.append(f'run("{name}", "{model} {OPTIONS} {arguments} {sentinel(name)}");')
    jobs.append(f'run("Forget Remembered Model", "{sentinel("Forget Remembered Model")}");')
    (tmp_path / "jobs.txt").write_text(f'open("{source}"); rename("mine");\n' + "\n".join(jobs) + "\n")
    (tmp_path / "driver.groovy").write_text(DRIVER)
    home, last = tmp_path / "home", tmp_path / "ended.txt"
    given = f'jobs="{tmp_path}/jobs.txt",ended="{last}"'
    arguments = ("--run", str(tmp_path / "driver.groovy"), given)
    with started(folder, home, *arguments, screen=screen) as process:
        # A dialog would stop what comes after it: nobody is there to press OK.
        wait_for(last, process, home, seconds=200)
    for name, done in {
        "restore_image": 1,
        "restore_twice": 2,
        "restore_time_series": 3,
        "restore_channels": 2,
    }.items():
        assert_ended(tmp_path / f"{name}.json", {"macro": name, "status": "done", "done": done})
    for name in ("restore_folder", "Restore Folder"):
        assert_ended(tmp_path / f"{name}.json", {"done": 1, "failed": 6})
    for name in ("Restore Image", "Restore Twice", "Compare With Python", "Forget Remembered Model"):
        assert_ended(tmp_path / f"{name}.json", {"status": "done"})
    for path in ("out.tif", "all/cell.tif", "script.tif", "every/cell.tif"):
        assert difference(tmp_path / path, once) <= ONCE
    for path in ("twice/cell_twice.tif", "two/cell_twice.tif"):
        assert difference(tmp_path / path, twice) <= TWICE


def test_a_folder_leaves_the_images_that_were_open(folder, bundles, write_image, tmp_path, screen):
    source = write_image("in/cell.tif")
    line = f"model=[{bundles.planes}] ntiles=1 input=[{tmp_path}/in] output=[{tmp_path}/all]"
    (tmp_path / "jobs.txt").write_text(
        f'open("{source}"); rename("mine");\nrunMacro("{MACROS}/restore_folder.ijm", "{line}");\n'
    )
    (tmp_path / "driver.groovy").write_text(DRIVER)
    home, last = tmp_path / "home", tmp_path / "ended.txt"
    given = f'jobs="{tmp_path}/jobs.txt",ended="{last}"'
    with started(folder, home, "--run", str(tmp_path / "driver.groovy"), given, screen=screen) as process:
        wait_for(last, process, home)
    assert last.read_text() == "mine"
    assert (tmp_path / "all" / "cell.tif").exists()


def test_a_macro_on_the_command_line_finds_the_result_before_the_windows_come(
    folder, bundles, tf1, write_image, tmp_path, screen
):
    source, sentinel = write_image("cell.tif"), tmp_path / "sentinel.json"
    once, _ = expected(tf1, bundles.planes, source)
    line = f"model=[{bundles.planes}] ntiles=1 input=[{source}] output=[{tmp_path}/out.tif] sentinel=[{sentinel}]"
    home = tmp_path / "home"
    arguments = ("-macro", f"{MACROS}/restore_image.ijm", line)
    with started(folder, home, *arguments, screen=screen) as process:
        wait_for(sentinel, process, home)
    assert_ended(sentinel, {"status": "done"})
    assert difference(tmp_path / "out.tif", once) <= ONCE


def test_scripts_run_from_the_command_line_without_windows(
    folder, bundles, tf1, write_image, bad_files, tmp_path
):
    source, sentinel = write_image("in/cell.tif"), tmp_path / "sentinel.json"
    _, twice = expected(tf1, bundles.planes, source)
    bad_files(tmp_path / "in")
    home = tmp_path / "home"
    values = (
        f'model="{bundles.planes}",normalizeInput=true,percentileBottom=3.0,percentileTop=99.8,clip=false,nTiles=1,'
        f'blockMultiple=32,overlap=32,batchSize=1,input="{tmp_path}/in",outputFolder="{tmp_path}/all",pattern="*.tif",'
        f'recursive=true,overwrite=false,applications=2,normalizeAgain=true,bits="32",sentinel="{sentinel}"'
    )
    scripts = folder / "scripts" / "Plugins" / "CARE_bridge"
    with started(
        folder, home, "--headless", "--run", str(scripts / "Restore_Folder.groovy"), values
    ) as process:
        wait_for(sentinel, process, home)
    assert_ended(sentinel, {"done": 1, "failed": 6})
    assert difference(tmp_path / "all" / "cell.tif", twice) <= TWICE
    forget = (
        "--headless",
        "--run",
        str(scripts / "Forget_Remembered_Model.groovy"),
        f'sentinel="{sentinel}"',
    )
    with started(folder, home, *forget) as process:
        wait_for(sentinel, process, home)
    assert ended(sentinel)["message"] == "no model was remembered"
