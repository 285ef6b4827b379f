// What SciJava's context gives a macro in a Fiji without a window: displays that ImageJ1 does not see.
package org.scijava

class Context {
    static final List<Display> LOST = []

    static void lose(Object image) { LOST.add(new Display(image: image)) }

    Object getService(String name) {
        if (name == 'org.scijava.display.DisplayService') return new Displays()
        if (name == 'net.imagej.legacy.LegacyService') return new Legacy()
        return null
    }
}

class Display {
    Object image

    String getName() { return 'result' }

    void close() { Context.LOST.remove(this) }
}

class Displays {
    List<Display> getDisplays() { return Context.LOST }
}

class Legacy {
    Legacy getImageMap() { return this }

    Object registerDisplay(Display display) { return display.image }
}
