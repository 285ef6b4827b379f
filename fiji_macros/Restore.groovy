// CARE bridge: Restore
//
// Restores the image in front: choose a model, OK. Percentiles, tiles and overlap are the model's own; Restore Image has
// all options. Models are the .zip files in the folder models/CARE_bridge of this Fiji. The image itself stays as it is.
// From macros and without windows the model is a name, or a file anywhere:
//   run("Restore", "imp=[cell.tif] model=[my model] output=[] sentinel=[]");
//   selectWindow("cell_restored");

#@ ImagePlus (label="Image", persist=false) imp
#@ File (label="Model", style="file", visibility="INVISIBLE", required=false, persist=false) model
#@ Boolean (label="Normalize first", value=true, visibility="INVISIBLE", required=false, persist=false) normalizeInput
#@ Double (label="Bottom percentile", value=-1.0, visibility="INVISIBLE", required=false, persist=false) percentileBottom
#@ Double (label="Top percentile", value=-1.0, visibility="INVISIBLE", required=false, persist=false) percentileTop
#@ Boolean (label="Clip", value=false, visibility="INVISIBLE", required=false, persist=false) clip
#@ Integer (label="Tiles", value=0, visibility="INVISIBLE", required=false, persist=false) nTiles
#@ Integer (label="Tile size", value=0, visibility="INVISIBLE", required=false, persist=false) blockMultiple
#@ Integer (label="Overlap", value=-1, visibility="INVISIBLE", required=false, persist=false) overlap
#@ Integer (label="Batch size", value=1, visibility="INVISIBLE", required=false, persist=false) batchSize
#@ String (label="Engine", value="auto", visibility="INVISIBLE", required=false, persist=false) engine
#@ String (label="Save as", value="", visibility="INVISIBLE", required=false, persist=false) output
#@ String (label="Sentinel file (empty: none)", value="", visibility="INVISIBLE", required=false, persist=false) sentinel
#@ CommandService command
#@ PrefService prefs
#@ DatasetService datasets

attemptToRestore('Restore', true) {
    def result = restore(imp, normalizeInput, nameOf(imp) + '_restored')
    if (output) saveWhole(result.image, new File(output))
    result.image.show()
    def message = "restored ${imp.title} with ${model.name}: grey levels ${result.low} to ${result.high} became 0 to 1"
    return new Ending(message: output ? "${message}; saved as ${output}" : message)
}

// ---- The same in every script of this folder: begin (how it is done; from source/shared.groovy, by make macros) 

import groovy.transform.CompileStatic
import groovy.transform.Field
import ij.CompositeImage
import ij.IJ
import ij.gui.GenericDialog
import ij.ImagePlus
import ij.ImageStack
import ij.Prefs
import ij.io.FileInfo
import ij.io.FileSaver
import ij.io.Opener
import ij.plugin.Duplicator
import ij.process.ImageProcessor
import ij.process.LUT
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer
import java.nio.file.Files
import java.nio.file.StandardCopyOption
import java.security.MessageDigest
import java.util.zip.ZipFile
import net.imglib2.RandomAccess
import net.imglib2.RandomAccessibleInterval
import net.imglib2.type.numeric.RealType

// What can be said about an image that was restored; grey level of the input = scale * restored value + offset.
class Restored {
    ImagePlus image
    double low = 0
    double high = 1
    double scale = 1
    double offset = 0
    double finer = 1
    double clippedShare = 0
    String how = ''
}

// The percentiles as they were given, before -1 was exchanged for those of a model.
@Field List<Double> percentilesGiven = null

// `attempt` with a model that is there and an engine that runs it.
void attemptToRestore(String script, boolean mayAsk = false, Closure<Ending> steps) {
    attempt(script) {
        try {
            if (mayAsk) askForModel()
            checkSettings()
            engineOf(model)
            def ending = steps()
            if (ending.status != 'failed') enginesTold.each { say(it) }
            return ending
        } finally {
            closeOnnx()
        }
    }
}

Class pluginCommand() {
    try {
        return getClass().classLoader.loadClass('de.csbdresden.csbdeep.commands.GenericNetwork')
    } catch (ClassNotFoundException e) {
        throw new Refused('the CSBDeep plugin is not installed; Help > Update... > Manage Update Sites > CSBDeep')
    }
}

// Each model of the folder with what it restores, as its zip says.
List<String> modelsThere() {
    def zips = (modelsFolder().listFiles() ?: []).findAll { it.name.toLowerCase().endsWith('.zip') && it.isFile() }
    return zips.sort { it.name }.collect { file ->
        def restores = ''
        try {
            def zip = new ZipFile(file)
            try {
                def said = zip.getEntry('care_bridge.json')
                if (said != null) restores = ((Map) new Json(zip.getInputStream(said).getText('UTF-8')).value()).restores ?: ''
            } finally {
                zip.close()
            }
        } catch (Exception e) {
            restores = 'cannot be read; copy it again'
        }
        (plainName(file.name) + (restores ? ' - ' + restores : '')).toString()
    }
}

// Shows the models by name where none was given and there are windows.
void askForModel() {
    if (model != null) return
    def names = modelsThere()
    if (!names)
        throw new Refused("there is no model in ${modelsFolder()}; put one there (a .zip exported for Fiji), or give it as model")
    if (java.awt.GraphicsEnvironment.isHeadless() || ij.macro.Interpreter.isBatchMode())
        throw new Refused("no model was given; there are ${names.join(', ')}")
    def dialog = new GenericDialog('CARE bridge: Restore')
    dialog.addChoice('Model', names as String[], names[0])
    dialog.showDialog()
    if (dialog.wasCanceled()) throw new Refused('no model was chosen')
    model = modelNamed(dialog.getNextChoice())
}

void checkSettings() {
    if (model == null) throw new Refused('no model: give the .zip that was exported for Fiji')
    if (!model.exists()) model = modelNamed(model.name) ?: model
    if (!model.exists()) throw new Refused("the model ${model} does not exist; look for the .zip that was exported for Fiji")
    if (model.isDirectory()) throw new Refused("the model ${model} is a folder; give the .zip that was exported for Fiji")
    if (!model.name.toLowerCase().endsWith('.zip'))
        throw new Refused("the model ${model} is no .zip; give the one that was exported for Fiji")
    if (percentilesGiven == null) percentilesGiven = [percentileBottom, percentileTop]
    (percentileBottom, percentileTop) = percentilesGiven
    if (percentileBottom == -1 || percentileTop == -1) takeTheModelsPercentiles()
    if (!(percentileBottom >= 0 && percentileBottom < percentileTop && percentileTop <= 100))
        throw new Refused("percentiles ${percentileBottom} and ${percentileTop}: give two from 0 to 100, the lower one first")
    if (nTiles < 0 || blockMultiple < 0 || overlap < -1 || batchSize < 1)
        throw new Refused('batchSize starts at 1, nTiles and blockMultiple at 0, overlap at -1')
    if (!(engine in ['auto', 'onnx', 'plugin'])) throw new Refused("engine=${engine} is none of auto, onnx and plugin")
}

// -1 stands for the percentiles that the model states in its meta.json; the plugin's defaults where it states none.
void takeTheModelsPercentiles() {
    def own = [pmin: 3.0d, pmax: 99.8d]
    def block = (metaOf(model) =~ /"normalisation"\s*:\s*\{([^}]*)\}/)
    def stated = block.find() ? block.group(1) : ''
    own.keySet().toList().each { name ->
        def number = (stated =~ ('"' + name + '"\\s*:\\s*([-+.0-9eE]+)'))
        if (number.find()) own[name] = number.group(1) as double
    }
    if (percentileBottom == -1) percentileBottom = own.pmin
    if (percentileTop == -1) percentileTop = own.pmax
}

// The text of a model's meta.json; empty where it has none.
String metaOf(File file) {
    try {
        def zip = new ZipFile(file)
        try {
            def entry = zip.getEntry('meta.json')
            return entry == null ? '' : zip.getInputStream(entry).getText('UTF-8')
        } finally {
            zip.close()
        }
    } catch (IOException e) {
        throw new Refused("the model ${file} cannot be read (${e.message}); copy it again")
    }
}

