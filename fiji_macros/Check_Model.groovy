// CARE bridge: Check Model
//
// Judges a model's zip by the rules of every reader, in the Python that installed these scripts, and shows what each says. From
// macros:
//   run("Check Model", "model=[my model] sentinel=[]");

#@ String (label="Model (a name in models/CARE_bridge, or a .zip)", value="", required=false, persist=false) model
#@ String (label="Sentinel file (empty: none)", value="", visibility="INVISIBLE", required=false, persist=false) sentinel

attempt('Check Model') {
    def zip = [new File(model), modelNamed(model)].find { it?.isFile() }
    if (zip == null) throw new Refused("there is no model ${model} in ${modelsFolder()}, nor a file of that name; give a .zip")
    def ran = careBridge(['check', zip.path])
    if (ran.stopped) return new Ending(message: 'stopped; nothing is known', status: 'stopped', done: 0)
    if (!(ran.code in [0, 1])) throw new Refused(ran.last())
    if (java.awt.GraphicsEnvironment.isHeadless()) ran.lines.each { say(it) }
    else new ij.text.TextWindow("Check of ${zip.name}", ran.lines.join('\n'), 900, 600)
    if (ran.code == 1) return new Ending(message: ran.last(), status: 'failed', done: 0, failed: 1)
    return new Ending(message: ran.last())
}

// ---- Below this line: how

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
