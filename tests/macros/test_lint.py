"""What a macro would not do, said before it runs; no Java."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from care_bridge import macros
from care_bridge.cli import app
from care_bridge.errors import InputError
from care_bridge.files import sha256
from care_bridge.plugin.options import PluginOptions

GOOD = """
setBatchMode(true);
model = getArgument();
getVoxelSize(x, y, z, unit);
run("Duplicate...", "title=copy duplicate");
run("Run your network", "input=copy normalizeinput=true percentilebottom=3.0 percentiletop=99.8 clip=false ntiles=4 "
    + "blockmultiple=32 overlap=48 batchsize=1 modelfile=[" + model + "] showprogressdialog=false");
if (!isOpen("result")) exit("no result");
selectWindow("result");
rename("restored");
setVoxelSize(x, y, z, unit);
"""


def rules(text: str) -> list[str]:
    return [finding.rule for finding in macros.lint(text)]


def test_a_careful_macro_passes():
    assert macros.lint(GOOD) == []


@pytest.mark.parametrize("entry", macros.shipped(), ids=lambda entry: entry.path.name)
def test_our_own_pass_and_are_ascii_and_say_what_they_are_for(entry):
    text = entry.path.read_text(encoding="ascii")
    assert text.startswith("// CARE bridge: ")
    assert len(entry.purpose) > 40
    if entry.kind == "macro":
        assert macros.lint(text) == []


@pytest.mark.parametrize(
    ("change", "to", "rule", "says"),
    [
        ("ntiles=4", "nTiles=4", "camel-case", "write ntiles for nTiles"),
        ("overlap=48", "overlapp=48", "unknown-option", "did you mean 'overlap'"),
        ("overlap=48", "overlapp=48", "missing-parameter", "overlap not given"),
        ("clip=false", "clip", "bare-boolean", "write clip=true"),
        ("clip=false", "clip=no", "value", "neither true nor false"),
        ("ntiles=4", "ntiles=four", "value", "is no number"),
        ("batchsize=1 ", "", "missing-parameter", "batchsize not given"),
        ('run("Duplicate...", "title=copy duplicate");', "", "input-not-duplicated", "old pixels"),
        ('selectWindow("result");', "", "result-not-selected", "not current in batch mode"),
        ('rename("restored");', "", "result-not-renamed", 'every result is called "result"'),
        ('if (!isOpen("result")) exit("no result");', "", "failure-not-noticed", "goes on with the input"),
        ("setBatchMode(true);", "", "no-batch-mode", "every image opens a window"),
        ("setVoxelSize(x, y, z, unit);", "", "calibration-lost", "no pixel size"),
        ("getVoxelSize(x, y, z, unit);", "waitForUser();", "waits", "until morning"),
        ("model = getArgument();", 'model = getDirectory("Choose");', "waits", "waits for a person"),
        ("model = getArgument();", 'model = "/home/me/model.zip";', "absolute-path", "one computer only"),
        ('modelfile=[" + model + "]', "modelfile=[C:\\\\m\\\\a.zip]", "backslash", "also on Windows"),
        ("no result", "kein \u00b5m", "non-ascii", "ISO-8859-1"),
        ("Run your network", "Run Your Network", "command", "with these capitals"),
        ('"title=copy duplicate"', '"titel=copy duplicate"', "unknown-option", "did you mean 'title'"),
        ('rename("restored");', 'rename("restored"); run("Crop");', "stale-pixels", "takes its old pixels"),
    ],
)
def test_each_mistake_is_found_and_explained(change, to, rule, says):
    assert change in GOOD
    text = GOOD.replace("VoxelSize", "VoxelSize")
    if rule == "calibration-lost":
        text = text.replace("getVoxelSize(x, y, z, unit);", "")
    text = text.replace(change, to)
    found = [finding for finding in macros.lint(text) if finding.rule == rule]
    assert found, macros.lint(text)
    assert says in found[0].message
    if rule != "non-ascii":
        line = text[: text.index(to)].count("\n") + 1 if to else found[0].line
        assert abs(found[0].line - line) <= 1


def test_without_options_the_dialog_that_blocks_is_named():
    assert "missing-parameter" in rules('run("Run your network");')


def test_a_second_run_is_warned_of_the_remembered_model():
    assert "remembered-model" in rules(GOOD + GOOD)
    looped = "for (i = 0; i < 3; i++) {\n" + GOOD + "}\n"
    assert "remembered-model" in rules(looped)


def test_comments_and_questions_with_a_window_are_no_findings():
    assert rules('// run("Run your network");\n/* waitForUser(); */\n') == []
    assert rules('if (!headless) waitForUser("look");\nif (!headless()) {\n showMessage("x");\n}\n') == []
    assert rules('folder = getDirectory("temp");') == []


def test_options_that_come_as_a_variable_are_not_judged():
    assert "missing-parameter" not in rules('run("Run your network", options);')


def test_deepimagej_needs_a_model_and_lower_case_keys():
    assert "missing-parameter" in rules('run("DeepImageJ Run", "output_folder=[/out]");')
    assert "unknown-option" in rules('run("DeepImageJ Run", "modelPath=[/m] model_path=[/m]");')


CALL = (
    "normalizeinput=true percentilebottom=3.0 percentiletop=99.8 clip=false ntiles=1 blockmultiple=4 overlap=44 "
    "batchsize=1 showprogressdialog=false modelurl=[]"
)
IN_A_FUNCTION = f"""
setBatchMode(true);
model = getArgument();
STEPS
function restore(title) {{
    getVoxelSize(x, y, z, unit);
    run("Duplicate...", "title=copy duplicate");
    run("Run your network", "input=copy {CALL} modelfile=[" + model + "]");
    if (!isOpen("result")) exit("no result");
    selectWindow("result");
    rename(title);
    setVoxelSize(x, y, z, unit);
}}
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        # Joined paths.
        ('f = getArgument();\nopen(f + "/raw/cell.tif");', set()),
        ('f = getArgument(); sub = "/raw/cell.tif"; open(f + sub);', set()),
        ('f = getArgument(); run("Image Sequence...", "open=[" + f + "/raw/all/] sort");', set()),
        ('if (indexOf(getTitle(), "/raw/a/") >= 0) print("in /raw/a/");', set()),
        ('var model = "/m/my models/a.zip";', set()),
        ('open("/data/raw/cell.tif");', {"absolute-path"}),
        ("open('C:/data/cell.tif');", {"absolute-path"}),
        ('open("" + "/data/raw/cell.tif");', {"absolute-path"}),
        ('run("Save", "save=[/data/raw/cell.tif]");', {"absolute-path"}),
        ('p = "/data/raw/"; open(p + "cell.tif");', {"absolute-path"}),
        # Comments.
        ("// Gr\u00f6\u00dfe\n/* \u00b5m\n\u00b5m */ print('ok');", set()),
        ('print("5 \u00b5m"); // um', {"non-ascii"}),
        ('print("// \u00b5m");', {"non-ascii"}),
        # Waiting, where nobody is expected to sit there.
        ('waitForUser("draw a line");', set()),
        ('setBatchMode(true); waitForUser("draw a line");', {"waits"}),
        # deepImageJ 3.1 remembers nothing and opens no dialog.
        ('run("DeepImageJ Run", "modelPath=m inputPath=null");', {"unknown-option", "missing-parameter"}),
        # Functions and loops.
        (IN_A_FUNCTION.replace("STEPS", 'restore("a");'), set()),
        (IN_A_FUNCTION.replace("STEPS", 'for (i = 0; i < 3; i++) restore("a" + i);'), {"remembered-model"}),
        (IN_A_FUNCTION.replace("STEPS", 'restore("a"); restore("b");'), {"remembered-model"}),
        (IN_A_FUNCTION.replace("STEPS", "do { restore('a'); } while (nImages > 3);"), {"remembered-model"}),
        (IN_A_FUNCTION.replace("STEPS", ""), set()),
        (IN_A_FUNCTION.replace("STEPS", 'restore("a"); run("Crop");'), {"stale-pixels"}),
        # Options kept in a variable first.
        (f'o = "{CALL} nTiles=3"; run("Run your network", o);', {"camel-case"}),
        (f'o = "{CALL}"; o = o + other; run("Run your network", o);', set()),
        # A variable's name between quotes.
        ('path = getArgument(); open("path");', {"quoted-variable"}),
        ('path = getArgument(); saveAs("Tiff", "path");', {"quoted-variable"}),
        ('run("Duplicate...", "title=copy"); copy = getImageID(); selectWindow("copy");', set()),
        ('m = getArgument(); run("Bio-Formats Importer", "open=[m] autoscale");', {"quoted-variable"}),
        ('m = getArgument(); run("Bio-Formats Importer", "open=[ + m + ] autoscale");', {"quoted-variable"}),
        # Blanks in paths and titles.
        ('m = getArgument(); run("Bio-Formats Importer", "open=" + m + " autoscale");', {"blank-in-value"}),
        ('m = getArgument(); run("Bio-Formats Importer", "open=[" + m + "] autoscale");', set()),
        ('t = getTitle(); run("Duplicate...", "title=" + t + " duplicate");', {"blank-in-value"}),
        ('run("Duplicate...", "title=" + getTitle() + " duplicate");', {"blank-in-value"}),
        ('run("Duplicate...", "title=[" + getTitle() + "] duplicate");', set()),
        # N2V and others of the update site.
        ('run("N2V predict", "input=a.tif axes=XY numtiles=1");', {"not-checked"}),
        ('run("N2V predict", "modelFile=m.zip input=a.tif");', {"camel-case", "not-checked"}),
        ('run("StarDist 2D", "input=a.tif showcsboutput");', {"bare-boolean", "not-checked"}),
        ('run("Command From Macro", "command=[de.csbdresden.stardist.StarDist2D]");', {"not-checked"}),
    ],
)
def test_what_is_no_mistake_is_no_finding(text, found):
    # Single calls are no whole macros: what lacks around them is not what these are about.
    around = {"input-not-duplicated", "result-not-selected", "failure-not-noticed", "no-batch-mode"}
    around |= {"calibration-lost"} | ({"missing-parameter"} if "; run(" in text and "o);" in text else set())
    assert set(rules(text)) - (set() if "getVoxelSize" in text else around) == found


