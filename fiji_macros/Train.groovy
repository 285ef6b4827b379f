// CARE bridge: Train
//
// Trains a model in the Python that installed these scripts, and puts it where Restore finds it by name. From pairs: two folders
// of TIFFs with equal names, noisy ones and their clean partners. Without clean partners from the noisy ones alone
// (Noise2Void). Esc stops; the same name with the same folders goes on where it stopped. From macros:
//   run("Train", "source=[/data/noisy] target=[/data/clean] name=[my model] minutes=10 preset=csbdeep options=[] sentinel=[]");

#@ File (label="Folder of noisy images", style="directory", persist=false) source
#@ File (label="Folder of their clean partners (leave empty: there are none)", style="directory", required=false, persist=false) target
#@ String (label="Name of the model", value="my-model", required=false, persist=false) name
#@ Integer (label="Minutes of training (0: as the options say)", value=10, min=0, required=false, persist=false) minutes
#@ String (label="Preset", choices={"csbdeep", "mito", "cardio", "planaria", "tribolium"}, value="csbdeep", required=false, persist=false) preset
#@ String (label="More options of care-bridge train (may stay empty)", value="", required=false, persist=false) options
#@ String (label="Sentinel file (empty: none)", value="", visibility="INVISIBLE", required=false, persist=false) sentinel

attempt('Train') {
    def folder = folderFor(name)
    def bundle = new File(modelsFolder(), name + '.zip')
    checkFolder('noisy images', source)
    if (target != null) checkFolder('their clean partners', target)
    if (bundle.exists()) throw new Refused("there is a model ${name} already (${bundle}); give the new one another name")
    boolean begun = new File(folder, 'config.json').isFile()
    def words = ['train', source.path] + (target == null ? ['--method', 'n2v'] : [target.path]) + ['--out', folder.path]
    if (begun) words << '--resume'
    else words += (minutes > 0 ? ['--minutes', minutes.toString()] : []) + (preset == 'csbdeep' ? [] : ['--preset', preset]) + wordsOf(options)
    say((begun ? 'going on with ' : 'training ') + name + '; Esc stops, the same name goes on')
    def trained = careBridge(words, { String line -> showLine(line, folder) })
    if (trained.stopped) return new Ending(message: "stopped; Train with the name ${name} goes on", status: 'stopped', done: 0)
    if (trained.code != 0) throw new Refused(trained.last())
    def exported = careBridge(['export', folder.path, '--format', 'fiji', '--out', bundle.path])
    if (exported.code != 0) throw new Refused(exported.last())
    return new Ending(message: "trained ${name}; Restore has it by this name now (${bundle})")
}

// ---- Below this line: how

import groovy.transform.Field
import ij.gui.Plot
import ij.gui.PlotWindow

@Field PlotWindow curveShown = null
@Field int epochsShown = 0

// Where the training of a model of this name lies.
File folderFor(String name) {
    if (!(name ==~ /[\p{L}\p{N}][\p{L}\p{N} _.-]{0,99}/) || name.toLowerCase().endsWith('.zip'))
        throw new Refused("the name ${name}: letters, digits, blanks, _ and - make one, up to 100, without an ending")
    return new File(modelsFolder(), name)
}

// What is new of a training: a line for the log, and the curve after each epoch.
void showLine(String line, File folder) {
    if (!(line =~ /, \d+ of \d+/)) say(line)
    if (java.awt.GraphicsEnvironment.isHeadless()) return
    def rows = lossesIn(new File(folder, 'training/history.csv'))
    if (rows.size() <= epochsShown) return
    epochsShown = rows.size()
    def epochs = rows.collect { it[0] } as double[]
    def plot = new Plot('Training of ' + folder.name, 'Epoch', 'Loss')
    plot.setColor('#4477aa')
    plot.add('line', epochs, rows.collect { it[1] } as double[])
    plot.setColor('#ee6677')
    plot.add('line', epochs, rows.collect { it[2] } as double[])
    plot.setColor('black')
    plot.addLegend('training\nvalidation')
    plot.setLimitsToFit(false)
    if (curveShown == null || curveShown.isClosed()) curveShown = plot.show()
    else curveShown.drawPlot(plot)
}

