// CARE bridge: Restore Twice
//
// Restores the image in front, and then the result of that once more, with the same model. Both results are shown,
// named ..._once and ..._twice. Normalize again is what pressing the plugin's button twice does; without it the first
// result is fed on as it is. Of a model that also gives an uncertainty only the mean is fed on.
// With and without windows, from Plugins > CARE bridge, and from macros:
//   run("Restore Twice", "imp=[cell.tif] model=[/folder/my model.zip] normalizeinput=true percentilebottom=-1 "
//       + "percentiletop=-1 clip=false ntiles=0 blockmultiple=0 overlap=-1 batchsize=1 engine=auto normalizeagain=true output=[] sentinel=[]");

#@ ImagePlus (label="Image", persist=false) imp
// include: parameters.groovy
#@ Boolean (label="Normalize again before the second time", value=true, required=false, persist=false) normalizeAgain
#@ String (label="Folder to save in (empty: do not)", value="", required=false, persist=false) output
// include: services.groovy

attemptToRestore('Restore_Twice') {
    def once = restore(imp, normalizeInput, nameOf(imp) + '_once').image
    if (output) saveWhole(once, new File(output, once.title + '.tif'))
    def twice = restore(meanChannels(once, imp.NChannels), normalizeAgain, nameOf(imp) + '_twice').image
    if (output) saveWhole(twice, new File(output, twice.title + '.tif'))
    once.show()
    twice.show()
    def message = "restored ${nameOf(imp)} twice; the second time normalized again: ${normalizeAgain}"
    return new Ending(message: output ? "${message}; saved in ${output}" : message, done: 2)
}

// include: shared.groovy
// include: ending.groovy
// include: onnx.groovy