def test_deepimagej_without_a_model_is_told_what_happens_there():
    (finding,) = macros.lint('run("DeepImageJ Run", "output_folder=[" + getArgument() + "]");')
    assert "without model_path= ends the macro with an exception" in finding.message
    assert "last run" not in finding.message + macros.lint('run("DeepImageJ Run", "modelPath=m");')[0].message


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".groovy", 'import ij.IJ\nIJ.run(imp, "Run your network", "input=x nTiles=4 modelFile=m.zip")\n'),
        (".js", 'IJ.run(imp, "Run your network", "input=x nTiles=4 modelFile=m.zip");\n'),
        (".py", "# it's Jython\nIJ.run(imp, 'Run your network', 'input=x nTiles=4 modelFile=m.zip')\n"),
    ],
)
def test_of_scripts_calls_of_imagej_are_read_and_the_rest_is_said_not_to_be(suffix, text, tmp_path):
    found = [finding.rule for finding in macros.lint(text, suffix)]
    assert {"camel-case", "missing-parameter", "not-read"} <= set(found)
    path = tmp_path / f"script{suffix}"
    path.write_text("print('ok')")
    done = CliRunner().invoke(app, ["macros", "lint", str(path)])
    assert done.exit_code == 1
    assert "lint reads ImageJ macros" in done.output