// Epoch, loss and validation loss of each row of a history; none while there is none, or it is being written.
List<double[]> lossesIn(File file) {
    try {
        def lines = file.isFile() ? file.readLines('UTF-8').findAll { it } : []
        if (lines.size() < 2) return []
        def names = lines[0].split(',') as List
        def columns = ['epoch', 'loss', 'val_loss'].collect { names.indexOf(it) }
        return lines.drop(1).collect { row -> columns.collect { row.split(',')[it] as double } as double[] }
    } catch (IOException | RuntimeException e) {
        return []
    }
}
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
import ij.IJ
import java.nio.charset.StandardCharsets
import java.util.concurrent.ConcurrentLinkedQueue
import java.util.concurrent.TimeUnit

// ---- The Python that these scripts came from, and what it is asked to do

// As `care-bridge macros install` wrote it beside the scripts; a property of Java, or of ImageJ, names another.
String python() {
    def named = System.getProperty('care_bridge.python') ?: ij.Prefs.get('care_bridge.python', '')
    def written = new File(fijiFolder(), 'scripts/Plugins/CARE_bridge/python.txt')
    if (!named && !written.isFile())
        throw new Refused("training needs Python, and no Python installed these scripts (no ${written}); install care-bridge there "
            + "(pip install care-bridge), then run: care-bridge macros install \"${fijiFolder()}\"")
    def path = named ?: written.getText('UTF-8').trim()
    if (!new File(path).isFile())
        throw new Refused("the Python that installed these scripts is gone (${path}); run again: care-bridge macros install "
            + "\"${fijiFolder()}\"")
    return path
}

// How a command of care-bridge ended.
class Ran {
    int code
    boolean stopped = false
    List<String> lines = []
    // The last that it said: its error where it ended with one.
    String last() { return lines ? lines[-1] : 'it said nothing' }
}

// Runs a command of care-bridge; its lines come into the status bar, and are given on. Esc ends it, and it may be gone on with.
Ran careBridge(List<String> words, Closure each = { String line -> }) {
    def builder = new ProcessBuilder([python(), '-X', 'utf8', '-m', 'care_bridge'] + words)
    builder.redirectErrorStream(true)
    builder.environment().put('PYTHONUNBUFFERED', '1')
    // What a line is wrapped at where there is no window to wrap it.
    builder.environment().put('COLUMNS', '1000')
    def process = builder.start()
    process.outputStream.close()
    def said = new ConcurrentLinkedQueue<String>()
    def reader = Thread.start {
        try {
            process.inputStream.eachLine('UTF-8') { String line -> said.add(line) }
        } catch (IOException e) {
            // It was ended.
        }
    }
    def ran = new Ran()
    try {
        while (true) {
            boolean ended = process.waitFor(200, TimeUnit.MILLISECONDS)
            if (ended) reader.join(5000)
            for (String line = said.poll(); line != null; line = said.poll()) {
                if (!line.trim()) continue
                ran.lines << line
                IJ.showStatus(line)
                def share = (line =~ /, (\d+) of (\d+)/)
                if (share.find()) IJ.showProgress(share.group(1) as int, share.group(2) as int)
                each(line)
            }
            if (ended) break
            if (IJ.escapePressed() || Thread.currentThread().isInterrupted()) {
                ran.stopped = true
                break
            }
        }
    } finally {
        if (process.isAlive()) {
            process.destroy()
            if (!process.waitFor(20, TimeUnit.SECONDS)) process.destroyForcibly()
        }
        IJ.showProgress(1, 1)
    }
    ran.code = ran.stopped ? -1 : process.exitValue()
    return ran
}

void checkFolder(String what, File folder) {
    if (!folder.isDirectory()) throw new Refused("the folder of ${what} ${folder} does not exist; choose a folder of TIFF files")
}

// The words of a line as a shell takes them apart, double quotes around blanks.
List<String> wordsOf(String line) {
    return (line =~ /"([^"]*)"|(\S+)/).collect { it[1] != null ? it[1] : it[2] }
}
