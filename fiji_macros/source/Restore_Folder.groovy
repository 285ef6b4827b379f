// CARE bridge: Restore Folder
//
// Restores all TIFF images of a folder and its sub-folders (or a single file). Goes on after a bad file, skips what is
// done (so it can be started again), asks nothing, never changes an input; lists are beside the results. Without windows:
//   ImageJ --headless --run Restore_Folder.groovy 'input="/in",outputFolder="/out",model="/m/my model.zip",...'

#@ File (label="Folder with the images", style="both", persist=false) input
#@ File (label="Folder for the results", style="directory", persist=false) outputFolder
// include: parameters.groovy
#@ String (label="Which files", value="*.tif;*.tiff", required=false, persist=false) pattern
#@ Boolean (label="Sub-folders too", value=true, required=false, persist=false) recursive
#@ Boolean (label="Restore again what is done", value=false, required=false, persist=false) overwrite
#@ Integer (label="Applications", value=1, min=1, required=false, persist=false) applications
#@ Boolean (label="Normalize again before further applications", value=true, required=false, persist=false) normalizeAgain
#@ String (label="Bits of the results", choices={"32", "16"}, value="32", required=false, persist=false) bits
// include: services.groovy

attemptToRestore('Restore_Folder') {
    checkFolders()
    def files = filesToRestore()
    def counts = startLog(files)
    files.eachWithIndex { file, number ->
        IJ.showProgress(number, files.size())
        restoreOrSkip(file, counts)
    }
    return finishLog(counts)
}

// ---- Below this line: how the steps above are done; nothing to change for using the script --------------

File baseFolder() {
    return input.isDirectory() ? input.canonicalFile : input.canonicalFile.parentFile
}

void checkFolders() {
    if (input == null || !input.exists()) throw new Refused("the folder ${input} does not exist; look for the one with the images")
    if (outputFolder == null) throw new Refused('no folder for the results was given')
    if (baseFolder() == outputFolder.canonicalFile)
        throw new Refused("the results would overwrite the images in ${baseFolder()}; give another folder for them")
    writableFolder(outputFolder)
    new File(outputFolder, 'care_part.tif').delete()
    def settings = "model=${model.name} size=${model.length()} normalizeInput=${normalizeInput} percentiles=${percentileBottom}-"
    settings += "${percentileTop} clip=${clip} nTiles=${nTiles} blockMultiple=${blockMultiple} overlap=${overlap} "
    settings += "batchSize=${batchSize} applications=${applications} normalizeAgain=${normalizeAgain} bits=${bits} "
    settings += "engine=${engineOf(model)}"
    def settingsFile = new File(outputFolder, 'care_settings.txt')
    if (settingsFile.exists() && settingsFile.getText('UTF-8').trim() != settings.trim() && !overwrite)
        throw new Refused("the results in ${outputFolder} were made with other settings (care_settings.txt); give another "
            + 'folder, or overwrite')
    settingsFile.setText(settings + '\n', 'UTF-8')
}

List<File> filesToRestore() {
    def found = input.isDirectory() ? filesBelow(baseFolder(), outputFolder.canonicalFile) : [input.canonicalFile]
    if (!found) throw new Refused("there is no file like ${pattern} in ${input}; give another pattern")
    return found
}

Map startLog(List<File> files) {
    def log = new File(outputFolder, 'care_log.csv')
    if (!log.exists())
        log.setText('file,status,seconds,percentile_bottom,percentile_top,level_bottom,level_top,minimum,maximum,message\n', 'UTF-8')
    def failures = new File(outputFolder, 'care_failures.txt')
    failures.setText('', 'UTF-8')
    say("restoring ${files.size()} files of ${input} into ${outputFolder}")
    return [found: files.size(), done: 0, skipped: 0, failed: 0, log: log, failures: failures]
}

void restoreOrSkip(File file, Map counts) {
    long started = System.nanoTime()
    def name = baseFolder().toPath().relativize(file.toPath()).toString().replace('\\', '/')
    def target = new File(outputFolder, plainName(name) + '.tif')
    def columns = ['', '', '', '']
    def status = 'skipped'
    def note = 'done before'
    if (overwrite || !target.exists()) {
        try {
            def result = restoreFile(file, target)
            def range = ends(result.image.getStack(), 1, 1)
            columns = [result.low, result.high, range[0], range[1]]
            note = ''
            if (bits == '16') {
                note = "${percent(result.clippedShare)} % of the pixels clipped; "
                note += "restored value = (grey level - ${result.offset}) / ${result.scale}"
            }
            status = 'done'
            result.image.flush()
        } catch (Throwable e) {
            status = 'failed'
            note = e instanceof Refused ? e.message : "${e.class.simpleName}: ${e.message}"
            counts.failures.append("${name}: ${note}\n", 'UTF-8')
            say("${name}: ${note}")
        }
    }
    counts[status] += 1
    def seconds = String.format(Locale.ROOT, '%.3f', (System.nanoTime() - started) / 1e9d)
    def line = [quoted(name), status, seconds, percentileBottom, percentileTop, *columns, quoted(note.toString())]
    counts.log.append(line.join(',') + '\n', 'UTF-8')
}

Ending finishLog(Map counts) {
    def summary = "${counts.found} found, ${counts.done} restored, ${counts.skipped} skipped, ${counts.failed} failed".toString()
    new File(outputFolder, 'care_summary.txt').setText(summary + '\n', 'UTF-8')
    def status = counts.failed ? 'done with failures' : 'done'
    return new Ending(message: summary, more: "; see ${counts.log}", status: status, done: counts.done, skipped: counts.skipped,
        failed: counts.failed)
}

Restored restoreFile(File file, File target) {
    def source = openWhole(file)
    try {
        int channels = source.NChannels
        def result = restore(source, normalizeInput, source.title)
        def first = result
        double scale = result.scale, offset = result.offset
        for (int application = 2; application <= applications; application++) {
            result = restore(meanChannels(result.image, channels), normalizeAgain, source.title)
            offset = scale * result.offset + offset
            scale = scale * result.scale
        }
        result.low = first.low
        result.high = first.high
        result.scale = scale
        result.offset = offset
        if (bits == '16') toGreyLevels(result)
        saveWhole(result.image, target)
        return result
    } finally {
        source.changes = false
        source.close()
    }
}

List<File> filesBelow(File folder, File except) {
    def patterns = pattern.toLowerCase().split(';').collect { wild ->
        wild.trim().collect { it == '*' ? '.*' : it == '?' ? '.' : java.util.regex.Pattern.quote(it) }.join('')
    }
    def found = []
    (folder.listFiles() ?: []).sort { it.name }.each { file ->
        if (file.isDirectory()) {
            if (recursive && file.canonicalFile != except && !isMatch(file.name, patterns)) found.addAll(filesBelow(file, except))
        } else if (!file.name.startsWith('.') && isMatch(file.name, patterns)) {
            found << file
        }
    }
    return found
}

boolean isMatch(String name, List<String> patterns) {
    return patterns.any { name.toLowerCase().matches(it) }
}

String quoted(String text) {
    return '"' + text.replace('"', "'") + '"'
}

// include: shared.groovy
// include: ending.groovy
// include: onnx.groovy
