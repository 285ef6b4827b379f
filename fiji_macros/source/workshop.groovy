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
