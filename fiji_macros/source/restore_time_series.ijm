// CARE bridge: restore_time_series
//
// Restores the time series in front frame by frame: for series of stacks through a 2-D model, series of planes
// through any model, and series too long to be restored at once. Everything else is kept; the result has 32 bits.
// A series that ImageJ shows as a stack of slices must be told to be one: Image > Properties, frames.
// You need: Fiji with the update site CSBDeep, and a model exported for Fiji (a .zip).
// Use it:   change the settings below and press Run, or from another macro
//           runMacro("/folder/restore_time_series.ijm", "model=[/folder/my model.zip] normalization=frame");

// include: settings.ijm
var normalization = "series";  // one pair of grey levels for all, so that brightness stays comparable; or "frame"
var input = "";                // file to open; empty takes the image in front
var output = "";               // file to save; empty leaves the result open

readSettings("restore_time_series", newArray("normalization", "input", "output"));
normalization = checkedNormalization(setting("normalization", normalization));
output = cleanPath(setting("output", output));
setBatchMode(true);
source = inputImage(setting("input", input));
name = plainName(getTitle());
series = checkedSeries(source, name);
whole = floatCopy(series, "care_whole");
getDimensions(width, height, channels, slices, frames);
for (frame = 1; frame <= frames; frame++) {
    showProgress(frame, frames);
    restoreFrame(series, whole, frame, channels * slices);
}
closeImage(series);
nameAndShow(whole, source, name + "_restored");
saveResult(whole, output);
finish("restored " + frames + " frames of " + name + ", normalization=" + normalization, frames, "saved as", output);

// ---- Below this line: how the steps above are done; nothing to change for using the macro ---------------

var firstLow = 0;                // grey levels that became 0 and 1 in the first frame
var firstHigh = 1;

function checkedNormalization(text) {
    text = toLowerCase(text);
    if (text != "series") {
        if (text != "frame") stop("normalization=" + text + " is neither series nor frame");
    }
    return text;
}

// A copy of the series; with normalization=series its percentiles are measured here, once for all frames.
function checkedSeries(source, name) {
    getDimensions(width, height, channels, slices, frames);
    if (frames == 1)
        stop("'" + name + "' has one frame; say in Image > Properties how many frames it has, or use restore_image");
    if (bitDepth() == 24) stop("'" + name + "' is an RGB series; use Image > Type > 8-bit");
    run("Select None");
    run("Duplicate...", "title=" + freeTitle("care_series") + " duplicate");
    series = getImageID();
    if (bitDepth() != 32) {
        if (calibrate(1) != 1) run("32-bit");
    }
    if (normalize == "true") {
        if (normalization == "series") {
            measurePercentiles(bottom, top);
            seriesLow = low;
            seriesHigh = high;
        }
    }
    return series;
}

// Restores one frame of the series and puts it in its place in a 32-bit copy.
function restoreFrame(series, whole, frame, planes) {
    if (!isOpen(series)) stop("the series was closed after " + (frame - 1) + " frames; open it and run this again");
    selectImage(series);
    first = (frame - 1) * planes + 1;
    // Which of the two keys ImageJ reads depends on whether the series is shown as a hyperstack.
    run("Duplicate...", "title=care_frame duplicate frames=" + frame + " range=" + first + "-" + (first + planes - 1));
    one = getImageID();
    restored = restore(one, "care_frame_restored");
    closeImage(one);
    stopIfFailed("frame " + frame + ": ");
    selectImage(restored);
    if (nSlices != planes) stop("frame " + frame + ": the model gives " + nSlices + " planes for " + planes
        + "; use restore_image for one frame");
    copyPlanes(whole, restored, first, 1);
    closeImage(restored);
    if (frame == 1) {
        firstLow = low;
        firstHigh = high;
    }
}

function nameAndShow(whole, source, title) {
    selectImage(source);
    getMinAndMax(least, most);
    selectImage(whole);
    getDimensions(width, height, channels, slices, frames);
    range = maxOf(firstHigh - firstLow, 0.0000001);
    if (channels == 1) setMinAndMax((least - firstLow) / range, (most - firstLow) / range);
    rename(title);
    addInfo("restored frame by frame with " + File.getName(model) + ", normalization=" + normalization + " percentiles "
        + bottom + "-" + top + " = grey levels " + firstLow + "-" + firstHigh + " in frame 1, clip=" + clip + " ntiles="
        + nTiles + " blockmultiple=" + blockMultiple + " overlap=" + overlap);
}

// include: shared.ijm
