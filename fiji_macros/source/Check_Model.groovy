// CARE bridge: Check Model
//
// Judges a model's zip by the rules of every reader, in the Python that installed these scripts, and shows what each says. From
// macros:
//   run("Check Model", "model=[my model] sentinel=[]");

#@ String (label="Model (a name in models/CARE_bridge, or a .zip)", value="", required=false, persist=false) model
// include: sentinel.groovy

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

// include: ending.groovy
// include: workshop.groovy
