
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
