"""Inside ImageJ's worker: Groovy scripts, their `#@` parameters, and stand-ins for SciJava's services."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from care_bridge.errors import InputError

_loaders: dict[str, Any] = {}
_compiled: dict[tuple[str, str, str], Any] = {}
"""By the folder of the stand-ins, the script's name and its text: compiling takes a second, which Fiji needs each time."""


def stand_ins(folder: str) -> Any:
    """A class loader that knows the plugin's and SciJava's names, compiled once from Groovy sources; "" knows none."""
    import jpype

    if folder not in _loaders:
        thread = jpype.JClass("java.lang.Thread").currentThread()
        loader = jpype.JClass("groovy.lang.GroovyClassLoader")(thread.getContextClassLoader())
        names = ("Axes", "ImagePlusAdapter", "GenericNetwork", "Services", "Context")
        for name in names if folder else ():
            source = Path(folder, f"{name}.groovy")
            loader.parseClass(source.read_text(encoding="utf-8"), source.name)
        _loaders[folder] = loader
    return _loaders[folder]


def evaluate(arguments: dict[str, Any], binding: Any) -> None:
    """Run a script with its values; one of the same text is compiled once."""
    import jpype

    key = (arguments["stand_ins"], arguments["name"], arguments["text"])
    if key not in _compiled:
        # As GroovyShell does, which keeps nothing.
        loader = jpype.JClass("groovy.lang.GroovyClassLoader")(stand_ins(arguments["stand_ins"]))
        _compiled[key] = loader.parseClass(without_parameters(arguments["text"]), arguments["name"])
    helper = jpype.JClass("org.codehaus.groovy.runtime.InvokerHelper")
    helper.createScript(_compiled[key], binding).run()


def binding_of(arguments: dict[str, Any], *, compute: Any = None, image: Any = None) -> Any:
    """Values for every `#@` line of a script, in the types that it declares.

    `compute` answers for the plugin; None leaves SciJava's services out, as in an ImageJ that has none. `image` is the
    one in front; None opens the file that the arguments name.
    """
    import jpype

    loader = stand_ins(arguments["stand_ins"])
    binding = jpype.JClass("groovy.lang.Binding")()
    given = dict(arguments["parameters"])
    for kind, name, properties in parameters_of(arguments["text"]):
        if kind.endswith("Service") and compute is None:
            value = None
        elif kind == "CommandService":
            value = loader.loadClass("care_bridge.Commands").getDeclaredConstructor().newInstance()
            value.setProperty("compute", compute)
        elif kind == "DatasetService":
            value = loader.loadClass("care_bridge.Datasets").getDeclaredConstructor().newInstance()
        elif kind == "PrefService":
            value = loader.loadClass("care_bridge.PrefService").getDeclaredConstructor().newInstance()
        elif kind == "ImagePlus" and image is not None:
            value = image
        elif kind == "ImagePlus":
            value = jpype.JClass("ij.IJ").openImage(arguments["image"]) if arguments["image"] else None
            if value is not None:
                value.show()
        else:
            value = _parameter(kind, name, given.pop(name, properties.get("value")), properties)
        binding.setVariable(name, value)
    if given:
        raise InputError(f"the script has no parameter {', '.join(given)}")
    return binding


def without_parameters(text: str) -> str:
    """What SciJava gives the language: the text without its parameters, the numbers of the lines kept."""
    return re.sub(r"(?m)^\s*#@.*$", "", text)


def parameters_of(text: str) -> list[tuple[str, str, dict[str, str]]]:
    """Type, name and properties of each `#@` line of a script."""
    found = []
    for line in re.findall(r"(?m)^\s*#@\s*(.+?)\s*$", text):
        match = re.fullmatch(r"(?P<kind>\w+)\s*(?:\((?P<properties>.*)\))?\s+(?P<name>\w+)", line)
        if match is None:
            raise InputError(f"'#@ {line}' is no parameter that SciJava reads")
        pairs = re.findall(r"(\w+)\s*=\s*(\{[^}]*\}|\"[^\"]*\"|[^,\s]+)", match["properties"] or "")
        found.append((match["kind"], match["name"], {key: value.strip('"') for key, value in pairs}))
    return found


def _parameter(kind: str, name: str, value: Any, properties: dict[str, str]) -> Any:
    import jpype

    if value is None:
        if properties.get("required") == "false":
            return None
        raise InputError(f"the script needs the parameter {name}; without a window it would not run at all")
    text = str(value).lower() if isinstance(value, bool) else str(value)
    types = {"Boolean": "java.lang.Boolean", "Integer": "java.lang.Integer", "Double": "java.lang.Double"}
    if kind == "File":
        return jpype.JClass("java.io.File")(text)
    if kind == "String":
        return jpype.JString(text)
    if kind in types:
        return jpype.JClass(types[kind]).valueOf(text)
    raise InputError(f"parameters of type {kind} are not known here")
