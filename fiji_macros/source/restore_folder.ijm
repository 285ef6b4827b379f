// CARE bridge: restore_folder
//
// Restores all TIFF images of a folder and its sub-folders. Goes on after a bad file, skips what is done already
// (so it can be stopped and started again), asks nothing, and never changes an input file. Beside the results:
// care_log.csv, care_failures.txt and care_summary.txt. In Fiji without a window use the script Restore_Folder.
// You need: Fiji with the update site CSBDeep, and a model exported for Fiji (a .zip).
// Use it:   change the settings below and press Run, or from another macro
//           runMacro("/folder/restore_folder.ijm", "model=[/m/my model.zip] input=[/in] output=[/out] bits=16");

// include: settings.ijm
var input = "";                // folder with the images
var output = "";               // folder for the results, outside of the other
var pattern = "*.tif;*.tiff";  // which files; * stands for anything
var recursive = "true";        // sub-folders too
var overwrite = "false";       // restore again what is done already
var applications = 1;          // 2 restores the result once more
var normalizeAgain = "true";   // for applications=2
var bits = 32;                 // 16 gives back the grey levels of the input, rounded and clipped

readFolderSettings();
prepareFolder();
openBefore = openImages();
findFiles("");
startLog();
for (i = 0; i < found.length; i++) {
    showProgress(i, found.length);
    restoreOrSkip(found[i], output + "/" + plainName(found[i]) + ".tif");
    closeAllBut(openBefore);
}
finishLog();
setBatchMode(false);

// ---- Below this line: how the steps above are done; nothing to change for using the macro ---------------

var found = newArray(0);         // files to restore, by their paths from the input folder
var logFile = "";
var failures = "";
var filesDone = 0;
var filesSkipped = 0;
var filesFailed = 0;

function readFolderSettings() {
    readSettings("restore_folder", newArray("input", "output", "pattern", "recursive", "overwrite", "applications",
        "normalizeagain", "bits"));
    input = cleanPath(setting("input", input));
    output = cleanPath(setting("output", output));
    pattern = setting("pattern", pattern);
    recursive = booleanSetting("recursive", recursive);
    overwrite = booleanSetting("overwrite", overwrite);
    applications = wholeSetting("applications", applications, 1);
    normalizeAgain = booleanSetting("normalizeagain", normalizeAgain);
    bits = bitsSetting(bits);
    if (input == "") stop("no folder: give input=[/folder] and output=[/folder]");
    if (output == "") stop("no folder for the results: give output=[/folder]");
    if (!File.isDirectory(input)) stop("the folder " + input + " does not exist; look for the one with the images");
    if (toLowerCase(input) == toLowerCase(output))
        stop("the results would overwrite the images in " + input + "; give another folder as output=[/folder]");
}

// Makes the folder for the results, tries to write there, and refuses one whose results have other settings.
function prepareFolder() {
    setBatchMode(true);
    makeFolder(output);
    stopIfFailed("");
    newImage("care_probe", "8-bit", 8, 8, 1);
    probe = getImageID();
    saveWhole(probe, output + "/care_probe.tif");
    closeImage(probe);
    stopIfFailed("");
    ok = File.delete(output + "/care_probe.tif");
    if (File.exists(output + "/care_part.tif")) ok = File.delete(output + "/care_part.tif");
    settings = "model=" + File.getName(model) + " size=" + fileLength(model) + " normalizeinput=" + normalize + " percentiles="
        + bottom + "-" + top + " clip=" + clip + " ntiles=" + nTiles + " blockmultiple=" + blockMultiple + " overlap=" + overlap
        + " batchsize=" + batchSize + " applications=" + applications + " normalizeagain=" + normalizeAgain + " bits=" + bits;
    settingsFile = output + "/care_settings.txt";
    if (File.exists(settingsFile)) {
        before = String.trim(File.openAsString(settingsFile));
        if (before != settings) {
            if (overwrite == "false") stop("the results in " + output + " were made with other settings (care_settings.txt); "
                + "give another folder, or overwrite=true");
        }
    }
    File.saveString(settings + "\n", settingsFile);
}

function startLog() {
    Array.sort(found);
    if (found.length == 0) stop("there is no file like " + pattern + " in " + input + "; give another pattern=");
    logFile = output + "/care_log.csv";
    failures = output + "/care_failures.txt";
    if (!File.exists(logFile))
        File.append("file,status,seconds,percentile_bottom,percentile_top,level_bottom,level_top,minimum,maximum,message", logFile);
    File.saveString("", failures);
    say("restoring " + found.length + " files of " + input + " into " + output);
}