// Whether a model has its scale in it (Noise2Void) and takes grey levels as they are, whatever is ticked.
boolean takesGreyLevels(File file) {
    return (metaOf(file) =~ /"normalizeInput"\s*:\s*false/).find()
}

// The plugin's percentile: nearest rank in single precision, all planes together.
@CompileStatic
int rankOf(double percentile, int pixels) {
    float product = (float) ((double) (float) (pixels - 1) * (double) (float) percentile)
    int rank = (int) Math.floor((double) (float) ((double) product / 100.0d) + 0.5d)
    return Math.max(0, Math.min(rank, pixels - 1))
}

@CompileStatic
double[] levels(ImagePlus image, double bottom, double top) {
    ImageStack stack = image.getStack()
    long pixels = (long) image.getWidth() * image.getHeight() * stack.getSize()
    int low = rankOf(bottom, (int) pixels)
    int high = rankOf(top, (int) pixels)
    if (image.getBitDepth() < 32) {
        long[] histogram = new long[65536]
        for (int s = 1; s <= stack.getSize(); s++) {
            ImageProcessor plane = stack.getProcessor(s)
            for (int i = 0; i < plane.getPixelCount(); i++) histogram[plane.get(i)]++
        }
        double[] found = new double[2]
        long below = 0
        boolean lowDone = false
        for (int v = 0; v < 65536; v++) {
            below += histogram[v]
            if (!lowDone && below > low) {
                found[0] = v
                lowDone = true
            }
            if (below > high) {
                found[1] = v
                return found
            }
        }
        return found
    }
    float[] all = new float[(int) pixels]
    int size = image.getWidth() * image.getHeight()
    for (int s = 1; s <= stack.getSize(); s++)
        System.arraycopy(stack.getProcessor(s).getPixels(), 0, all, (s - 1) * size, size)
    Arrays.parallelSort(all)
    return [(double) all[low], (double) all[high]] as double[]
}

// Signed 16-bit and other calibrated grey levels: the plugin would see the raw numbers in the file.
@CompileStatic
ImagePlus asSeen(ImagePlus image) {
    if (!image.getCalibration().calibrated() || image.getBitDepth() == 32) return image
    ImageStack seen = new ImageStack(image.getWidth(), image.getHeight())
    for (int s = 1; s <= image.getStackSize(); s++) {
        ImageProcessor plane = image.getStack().getProcessor(s)
        plane.setCalibrationTable(image.getCalibration().getCTable())
        seen.addSlice(plane.convertToFloatProcessor())
    }
    ImagePlus made = new ImagePlus(image.getTitle(), seen)
    made.setDimensions(image.getNChannels(), image.getNSlices(), image.getNFrames())
    return made
}

@CompileStatic
float[] planeOf(RandomAccessibleInterval<? extends RealType<?>> image, int x, int y, long[] position, int width, int height) {
    float[] plane = new float[width * height]
    RandomAccess<? extends RealType<?>> access = image.randomAccess()
    access.setPosition(position)
    int at = 0
    for (int row = 0; row < height; row++) {
        access.setPosition((long) row, y)
        access.setPosition(0L, x)
        for (int column = 0; column < width; column++) {
            plane[at++] = access.get().getRealFloat()
            access.fwd(x)
        }
    }
    return plane
}

// Restores an image into a new one; Refused says why where the engine gives nothing. Everything that the plugin
// loses is kept: calibration, units, labels, lookup tables, display range, title.
Restored restore(ImagePlus source, boolean normalize, String title) {
    if (source == null) throw new Refused('no image is open; open one (File > Open...) and run this again')
    if (source.width == 0 || source.processor == null)
        throw new Refused('the image was closed before it could be restored; open it and run this again')
    if (source.type == ImagePlus.COLOR_RGB)
        throw new Refused("'${source.title}' is an RGB image; use Image > Type > 8-bit, or Image > Color > Make Composite "
            + 'where the model has three channels')
    if ((long) source.width * source.height * source.stackSize > Integer.MAX_VALUE)
        throw new Refused("'${source.title}' has more than ${Integer.MAX_VALUE} pixels, which the plugin cannot take; "
            + 'restore it in parts')
    def chosen = engineOf(model)
    def seen = asSeen(source)
    def result = new Restored()
    if (chosen == 'onnx') seen = asItsKindSeesIt(openOnnx(model), seen)
    if (normalize && takesGreyLevels(model)) {
        IJ.log("${model.name} takes grey levels as they are, its scale is in it: nothing is normalized")
        normalize = false
    }
    if (normalize) {
        def found = levels(seen, percentileBottom, percentileTop)
        result.low = found[0]
        result.high = found[1]
    }
    def how
    Planes planes
    if (chosen == 'onnx') {
        def net = openOnnx(model)
        planes = runOnnx(net, seen, normalize, result.low, result.high)
        if (net.about.kind == 'UpsamplingCARE' && net.about.factor) planes.finer = (double) net.about.factor
        result.finer = planes.finer
        how = "${net.runtime}, tiles=${net.tiles}"
    } else {
        def tiles = [nTiles ?: 8, blockMultiple ?: 32, overlap < 0 ? 32 : overlap]
        planes = runPlugin(source.title, seen, normalize, tiles)
        how = "CSBDeep plugin, nTiles=${tiles[0]} blockMultiple=${tiles[1]} overlap=${tiles[2]}"
    }
    result.image = dress(planes, source, title, result.low, result.high)
    result.scale = normalize ? result.high - result.low : 1
    result.offset = normalize ? result.low : 0
    result.how = how
    tellInfo(result.image, source, "restored with ${model.name} (${how}, normalizeInput=${normalize} percentiles "
        + "${percentileBottom}-${percentileTop} = grey levels ${result.low}-${result.high}, clip=${clip})")
    return result
}

// What was done, in Image > Show Info... behind what the source says there.
void tellInfo(ImagePlus made, ImagePlus source, String done) {
    def info = source.getInfoProperty() ?: ''
    if (info && !info.endsWith('\n')) info += '\n'
    def limit = info.contains('intensity-based quantification') ? '' : '; not for intensity-based quantification'
    made.setProperty('Info', info + 'CARE bridge: ' + done + limit)
}

// ---- The engine plugin: "Run your network" of CSBDeep

Planes runPlugin(String name, ImagePlus seen, boolean normalize, List<Integer> tiles) {
    def network = pluginCommand()
    // A converted image keeps its old pixels after a crop; this one is fresh, and ignores the selection.
    def dataset = datasets.create(fijis('net.imglib2.img.ImagePlusAdapter').wrapImgPlus(seen))
    def output = null
    // The plugin remembers its last model, and takes it where another way to call it is used.
    prefs.clear(network)
    try {
        output = command.run(network, false,
            'input', dataset, 'modelFile', model, 'normalizeInput', normalize,
            'percentileBottom', (float) percentileBottom, 'percentileTop', (float) percentileTop, 'clip', clip,
            'nTiles', tiles[0], 'blockMultiple', tiles[1], 'overlap', tiles[2], 'batchSize', batchSize,
            'showProgressDialog', false).get()?.getOutput('output')
    } finally {
        prefs.clear(network)
    }
    if (output == null)
        throw new Refused("the plugin gave no result for '${name}' (its own reason is in the console): is the "
            + 'model made for such images (planes or stacks, number of channels)?')
    return planesOf(output)
}

// A class that only a whole Fiji has; plain ImageJ with the engine onnx does without.
Class fijis(String name) {
    return getClass().classLoader.loadClass(name)
}

