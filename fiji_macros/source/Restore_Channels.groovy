// CARE bridge: Restore Channels
//
// Restores the channels of the image in front one by one, each normalized by itself, and puts them together again with
// colours, labels and calibration. The result has 32 bits; channels that are not restored keep their grey levels. Models
// are for one channel; where several are named, with ; between, one for each channel that is restored.
//   run("Restore Channels", "imp=[cell.tif] model=[/folder/mito.zip] normalizeinput=true percentilebottom=-1 percentiletop=-1 "
//       + "clip=false ntiles=0 blockmultiple=0 overlap=-1 batchsize=1 engine=auto channels=1,3 models=[] output=[] sentinel=[]");

#@ ImagePlus (label="Image", persist=false) imp
// include: parameters.groovy
#@ String (label="Channels (all, or 1,3)", value="all", required=false, persist=false) channels
#@ String (label="Models, with ; between (empty: the one above)", value="", required=false, persist=false) models
#@ String (label="Save as (empty: do not)", value="", required=false, persist=false) output
// include: services.groovy

attemptToRestore('Restore_Channels') {
    def wanted = wantedChannels()
    def result = restoreChannels(wanted)
    if (output) saveWhole(result, new File(output))
    result.show()
    def message = "restored ${wanted.size()} of ${imp.NChannels} channels of ${nameOf(imp)}"
    return new Ending(message: output ? "${message}; saved as ${output}" : message, done: wanted.size())
}

// ---- Below this line: how the steps above are done; nothing to change for using the script --------------

// The number of each channel that is wanted, and its model.
Map<Integer, File> wantedChannels() {
    if (imp == null) throw new Refused('no image is open; open one (File > Open...) and run this again')
    if (imp.type == ImagePlus.COLOR_RGB)
        throw new Refused("'${imp.title}' is an RGB image; use Image > Color > Make Composite first")
    def numbers = (1..imp.NChannels).toList()
    if (channels.trim().toLowerCase() != 'all') {
        def given = channels.split(',')*.trim()
        if (!given.every { it.isInteger() }) throw new Refused("channels=${channels} is no list of numbers; write channels=1,3")
        if (!given.every { numbers.contains(it as int) })
            throw new Refused("channels=${channels}: '${imp.title}' has channels 1 to ${imp.NChannels}")
        numbers = given.collect { it as int }
    }
    def files = models.trim() ? models.split(';').collect { new File(it.trim()) } : [model]
    if (files.size() > 1 && files.size() != numbers.size())
        throw new Refused("models= names ${files.size()} models for ${counted(numbers.size(), 'channel')}; give one for each")
    return numbers.withIndex().collectEntries { number, at -> [number, files[Math.min(at, files.size() - 1)]] }
}

ImagePlus restoreChannels(Map<Integer, File> wanted) {
    int count = imp.NChannels, planes = imp.NSlices * imp.NFrames
    def whole = new Planes(width: imp.width, height: imp.height, channels: count, slices: imp.NSlices, frames: imp.NFrames)
    whole.pixels = new float[count * planes][]
    for (int s = 0; s < whole.pixels.length; s++)
        if (!wanted.containsKey(s % count + 1))
            whole.pixels[s] = (float[]) imp.getStack().getProcessor(s + 1).convertToFloatProcessor().getPixels()
    def restored = [:], told = []
    wanted.each { number, file ->
        model = file
        checkSettings()
        def one = new Duplicator().run(imp, number, number, 1, imp.NSlices, 1, imp.NFrames)
        one.title = "channel ${number} of ${imp.title}".toString()
        def result = restore(one, normalizeInput, '')
        if (result.image.stackSize != planes)
            throw new Refused("channel ${number}: the model gives ${result.image.stackSize} planes for ${planes}; use Restore Image")
        for (int p = 0; p < planes; p++) whole.pixels[p * count + number - 1] = (float[]) result.image.getStack().getPixels(p + 1)
        restored[number] = result
        told << ("channel ${number} restored with ${model.name} (${result.how}, percentiles ${percentileBottom}-${percentileTop} = "
            + "grey levels ${result.low}-${result.high}, clip=${clip})").toString()
    }
    def made = dress(whole, imp, nameOf(imp) + '_restored', 0, 1)
    def luts = imp.luts
    restored.each { number, result ->
        double range = Math.max(result.high - result.low, 1e-7)
        def lut = luts.length >= number ? luts[number - 1] : null
        double darkest = lut != null && count > 1 ? lut.min : imp.displayRangeMin
        double brightest = lut != null && count > 1 ? lut.max : imp.displayRangeMax
        show(made, number, count, lut, (darkest - result.low) / range, (brightest - result.low) / range)
    }
    tellInfo(made, imp, told.join('; '))
    return made
}

// include: shared.groovy
// include: ending.groovy
// include: onnx.groovy
