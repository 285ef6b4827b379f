// CARE bridge: restore_channels
//
// Restores the channels of the image in front one by one, each normalized by itself, and puts them together again
// with colours, labels and calibration. The result has 32 bits; channels that are not restored keep their grey levels.
// You need: Fiji with the update site CSBDeep, and models for one channel exported for Fiji (.zip).
// Use it:   change the settings below and press Run, or from another macro
//           runMacro("/folder/restore_channels.ijm", "model=[/folder/mito.zip] channels=1,3");

var model = "";                // the .zip that was exported for Fiji; forward slashes also on Windows
var normalize = "true";        // scale to the percentiles first, as in training
var bottom = 3;                // lower percentile, 0-100; the model's own are in its HOW-TO
var top = 99.8;                // upper percentile, 0-100
var clip = "false";            // also cut off above the upper percentile
var nTiles = 8;                // pieces the image is cut into, to save memory
var blockMultiple = 32;        // sizes of pieces are a multiple of this
var overlap = 32;              // pixels that the pieces overlap; at least the reach of the model
var batchSize = 1;
var channelsWanted = "all";    // e.g. 1,3
var models = "";               // one .zip for each of these channels, with ; between; empty takes model for all
var input = "";                // file to open; empty takes the image in front
var output = "";               // file to save; empty leaves the result open

readSettings("restore_channels", newArray("channels", "models", "input", "output"));
output = cleanPath(setting("output", output));
list = checkedModels(setting("models", models));
setBatchMode(true);
source = inputImage(setting("input", input));
name = plainName(getTitle());
getDimensions(width, height, channels, slices, frames);
wanted = wantedChannels(setting("channels", channelsWanted), name, list.length);
whole = floatCopy(source, "care_whole");
for (w = 0; w < wanted.length; w++) {
    showProgress(w, wanted.length);
    model = list[minOf(w, list.length - 1)];
    restoreChannel(source, whole, wanted[w]);
}
named(whole, name + "_restored");
saveResult(whole, output);
finish("restored " + wanted.length + " of " + channels + " channels of " + name, wanted.length, "saved as", output);

// ---- Below this line: how the steps above are done; nothing to change for using the macro ---------------

// The models in a text with ; between, or the one of the setting model.
function checkedModels(text) {
    if (text == "") {
        one = checkedModel(setting("model", model));
        return Array.trim(newArray(one, ""), 1);
    }
    list = split(text, ";");
    for (m = 0; m < list.length; m++) list[m] = checkedModel(list[m]);
    return list;
}

// The numbers of the channels to be restored in the image in front.
function wantedChannels(text, name, numberOfModels) {
    getDimensions(width, height, channels, slices, frames);
    if (bitDepth() == 24) stop("'" + name + "' is an RGB image; use Image > Color > Make Composite first");
    if (toLowerCase(text) == "all") {
        wanted = newArray(channels);
        for (c = 0; c < channels; c++) wanted[c] = c + 1;
    } else {
        wanted = split(text, ",");
        for (c = 0; c < wanted.length; c++) {
            number = parseInt(wanted[c]);
            if (isNaN(number)) stop("channels=" + text + " is no list of numbers; write channels=1,3");
            if (minOf(number - 1, channels - number) < 0)
                stop("channels=" + text + ": '" + name + "' has channels 1 to " + channels);
            wanted[c] = number;
        }
    }
    if (numberOfModels > 1) {
        if (numberOfModels != wanted.length)
            stop("models= names " + numberOfModels + " models for " + wanted.length + " channels; give one for each");
    }
    return wanted;
}

// Restores one channel of an image and puts it in its place in a 32-bit copy.
function restoreChannel(source, whole, number) {
    if (!isOpen(source)) stop("the image was closed before channel " + number + "; open it and run this again");
    selectImage(source);
    getDimensions(width, height, channels, slices, frames);
    if (channels > 1) {
        Stack.setChannel(number);
        run("Duplicate...", "title=care_channel duplicate channels=" + number + " slices=1-" + slices + " frames=1-" + frames);
    } else {
        run("Duplicate...", "title=care_channel duplicate");
    }
    one = getImageID();
    selectImage(source);
    getMinAndMax(least, most);
    restored = restore(one, "care_channel_restored");
    closeImage(one);
    stopIfFailed("channel " + number + ": ");
    selectImage(restored);
    planes = slices * frames;
    if (nSlices != planes) stop("channel " + number + ": the model gives " + nSlices + " planes for " + planes
        + "; use restore_image");
    copyPlanes(whole, restored, number, channels);
    closeImage(restored);
    selectImage(whole);
    if (channels > 1) Stack.setChannel(number);
    range = maxOf(high - low, 0.0000001);
    setMinAndMax((least - low) / range, (most - low) / range);
    addInfo("channel " + number + " restored with " + File.getName(model) + ", percentiles " + bottom + "-" + top
        + " = grey levels " + low + "-" + high + ", clip=" + clip + " ntiles=" + nTiles + " blockmultiple="
        + blockMultiple + " overlap=" + overlap);
}