Planes planesOf(output) {
    def axes = fijis('net.imagej.axis.Axes')
    def axis = [X: axes.X, Y: axes.Y, C: axes.CHANNEL, Z: axes.Z, T: axes.TIME].collectEntries { name, type ->
        [name, output.dimensionIndex(type)]
    }
    def size = { name -> axis[name] < 0 ? 1 : (int) output.dimension(axis[name]) }
    def made = new Planes(width: size('X'), height: size('Y'), channels: size('C'), slices: size('Z'), frames: size('T'))
    made.pixels = new float[made.channels * made.slices * made.frames][]
    long[] position = new long[output.numDimensions()]
    int at = 0
    for (int t = 0; t < made.frames; t++) for (int z = 0; z < made.slices; z++) for (int c = 0; c < made.channels; c++) {
        if (axis.T >= 0) position[axis.T] = t
        if (axis.Z >= 0) position[axis.Z] = z
        if (axis.C >= 0) position[axis.C] = c
        made.pixels[at++] = planeOf(output, axis.X, axis.Y, position, made.width, made.height)
    }
    return made
}

// A result as an image of ImageJ with everything of its source.
ImagePlus dress(Planes result, ImagePlus source, String title, double low, double high) {
    int channels = result.channels, slices = result.slices, frames = result.frames
    boolean same = channels == source.NChannels && slices == source.NSlices && frames == source.NFrames
    def stack = new ImageStack(result.width, result.height)
    result.pixels.each { plane -> stack.addSlice(same ? source.getStack().getSliceLabel(stack.size + 1) : null, plane) }
    def made = new ImagePlus(title, stack)
    made.setDimensions(channels, slices, frames)
    if (channels > 1 || (slices > 1 && frames > 1)) made.setOpenAsHyperStack(true)
    def calibration = source.calibration.copy()
    calibration.disableDensityCalibration()
    calibration.pixelDepth /= result.finer
    if (channels > 1) {
        def mode = source instanceof CompositeImage ? source.mode : CompositeImage.GRAYSCALE
        made = new CompositeImage(made, mode)
    }
    made.calibration = calibration
    if (same && stack.size == 1) {
        def label = source.getProp('Slice_Label') ?: source.getStack().getSliceLabel(1)
        if (label) made.setProp('Slice_Label', label)
    }
    double range = Math.max(high - low, 1e-7)
    def luts = source.luts
    for (int c = 1; c <= channels; c++) {
        if (!same) {
            double[] ends = ends(stack, c, channels)
            show(made, c, channels, null, ends[0], ends[1])
        } else {
            def lut = luts.length >= c ? luts[c - 1] : null
            double darkest = lut != null && channels > 1 ? lut.min : source.displayRangeMin
            double brightest = lut != null && channels > 1 ? lut.max : source.displayRangeMax
            show(made, c, channels, lut, (darkest - low) / range, (brightest - low) / range)
        }
    }
    return made
}

void show(ImagePlus image, int channel, int channels, lut, double darkest, double brightest) {
    if (channels > 1) {
        def table = lut != null ? (LUT) lut.clone() : image.getChannelLut(channel)
        table.min = darkest
        table.max = brightest
        image.setChannelLut(table, channel)
    } else {
        if (lut != null) image.setLut((LUT) lut.clone())
        image.setDisplayRange(darkest, brightest)
    }
}

@CompileStatic
double[] ends(ImageStack stack, int channel, int channels) {
    double least = Double.POSITIVE_INFINITY, most = Double.NEGATIVE_INFINITY
    for (int s = channel; s <= stack.getSize(); s += channels) {
        ImageProcessor plane = stack.getProcessor(s)
        for (int i = 0; i < plane.getPixelCount(); i++) {
            double value = plane.getf(i)
            if (value < least) least = value
            if (value > most) most = value
        }
    }
    return [least, most] as double[]
}

// Of a model that also gives an uncertainty, the means: as many channels as its input had.
ImagePlus meanChannels(ImagePlus image, int channels) {
    if (image.NChannels != 2 * channels) return image
    def means = new Duplicator().run(image, 1, channels, 1, image.NSlices, 1, image.NFrames)
    means.title = image.title
    return means
}

// 16 bits hold the grey levels of the input, rounded and clipped, never wrapped.
void toGreyLevels(Restored result) {
    if (result.scale < 255)
        throw new Refused("the input spans only ${result.scale} grey levels, too few for 16 bits; save with 32")
    def image = result.image
    def labels = (1..image.stackSize).collect { image.getStack().getSliceLabel(it) }
    def stack = new ImageStack(image.width, image.height)
    long outside = 0
    for (int s = 1; s <= image.stackSize; s++) {
        short[] plane = new short[image.width * image.height]
        outside += greyLevels((float[]) image.getStack().getPixels(s), plane, result.scale, result.offset)
        stack.addSlice(labels[s - 1], plane)
    }
    def luts = image.luts
    def calibration = image.calibration
    def info = image.getInfoProperty() ?: ''
    def label = image.getProp('Slice_Label')
    def made = new ImagePlus(image.title, stack)
    int channels = image.NChannels
    made.setDimensions(channels, image.NSlices, image.NFrames)
    if (image.openAsHyperStack || channels > 1) made.setOpenAsHyperStack(true)
    if (channels > 1) made = new CompositeImage(made, image instanceof CompositeImage ? image.mode : CompositeImage.GRAYSCALE)
    made.calibration = calibration
    if (label && stack.size == 1) made.setProp('Slice_Label', label)
    for (int c = 1; c <= channels; c++)
        show(made, c, channels, luts.length >= c ? luts[c - 1] : null,
            Math.max(0d, result.offset), Math.min(65535d, result.offset + result.scale))
    result.clippedShare = outside / ((double) image.width * image.height * stack.size)
    made.setProperty('Info', info + "\nCARE bridge: 16-bit: restored value = (grey level - ${result.offset}) / ${result.scale}, "
        + "${percent(result.clippedShare)} % of the pixels clipped")
    result.image = made
}

@CompileStatic
long greyLevels(float[] values, short[] grey, double scale, double offset) {
    long outside = 0
    for (int i = 0; i < values.length; i++) {
        double value = scale * values[i] + offset
        if (value < 0 || value > 65535) outside++
        grey[i] = (short) (int) Math.max(0d, Math.min(65535d, Math.floor(value + 0.5d)))
    }
    return outside
}

String percent(double share) {
    return String.format(Locale.ROOT, '%.3f', 100 * share)
}

// Saves as TIFF under another name first, so that a file that is there is a whole one.
void saveWhole(ImagePlus image, File target) {
    def folder = target.absoluteFile.parentFile
    writableFolder(folder)
    def part = new File(folder, 'care_part.tif')
    IJ.redirectErrorMessages(true)
    boolean saved = false
    try {
        saved = image.stackSize > 1 ? new FileSaver(image).saveAsTiffStack(part.path) : new FileSaver(image).saveAsTiff(part.path)
    } finally {
        IJ.redirectErrorMessages(false)
    }
    long least = (long) image.width * image.height * image.stackSize * image.bitDepth.intdiv(8)
    if (!saved || part.length() < least) {
        part.delete()
        throw new Refused("cannot write to the folder ${folder}: is the disk full?")
    }
    try {
        Files.move(part.toPath(), target.toPath(), StandardCopyOption.REPLACE_EXISTING)
    } catch (IOException e) {
        part.delete()
        throw new Refused("cannot write ${target}: ${e.class.simpleName}; is its name too long, or is it open elsewhere?")
    }
}

void writableFolder(File folder) {
    if (folder.isFile()) throw new Refused("${folder} is a file; name a folder")
    if (!folder.isDirectory() && !folder.mkdirs())
        throw new Refused("cannot make the folder ${folder}; choose one that you may write to")
    try {
        def probe = File.createTempFile('care', '.part', folder)
        probe.delete()
    } catch (IOException e) {
        throw new Refused("cannot write to the folder ${folder}; choose one that you may write to")
    }
}