def test_what_is_not_checked_is_said_and_is_no_fault(tmp_path):
    path = tmp_path / "a.ijm"
    path.write_text('run("N2V predict", "input=a.tif axes=XY");\n')
    done = CliRunner().invoke(app, ["macros", "lint", str(path)])
    assert done.exit_code == 0
    assert "for capitals and bare words only" in done.output
    assert "nothing found in what is checked" in done.output


CALLING_EACH_OTHER = "".join(f"function f{n}() {{ f{n + 1}(); f{n + 1}(); }}\n" for n in range(40))


@pytest.mark.parametrize(
    "text",
    [
        *("", "run(", 'run("', '"', "((((", "}}}}", 'run("a", "b', "\x00\xff" * 50, "{" * 5000),
        "run(" + "(" * 3000 + ")" * 3000 + ")",
        "if (a) " * 3000,
        CALLING_EACH_OTHER + 'f0(); run("Run your network");',
    ],
    ids=range(12),
)
def test_no_text_breaks_it(text):
    macros.lint(text)


def test_the_table_and_the_macros_hold_every_option_of_the_plugin():
    names = {field.name.lower() for field in dataclasses.fields(PluginOptions)}
    assert names <= set(macros.OPTIONS[macros.PLUGIN])
    for entry in macros.shipped():
        if entry.name.startswith("restore") and entry.kind == "macro":
            text = entry.path.read_text()
            assert all(f"{name}=" in text for name in names), entry.name
        elif entry.name.startswith("Restore"):
            text = entry.path.read_text()
            assert all(f"'{field.name}'," in text for field in dataclasses.fields(PluginOptions)), entry.name


