// CARE bridge: restore_channels
//
// Restores the channels of the image in front one by one, each normalized by itself, and puts them together again
// with colours, labels and calibration. The result has 32 bits; channels that are not restored keep their grey levels.
// You need: Fiji with the update site CSBDeep, and models for one channel exported for Fiji (.zip).
// Use it:   change the settings below and press Run, or from another macro
//           runMacro("/folder/restore_channels.ijm", "model=[/folder/mito.zip] channels=1,3");

// include: settings.ijm
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

// include: shared.ijm