function named(id, title) {
    selectImage(id);
    getDimensions(width, height, channels, slices, frames);
    if (channels > 1) Stack.setChannel(1);
    rename(title);
}

// ---- The same in every macro of this folder: begin (how it is done; from source/shared.ijm, by make macros) 

var givenKeys = newArray(0);     // settings that came as an argument, by lower-case name
var givenValues = newArray(0);
var knownKeys = newArray(0);
var problem = "";                // why the last step did not work; empty when it did
var low = 0;                     // grey levels at the two percentiles of the image that was restored last
var high = 1;
var seriesLow = 0;               // the same for a whole series, where one normalisation serves all frames
var seriesHigh = 0;
var countsScale = 1;             // grey level of the input = countsScale * restored value + countsOffset
var countsOffset = 0;
var clippedShare = 0;            // of the last 16-bit image
var groovy = -1;                 // whether Groovy is there: 1, 0, or -1 where that was not tried yet
var saidNoGroovy = false;
var macroName = "";
var sentinel = "";

// Takes the settings that every macro has, and its own, from the argument or from the top of the macro.
function readSettings(name, own) {
    macroName = name;
    plugins = newArray("model", "normalizeinput", "percentilebottom", "percentiletop", "clip", "ntiles", "blockmultiple",
        "overlap", "batchsize");
    readArgument(getArgument(), Array.concat(plugins, own));
    if (indexIn(own, "models") < 0) model = checkedModel(setting("model", model));
    normalize = booleanSetting("normalizeinput", normalize);
    bottom = numberSetting("percentilebottom", bottom, 0, 100);
    top = numberSetting("percentiletop", top, 0, 100);
    if (bottom >= top) stop("percentilebottom=" + bottom + " is not below percentiletop=" + top);
    clip = booleanSetting("clip", clip);
    nTiles = wholeSetting("ntiles", nTiles, 1);
    blockMultiple = wholeSetting("blockmultiple", blockMultiple, 1);
    overlap = wholeSetting("overlap", overlap, 0);
    batchSize = wholeSetting("batchsize", batchSize, 1);
}

// Reads "key=value key=[value with blanks]" and refuses what is not known: the plugin would ignore it in silence.
function readArgument(text, known) {
    knownKeys = Array.concat(known, newArray("sentinel"));
    text = String.trim(text) + "  ";
    at = 0;
    end = lengthOf(text) - 2;
    while (at < end) {
        while (at < end) {
            if (substring(text, at, at + 1) != " ") break;
            at++;
        }
        equals = indexOf(text, "=", at);
        blank = indexOf(text, " ", at);
        if (equals < 0) equals = lengthOf(text);
        if (blank < equals)
            stop("'" + substring(text, at, blank) + "' has no value; write " + substring(text, at, blank) + "=true");
        key = toLowerCase(substring(text, at, equals));
        at = equals + 1;
        if (substring(text, at, at + 1) == "[") {
            depth = 1;
            from = at + 1;
            at = from;
            while (depth > 0) {
                if (at >= lengthOf(text)) stop(key + "=[ is not closed; put ] behind its value");
                letter = substring(text, at, at + 1);
                if (letter == "[") depth++;
                if (letter == "]") depth--;
                at++;
            }
            value = substring(text, from, at - 1);
        } else {
            blank = indexOf(text, " ", at);
            value = substring(text, at, blank);
            at = blank;
        }
        if (indexIn(knownKeys, key) < 0)
            stop("there is no setting '" + key + "'" + nearest(key) + "; there are " + String.join(knownKeys, ", "));
        givenKeys = Array.concat(givenKeys, newArray(key));
        givenValues = Array.concat(givenValues, newArray(value));
    }
    sentinel = setting("sentinel", "");
}

function indexIn(list, wanted) {
    for (k = 0; k < list.length; k++)
        if (list[k] == wanted) return k;
    return -1;
}

function nearest(key) {
    for (k = 0; k < knownKeys.length; k++) {
        if (startsWith(knownKeys[k], key)) return " (did you mean " + knownKeys[k] + "?)";
        if (startsWith(key, knownKeys[k])) return " (did you mean " + knownKeys[k] + "?)";
        if (startsWith(knownKeys[k], substring(key, 0, minOf(3, lengthOf(key)))))
            return " (did you mean " + knownKeys[k] + "?)";
    }
    return "";
}

// A setting from the argument, else the one written at the top of the macro.
function setting(key, otherwise) {
    k = indexIn(givenKeys, toLowerCase(key));
    if (k >= 0) return givenValues[k];
    return "" + otherwise;
}

function numberSetting(key, otherwise, least, most) {
    text = setting(key, otherwise);
    value = parseFloat(text);
    if (isNaN(value)) stop(key + "=" + text + " is no number; give one from " + least + " to " + most);
    if (value < least) stop(key + "=" + text + " is too small; give a number from " + least + " to " + most);
    if (value > most) stop(key + "=" + text + " is too large; give a number from " + least + " to " + most);
    return value;
}

function wholeSetting(key, otherwise, least) {
    value = numberSetting(key, otherwise, least, 1000000);
    if (value != floor(value)) stop(key + "=" + value + " is no whole number");
    return value;
}

