// CARE bridge: Evaluate
//
// Measures a model in the Python that installed these scripts: against the truth, beside its input and the best of six filters,
// once and twice in a row; the report opens in the browser. The images must not be those that it was trained on. The
// model is one that Train made, or one of the zoo, by name. From macros:
//   run("Evaluate", "model=[my model] source=[/data/test/noisy] target=[/data/test/clean] report=[] options=[] sentinel=[]");

#@ String (label="Model (a name, or a model folder)", value="", required=false, persist=false) model
#@ File (label="Folder of noisy test images", style="directory", persist=false) source
#@ File (label="Folder of their truths", style="directory", persist=false) target
#@ String (label="Report (.html; empty: beside the truths)", value="", required=false, persist=false) report
#@ String (label="More options of care-bridge evaluate (may stay empty)", value="", required=false, persist=false) options
// include: sentinel.groovy

attempt('Evaluate') {
    checkFolder('noisy test images', source)
    checkFolder('their truths', target)
    def named = new File(modelsFolder(), plainZip(model))
    def folder = new File(named, 'config.json').isFile() ? named.path : plainZip(model)
    def page = new File(report ?: new File(target.parentFile, "evaluation of ${new File(folder).name}.html").path)
    def ran = careBridge(['evaluate', folder, source.path, target.path, '--out', page.path] + wordsOf(options))
    if (ran.stopped) return new Ending(message: 'stopped; there is no report', status: 'stopped', done: 0)
    // 1 is a finding: the model does not beat its input, or a filter does.
    if (!(ran.code in [0, 1])) throw new Refused(ran.last())
    show(page)
    return new Ending(message: "${ran.last()} (${page})")
}

// ---- Below this line: how

String plainZip(String name) {
    return name.toLowerCase().endsWith('.zip') ? plainName(name) : name
}

void show(File page) {
    if (java.awt.GraphicsEnvironment.isHeadless()) return
    try {
        java.awt.Desktop.getDesktop().browse(page.toURI())
    } catch (IOException | RuntimeException e) {
        ij.plugin.BrowserLauncher.openURL(page.toURI().toString())
    }
}

// include: ending.groovy
// include: workshop.groovy
