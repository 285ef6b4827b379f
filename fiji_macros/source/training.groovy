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