function bitsSetting(otherwise) {
    value = wholeSetting("bits", otherwise, 16);
    if (value != 32) {
        if (value != 16) stop("bits=" + value + " is neither 16 nor 32");
    }
    return value;
}

function booleanSetting(key, otherwise) {
    text = toLowerCase(setting(key, otherwise));
    if (text == "true") return "true";
    if (text == "1") return "true";
    if (text == "false") return "false";
    if (text == "0") return "false";
    stop(key + "=" + text + " is neither true nor false");
}

// A path with forward slashes, as Fiji takes them on every system, and without one at its end.
function cleanPath(path) {
    path = replace(String.trim(path), "\\", "/");
    while (lengthOf(path) > 1) {
        if (!endsWith(path, "/")) return path;
        path = substring(path, 0, lengthOf(path) - 1);
    }
    return path;
}

function checkedModel(path) {
    path = cleanPath(path);
    if (path == "") {
        if (!headless()) path = cleanPath(File.openDialog("Model for Fiji (a .zip)"));
    }
    if (path == "") stop("no model: give model=[/folder/model.zip], or write it at the top of the macro");
    if (!File.exists(path)) stop("the model " + path + " does not exist; look for the .zip that was exported for Fiji");
    if (File.isDirectory(path)) stop("the model " + path + " is a folder; give the .zip that was exported for Fiji");
    if (!endsWith(toLowerCase(path), ".zip")) stop("the model " + path + " is no .zip; give the one that was exported for Fiji");
    depth = 0;
    for (k = 0; k < lengthOf(path); k++) {
        letter = substring(path, k, k + 1);
        if (letter == "[") depth++;
        if (letter == "]") depth--;
        if (depth < 0) k = lengthOf(path);
    }
    if (depth != 0) stop("the plugin cannot take single brackets in the model's path " + path + "; rename its folder or file");
    return path;
}

function say(text) {
    print("CARE bridge: " + text);
}

// Ends the macro with one line that tells what to do.
function stop(text) {
    writeSentinel("failed", text, 0, 0, 1);
    exit("CARE bridge: " + text);
}

function stopIfFailed(where) {
    if (problem != "") stop(where + problem);
}

// Says how it went and shows the results, where there are windows.
function finish(message, count, saved, place) {
    if (place != "") message = message + "; " + saved + " " + place;
    say(message);
    writeSentinel("done", message, count, 0, 0);
    if (!headless()) setBatchMode("exit and display");
}

// A small file that tells another program how the macro ended; only written where sentinel=[path] was given.
function writeSentinel(status, message, done, skipped, failed) {
    if (sentinel == "") return;
    message = replace(replace(message, "\\", "/"), "\"", "'");
    message = replace(message, "\n", " ");
    File.saveString("{\"macro\": \"" + macroName + "\", \"status\": \"" + status + "\", \"done\": " + done
        + ", \"skipped\": " + skipped + ", \"failed\": " + failed + ", \"message\": \"" + message + "\"}\n", sentinel);
}

function headless() {
    answer = call("java.awt.GraphicsEnvironment.isHeadless");
    if (answer == "true") return true;
    return false;
}

// Whether Groovy is there and works (an old one fails under a new Java).
function hasGroovy() {
    if (groovy >= 0) return groovy;
    groovy = 0;
    there = indexOf(call("java.lang.System.getProperty", "java.class.path"), "groovy") >= 0;
    folder = getDirectory("imagej") + "jars/";
    if (!there) {
        if (File.exists(folder)) {
            files = getFileList(folder);
            for (k = 0; k < files.length; k++)
                if (startsWith(files[k], "groovy")) there = true;
        }
    }
    if (there) {
        answer = call("groovy.util.Eval.me", "6 * 7");
        if ("" + answer == "42") groovy = 1;
    }
    return groovy;
}

// The plugin remembers the model of the last run and takes it instead of the one that is given.
function forgetModel() {
    if (hasGroovy()) {
        call("groovy.util.Eval.me", "java.util.prefs.Preferences.userRoot()"
            + ".node('/de/csbdresden/csbdeep/commands/GenericNetwork').remove('GenericNetwork_modelfile')");
        return;
    }
    if (!saidNoGroovy)
        say("WARNING: there is no working Groovy in this ImageJ, so a model that the plugin remembers from an earlier run "
            + "cannot be forgotten and would be used instead of the one given here. Check the first result.");
    saidNoGroovy = true;
}

// Without windows the plugin's results stay outside of ImageJ1. These are the ones that are there already, so that
// they are not taken for the next.
function hiddenResults() {
    if (!hasGroovy()) return "";
    return "" + call("groovy.util.Eval.me", "def c = ij.IJ.runPlugIn('org.scijava.Context', '');"
        + " def ds = c == null ? null : c.getService('org.scijava.display.DisplayService');"
        + " if (ds == null) return '';"
        + " return ds.getDisplays().findAll { it.getName() == 'result' }"
        + ".collect { '<' + System.identityHashCode(it) + '>' }.join('')");
}

