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
