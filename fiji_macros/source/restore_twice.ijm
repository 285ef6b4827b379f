// CARE bridge: restore_twice
//
// Restores the image in front, and then the result of that once more, with the same model. Both results are
// shown, named ..._once and ..._twice, with pixel size, units, labels, lookup tables and display range kept.
// Applying a model twice is no better than once in general: compare with care-bridge compare --applications 2.
//
// You need: Fiji with the update site CSBDeep, and a model exported for Fiji (a .zip).
// Use it:   change the settings below and press Run, or from another macro
//           runMacro("/folder/restore_twice.ijm", "model=[/folder/my model.zip] normalizeagain=false");

// include: settings.ijm
var normalizeAgain = "true";   // as pressing the plugin's button twice does; "false" feeds the result on as it is
var input = "";                // file to open; empty takes the image in front
var output = "";               // folder to save both in; empty leaves the results open

readSettings("restore_twice", newArray("normalizeagain", "input", "output"));
normalizeAgain = booleanSetting("normalizeagain", normalizeAgain);
output = cleanPath(setting("output", output));
setBatchMode(true);
source = inputImage(setting("input", input));
name = plainName(getTitle());
once = restore(source, name + "_once");
stopIfFailed("");
saveResult(once, pathIn(output, name + "_once.tif"));
between = meanOf(once, source);
normalize = normalizeAgain;
twice = restore(between, name + "_twice");
stopIfFailed("");
closeImage(between);
saveResult(twice, pathIn(output, name + "_twice.tif"));
finish("restored " + name + " twice; the second time normalized again: " + normalizeAgain, 2, "saved in", output);

// ---- Below this line: how the steps above are done; nothing to change for using the macro ---------------

function pathIn(folder, name) {
    if (folder == "") return "";
    return folder + "/" + name;
}

// A copy of a result to be fed on: of a model that also gives an uncertainty (mean and scale) only the mean.
function meanOf(id, source) {
    selectImage(source);
    getDimensions(width, height, channels, slices, frames);
    selectImage(id);
    run("Duplicate...", "title=" + freeTitle("care_once") + " duplicate");
    return meanChannels(getImageID(), channels);
}

// include: shared.ijm