// Brings in a result that has no window: headless, or by fiji -macro FILE, which runs before the windows come.
function fetchResult(before) {
    if (isOpen("result")) return;
    if (!headless()) {
        for (k = 0; k < 10; k++) {
            wait(100);
            if (isOpen("result")) return;
        }
    }
    if (!hasGroovy()) return;
    call("groovy.util.Eval.me", "def c = ij.IJ.runPlugIn('org.scijava.Context', '');"
        + " if (c == null) return;"
        + " def ds = c.getService('org.scijava.display.DisplayService');"
        + " def ls = c.getService('net.imagej.legacy.LegacyService');"
        + " if (ds == null || ls == null) return;"
        + " def d = ds.getDisplays().find { it.getName() == 'result'"
        + " && !'" + before + "'.contains('<' + System.identityHashCode(it) + '>') };"
        + " if (d == null) return;"
        + " def i = ls.getImageMap().registerDisplay(d).duplicate();"
        + " d.close(); i.setTitle('result'); i.show()");
}

function freeTitle(wanted) {
    title = wanted;
    number = 1;
    while (isOpen(title)) {
        number++;
        title = wanted + "_" + number;
    }
    return title;
}

function closeImage(id) {
    if (isOpen(id)) {
        selectImage(id);
        close();
    }
}

// Single precision, as the plugin counts.
function single(x) {
    if (x == 0) return 0;
    step = pow(2, 23 - floor(log(abs(x)) / log(2)));
    return round(x * step) / step;
}

function rankOf(percentile, pixels) {
    rank = floor(single(single(single(pixels - 1) * single(percentile)) / 100) + 0.5);
    return minOf(maxOf(rank, 0), pixels - 1);
}

// Grey level at a rank (counted from 0) over all planes of a 32-bit image: the bin with the rank, cut again and again.
function levelAt(rank, lowest, highest) {
    bins = 1024;
    from = lowest;
    to = highest;
    below = 0;
    for (pass = 0; pass < 5; pass++) {
        if (from == to) return from;
        total = newArray(bins);
        for (s = 1; s <= nSlices; s++) {
            if (nSlices > 1) setSlice(s);
            getHistogram(values, counts, bins, from, to);
            for (b = 0; b < bins; b++) total[b] += counts[b];
        }
        b = 0;
        while (b < bins - 1) {
            if (below + total[b] > rank) break;
            below += total[b];
            b++;
        }
        width = (to - from) / bins;
        from = from + b * width;
        to = from + width;
    }
    return single((from + to) / 2);
}

// Sets low and high to the grey levels at the percentiles of the image in front: the plugin's nearest rank, all
// planes together.
function measurePercentiles(percentileLow, percentileHigh) {
    lowest = 1 / 0;
    highest = -1 / 0;
    before = 1;
    if (nSlices > 1) before = getSliceNumber();
    for (s = 1; s <= nSlices; s++) {
        if (nSlices > 1) setSlice(s);
        getStatistics(area, mean, least, most);
        lowest = minOf(lowest, least);
        highest = maxOf(highest, most);
    }
    pixels = getWidth() * getHeight() * nSlices;
    rankLow = rankOf(percentileLow, pixels);
    rankHigh = rankOf(percentileHigh, pixels);
    if (bitDepth() == 32) {
        low = levelAt(rankLow, lowest, highest);
        high = levelAt(rankHigh, lowest, highest);
    } else {
        bins = pow(2, bitDepth());
        for (s = 1; s <= nSlices; s++) {
            if (nSlices > 1) setSlice(s);
            getHistogram(values, counts, bins);
            if (s == 1) total = Array.copy(counts);
            else for (b = lowest; b <= highest; b++) total[b] += counts[b];
        }
        below = 0;
        low = -1;
        for (b = lowest; b <= highest; b++) {
            below += total[b];
            if (low < 0) {
                if (below > rankLow) low = b;
            }
            if (below > rankHigh) {
                high = b;
                b = highest;
            }
        }
    }
    if (nSlices > 1) setSlice(before);
}

