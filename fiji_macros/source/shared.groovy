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
