// Objects that answer like SciJava's services and the plugin do; the numbers come from Python.
package care_bridge

import ij.ImagePlus
import java.util.concurrent.CompletableFuture
import java.util.prefs.Preferences
import net.imglib2.AbstractInterval
import net.imglib2.Interval
import net.imglib2.RandomAccess
import net.imglib2.RandomAccessibleInterval
import net.imglib2.img.ImagePlusAdapter
import net.imglib2.img.array.ArrayImgs
import net.imglib2.type.numeric.real.FloatType

class Dataset extends AbstractInterval implements RandomAccessibleInterval<FloatType> {
    RandomAccessibleInterval<FloatType> image
    String axes

    Dataset(RandomAccessibleInterval<FloatType> image, String axes) {
        super(image)
        this.image = image
        this.axes = axes
    }

    int dimensionIndex(Object axis) { return axes.indexOf((String) axis) }

    RandomAccess<FloatType> randomAccess() { return image.randomAccess() }

    RandomAccess<FloatType> randomAccess(Interval interval) { return image.randomAccess() }

    FloatType getType() { return new FloatType() }
}

// What `DatasetService.create` gives for an image of ImageJ: only handed on to the plugin.
class Input {
    ImagePlus imp
}

class Datasets {
    Input create(ImagePlusAdapter wrapped) { return new Input(imp: wrapped.imp) }
}

class Module {
    Dataset output

    Object getOutput(String name) { return name == 'output' ? output : null }
}

class Commands {
    // (values) -> null or [float[], long[] sizes, axes], both fastest first
    java.util.function.Function<Map, Object[]> compute
    static final NEEDED = ['input', 'modelFile', 'normalizeInput', 'percentileBottom', 'percentileTop', 'clip', 'nTiles',
        'blockMultiple', 'overlap', 'batchSize', 'showProgressDialog']

    Object run(Class type, boolean process, Object... pairs) {
        if (type.name != 'de.csbdresden.csbdeep.commands.GenericNetwork') throw new IllegalArgumentException(type.name)
        if (process) throw new IllegalStateException('process=true takes the remembered model')
        Map values = [:]
        for (int i = 0; i < pairs.length; i += 2) values[pairs[i]] = pairs[i + 1]
        if (values.keySet() != NEEDED as Set) throw new IllegalArgumentException("parameters: ${values.keySet()}")
        Object[] made = compute.apply(values)
        def output = made == null ? null : new Dataset(ArrayImgs.floats((float[]) made[0], (long[]) made[1]), (String) made[2])
        return CompletableFuture.completedFuture(new Module(output: output))
    }
}

class PrefService {
    private static Preferences node(Class type) {
        return Preferences.userRoot().node('/' + type.name.replace('.', '/'))
    }

    void clear(Class type) { node(type).clear() }

    String get(Class type, String name) { return node(type).get(name, null) }
}