// Restores an image and gives the id of a new 32-bit image with this title: everything that the plugin loses is
// kept (calibration, units, labels, lookup tables, display range). 0, and problem says why, when there is none.
function restore(source, title) {
    problem = "";
    if (!isOpen(source)) {
        problem = "the image was closed before it could be restored; open it and run again";
        return 0;
    }
    selectImage(source);
    name = getTitle();
    if (bitDepth() == 24) {
        problem = "'" + name + "' is an RGB image; use Image > Type > 8-bit, or Image > Color > Make Composite where "
            + "the model has three channels";
        return 0;
    }
    if (getWidth() * getHeight() * nSlices > 2147483647) {
        problem = "'" + name + "' has more than 2147483647 pixels, which the plugin cannot take; restore it in parts";
        return 0;
    }
    // The plugin ignores selections, and goes on with the old pixels of an image that was cropped or converted
    // after it was used once: so it gets a fresh copy of the whole image.
    selected = selectionType() >= 0;
    if (selected) run("Select None");
    copyTitle = freeTitle("care_input");
    run("Duplicate...", "title=" + copyTitle + " duplicate");
    copy = getImageID();
    if (selected) {
        selectImage(source);
        run("Restore Selection");
        selectImage(copy);
    }
    // Signed 16-bit and other calibrated grey levels: the plugin would see the raw numbers in the file.
    if (bitDepth() < 32) {
        if (calibrate(1) != 1) run("32-bit");
    }
    useNormalize = normalize;
    if (normalize == "true") {
        if (seriesHigh > seriesLow) {
            low = seriesLow;
            high = seriesHigh;
            normalizeCopy();
            useNormalize = "false";
        } else {
            measurePercentiles(bottom, top);
        }
    } else {
        low = 0;
        high = 1;
    }
    // Another image called "result" would be taken for the plugin's.
    aside = newArray(0);
    while (isOpen("result")) {
        selectWindow("result");
        aside = Array.concat(aside, newArray("" + getImageID()));
        rename(freeTitle("result_before"));
    }
    forgetModel();
    before = hiddenResults();
    selectImage(copy);
    run("Run your network", "input=" + copyTitle + " normalizeinput=" + useNormalize
        + " percentilebottom=" + bottom + " percentiletop=" + top + " clip=" + clip + " ntiles=" + nTiles
        + " blockmultiple=" + blockMultiple + " overlap=" + overlap + " batchsize=" + batchSize
        + " showprogressdialog=false modelurl=[] modelfile=[" + model + "]");
    fetchResult(before);
    forgetModel();
    fresh = 0;
    if (isOpen("result")) {
        selectWindow("result");
        lazy = getImageID();
        // The plugin's result computes its pixels again and again; a duplicate has them.
        run("Duplicate...", "title=[" + freeTitle("care_result") + "] duplicate");
        fresh = getImageID();
        closeImage(lazy);
    }
    closeImage(copy);
    for (k = 0; k < aside.length; k++) {
        selectImage(parseInt(aside[k]));
        rename("result");
    }
    if (fresh == 0) {
        problem = "the plugin gave no result for '" + name + "' (its own reason is in Window > Console): is "
            + "the model made for such images (planes or stacks, number of channels), and is CSBDeep installed?";
        return 0;
    }
    done = dress(fresh, source, title);
    if (normalize == "true") {
        countsOffset = countsScale * low + countsOffset;
        countsScale = countsScale * (high - low);
    }
    return done;
}

function normalizeCopy() {
    if (bitDepth() != 32) run("32-bit");
    range = single(high - low);
    factor = 1;
    if (range >= 0.0000001) factor = single(1 / range);
    run("Subtract...", "value=" + d2s(low, -9) + " stack");
    run("Multiply...", "value=" + d2s(factor, -9) + " stack");
    run("Min...", "value=0 stack");
    if (clip == "true") run("Max...", "value=1 stack");
}

// Puts the pixels of a result into a 32-bit copy of its source, which has everything else.
function dress(fresh, source, title) {
    selectImage(fresh);
    getDimensions(width, height, channels, slices, frames);
    freshTitle = getTitle();
    selectImage(source);
    getDimensions(width0, height0, channels0, slices0, frames0);
    same = channels == channels0;
    if (slices != slices0) same = false;
    if (frames != frames0) same = false;
    range = high - low;
    if (range < 0.0000001) range = 1;
    if (same) {
        selected = selectionType() >= 0;
        if (selected) run("Select None");
        work = freeTitle("care_work");
        run("Duplicate...", "title=" + work + " duplicate");
        done = getImageID();
        if (selected) {
            selectImage(source);
            run("Restore Selection");
            selectImage(done);
        }
        if (bitDepth() != 32) run("32-bit");
        option = "Copy";
        if (nSlices > 1) option = "Copy stack";
        imageCalculator(option, work, freshTitle);
        closeImage(fresh);
        selectImage(done);
        for (c = 1; c <= channels; c++) {
            if (channels > 1) Stack.setChannel(c);
            selectImage(source);
            if (channels > 1) Stack.setChannel(c);
            getMinAndMax(least, most);
            selectImage(done);
            setMinAndMax((least - low) / range, (most - low) / range);
        }
        if (channels > 1) Stack.setChannel(1);
    } else {
        done = fresh;
        getVoxelSize(x, y, z, unit);
        Stack.getUnits(unitX, unitY, unitZ, unitT, unitV);
        interval = Stack.getFrameInterval();
        selectImage(done);
        setVoxelSize(x, y, z, unitX);
        Stack.setXUnit(unitX);
        Stack.setYUnit(unitY);
        Stack.setZUnit(unitZ);
        if (frames > 1) {
            Stack.setFrameInterval(interval);
            Stack.setTUnit(unitT);
        }
        for (c = 1; c <= channels; c++) {
            if (channels > 1) Stack.setChannel(c);
            resetMinAndMax();
        }
    }
    selectImage(done);
    rename(title);
    addInfo("restored with " + File.getName(model) + " (CSBDeep plugin, normalizeinput=" + normalize + " percentiles "
        + bottom + "-" + top + " = grey levels " + low + "-" + high + ", clip=" + clip + " ntiles=" + nTiles
        + " blockmultiple=" + blockMultiple + " overlap=" + overlap + ")");
    return done;
}

