// CARE bridge: Restore
//
// Restores the image in front: choose a model, OK. Percentiles, tiles and overlap are the model's own; Restore Image has
// all options. Models are the .zip files in the folder models/CARE_bridge of this Fiji. The image itself stays as it is.
// From macros and without windows the model is a name, or a file anywhere:
//   run("Restore", "imp=[cell.tif] model=[my model] output=[] sentinel=[]");
//   selectWindow("cell_restored");

#@ ImagePlus (label="Image", persist=false) imp
// include: hidden.groovy
#@ String (label="Save as", value="", visibility="INVISIBLE", required=false, persist=false) output
// include: services.groovy

attemptToRestore('Restore', true) {
    def result = restore(imp, normalizeInput, nameOf(imp) + '_restored')
    if (output) saveWhole(result.image, new File(output))
    result.image.show()
    def message = "restored ${imp.title} with ${model.name}: grey levels ${result.low} to ${result.high} became 0 to 1"
    return new Ending(message: output ? "${message}; saved as ${output}" : message)
}

// include: shared.groovy
// include: ending.groovy
// include: onnx.groovy
