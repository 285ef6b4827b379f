// Names of axes, as in imagej-common. Compiled at run time where scripts are tried without a Fiji.
package net.imagej.axis

class Axes {
    static final String X = 'X', Y = 'Y', CHANNEL = 'C', Z = 'Z', TIME = 'T'
}