// Why a TIFF should not be opened: ImageJ opens a truncated one without a word and fills it with zeros.
String whyUnreadable(File file) {
    if (file.isDirectory()) return 'it is a folder'
    if (!file.exists()) return 'the file is gone'
    if (file.length() == 0 && !Files.isSymbolicLink(file.toPath())) return 'it is empty'
    try {
        file.withInputStream { stream ->
            if (stream.read() < 0) throw new IOException('it is empty')
        }
    } catch (IOException e) {
        return 'it cannot be read; is it open elsewhere, or locked?'
    }
    try {
        def reason = whyNotOpened(tiffTags(file))
        if (reason) return reason
    } catch (IOException e) {
        return 'it is cut off inside its directory; copy it again'
    }
    def pages
    try {
        pages = Opener.getTiffFileInfo(file.path)
    } catch (Throwable e) {
        return 'it is cut off inside its directory; copy it again'
    }
    if (pages == null || pages.length == 0) return 'ImageJ cannot open it (a number format that it lacks?)'
    if (pages.any { page -> page.stripLengths?.any { it <= 0 } })
        return 'ImageJ reads the lengths of its strips wrongly; open it with File > Import > Bio-Formats and save it as Tiff'
    if (pages.any { endOf(it) > file.length() }) return 'the file is truncated; copy it again'
    long pixels = pages.collect { (long) it.width * it.height * Math.max(1, it.nImages) }.sum()
    long bytes = pages.collect { (long) it.width * it.height * it.bytesPerPixel * Math.max(1, it.nImages) }.sum()
    if (pixels > Integer.MAX_VALUE)
        return "it has ${pixels} pixels, and the plugin cannot take more than ${Integer.MAX_VALUE}; restore it in parts"
    if (bytes > Runtime.runtime.maxMemory())
        return "it needs ${bytes >> 20} MB, and ImageJ may use ${Runtime.runtime.maxMemory() >> 20} MB: Edit > Options > Memory"
    return ''
}

// Where the pixels of a page end in the file.
@CompileStatic
long endOf(FileInfo page) {
    long start = page.longOffset > 0 ? page.longOffset : page.offset & 0xffffffffL
    long plane = (long) page.width * page.height * page.getBytesPerPixel()
    // ImageJ keeps the planes of a stack one behind the other, whatever the strips of the first one are.
    if (page.nImages > 1) return start + page.nImages * plane + (page.nImages - 1) * page.gapBetweenImages
    if (page.stripOffsets == null || page.stripLengths == null) return start + plane
    long end = start
    for (int i = 0; i < Math.min(page.stripOffsets.length, page.stripLengths.length); i++)
        end = Math.max(end, (page.stripOffsets[i] & 0xffffffffL) + (page.stripLengths[i] & 0xffffffffL))
    return end
}

// First values of the tags of a TIFF's first directory, by the tags' numbers; under 0 the kind of file: 42 TIFF,
// 43 BigTIFF, 0 something else.
@CompileStatic
Map<Integer, Long> tiffTags(File file) {
    Map<Integer, Long> tags = [(0): 0L] as Map<Integer, Long>
    RandomAccessFile reader = new RandomAccessFile(file, 'r')
    try {
        int order = reader.length() < 8 ? 0 : reader.readUnsignedShort()
        if (order != 0x4949 && order != 0x4d4d) return tags
        boolean little = order == 0x4949
        tags[0] = number(reader, 2, little)
        if (tags[0] != 42L) return tags
        long directory = number(reader, 4, little)
        reader.seek(directory)
        int entries = (int) number(reader, 2, little)
        for (int e = 0; e < entries; e++) {
            reader.seek(directory + 2 + 12L * e)
            int tag = (int) number(reader, 2, little)
            int bytes = number(reader, 2, little) == 3L ? 2 : 4
            long count = number(reader, 4, little)
            if (count * bytes > 4) reader.seek(number(reader, 4, little))
            if (tag >= 254 && tag < 400 && reader.getFilePointer() + bytes <= reader.length())
                tags[tag] = number(reader, bytes, little)
        }
        checkChain(reader, directory, little)
        return tags
    } finally {
        reader.close()
    }
}

// Each directory names the next; of a file that was cut off ImageJ opens the first pages without a word.
@CompileStatic
void checkChain(RandomAccessFile reader, long directory, boolean little) {
    Set<Long> seen = new HashSet<Long>()
    while (directory != 0L && seen.add(directory)) {
        reader.seek(directory)
        reader.seek(directory + 2 + 12L * number(reader, 2, little))
        directory = number(reader, 4, little)
        if (directory + 6 > reader.length()) throw new EOFException()
    }
}

@CompileStatic
long number(RandomAccessFile reader, int bytes, boolean little) {
    long value = 0
    for (int i = 0; i < bytes; i++) {
        long next = reader.readUnsignedByte()
        value = little ? value | (next << (8 * i)) : (value << 8) | next
    }
    return value
}

// Why ImageJ cannot open a TIFF, or would open it with wrong pixels and without a word.
String whyNotOpened(Map<Integer, Long> tags) {
    def how = '; open it with File > Import > Bio-Formats and save it as Tiff'
    if (tags[0] == 43) return 'it is a BigTIFF, which ImageJ cannot open' + how
    if (tags[0] != 42) return 'it is no TIFF'
    if (tags[322] != null) return 'its pixels lie in tiles, which ImageJ cannot open' + how
    def compression = tags[259] ?: 1L
    if (!(compression in [1L, 5L, 8L, 32773L, 32946L])) {
        def names = [6L: 'JPEG', 7L: 'JPEG', 33003L: 'JPEG 2000', 33005L: 'JPEG 2000', 34712L: 'JPEG 2000', 34887L: 'LERC',
            34925L: 'LZMA', 50000L: 'Zstandard', 50001L: 'WebP', 50002L: 'JPEG XL', 52546L: 'JPEG XL']
        return "it is compressed with ${names[compression] ?: 'method ' + compression}, which ImageJ cannot open".toString() + how
    }
    if (tags[317] == 3) return 'it is compressed with the floating point predictor, which ImageJ opens with wrong values' + how
    return ''
}

ImagePlus openWhole(File file) {
    def why = whyUnreadable(file)
    if (why) throw new Refused(why)
    def opened = null
    IJ.redirectErrorMessages(true)
    try {
        opened = IJ.openImage(file.path)
    } catch (Throwable e) {
        throw new Refused("ImageJ cannot open it (${e.class.simpleName})")
    } finally {
        IJ.redirectErrorMessages(false)
    }
    if (opened == null) throw new Refused('ImageJ cannot open it (a number format that it lacks?)')
    return opened
}

String nameOf(ImagePlus image) {
    return plainName(image?.title ?: '')
}

// ---- The same in every script of this folder: end ---------------------------------------------------------
// ---- How a script ends

class Refused extends RuntimeException {
    Refused(String message) { super(message) }
}

// How a script ended; the message stands in the sentinel file too, what is said more only in the log.
class Ending {
    String message
    String more = ''
    String status = 'done'
    int done = 1
    int skipped = 0
    int failed = 0
}

// Runs the steps of a script, says how it went, and says what was refused instead of ending in an exception.
void attempt(String script, Closure<Ending> steps) {
    Ending ending
    try {
        ending = steps()
    } catch (Refused e) {
        ending = new Ending(message: e.message, status: 'failed', done: 0, failed: 1)
    }
    say(ending.message + ending.more)
    writeSentinel(script, ending)
}

void say(String text) {
    IJ.log('CARE bridge: ' + text)
}

// A small file that tells another program how the script ended; only written where sentinel was given.
void writeSentinel(String script, Ending ending) {
    if (!sentinel) return
    def plain = ending.message.replace('\\', '/').replace('"', "'").replace('\n', ' ')
    new File(sentinel).setText('{"macro": "' + script + '", "status": "' + ending.status + '", "done": ' + ending.done
        + ', "skipped": ' + ending.skipped + ', "failed": ' + ending.failed + ', "message": "' + plain + '"}\n', 'UTF-8')
}

File fijiFolder() {
    return new File(System.getProperty('ij.dir') ?: IJ.getDirectory('imagej') ?: '.')
}

// Where models lie by name.
File modelsFolder() {
    return new File(fijiFolder(), 'models/CARE_bridge')
}

