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

String plainName(String name) {
    int dot = name.lastIndexOf('.')
    return dot > 0 ? name.substring(0, dot) : name
}