function restoreOrSkip(name, target) {
    started = getTime();
    if (isDone(target)) {
        filesSkipped++;
        logLine(name, "skipped", started, 0, 0, "done before");
        return;
    }
    resultId = restoreFile(input + "/" + name, target);
    if (problem != "") {
        filesFailed++;
        low = 0;
        high = 0;
        logLine(name, "failed", started, 0, 0, problem);
        File.append(name + ": " + problem, failures);
        say("" + name + ": " + problem);
        return;
    }
    filesDone++;
    least = 0;
    most = 0;
    if (isOpen(resultId)) {
        selectImage(resultId);
        least = 1 / 0;
        most = -1 / 0;
        for (s = 1; s <= nSlices; s++) {
            if (nSlices > 1) setSlice(s);
            getStatistics(area, mean, darkest, brightest);
            least = minOf(least, darkest);
            most = maxOf(most, brightest);
        }
    }
    note = "";
    if (bits == 16) note = clippedPercent() + " % of the pixels clipped; restored value = (grey level - "
        + d2s(countsOffset, 4) + ") / " + d2s(countsScale, 4);
    logLine(name, "done", started, least, most, note);
}

function finishLog() {
    summary = "" + found.length + " found, " + filesDone + " restored, " + filesSkipped + " skipped, " + filesFailed + " failed";
    File.saveString(summary + "\n", output + "/care_summary.txt");
    say(summary + "; see " + logFile);
    status = "done";
    if (filesFailed > 0) status = "done with failures";
    writeSentinel(status, summary, filesDone, filesSkipped, filesFailed);
}

function restoreFile(path, target) {
    problem = "";
    countsScale = 1;
    countsOffset = 0;
    clippedShare = 0;
    keep = normalize;
    source = openWhole(path);
    if (source == 0) return 0;
    title = getTitle();
    getDimensions(width, height, channels, slices, frames);
    result = restore(source, title);
    if (result == 0) return 0;
    lowFirst = low;
    highFirst = high;
    for (a = 2; a <= applications; a++) {
        between = meanChannels(result, channels);
        normalize = normalizeAgain;
        result = restore(between, title);
        normalize = keep;
        if (result == 0) return 0;
        closeImage(between);
    }
    low = lowFirst;
    high = highFirst;
    if (bits == 16) toGreyLevels(result);
    if (problem != "") return 0;
    saveWhole(result, target);
    return result;
}

function openImages() {
    ids = newArray(0);
    for (k = 1; k <= nImages; k++) {
        selectImage(k);
        ids = Array.concat(ids, newArray("" + getImageID()));
    }
    return ids;
}

// What was open before this macro is somebody's work, perhaps not saved.
function closeAllBut(kept) {
    ids = openImages();
    for (k = 0; k < ids.length; k++)
        if (indexIn(kept, ids[k]) < 0) closeImage(parseInt(ids[k]));
}

function isDone(target) {
    if (overwrite == "true") return false;
    if (File.exists(target)) return true;
    return false;
}

function logLine(file, status, started, least, most, message) {
    line = "" + quoted(file) + "," + status + "," + d2s((getTime() - started) / 1000, 3) + "," + bottom + "," + top + ",";
    if (status == "done") line = line + d2s(low, -6) + "," + d2s(high, -6) + "," + d2s(least, -6) + "," + d2s(most, -6) + ",";
    else line = line + ",,,,";
    File.append(line + quoted(message), logFile);
}

function quoted(text) {
    return "\"" + replace(text, "\"", "'") + "\"";
}

// Fills found with the files below a sub-folder, by their paths from the input folder.
function findFiles(below) {
    files = getFileList(input + "/" + below);
    Array.sort(files);
    for (f = 0; f < files.length; f++) {
        if (endsWith(files[f], "/")) {
            if (recursive == "true") {
                if (input + "/" + below + files[f] != output + "/") findFiles(below + files[f]);
            }
        } else if (fits(files[f])) {
            found = Array.concat(found, newArray(below + files[f]));
        }
    }
}

function fits(name) {
    if (startsWith(name, ".")) return false;
    patterns = split(toLowerCase(pattern), ";");
    for (p = 0; p < patterns.length; p++)
        if (matches(toLowerCase(name), expression(String.trim(patterns[p])))) return true;
    return false;
}

function expression(wild) {
    made = "";
    for (c = 0; c < lengthOf(wild); c++) {
        letter = substring(wild, c, c + 1);
        if (letter == "*") made = made + ".*";
        else if (letter == "?") made = made + ".";
        else if (indexOf("\\.[]{}()+-^$|", letter) >= 0) made = made + "\\" + letter;
        else made = made + letter;
    }
    return made;
}

// include: shared.ijm
