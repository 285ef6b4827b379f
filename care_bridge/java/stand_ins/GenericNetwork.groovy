// The plugin's command; only its class is asked for.
package de.csbdresden.csbdeep.commands

class GenericNetwork {
}
