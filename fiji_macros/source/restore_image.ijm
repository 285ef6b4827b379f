// CARE bridge: restore_image
//
// Restores the image in front with a CARE model through the CSBDeep plugin ("Run your network") and keeps what
// the plugin loses: pixel size and units, slice labels, lookup tables, display range. The image itself stays as
// it is. The result has values around 0 to 1 in 32 bits; bits=16 gives back the grey levels of the input.
//
// You need: Fiji with the update site CSBDeep, and a model exported for Fiji (a .zip).
// Use it:   change the settings below and press Run, or from another macro
//           runMacro("/folder/restore_image.ijm", "model=[/folder/my model.zip] ntiles=4 overlap=48");

// include: settings.ijm
var input = "";                // file to open; empty takes the image in front
var output = "";               // file to save; empty leaves the result open
var bits = 32;

readSettings("restore_image", newArray("input", "output", "bits"));
output = cleanPath(setting("output", output));
bits = bitsSetting(bits);
setBatchMode(true);
source = inputImage(setting("input", input));
name = plainName(getTitle());
restored = restore(source, name + "_restored");
stopIfFailed("");
if (bits == 16) toGreyLevels(restored);
stopIfFailed("");
saveResult(restored, output);
message = "restored " + getTitle() + ": grey levels " + low + " to " + high + " became 0 to 1";
if (bits == 16) message = "restored " + getTitle() + ": grey levels kept, " + clippedPercent() + " % of the pixels clipped";
finish(message, 1, "saved as", output);

// include: shared.ijm