// A model of that folder by its name, with or without its ending and what it restores; null where there is none.
File modelNamed(String name) {
    def plain = name.contains(' - ') ? name.substring(0, name.indexOf(' - ')) : name
    def zips = (modelsFolder().listFiles() ?: []).findAll { it.name.toLowerCase().endsWith('.zip') }
    return zips.find { it.name == name || it.name == name + '.zip' || it.name == plain + '.zip' }
}

String plainName(String name) {
    int dot = name.lastIndexOf('.')
    return dot > 0 ? name.substring(0, dot) : name
}

// ---- The engine onnx: the network that lies in the model's zip beside TensorFlow's ----------------------

// What `care-bridge macros install --engine onnx` puts into a Fiji, off its class path.
class Pinned {
    static final String JAR = 'onnxruntime-1.18.0.jar'
    static final long BYTES = 89063818L
    static final String SHA256 = '2733ead3dd8d07757c3f4c611e41e87d8dbd50130d6ff6f77a63407b25f93d30'
    static final String INSTALL = 'care-bridge macros install FIJI --engine onnx'
}

// Why ONNX Runtime cannot run a model; engine=auto then takes the plugin.
class NoOnnx extends Refused {
    NoOnnx(String message) { super(message) }
}

// A model's zip as ONNX Runtime runs it.
class OnnxModel {
    Map about
    Object environment
    Class tensors
    Object session
    String runtime
    int tiles = 1
}

// Pixels of a result in the order of an ImageJ stack: channels first, then slices, then frames.
class Planes {
    int width
    int height
    int channels = 1
    int slices = 1
    int frames = 1
    double finer = 1  // so many times as many planes as the source has
    float[][] pixels
}

@Field Map<String, String> enginesChosen = [:]
@Field List<String> enginesTold = []
@Field Map<String, OnnxModel> modelsOpen = [:]

// 'onnx' or 'plugin', once for each model; Refused says what either lacks.
String engineOf(File zip) {
    def known = enginesChosen[zip.path]
    if (known) return known
    def chosen = 'plugin'
    if (engine == 'plugin') {
        pluginCommand()
    } else {
        try {
            def net = openOnnx(zip)
            enginesTold << "${zip.name} is run by ${net.runtime}".toString()
            if (net.about.kind in ['UpsamplingCARE', 'IsotropicCARE'] && !net.about.factor)
                enginesTold << "${zip.name} is an ${net.about.kind} that does not say how many planes one becomes: the result is "
                    .concat('that of its network alone, as in the plugin; its HOW-TO says what stacks need before').toString()
            chosen = 'onnx'
        } catch (NoOnnx e) {
            if (engine == 'onnx') throw e
            try {
                pluginCommand()
            } catch (Refused p) {
                throw new Refused("${e.message}; and ${p.message}")
            }
            enginesTold << "${zip.name} is run by the CSBDeep plugin: ${e.message}".toString()
        }
    }
    enginesChosen[zip.path] = chosen
    return chosen
}

OnnxModel openOnnx(File file) {
    def known = modelsOpen[file.path]
    if (known != null) return known
    byte[] network
    Map about
    try {
        def zip = new ZipFile(file)
        try {
            def said = zip.getEntry('care_bridge.json')
            if (said == null) {
                throw new NoOnnx("${file.name} was exported earlier, without ONNX; export it again (care-bridge export MODEL "
                    + '--format fiji)')
            }
            about = (Map) new Json(zip.getInputStream(said).getText('UTF-8')).value()
            if (about.format_version != 1L || !(about.normalisation?.rule in ['fiji', 'none']))
                throw new NoOnnx("${file.name} was written by a newer care-bridge than these scripts; install the scripts again")
            if (!zip.getEntry('care_bridge.onnx')) throw new NoOnnx("${file.name} has no ONNX: ${about.no_onnx}")
            network = zip.getInputStream(zip.getEntry('care_bridge.onnx')).bytes
            def frozen = zip.getEntry('saved_model.pb')
            if (sha256(new ByteArrayInputStream(network)) != about.onnx_sha256
                || frozen == null || sha256(zip.getInputStream(frozen)) != about.saved_model_sha256)
                throw new Refused("${file.name} holds two networks that were not written together, so they may differ; export "
                    + 'the model again (care-bridge check tells more)')
        } finally {
            zip.close()
        }
    } catch (IOException | NumberFormatException | IndexOutOfBoundsException e) {
        throw new Refused("the model ${file} cannot be read (${e.message}); copy it again")
    }
    def ort = onnxRuntime()
    def opened = new OnnxModel(about: about, environment: ort.environment, runtime: ort.name.toString(), tensors:
        ort.loader.loadClass('ai.onnxruntime.OnnxTensor'))
    def options = ort.loader.loadClass('ai.onnxruntime.OrtSession$SessionOptions').getConstructor().newInstance()
    try {
        // With it, memory for the largest tile so far is kept: 1.9 instead of 1.15 GB for 1024x1024 pixels.
        options.setMemoryPatternOptimization(false)
        // Without the arena what a tile took is given back: 1.07 instead of 1.55 GB, and none of it kept until Fiji ends.
        if (onGpu(ort, options)) opened.runtime += ' with CUDA'
        else options.addCPU(false)
        opened.session = ort.environment.createSession(network, options)
    } catch (Exception e) {
        throw new NoOnnx("ONNX Runtime does not open ${file.name} (${firstLine(e)}); export it again")
    } finally {
        options.close()
    }
    modelsOpen[file.path] = opened
    return opened
}

// Whether a jar of a person's own was made for CUDA and CUDA is here; the pinned jar knows the processor alone. Where it was
// made for CUDA and there is none, that is said once and the processor computes.
boolean onGpu(Map ort, Object options) {
    if (new File((String) ort.jar).name == Pinned.JAR || ort.noGpu) return false
    def built = ort.loader.loadClass('ai.onnxruntime.OrtEnvironment').getMethod('getAvailableProviders').invoke(null)*.toString()
    def why = 'CUDA' in built ? '' : "${ort.jar} was not made for CUDA (onnxruntime_gpu is)"
    if (!why) {
        try {
            options.addCUDA(0)
            return true
        } catch (Exception e) {
            why = "CUDA cannot be used (${firstLine(e)})"
        }
    }
    say("${why}; the processor computes")
    ort.noGpu = true
    return false
}

void closeOnnx() {
    modelsOpen.values().each { it.session.close() }
    modelsOpen.clear()
    enginesChosen.clear()
}

// ONNX Runtime in a class loader of its own, which is kept as long as Java runs: each loads its libraries once, and
// deepImageJ and others may have other versions beside it.
Map onnxRuntime() {
    def jar = onnxJar()
    def kept = IJ.getProperty('care_bridge.onnxruntime')
    if (kept instanceof Map) {
        if (kept.jar != jar.path) throw new NoOnnx("${kept.jar} is loaded already; restart Fiji to use ${jar}")
        return (Map) kept
    }
    checkJar(jar)
    def loader = new URLClassLoader([jar.toURI().toURL()] as URL[], ClassLoader.getSystemClassLoader().getParent())
    def made = [jar: jar.path, loader: loader]
    try {
        def level = loader.loadClass('ai.onnxruntime.OrtLoggingLevel').getField('ORT_LOGGING_LEVEL_ERROR').get(null)
        def type = loader.loadClass('ai.onnxruntime.OrtEnvironment')
        made.environment = type.getMethod('getEnvironment', level.getClass(), String).invoke(null, level, 'care_bridge')
        made.name = "ONNX Runtime ${made.environment.getVersion()}".toString()
    } catch (Throwable e) {
        throw new NoOnnx(whyNotLoaded(e, jar))
    }
    IJ.setProperty('care_bridge.onnxruntime', made)
    return made
}

// Where the jar lies: as a setting says (a property of Java, or of ImageJ), else in this Fiji.
File onnxJar() {
    def named = System.getProperty('care_bridge.onnxruntime') ?: Prefs.get('care_bridge.onnxruntime', '')
    if (named) return new File(named)
    return new File(fijiFolder(), 'lib/CARE_bridge/' + Pinned.JAR)
}