def test_the_macros_defaults_are_the_plugins():
    defaults = PluginOptions()
    written = {
        "bottom": defaults.percentileBottom,
        "top": defaults.percentileTop,
        "nTiles": defaults.nTiles,
        "blockMultiple": defaults.blockMultiple,
        "overlap": defaults.overlap,
        "batchSize": defaults.batchSize,
    }
    for entry in macros.shipped():
        if entry.kind == "macro":
            for name, value in written.items():
                assert f"\nvar {name} = {value:g};" in entry.path.read_text(), (entry.name, name)


@pytest.fixture
def fiji(tmp_path: Path) -> Path:
    folder = tmp_path / "My Fiji" / "Fiji.app"
    (folder / "jars").mkdir(parents=True)
    (folder / "plugins").mkdir()
    (folder / "scripts" / "Plugins").mkdir(parents=True)
    (folder / "scripts" / "Plugins" / "mine.ijm").write_text("my own")
    return folder


MENU, BESIDE = Path("scripts", "Plugins", "CARE_bridge"), Path("macros", "CARE_bridge")


def test_the_menu_has_one_entry_a_name_and_only_what_can_be_given_its_settings_there(fiji):
    macros.install(fiji)
    entries = [path.stem.replace("_", " ").lower() for path in (fiji / MENU).glob("[!.]*")]
    assert len(entries) == len(set(entries)) > 3
    # A macro that is called from a menu gets no argument; the parameters of a script become a dialog.
    assert {path.suffix for path in (fiji / MENU).glob("[!.]*")} == {".groovy"}
    assert {path.suffix for path in (fiji / BESIDE).glob("[!.]*")} == {".ijm"}


def test_installing_upgrades_and_removes_only_what_is_ours(fiji):
    written = macros.install(fiji.parent)
    assert {path.name for path in written} == {entry.path.name for entry in macros.shipped()}
    assert {path.parent for path in written} == {fiji / MENU, fiji / BESIDE}
    for folder, name in ((fiji / MENU, "Restore_Image.groovy"), (fiji / BESIDE, "restore_image.ijm")):
        old = folder / name
        old.write_text("an earlier version")
        listed = json.loads((folder / macros.INSTALLED_LIST).read_text())
        listed[name] = sha256(old)
        listed["gone.ijm"] = "0" * 64
        (folder / macros.INSTALLED_LIST).write_text(json.dumps(listed))
        macros.install(fiji)
        assert old.read_text() == macros.find_shipped(name).path.read_text()
    folder = fiji / MENU
    (folder / "notes.txt").write_text("keep")
    removed = macros.uninstall(fiji)
    assert len(removed) == len(macros.shipped())
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert not (fiji / BESIDE).exists()
    assert (fiji / "scripts" / "Plugins" / "mine.ijm").read_text() == "my own"
    (folder / "notes.txt").unlink()
    macros.install(fiji)
    macros.uninstall(fiji)
    assert not folder.exists()
    assert macros.uninstall(fiji) == []


def test_macros_that_an_earlier_version_put_into_the_menu_are_taken_out_of_it(fiji):
    folder = fiji / MENU
    folder.mkdir()
    (folder / "restore_folder.ijm").write_text("of an earlier version")
    listed = {"restore_folder.ijm": sha256(folder / "restore_folder.ijm")}
    (folder / macros.INSTALLED_LIST).write_text(json.dumps(listed))
    macros.install(fiji)
    assert not (folder / "restore_folder.ijm").exists()


