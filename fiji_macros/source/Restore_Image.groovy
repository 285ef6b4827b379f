// CARE bridge: Restore Image
//
// Restores the image in front with a CARE model, by ONNX Runtime where it is installed, else through the CSBDeep plugin,
// and keeps pixel size and units, slice labels, lookup tables, display range, title. The image itself stays as it is.
// The result has values around 0 to 1 in 32 bits; 16 bits hold the grey levels of the input, rounded and clipped. With
// and without windows, from Plugins > CARE bridge, and from macros (without windows the script needs every option):
//   run("Restore Image", "imp=[cell.tif] model=[/folder/my model.zip] normalizeinput=true percentilebottom=-1 "
//       + "percentiletop=-1 clip=false ntiles=0 blockmultiple=0 overlap=-1 batchsize=1 engine=auto bits=32 output=[] sentinel=[]");
//   selectWindow("cell_restored");

#@ ImagePlus (label="Image", persist=false) imp
// include: parameters.groovy
#@ String (label="Bits of the result", choices={"32", "16"}, value="32", required=false, persist=false) bits
#@ String (label="Save as (empty: do not)", value="", required=false, persist=false) output
// include: services.groovy

attemptToRestore('Restore_Image') {
    def result = restore(imp, normalizeInput, nameOf(imp) + '_restored')
    if (bits == '16') toGreyLevels(result)
    if (output) saveWhole(result.image, new File(output))
    result.image.show()
    def message = "restored ${imp.title}: grey levels ${result.low} to ${result.high} became 0 to 1"
    if (bits == '16') message = "restored ${imp.title}: grey levels kept, ${percent(result.clippedShare)} % of the pixels clipped"
    return new Ending(message: output ? "${message}; saved as ${output}" : message)
}

// include: shared.groovy
// include: ending.groovy
// include: onnx.groovy