function addInfo(line) {
    info = getMetadata("Info");
    if (indexOf(info, "intensity-based quantification") < 0) line = line + "; not for intensity-based quantification";
    if (info != "") {
        if (!endsWith(info, "\n")) info = info + "\n";
    }
    setMetadata("Info", info + "CARE bridge: " + line);
}

// The mean channels of a probabilistic model, as many as its input had; the image itself otherwise.
function meanChannels(id, channels0) {
    selectImage(id);
    getDimensions(width, height, channels, slices, frames);
    if (channels != 2 * channels0) return id;
    title = getTitle();
    run("Duplicate...", "title=[" + freeTitle("care_mean") + "] duplicate channels=1-" + channels0);
    means = getImageID();
    closeImage(id);
    selectImage(means);
    rename(title);
    return means;
}

// 16 bits hold the grey levels of the input, rounded and clipped, never wrapped; clippedShare says how much.
function toGreyLevels(id) {
    selectImage(id);
    if (countsScale < 255) {
        problem = "the input spans only " + countsScale + " grey levels, too few for 16 bits; save with bits=32";
        return;
    }
    run("Multiply...", "value=" + d2s(countsScale, -9) + " stack");
    run("Add...", "value=" + d2s(countsOffset, -9) + " stack");
    outside = 0;
    for (s = 1; s <= nSlices; s++) {
        if (nSlices > 1) setSlice(s);
        getStatistics(area, mean, least, most);
        if (minOf(least, 65535.5 - most) < 0) {
            getHistogram(values, counts, 256, 0, 65535);
            inside = 0;
            for (b = 0; b < 256; b++) inside += counts[b];
            outside += getWidth() * getHeight() - inside;
        }
    }
    clippedShare = outside / (getWidth() * getHeight() * nSlices);
    run("Min...", "value=0 stack");
    run("Max...", "value=65535 stack");
    getDimensions(width, height, channels, slices, frames);
    // ImageJ scales what lies between these two limits to 16 bits: with them, one grey level to one.
    for (c = 1; c <= channels; c++) {
        if (channels > 1) Stack.setChannel(c);
        setMinAndMax(0, 65535);
    }
    run("16-bit");
    for (c = 1; c <= channels; c++) {
        if (channels > 1) Stack.setChannel(c);
        setMinAndMax(maxOf(0, countsOffset), minOf(65535, countsOffset + countsScale));
    }
    addInfo("16-bit: restored value = (grey level - " + d2s(countsOffset, 4) + ") / " + d2s(countsScale, 4)
        + ", " + d2s(100 * clippedShare, 3) + " % of the pixels clipped");
}

function clippedPercent() {
    return d2s(100 * clippedShare, 3);
}

// A 32-bit copy of a whole image.
function floatCopy(id, title) {
    selectImage(id);
    run("Select None");
    run("Duplicate...", "title=" + freeTitle(title) + " duplicate");
    if (bitDepth() != 32) run("32-bit");
    return getImageID();
}

// Copies the planes of a part into every step-th plane of a whole, from a plane on.
function copyPlanes(whole, part, first, step) {
    selectImage(part);
    partTitle = getTitle();
    planes = nSlices;
    selectImage(whole);
    wholeTitle = getTitle();
    for (p = 1; p <= planes; p++) {
        selectImage(part);
        if (planes > 1) setSlice(p);
        selectImage(whole);
        if (nSlices > 1) setSlice(first + (p - 1) * step);
        imageCalculator("Copy", wholeTitle, partTitle);
    }
}

// As a number: ImageJ gives it as a text, and compares texts letter by letter.
function fileLength(path) {
    return parseFloat("" + File.length(path));
}

function makeFolder(folder) {
    if (File.isDirectory(folder)) return;
    if (File.exists(folder)) {
        problem = folder + " is a file; name a folder";
        return;
    }
    parent = File.getParent(folder);
    if (parent != "") {
        if (!File.isDirectory(parent)) makeFolder(parent);
    }
    File.makeDirectory(folder);
    if (!File.isDirectory(folder)) problem = "cannot make the folder " + folder + "; choose one that you may write to";
}

// Saves as TIFF under another name first, so that a file that is there is a whole one.
function saveWhole(id, path) {
    problem = "";
    folder = File.getParent(path);
    makeFolder(folder);
    if (problem != "") return;
    selectImage(id);
    title = getTitle();
    part = folder + "/care_part.tif";
    call("ij.IJ.redirectErrorMessages");
    saveAs("Tiff", part);
    least = getWidth() * getHeight() * nSlices * bitDepth() / 8;
    rename(title);
    if (!File.exists(part)) {
        problem = "cannot write to the folder " + folder + "; choose one that you may write to";
        return;
    }
    written = fileLength(part);
    if (written < least) {
        ok = File.delete(part);
        problem = "the disk of " + folder + " is full (" + written + " of " + least + " bytes were written); free some "
            + "space and run again";
        return;
    }
    if (File.exists(path)) ok = File.delete(path);
    ok = File.rename(part, path);
    if (!File.exists(path)) problem = "cannot write " + path + "; is its name too long?";
}