@pytest.mark.parametrize("earlier", [False, True], ids=["anew", "over an earlier version"])
def test_an_installation_that_is_ended_anywhere_can_be_taken_out_and_done_again(fiji, earlier, monkeypatch):
    module = sys.modules["care_bridge.macros.shipped"]  # the package has a function of this name
    real = module.write_text
    before = {path for path in fiji.rglob("*") if path.is_file()}

    def writes_until(last: int):
        written = []

        def write(path, text):
            if len(written) == last:
                raise KeyboardInterrupt
            written.append(path)
            real(path, text)

        return write

    def begin() -> None:
        if earlier:
            macros.install(fiji)
            for folder, name in (
                (MENU, "Restore_Image.groovy"),
                (BESIDE, "restore_image.ijm"),
                (MENU, "old.ijm"),
            ):
                (fiji / folder / name).write_text("an earlier version")
                listed = json.loads((fiji / folder / macros.INSTALLED_LIST).read_text())
                listed[name] = sha256(fiji / folder / name)
                (fiji / folder / macros.INSTALLED_LIST).write_text(json.dumps(listed))

    for last in range(len(macros.shipped()) + 4):
        for again in (False, True):
            begin()
            with monkeypatch.context() as patch:
                patch.setattr(module, "write_text", writes_until(last))
                with pytest.raises(KeyboardInterrupt):
                    macros.install(fiji)
            if again:
                macros.install(fiji)
                assert not (fiji / MENU / "old.ijm").exists()
            macros.uninstall(fiji)
            assert {path for path in fiji.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("folder", "name", "kept"), [(MENU, "Restore_Twice", "groovy"), (BESIDE, "restore_twice", "ijm")]
)
def test_a_macro_that_somebody_changed_is_neither_replaced_nor_removed(fiji, folder, name, kept):
    macros.install(fiji)
    changed = fiji / folder / f"{name}.{kept}"
    changed.write_text("mine now")
    with pytest.raises(InputError, match=rf"{name}\.{kept} changed"):
        macros.install(fiji)
    macros.uninstall(fiji)
    assert changed.read_text() == "mine now"


def test_a_folder_that_is_no_fiji_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no jars and plugins"):
        macros.install(tmp_path)


def test_a_name_that_does_not_exist_gets_the_nearest():
    assert macros.find_shipped("restore_image.ijm").kind == "macro"
    assert macros.find_shipped("Restore_Image").kind == "script"
    assert macros.find_shipped("restore_image").kind == "macro"
    assert macros.find_shipped("RESTORE_FOLDER").name.lower() == "restore_folder"
    with pytest.raises(InputError, match="did you mean restore_image"):
        macros.find_shipped("restore_imag")


def test_the_command_line_lists_checks_and_installs(tmp_path, fiji):
    runner = CliRunner()
    listed = runner.invoke(app, ["macros", "list"])
    assert listed.exit_code == 0
    assert "Restore_Folder" in listed.output
    bad = tmp_path / "bad.ijm"
    bad.write_text('run("Run your network", "nTiles=3");')
    found = runner.invoke(app, ["macros", "lint", str(bad)])
    assert found.exit_code == 1
    assert "camel-case" in found.output
    bad.write_text('print("fine");')
    assert runner.invoke(app, ["macros", "lint", str(bad)]).exit_code == 0
    missing = runner.invoke(app, ["macros", "lint", str(tmp_path / "none.ijm")])
    assert missing.exit_code == 2
    assert runner.invoke(app, ["macros", "install", str(fiji)]).exit_code == 0
    assert runner.invoke(app, ["macros", "uninstall", str(fiji)]).exit_code == 0
    assert runner.invoke(app, ["macros", "install", str(tmp_path / "none")]).exit_code == 2
    assert runner.invoke(app, ["macros", "run", "restore_imag"]).exit_code == 2
    assert runner.invoke(app, ["macros", "run", "restore_image", "model"]).exit_code == 2


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece", ['"\\', "'\\\"", 'run("', "run(", "a=", "x=x+", "if(a)", "do{", 'run("Run your network","a=[']
)
def test_forty_kilobytes_of_anything_are_read_in_seconds(piece):
    macros.lint(piece * (40_000 // len(piece)))


def test_brackets_that_nothing_closes_end_with_what_they_stand_in():
    for text in ("[IJ.run(imp, ]", "{ run(", "(]" * 20_000, "(" * 20_000 + "]" * 20_000, "f(" * 9_000 + "}"):
        started = time.monotonic()
        macros.lint(text, ".ijm")
        assert time.monotonic() - started < 10, text[:20]
