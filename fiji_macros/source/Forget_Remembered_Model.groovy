// CARE bridge: Forget Remembered Model
//
// The CSBDeep plugin remembers the model (and every option) of its last run, and in macros it takes the remembered
// model instead of the one that is given, without a word; if that file is gone it gives no result at all. This clears
// what is remembered. Run it once where results look as if they came from another model.

#@ String (label="Sentinel file (empty: none)", value="", visibility="INVISIBLE", required=false, persist=false) sentinel
#@ PrefService prefs

import ij.IJ

def name = 'de.csbdresden.csbdeep.commands.GenericNetwork'
try {
    def network = getClass().classLoader.loadClass(name)
    def remembered = prefs.get(network, 'GenericNetwork_modelfile')
    prefs.clear(network)
    tell(remembered ? "forgot the model ${remembered}".toString() : 'no model was remembered', 'done')
} catch (ClassNotFoundException e) {
    tell('the CSBDeep plugin is not installed; Help > Update... > Manage Update Sites > CSBDeep', 'failed')
}

void tell(String message, String status) {
    IJ.log('CARE bridge: ' + message)
    if (sentinel)
        new File(sentinel).setText('{"macro": "Forget_Remembered_Model", "status": "' + status + '", "done": 1, "skipped": 0, '
            + '"failed": 0, "message": "' + message.replace('\\', '/') + '"}\n', 'UTF-8')
}