void checkJar(File jar) {
    def system = System.getProperty('os.name').toLowerCase()
    def machine = System.getProperty('os.arch')
    boolean intel = machine in ['amd64', 'x86_64']
    if (!(intel || (machine == 'aarch64' && !system.startsWith('win'))))
        throw new NoOnnx("ONNX Runtime was never built for ${system} on ${machine}; use the engine plugin, or Python")
    if (!jar.isFile()) throw new NoOnnx("ONNX Runtime is not installed (no ${jar}); run: ${Pinned.INSTALL}")
    if (jar.name != Pinned.JAR) return
    if (jar.length() != Pinned.BYTES)
        throw new NoOnnx("${jar} has ${jar.length()} bytes instead of ${Pinned.BYTES}: it was cut; run: ${Pinned.INSTALL}")
    def stream = new FileInputStream(jar)
    def found
    try {
        found = sha256(stream)
    } finally {
        stream.close()
    }
    if (found != Pinned.SHA256)
        throw new NoOnnx("${jar} is not the file that was installed, so it is not loaded; run: ${Pinned.INSTALL}")
}

String whyNotLoaded(Throwable error, File jar) {
    def inner = error
    while (inner.cause != null) inner = inner.cause
    def why = "ONNX Runtime does not load here (${firstLine(inner)})"
    def said = inner.message ?: ''
    if (said.contains('GLIBC')) return why + ': this Linux is older than glibc 2.27; use the engine plugin, or Python'
    if (System.getProperty('os.name').toLowerCase().startsWith('win'))
        return why + ': restart Fiji where another ONNX Runtime was loaded first; else install the Visual C++ runtime of Microsoft'
    if (inner instanceof ClassNotFoundException || inner instanceof java.util.zip.ZipException)
        return why + ": ${jar} is no ONNX Runtime; run: ${Pinned.INSTALL}"
    return why + '; use the engine plugin, or Python'
}

@CompileStatic
String sha256(InputStream stream) {
    MessageDigest digest = MessageDigest.getInstance('SHA-256')
    byte[] buffer = new byte[1 << 20]
    for (int read = stream.read(buffer); read >= 0; read = stream.read(buffer)) digest.update(buffer, 0, read)
    StringBuilder text = new StringBuilder()
    for (byte b : digest.digest()) text.append(String.format('%02x', b))
    return text.toString()
}

String firstLine(Throwable error) {
    return (error.message ?: error.class.simpleName).readLines()[0]
}

// ---- An image through the network

// Every plane, or every stack, through the network; Z and T are one after the other. The image is filled up at the far
// end by mirroring, as the plugin does, and cut into tiles with all around them that a pixel hangs on, so that tiles
// give what one tile gives.
Planes runOnnx(OnnxModel net, ImagePlus seen, boolean normalize, double low, double high) {
    def about = net.about
    if (about.kind == 'IsotropicCARE' && about.factor) return runIsotropic(net, seen, normalize, low, high)
    boolean volumes = about.axes.contains('Z')
    int channels = (int) about.n_channel_in
    if (seen.NChannels != channels)
        throw new Refused("'${seen.title}' has ${counted(seen.NChannels, 'channel')} and the model takes ${channels}; "
            + (channels == 1 ? 'use Restore Channels, or Image > Color > Split Channels' : 'use a model for such images'))
    if (about.lost_axis && about.lost_axis != 'Z')
        throw new NoOnnx("the model takes away ${about.lost_axis}, which only the plugin does; use engine=plugin")
    boolean frames = volumes && seen.NSlices == 1 && seen.NFrames > 1  // as the plugin, where there is no Z
    int depth = !volumes ? 1 : frames ? seen.NFrames : seen.NSlices
    int runs = seen.NSlices * seen.NFrames
    if (volumes) runs = runs.intdiv(depth)
    int depthOut = about.lost_axis ? 1 : depth
    def result = new Planes(width: seen.width, height: seen.height, channels: (int) about.n_channel_out)
    result.slices = volumes && !frames ? depthOut : seen.NSlices
    result.frames = frames ? depthOut : seen.NFrames
    result.pixels = new float[result.channels * depthOut * runs][]
    def cut = tiling(net, depth, seen.height, seen.width)
    IJ.resetEscape()
    for (int run = 0; run < runs; run++) {
        def input = networkPlanes(seen, run * depth * channels, depth * channels, normalize, low, high)
        def output = throughNetwork(net, cut, input, depthOut * result.channels, run, runs, seen.title)
        System.arraycopy(output, 0, result.pixels, run * output.length, output.length)
    }
    net.tiles = cut.count()
    IJ.showProgress(1d)
    return result
}

float[][] networkPlanes(ImagePlus seen, int first, int number, boolean normalize, double low, double high) {
    float[][] planes = new float[number][]
    for (int i = 0; i < number; i++) {
        planes[i] = networkPixels(seen.getStack().getProcessor(first + i + 1), normalize, low, high, clip)
        if (planes[i] == null)
            throw new Refused("'${seen.title}' has pixels that are not numbers; use Process > Filters > Remove NaNs...")
    }
    return planes
}

// With more and smaller tiles where memory runs out.
float[][] throughNetwork(OnnxModel net, Tiles cut, float[][] input, int planes, int run, int runs, String title) {
    while (true) {
        float[][] output = new float[planes][cut.size[1] * cut.size[2]]
        try {
            runTiles(net, cut, input, output, run, runs)
            return output
        } catch (OutOfMemoryError | NotEnough e) {
            if (!cut.more(2 * cut.count()))
                throw new Refused("the memory is too small for one tile of ${title} (${cut.words()}); close other "
                    + 'programs and images')
            say("memory ran out; tried again with ${cut.count()} tiles")
        }
    }
}

// ---- Stacks whose planes lie far apart, as care-bridge predict restores them

// What an UpsamplingCARE looks at: the stack with more planes. Every other model looks at the image as it is.
ImagePlus asItsKindSeesIt(OnnxModel net, ImagePlus seen) {
    if (net.about.kind != 'UpsamplingCARE' || !net.about.factor) return seen
    int planes = planesFor(net, seen)
    def stack = new ImageStack(seen.width, seen.height)
    for (int t = 0; t < seen.NFrames; t++) {
        def frame = (0..<seen.NSlices * seen.NChannels).collect { int i ->
            (float[]) seen.getStack().getProcessor(t * seen.NSlices * seen.NChannels + i + 1).convertToFloatProcessor().getPixels()
        } as float[][]
        finer(frame, seen.NChannels, planes).each { stack.addSlice('', it) }
    }
    def made = new ImagePlus(seen.title, stack)
    made.setDimensions(seen.NChannels, planes, seen.NFrames)
    return made
}

int planesFor(OnnxModel net, ImagePlus seen) {
    if (seen.NSlices < 2)
        throw new Refused("'${seen.title}' has one plane and the model fills up stacks along Z; "
            + (seen.NFrames > 1 ? 'say in Image > Properties that its frames are slices' : 'give it a stack'))
    return (int) Math.max(1d, Math.rint(seen.NSlices * (double) net.about.factor))
}

// More planes by linear interpolation; first and last stay where they are. Planes of channels follow one another.
@CompileStatic
float[][] finer(float[][] planes, int channels, int wanted) {
    int number = (int) planes.length.intdiv(channels)
    float[][] made = new float[wanted * channels][planes[0].length]
    double step = wanted > 1 ? (number - 1) / (double) (wanted - 1) : 0d
    for (int i = 0; i < wanted; i++) {
        double where = i == wanted - 1 && wanted > 1 ? (double) (number - 1) : i * step
        int below = Math.min((int) where, Math.max(number - 2, 0))
        double weight = where - below
        for (int c = 0; c < channels; c++) {
            float[] low = planes[below * channels + c], high = planes[Math.min(below + 1, number - 1) * channels + c]
            float[] one = made[i * channels + c]
            for (int p = 0; p < one.length; p++) one[p] = (float) ((double) low[p] * (1d - weight) + (double) high[p] * weight)
        }
    }
    return made
}

