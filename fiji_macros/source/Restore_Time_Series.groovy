// CARE bridge: Restore Time Series
//
// Restores the time series in front frame by frame: series of stacks through a 2-D model, series of planes through any
// model, and series too long to be restored at once. One pair of grey levels for all frames keeps brightness comparable;
// the result has 32 bits. A series that ImageJ shows as slices must be told to be one: Image > Properties, frames.
//   run("Restore Time Series", "imp=[movie.tif] model=[/folder/my model.zip] normalizeinput=true percentilebottom=-1 "
//       + "percentiletop=-1 clip=false ntiles=0 blockmultiple=0 overlap=-1 batchsize=1 engine=auto normalization=series "
//       + "output=[] sentinel=[]");

#@ ImagePlus (label="Time series", persist=false) imp
// include: parameters.groovy
#@ String (label="Grey levels of", choices={"series", "frame"}, value="series", required=false, persist=false) normalization
#@ String (label="Save as (empty: do not)", value="", required=false, persist=false) output
// include: services.groovy

attemptToRestore('Restore_Time_Series') {
    checkSeries()
    def result = restoreFrames()
    if (output) saveWhole(result, new File(output))
    result.show()
    def message = "restored ${imp.NFrames} frames of ${nameOf(imp)}, normalization=${normalization}"
    return new Ending(message: output ? "${message}; saved as ${output}" : message, done: imp.NFrames)
}

// ---- Below this line: how the steps above are done; nothing to change for using the script --------------

void checkSeries() {
    if (imp == null) throw new Refused('no image is open; open one (File > Open...) and run this again')
    if (!(normalization in ['series', 'frame'])) throw new Refused("normalization=${normalization} is neither series nor frame")
    if (imp.NFrames == 1)
        throw new Refused("'${nameOf(imp)}' has one frame; say in Image > Properties how many frames it has, or use Restore Image")
}

ImagePlus restoreFrames() {
    boolean together = normalizeInput && normalization == 'series'
    def grey = together ? levels(asSeen(imp), percentileBottom, percentileTop) : null
    def whole = null
    double low = 0, high = 1
    def how = ''
    int frames = imp.NFrames
    for (int t = 1; t <= frames; t++) {
        def frame = asSeen(new Duplicator().run(imp, 1, imp.NChannels, 1, imp.NSlices, t, t))
        frame.title = "frame ${t} of ${imp.title}".toString()
        if (together) frame = scaled(frame, grey)
        def restored = restore(frame, normalizeInput && !together, '')
        if (whole == null) {
            whole = planesLike(restored, frames)
            low = together ? grey[0] : restored.low
            high = together ? grey[1] : restored.high
            how = restored.how
        }
        def stack = restored.image.getStack()
        for (int s = 1; s <= stack.size; s++) whole.pixels[(t - 1) * stack.size + s - 1] = (float[]) stack.getPixels(s)
        IJ.showProgress(t, frames)
    }
    def made = dress(whole, imp, nameOf(imp) + '_restored', low, high)
    tellInfo(made, imp, "restored frame by frame with ${model.name} (${how}, normalization=${normalization} percentiles "
        + "${percentileBottom}-${percentileTop} = grey levels ${low}-${high}, clip=${clip})")
    return made
}

Planes planesLike(Restored restored, int frames) {
    def one = restored.image
    def made = new Planes(width: one.width, height: one.height, channels: one.NChannels, slices: one.NSlices, frames: frames,
        finer: restored.finer)
    made.pixels = new float[one.stackSize * frames][]
    return made
}

// A frame on the scale of the whole series.
ImagePlus scaled(ImagePlus frame, double[] grey) {
    def stack = new ImageStack(frame.width, frame.height)
    for (int s = 1; s <= frame.stackSize; s++) {
        float[] plane = networkPixels(frame.getStack().getProcessor(s), true, grey[0], grey[1], clip)
        if (plane == null)
            throw new Refused("'${frame.title}' has pixels that are not numbers; use Process > Filters > Remove NaNs...")
        stack.addSlice('', plane)
    }
    def made = new ImagePlus(frame.title, stack)
    made.setDimensions(frame.NChannels, frame.NSlices, frame.NFrames)
    return made
}

// include: shared.groovy
// include: ending.groovy
// include: onnx.groovy
