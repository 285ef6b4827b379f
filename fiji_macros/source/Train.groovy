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
// include: sentinel.groovy

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

// include: training.groovy
// include: ending.groovy
// include: workshop.groovy
