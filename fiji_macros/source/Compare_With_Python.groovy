// CARE bridge: Compare With Python
//
// Restores the image in front and compares it, pixel by pixel, with a file that Python wrote (care-bridge predict MODEL
// IMAGE --rule fiji --dtype float32). Says the largest and the mean difference, where the largest one is, and whether
// both agree within the tolerance; shows the difference. Borders of tiles are the plugin's own: use one. From a macro:
//   run("Compare With Python", "imp=[cell.tif] python=[/out/cell.tif] tolerance=0.0001 model=[/folder/my model.zip] "
//       + "normalizeinput=true percentilebottom=-1 percentiletop=-1 clip=false ntiles=1 blockmultiple=0 "
//       + "overlap=-1 batchsize=1 engine=auto sentinel=[]");

#@ ImagePlus (label="Image", persist=false) imp
#@ File (label="The same image restored by Python (.tif)", style="file", persist=false) python
#@ Double (label="Largest difference that is accepted", value=0.0001, required=false, persist=false) tolerance
// include: parameters.groovy
// include: services.groovy

attemptToRestore('Compare_With_Python') {
    def there = fromPython(python)
    def here = restore(imp, normalizeInput, nameOf(imp) + '_fiji').image
    checkSizes(here, there)
    def compared = compare(here, there)
    compared.image.title = nameOf(imp) + '_difference'
    compared.image.show()
    boolean agree = compared.largest <= tolerance
    def message = "Fiji and Python ${agree ? 'agree' : 'differ'}: largest difference ${compared.largest} at ${compared.where}, "
    message += "mean ${compared.mean}, accepted ${tolerance}"
    return new Ending(message: message, status: agree ? 'done' : 'different')
}

// ---- Below this line: how the steps above are done; nothing to change for using the script --------------

ImagePlus fromPython(File file) {
    if (file == null || !file.exists()) throw new Refused("the file ${file} does not exist; give the one that Python wrote")
    def there = openWhole(file)
    if (there.bitDepth != 32)
        throw new Refused("${file.name} has ${there.bitDepth} bits; write it with --dtype float32, or rounding is compared")
    return there
}

void checkSizes(ImagePlus here, ImagePlus there) {
    def sizes = { image -> [image.width, image.height, image.NChannels, image.NSlices, image.NFrames] }
    if (sizes(here) != sizes(there))
        throw new Refused("Fiji gives ${sizes(here)} (x, y, channels, slices, frames) and ${python.name} has ${sizes(there)}; "
            + 'were both made from this image?')
}

// The difference as an image, its largest absolute value and where that is, and the mean of the absolute values.
Map compare(ImagePlus here, ImagePlus there) {
    def stack = new ImageStack(here.width, here.height)
    double largest = 0, sum = 0
    def where = 'x=0 y=0 plane=1'
    for (int s = 1; s <= here.stackSize; s++) {
        float[] plane = difference((float[]) here.getStack().getPixels(s), (float[]) there.getStack().getPixels(s))
        stack.addSlice(here.getStack().getSliceLabel(s), plane)
        double[] found = extreme(plane)
        sum += found[2]
        if (found[0] > largest || Double.isNaN(found[0])) {
            largest = found[0]
            where = "x=${((int) found[1]) % here.width} y=${((int) found[1]).intdiv(here.width)} plane=${s}"
        }
    }
    def image = new ImagePlus('', stack)
    image.setDimensions(here.NChannels, here.NSlices, here.NFrames)
    image.calibration = here.calibration
    image.setDisplayRange(-tolerance, tolerance)
    return [image: image, largest: largest, where: where, mean: sum / ((double) here.width * here.height * here.stackSize)]
}

@CompileStatic
float[] difference(float[] here, float[] there) {
    float[] made = new float[here.length]
    for (int i = 0; i < here.length; i++) made[i] = (float) (here[i] - there[i])
    return made
}

// Largest absolute value, its place, and the sum of absolute values.
@CompileStatic
double[] extreme(float[] plane) {
    double[] found = new double[3]
    for (int i = 0; i < plane.length; i++) {
        double value = Math.abs((double) plane[i])
        found[2] += value
        if (value > found[0] || Double.isNaN(value)) {
            found[0] = value
            found[1] = i
        }
    }
    return found
}

// include: shared.groovy
// include: ending.groovy
// include: onnx.groovy