// The stack with more planes, through the network from two sides, in slices along X and along Y that show Z; of both the
// geometric mean of what is above 0, of widths the larger.
Planes runIsotropic(OnnxModel net, ImagePlus seen, boolean normalize, double low, double high) {
    def about = net.about
    int channels = (int) about.n_channel_in, made = (int) about.n_channel_out
    if (seen.NChannels != channels)
        throw new Refused("'${seen.title}' has ${counted(seen.NChannels, 'channel')} and the model takes ${channels}; "
            + (channels == 1 ? 'use Restore Channels, or Image > Color > Split Channels' : 'use a model for such images'))
    int planes = planesFor(net, seen), width = seen.width, height = seen.height
    int means = about.probabilistic ? made.intdiv(2) : made
    int block = 1
    about.size_multiple.values().each { block = Math.max(block, (int) it) }
    int[] z = mirrored(planes, block)
    def result = new Planes(width: width, height: height, channels: made, slices: planes, frames: seen.NFrames, finer: about.factor)
    result.pixels = new float[made * planes * seen.NFrames][]
    def sides = [mirrored(height, block), mirrored(width, block)]
    def cuts = sides.collect { tiling(net, 1, it.length, z.length) }
    IJ.resetEscape()
    for (int t = 0; t < seen.NFrames; t++) {
        int number = seen.NSlices * channels
        def stack = finer(networkPlanes(seen, t * number, number, normalize, low, high), channels, planes)
        float[][] whole = new float[made * planes][width * height]
        for (int slice = 0; slice < width + height; slice++) {
            int side = slice < width ? 0 : 1
            int at = side == 0 ? slice : slice - width
            def input = cutThrough(stack, channels, width, side, at, (int[]) sides[side], z)
            def output = throughNetwork(net, (Tiles) cuts[side], input, made, t * (width + height) + slice, seen.NFrames * (width + height),
                seen.title)
            join(output, whole, means, width, side, at, (int[]) sides[side], z, planes)
        }
        System.arraycopy(whole, 0, result.pixels, t * whole.length, whole.length)
    }
    net.tiles = ((Tiles) cuts[0]).count()
    IJ.showProgress(1d)
    return result
}

// Positions of so many as fill up a multiple, mirrored at both ends without the ends themselves, as csbdeep does.
@CompileStatic
int[] mirrored(int size, int multiple) {
    int[] made = new int[roundUp(size, multiple)]
    int before = (int) (made.length - size).intdiv(2)
    int period = Math.max(1, 2 * (size - 1))
    for (int i = 0; i < made.length; i++) {
        int folded = Math.floorMod(i - before, period)
        made[i] = folded < size ? folded : period - folded
    }
    return made
}

// A slice as the network sees it: Z along its X, the other way round where the slice lies along X (side 0).
@CompileStatic
float[][] cutThrough(float[][] stack, int channels, int width, int side, int at, int[] rows, int[] z) {
    float[][] made = new float[channels][rows.length * z.length]
    for (int c = 0; c < channels; c++)
        for (int k = 0; k < z.length; k++) {
            float[] plane = stack[z[side == 0 ? z.length - 1 - k : k] * channels + c]
            for (int r = 0; r < rows.length; r++)
                made[c][r * z.length + k] = side == 0 ? plane[rows[r] * width + at] : plane[at * width + rows[r]]
        }
    return made
}

@CompileStatic
void join(float[][] output, float[][] whole, int means, int width, int side, int at, int[] rows, int[] z, int planes) {
    int channels = output.length
    int aside = (int) (z.length - planes).intdiv(2), size = (int) whole[0].length.intdiv(width)
    int inside = side == 0 ? size : width, above = (int) (rows.length - inside).intdiv(2)
    for (int c = 0; c < channels; c++)
        for (int p = 0; p < planes; p++) {
            float[] plane = whole[p * channels + c]
            int k = side == 0 ? z.length - 1 - (p + aside) : p + aside
            for (int r = 0; r < inside; r++) {
                float value = output[c][(r + above) * z.length + k]
                if (c < means) value = Math.max(value, 0f)
                int to = side == 0 ? r * width + at : at * width + r
                if (side == 0) plane[to] = value
                else plane[to] = c < means ? (float) Math.sqrt((double) (float) (plane[to] * value)) : Math.max(plane[to], value)
            }
        }
}

class NotEnough extends RuntimeException {
}

Tiles tiling(OnnxModel net, int depth, int height, int width) {
    def about = net.about
    int block = 1
    about.size_multiple.values().each { block = leastCommonMultiple(block, (int) it) }
    if (blockMultiple > 0) block = leastCommonMultiple(block, (int) blockMultiple)
    boolean volumes = about.axes.contains('Z')
    def made = new Tiles()
    [depth, height, width].eachWithIndex { int size, int axis ->
        def letter = 'ZYX'[axis]
        boolean cutBlock = axis > 0 || volumes
        made.size[axis] = size
        made.block[axis] = cutBlock ? block : 1
        made.padded[axis] = roundUp(size, made.block[axis])
        def reach = about.halo[letter]
        // An axis that an output pixel sees the whole of, or that is taken away, is never cut.
        made.halo[axis] = !cutBlock ? 0 : reach == null ? -1 : roundUp(Math.max((int) reach, (int) overlap), block)
        made.core[axis] = made.padded[axis]
    }
    boolean wholeImage = about.halo.any { name, reach -> reach == null && name != about.lost_axis }
    if (wholeImage) made.halo = [-1, -1, -1] as int[]
    made.more((int) Math.max(1, nTiles))
    double budget = Math.min(freeMemory() / 2d, (double) (1L << 30))
    // The zip says what lives at once; ONNX Runtime takes about 1.7 times as much (csbdeep's default network, 1024x1024).
    double bytes = 1.7d * (about.bytes_per_pixel == null ? 600d : (double) about.bytes_per_pixel)
    while (made.pixels() * bytes > budget && made.more(made.count() + 1)) { }
    return made
}

@CompileStatic
int roundUp(int size, int multiple) {
    return ((int) ((size + multiple - 1).intdiv(multiple))) * multiple
}

@CompileStatic
int leastCommonMultiple(int one, int other) {
    int a = one, b = other
    while (b != 0) {
        int rest = a % b
        a = b
        b = rest
    }
    return ((int) one.intdiv(a)) * other
}

String counted(int number, String what) {
    return "${number} ${what}${number == 1 ? '' : 's'}"
}

// Bytes that a network may take now.
long freeMemory() {
    try {
        def meminfo = new File('/proc/meminfo')
        if (meminfo.exists()) {
            def available = (meminfo.text =~ /MemAvailable:\s+(\d+) kB/)
            long free = available.find() ? (available.group(1) as long) << 10 : 1L << 31
            def limit = new File('/sys/fs/cgroup/memory.max'), used = new File('/sys/fs/cgroup/memory.current')
            if (limit.exists() && used.exists() && limit.text.trim().isLong())
                free = Math.min(free, Math.max(1L << 26, (limit.text.trim() as long) - (used.text.trim() as long)))
            return free
        }
        return java.lang.management.ManagementFactory.getOperatingSystemMXBean().getFreePhysicalMemorySize()
    } catch (Throwable e) {
        return 1L << 31
    }
}