// Saves where a path was given, and leaves the image in front.
function saveResult(id, path) {
    if (path != "") saveWhole(id, path);
    stopIfFailed("");
    selectImage(id);
}

// Why a TIFF should not be opened: ImageJ opens a truncated one without a word and fills it with zeros, and some
// compressed ones with wrong pixels.
function whyUnreadable(path) {
    if (!File.exists(path)) return "the file is gone";
    if (File.isDirectory(path)) return "it is a folder";
    unreadable = "it cannot be read as a TIFF (empty, no TIFF, locked, cut off, or a number format that ImageJ lacks)";
    // Looked at first: ImageJ says twice that something is no TIFF, and only the first time without a window; and it
    // never comes back from some that were cut off. Of more than 2 GB a macro cannot read the beginning either.
    size = fileLength(path);
    reason = "";
    storedWhole = false;
    if (size > 2147483647) unreadable = "ImageJ cannot open it: is it a BigTIFF, or cut off?" + otherWay;
    else if (size > 0) reason = whyNotOpened(path, size);
    else return unreadable;
    if (reason == "no TIFF") return unreadable;
    if (reason != "") return reason;
    call("ij.IJ.redirectErrorMessages");
    about = "" + call("ij.plugin.FileInfoVirtualStack.openVirtual", path);
    if (!startsWith(about, "img[")) return unreadable;
    end = lastIndexOf(about, "-bit, ");
    if (end < 0) return "";
    sizes = split(substring(about, end + 6, lengthOf(about) - 1), "x");
    if (sizes.length < 5) return "";
    pixels = parseInt(sizes[0]) * parseInt(sizes[1]) * parseInt(sizes[2]) * parseInt(sizes[3]) * parseInt(sizes[4]);
    sample = parseInt(substring(about, lastIndexOf(substring(about, 0, end), " ") + 1, end)) / 8;
    // ImageJ keeps the planes of a stack one behind the other.
    if (storedWhole) {
        if (firstPlane + pixels * sampleBytes > size) return "the file is truncated; copy it again";
    }
    if (pixels > 2147483647)
        return "it has " + d2s(pixels, 0) + " pixels, and the plugin cannot take more than 2147483647; restore it in parts";
    bytes = pixels * sample;
    most = parseFloat("" + call("ij.IJ.maxMemory"));
    if (bytes > most) return "it needs " + floor(bytes / 1048576) + " MB, and ImageJ may use " + floor(most / 1048576)
        + " MB: Edit > Options > Memory";
    return "";
}

var storedWhole = false;         // of the TIFF that was looked at last: whether its pixels are not compressed,
var firstPlane = 0;              // where they begin in a file of ImageJ (0 in others),
var sampleBytes = 0;             // and how many bytes each has

var otherWay = "; open it with File > Import > Bio-Formats and save it as Tiff";

// Why ImageJ cannot open a TIFF, or would open it with wrong or lacking pixels.
function whyNotOpened(path, size) {
    if (size > 200000000) head = File.openAsRawString(path, 65536);
    else head = File.openAsRawString(path, size);
    if (lengthOf(head) < 8) return "no TIFF";
    if (!startsWith(head, "II")) {
        if (!startsWith(head, "MM")) return "no TIFF";
    }
    little = charCodeAt(head, 0) == 73;
    if (wordAt(head, 2, little) == 43) return "it is a BigTIFF, which ImageJ cannot open" + otherWay;
    if (wordAt(head, 2, little) != 42) return "no TIFF";
    directory = longAt(head, 4, little);
    page = 0;
    // Each directory names the next, 0 being the last one.
    while (directory > 0) {
        if (directory + 6 > size) return "the file is truncated; copy it again";
        readDirectory(head, directory, little);
        reason = whyPageNotOpened();
        if (reason != "") return reason;
        if (lastStrip(head, little) > size) return "the file is truncated; copy it again";
        if (page == 0) {
            if (maxOf(tagValue(259), 1) == 1) storedWhole = true;
            sampleBytes = maxOf(tagValue(277), 1) * maxOf(tagValue(258), 8) / 8;
            firstPlane = 0;
            if (indexOf(head, "ImageJ=") >= 0) firstPlane = tagValue(273);
        }
        page++;
        directory = nextDirectory(head, directory, little);
        if (page > 10000) directory = 0;
    }
    return "";
}

function whyPageNotOpened() {
    if (tagValue(322) > 0) return "its pixels lie in tiles, which ImageJ cannot open" + otherWay;
    method = maxOf(tagValue(259), 1);
    if (indexIn(newArray(1, 5, 8, 32773, 32946), method) < 0)
        return "it is compressed with " + compressionName(method) + ", which ImageJ cannot open" + otherWay;
    if (tagValue(317) == 3)
        return "it is compressed with the floating point predictor, which ImageJ opens with wrong values" + otherWay;
    if (tagCount(279) == 2) {
        if (tagIsShort(279)) return "ImageJ reads the lengths of its strips wrongly" + otherWay;
    }
    return "";
}