void runTiles(OnnxModel net, Tiles cut, float[][] input, float[][] output, int run, int runs) {
    int total = cut.count()
    int channels = input.length.intdiv(cut.size[0])
    boolean volumes = net.about.axes.contains('Z')
    FloatBuffer buffer = ByteBuffer.allocateDirect(4 * channels * (int) cut.pixels()).order(ByteOrder.nativeOrder()).asFloatBuffer()
    for (int number = 0; number < total; number++) {
        if (IJ.escapePressed()) throw new Refused('stopped by Esc; nothing was kept of this image')
        int[] where = cut.region(number)
        cut.read(where, input, channels, buffer)
        long d = where[3] - where[0], h = where[4] - where[1], w = where[5] - where[2]
        long[] shape = volumes ? [1L, d, h, w, (long) channels] as long[] : [1L, h, w, (long) channels] as long[]
        def tensor = null, made = null
        try {
            tensor = net.tensors.createTensor(net.environment, buffer, shape)
            made = net.session.run(Collections.singletonMap(net.about.onnx_input, tensor))
            cut.write(number, where, made.get(0).getFloatBuffer(), output, net.about.lost_axis == 'Z')
        } catch (Exception e) {
            def said = e.message ?: ''
            if (said =~ /(?i)failed to allocate|bad alloc|out of memory|bfc_arena|not enough memory/) throw new NotEnough()
            throw new Refused("ONNX Runtime failed (${firstLine(e)}); export the model again, or use engine=plugin")
        } finally {
            // The result alone: who closes its values too ends Java in older versions.
            if (made != null) made.close()
            if (tensor != null) tensor.close()
        }
        IJ.showProgress(run * total + number + 1, runs * total)
    }
}

// The pixels as the network gets them, by the plugin's rule in single precision; null where one is not finite.
@CompileStatic
float[] networkPixels(ImageProcessor plane, boolean normalize, double low, double high, boolean clip) {
    float[] made = new float[plane.getPixelCount()]
    float bottom = (float) low
    float span = (float) ((double) (float) high - (double) bottom)
    float factor = (double) span < 0.0000001d ? 1f : (float) (1d / (double) span)
    for (int i = 0; i < made.length; i++) {
        float value = plane.getf(i)
        if (Float.isNaN(value) || Float.isInfinite(value)) return null
        if (normalize) {
            value = (float) ((double) (float) ((double) value - (double) bottom) * (double) factor)
            if (clip && value > 1f) value = 1f
            if (value < 0f) value = 0f
        }
        made[i] = value
    }
    return made
}

// How an image is cut; axes Z, Y, X.
@CompileStatic
class Tiles {
    int[] size = new int[3]
    int[] block = new int[3]
    int[] padded = new int[3]
    int[] halo = new int[3]
    int[] core = new int[3]

    private int along(int axis) { return (int) ((padded[axis] + core[axis] - 1).intdiv(core[axis])) }

    int count() { return along(0) * along(1) * along(2) }

    String words() {
        int[] one = region(0)
        return "${one[5] - one[2]} x ${one[4] - one[1]} x ${one[3] - one[0]} pixels".toString()
    }

    // Cuts the largest side until there are so many tiles; false where nothing is left to cut.
    boolean more(int wanted) {
        boolean changed = false
        while (count() < wanted) {
            int longest = -1
            for (int axis = 0; axis < 3; axis++)
                if (halo[axis] >= 0 && core[axis] > block[axis] && (longest < 0 || core[axis] > core[longest])) longest = axis
            if (longest < 0) return changed
            int pieces = along(longest) + 1
            int shorter = ((int) Math.ceil(padded[longest] / (double) pieces / block[longest])) * block[longest]
            core[longest] = Math.min(shorter, core[longest] - block[longest])
            changed = true
        }
        return changed
    }

    // Pixels of the largest tile.
    long pixels() {
        long found = 1
        for (int axis = 0; axis < 3; axis++)
            found *= Math.min((long) padded[axis], (long) core[axis] + (along(axis) > 1 ? 2L * Math.max(0, halo[axis]) : 0L))
        return found
    }

    private int first(int number, int axis) {
        int left = axis == 2 ? number : axis == 1 ? (int) number.intdiv(along(2)) : (int) number.intdiv(along(2) * along(1))
        return (left % along(axis)) * core[axis]
    }

    // First and last position with what is around it.
    int[] region(int number) {
        int[] found = new int[6]
        for (int axis = 0; axis < 3; axis++) {
            int start = first(number, axis), margin = Math.max(0, halo[axis])
            found[axis] = Math.max(0, start - margin)
            found[axis + 3] = Math.min(padded[axis], start + core[axis] + margin)
        }
        return found
    }

    private int mirrored(int position, int axis) {
        int folded = position % (2 * size[axis])
        return folded < size[axis] ? folded : 2 * size[axis] - 1 - folded
    }

    void read(int[] where, float[][] input, int channels, FloatBuffer buffer) {
        buffer.clear()
        int inside = Math.max(0, Math.min(where[5], size[2]) - where[2])
        for (int z = where[0]; z < where[3]; z++) {
            int plane = mirrored(z, 0) * channels
            for (int y = where[1]; y < where[4]; y++) {
                int row = mirrored(y, 1) * size[2]
                int x = where[2]
                if (channels == 1) {
                    buffer.put(input[plane], row + x, inside)
                    x += inside
                }
                for (; x < where[5]; x++) {
                    int at = row + mirrored(x, 2)
                    for (int c = 0; c < channels; c++) buffer.put(input[plane + c][at])
                }
            }
        }
        buffer.flip()
    }

    void write(int number, int[] where, FloatBuffer made, float[][] output, boolean projected) {
        int channels = projected ? output.length : (int) output.length.intdiv(size[0])
        int firstZ = first(number, 0), firstY = first(number, 1), firstX = first(number, 2)
        int height = where[4] - where[1], width = where[5] - where[2]
        int lastZ = projected ? 1 : Math.min(size[0], firstZ + core[0])
        int lastY = Math.min(size[1], firstY + core[1]), lastX = Math.min(size[2], firstX + core[2])
        int wanted = channels * width * height * (projected ? 1 : where[3] - where[0])
        if (made.remaining() != wanted)
            throw new IllegalStateException("the network gives ${made.remaining()} values for ${wanted}".toString())
        for (int z = projected ? 0 : firstZ; z < lastZ; z++)
            for (int y = firstY; y < lastY; y++) {
                int from = (((projected ? 0 : z - where[0]) * height + y - where[1]) * width + firstX - where[2]) * channels
                int to = y * size[2]
                for (int x = firstX; x < lastX; x++)
                    for (int c = 0; c < channels; c++) output[z * channels + c][to + x] = made.get(from++)
            }
    }
}

// Values of a JSON text: maps, lists, texts, whole and other numbers, truths, null.
@CompileStatic
class Json {
    final String text
    int at = 0

    Json(String text) { this.text = text }

    Object value() {
        char next = peek()
        if (next == (char) '{') return block()
        if (next == (char) '[') return listed()
        if (next == (char) '"') return quoted()
        int start = at
        while (at < text.length() && !',]} \n\r\t'.contains(text.substring(at, at + 1))) at++
        String word = text.substring(start, at)
        if (word == 'null') return null
        if (word == 'true' || word == 'false') return Boolean.valueOf(word)
        if (word.contains('.') || word.contains('e') || word.contains('E')) return Double.valueOf(word)
        return Long.valueOf(word)
    }

    private char peek() {
        while (Character.isWhitespace(text.charAt(at))) at++
        return text.charAt(at)
    }

    private Map<String, Object> block() {
        Map<String, Object> found = new LinkedHashMap<String, Object>()
        at++
        while (peek() != (char) '}') {
            String key = quoted()
            if (peek() != (char) ':') throw new NumberFormatException('a key without a value')
            at++
            found.put(key, value())
            if (peek() == (char) ',') at++
        }
        at++
        return found
    }

    private List<Object> listed() {
        List<Object> found = new ArrayList<Object>()
        at++
        while (peek() != (char) ']') {
            found.add(value())
            if (peek() == (char) ',') at++
        }
        at++
        return found
    }

    private String quoted() {
        StringBuilder found = new StringBuilder()
        if (peek() != (char) '"') throw new NumberFormatException('a key without quotes')
        for (at++; text.charAt(at) != (char) '"'; at++) {
            char letter = text.charAt(at)
            if (letter == (char) '\\') {
                letter = text.charAt(++at)
                int known = 'nrtbf'.indexOf((int) letter)
                if (known >= 0) letter = '\n\r\t\b\f'.charAt(known)
                else if (letter == (char) 'u') {
                    letter = (char) Integer.parseInt(text.substring(at + 1, at + 5), 16)
                    at += 4
                }
            }
            found.append(letter)
        }
        at++
        return found.toString()
    }
}