var tags = newArray(0);          // of the first directory of the TIFF that was looked at last: number, first value,
var tagValues = newArray(0);     // how many values, whether they are 16-bit numbers, and where they lie (0 where the
var tagCounts = newArray(0);     // value itself lies in the directory)
var tagShort = newArray(0);
var tagPlaces = newArray(0);

function readDirectory(head, directory, little) {
    entries = 0;
    if (directory + 2 <= lengthOf(head)) entries = wordAt(head, directory, little);
    entries = minOf(entries, floor((lengthOf(head) - directory - 2) / 12));
    if (entries < 1) entries = 0;
    tags = newArray(entries);
    tagValues = newArray(entries);
    tagCounts = newArray(entries);
    tagShort = newArray(entries);
    tagPlaces = newArray(entries);
    for (e = 0; e < entries; e++) {
        entry = directory + 2 + 12 * e;
        tags[e] = wordAt(head, entry, little);
        kind = wordAt(head, entry + 2, little);
        if (kind == 3) tagShort[e] = 1;
        tagCounts[e] = longAt(head, entry + 4, little);
        place = entry + 8;
        bytes = 4;
        if (tagShort[e]) bytes = 2;
        if (tagCounts[e] * bytes > 4) {
            tagPlaces[e] = longAt(head, place, little);
            place = tagPlaces[e];
        }
        if (place + bytes <= lengthOf(head)) {
            if (tagShort[e]) tagValues[e] = wordAt(head, place, little);
            else tagValues[e] = longAt(head, place, little);
        }
    }
}

// Where the directory behind one starts; 0 where there is none, or it cannot be seen from here.
function nextDirectory(head, directory, little) {
    if (directory + 2 > lengthOf(head)) return 0;
    place = directory + 2 + 12 * wordAt(head, directory, little);
    if (place + 4 > lengthOf(head)) return 0;
    return longAt(head, place, little);
}

function tagValue(tag) {
    e = indexIn(tags, tag);
    if (e < 0) return 0;
    return tagValues[e];
}

function tagCount(tag) {
    e = indexIn(tags, tag);
    if (e < 0) return 0;
    return tagCounts[e];
}

function tagIsShort(tag) {
    e = indexIn(tags, tag);
    if (e < 0) return 0;
    return tagShort[e];
}

// Where the last strip of the first plane ends; 0 where that stands too far behind in the file.
function lastStrip(head, little) {
    offsets = indexIn(tags, 273);
    lengths = indexIn(tags, 279);
    if (offsets < 0) return 0;
    if (lengths < 0) return 0;
    if (tagCounts[offsets] == 1) return tagValues[offsets] + tagValues[lengths];
    return valueAt(head, offsets, tagCounts[offsets] - 1, little) + valueAt(head, lengths, tagCounts[offsets] - 1, little);
}

function valueAt(head, e, number, little) {
    bytes = 4;
    if (tagShort[e]) bytes = 2;
    place = tagPlaces[e] + bytes * number;
    if (tagPlaces[e] == 0) return 0;
    if (place + bytes > lengthOf(head)) return 0;
    if (tagShort[e]) return wordAt(head, place, little);
    return longAt(head, place, little);
}

function compressionName(method) {
    if (method == 6) return "JPEG";
    if (method == 7) return "JPEG";
    if (method == 33003) return "JPEG 2000";
    if (method == 33005) return "JPEG 2000";
    if (method == 34712) return "JPEG 2000";
    if (method == 34887) return "LERC";
    if (method == 34925) return "LZMA";
    if (method == 50000) return "Zstandard";
    if (method == 50001) return "WebP";
    if (method == 50002) return "JPEG XL";
    if (method == 52546) return "JPEG XL";
    return "method " + method;
}

function wordAt(text, at, little) {
    if (little) return charCodeAt(text, at) + 256 * charCodeAt(text, at + 1);
    return 256 * charCodeAt(text, at) + charCodeAt(text, at + 1);
}

function longAt(text, at, little) {
    if (little) return wordAt(text, at, little) + 65536 * wordAt(text, at + 2, little);
    return 65536 * wordAt(text, at, little) + wordAt(text, at + 2, little);
}

// Opens a TIFF and gives its id; 0, and problem says why, when it is none.
function openWhole(path) {
    problem = whyUnreadable(path);
    if (problem != "") return 0;
    before = nImages;
    call("ij.IJ.redirectErrorMessages");
    open(path);
    if (nImages != before + 1) {
        problem = "ImageJ cannot open it";
        return 0;
    }
    return getImageID();
}

// The image that is to be restored: the file that was given, else the image in front.
function inputImage(path) {
    path = cleanPath(path);
    if (path == "") {
        if (nImages == 0) stop("no image is open; open one (File > Open...) and run this again");
        return getImageID();
    }
    id = openWhole(path);
    if (id == 0) stop(path + ": " + problem);
    selectImage(id);
    return id;
}

function plainName(name) {
    dot = lastIndexOf(name, ".");
    if (dot > 0) return substring(name, 0, dot);
    return name;
}

// ---- The same in every macro of this folder: end ----------------------------------------------------------
