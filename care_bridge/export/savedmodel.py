"""The bundle: the TensorFlow zip that Fiji's "Run your network" opens."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.core.protobuf import saved_model_pb2

from care_bridge import __version__
from care_bridge.bundle import MEAN_SUFFIX, META, SAVED_MODEL, SIGNATURE, TAG
from care_bridge.defaults import OLDEST_TF1
from care_bridge.errors import InputError
from care_bridge.export.beside import beside, why_no_onnx
from care_bridge.export.graph import INPUT, OUTPUT, Shape, freeze, signature
from care_bridge.export.probe import measure
from care_bridge.export.source import Model, Source, on_scale_of, open_source, own_percentiles
from care_bridge.files import atomic_file, scratch_folder, write_text
from care_bridge.page import NOT_FOR_QUANTIFICATION
from care_bridge.plugin.options import COMMAND, FORGET, LABELS, PluginOptions
from care_bridge.plugin.quoting import Code, imagej_string, path_text, printable
from care_bridge.reach import Geometry
from care_bridge.words import counted

METHOD = "tensorflow/serving/predict"
HOW_TO = "HOW-TO-RUN-IN-FIJI.txt"
TOLERANCE = 1e-5
"""Largest difference between the written bundle and Keras on a normalised image; beyond it exporting is refused."""

_EPOCH = (1980, 1, 1, 0, 0, 0)


def write_bundle(
    model: Model,
    path: str | os.PathLike[str],
    *,
    target: str = OLDEST_TF1,
    pmin: float | None = None,
    pmax: float | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    how_to: bool = True,
) -> Path:
    """Write a model as the zip that Fiji's CSBDeep plugin, deepImageJ and TensorFlow 2 open.

    Parameters
    ----------
    model : keras.Model, CareModel or path
        A path is a model folder, or a Keras file (.keras, .h5); see `source.open_source`.
    path : path
        The zip; a name without `.zip` is a folder, and the zip in it is called after the model.
    target : str
        Oldest TensorFlow that must open it.
    pmin, pmax : float, optional
        Percentiles that the user types in Fiji, 0-100. None takes the model's own, else csbdeep's.
    custom_objects : mapping, optional
        Layers of your own by name, for a Keras file that needs them.
    how_to : bool
        Write `HOW-TO-RUN-IN-FIJI.txt` and a macro beside it.

    Returns
    -------
    Path
        Of the zip. Exporting again gives equal bytes.

    Raises
    ------
    InputError
        If the model cannot run in `target` (see `graph.freeze`), changes the image's size, or the written
        bundle does not give what Keras gives. Nothing is left at `path` then.

    Notes
    -----
    A probabilistic network gets a second bundle beside it, `<name>_mean.zip`, whose output is the means alone:
    the plugin shows all channels, and feeds all of them to a second application.

    The entry `variables/` comes first: the plugin's unzipper makes no folders by itself, and deepImageJ asks
    for that one. `meta.json` is read by nobody in Fiji; it carries csbdeep's six keys and our own, for people and
    for `care-bridge`.

    `care_bridge.onnx` is the same network for ONNX Runtime, and `care_bridge.json` what a script must know to run it;
    the plugin reads neither. Where the network cannot be written as ONNX the zip goes without, and the JSON says why.
    """
    source = open_source(model, custom_objects=custom_objects)
    graph = freeze(source.network, target=target)
    geometry = measure(graph)
    meta = describe(source, graph, geometry, pmin=pmin, pmax=pmax)
    zip_path = bundle_path(path, source)
    with atomic_file(zip_path) as part:
        entries = beside(source, geometry, meta, saved_model_bytes(graph))
        part.write_bytes(bundle_bytes(graph, meta, beside=entries))
        check_written(part, source, geometry)
        # While the first is still a part: a fault leaves neither.
        if is_probabilistic(source):
            _write_means(source, zip_path, geometry, target=target, pmin=pmin, pmax=pmax)
    if how_to:
        write_how_to(zip_path, meta, no_onnx=why_no_onnx(entries))
    return zip_path


def is_probabilistic(source: Source) -> bool:
    """Whether the network gives a scale channel for every mean."""
    config = source.config
    if config is None or not config.probabilistic:
        return False
    return bool(source.network.outputs[0].shape[-1] == 2 * config.n_channel_out)


def means_path(zip_path: Path) -> Path:
    """Where the bundle of the means lies."""
    return zip_path.with_name(f"{zip_path.stem}{MEAN_SUFFIX}.zip")


def _write_means(
    source: Source, zip_path: Path, geometry: Geometry, *, target: str, pmin: float | None, pmax: float | None
) -> None:
    assert source.config is not None
    network, n = source.network, source.config.n_channel_out
    means = keras.Model(network.inputs, network.outputs[0][..., :n])
    mean = dataclasses.replace(source, network=means, name=f"{source.name}{MEAN_SUFFIX}")
    graph = freeze(means, target=target)
    with atomic_file(means_path(zip_path)) as part:
        meta = describe(mean, graph, geometry, pmin=pmin, pmax=pmax)
        entries = beside(mean, geometry, meta, saved_model_bytes(graph))
        part.write_bytes(bundle_bytes(graph, meta, beside=entries))
        check_written(part, mean, geometry)


def bundle_path(path: str | os.PathLike[str], source: Source) -> Path:
    """Where the zip goes: `path` itself when it ends with .zip, else a file in it named after the model."""
    given = Path(path)
    return given if given.suffix.lower() == ".zip" else given / f"{source.name}.zip"


def describe(
    source: Source,
    graph: graph_pb2.GraphDef,
    geometry: Geometry,
    *,
    pmin: float | None = None,
    pmax: float | None = None,
) -> dict[str, Any]:
    """Content of `meta.json`: csbdeep's six keys, then ours under `care_bridge`.

    Parameters
    ----------
    source, graph, geometry
        The model, its frozen graph and what was measured of it.
    pmin, pmax : float, optional
        See `write_bundle`.
    """
    config = source.config
    inputs, outputs = signature(graph)
    space = source.space
    low, high = own_percentiles(source, pmin=pmin, pmax=pmax)
    reach = dict(zip(space, geometry.receptive_field, strict=True))
    projected = None if geometry.dropped is None else space[geometry.dropped]
    scale = config.own_scale if config else None
    own: dict[str, Any] = {
        "format_version": 1,
        "name": source.name,
        "written_by": f"care-bridge {__version__}, TensorFlow {tf.__version__}",
        "n_channel_in": inputs[-1],
        "n_channel_out": outputs[-1],
        "output": "normalised units: multiply by (high - low percentile) and add the low percentile for the "
        "raw range",
        "normalisation": {"pmin": low, "pmax": high, "clip": False},
        **_own_scale(source),
        # For whoever asks; the scales that come out of the graph have it.
        **({"temperature_in_the_graph": config.temperature} if config and config.temperature else {}),
        "receptive_field_px": {axis: pixels for axis, pixels in reach.items() if axis != projected},
        "size_multiple": dict(zip(space, geometry.size_multiple, strict=True)),
        "axes_out": (config.axes_out if config else space.replace(projected or "-", "") + "C"),
        "fiji": plugin_values(geometry, pmin=low, pmax=high, normalize=scale is None),
        "outside_the_graph": _outside(source, projected),
        "limitations": NOT_FOR_QUANTIFICATION,
        "training": _training(source),
    }
    # Where every reader looks for what is not in the graph (`bundle.own_normalisation`).
    stated = {"means": list(scale.means), "stds": list(scale.stds)} if scale and source.bare else None
    return {
        **({"normalisation": stated} if stated else {}),
        "type": config.kind if config else "keras.Model",
        "version": __version__,
        "probabilistic": is_probabilistic(source),
        "axes": config.axes if config else f"{space}C",
        "axes_div_by": [*geometry.size_multiple, 1],
        "tile_overlap": [*(pixels or 0 for pixels in geometry.receptive_field), 0],
        "care_bridge": own,
    }


def _own_scale(source: Source) -> dict[str, Any]:
    """What is said otherwise of a network with a mean and deviation of its own; empty for one of percentiles."""
    own = source.config.own_scale if source.config else None
    if own is None:
        return {}
    numbers = {"means": list(own.means), "stds": list(own.stds)}
    if source.bare:
        return {
            "output": "on the network's own scale: multiply by the standard deviation and add the mean for grey levels",
            "normalisation": {"rule": "outside", **numbers},
        }
    return {
        "output": "grey levels, as the input's: mean and standard deviation are in the graph",
        "normalisation": {"rule": "inside", **numbers},
    }


def plugin_values(geometry: Geometry, *, pmin: float, pmax: float, normalize: bool = True) -> dict[str, Any]:
    """What to type into "Run your network", under the plugin's own option names.

    Notes
    -----
    One tile pads right and bottom only and shows no seams. Where memory asks for tiles, the overlap given
    here covers the receptive field and keeps the pooling grid in step; a network that sees the whole image, and
    a projection, take one tile and nothing else.
    """
    tiles = geometry.overlap is not None and geometry.dropped is None
    options = PluginOptions(
        normalizeInput=normalize,
        percentileBottom=pmin,
        percentileTop=pmax,
        nTiles=1,
        blockMultiple=geometry.block_multiple,
        overlap=geometry.overlap or 0,
    )
    # Neither where the bundle will lie nor whether a person likes to see a bar.
    told = {
        key: value for key, value in vars(options).items() if key not in ("modelFile", "showProgressDialog")
    }
    return told | {"tiles_allowed": tiles}


def _outside(source: Source, projected: str | None) -> list[str]:
    """What a caller has to do around the graph, for the kinds that are more than one network."""
    kind = source.config.kind if source.config else ""
    said = []
    if kind == "IsotropicCARE":
        said.append(
            "This 2-D network restores XZ and YZ slices: upsample Z linearly first, run it on both, and combine the two "
            'results by their geometric mean ("Run your IsoNet" in Fiji). The CARE bridge scripts for Fiji and care_bridge '
            "in Python do all of it."
        )
    if kind == "UpsamplingCARE":
        said.append(
            "Upsample the image linearly along Z by the factor first; the network keeps the size. The CARE bridge scripts "
            "for Fiji and care_bridge in Python do it by themselves."
        )
    if projected:
        said.append(f"The network projects along {projected}: give it whole stacks in one tile (nTiles=1).")
    if source.config and is_probabilistic(source):
        n = source.config.n_channel_out
        said.append(
            f"The first {n} of {2 * n} output channels are the means, the others the scales; before a second "
            f"application keep the means only, or run the bundle of the means (its name ends with "
            f"{MEAN_SUFFIX}.zip), which `care-bridge export --format fiji` writes beside the whole one."
        )
    return said


def _training(source: Source) -> dict[str, Any]:
    config = source.config
    if config is None:
        return {"parameters": int(source.network.count_params())}
    return {
        "parameters": int(source.network.count_params()),
        "loss": config.train_loss,
        "epochs": config.train_epochs,
        "steps_per_epoch": config.train_steps_per_epoch,
        "batch_size": config.train_batch_size,
        "learning_rate": config.train_learning_rate,
        "schedule": config.train_schedule,
        "method": config.method,
        "average": config.train_average,
        "seed": config.seed,
        "target_scale": config.target_scale,
        "provenance": config.provenance,
    }


# --- bytes


def saved_model(graph: graph_pb2.GraphDef) -> saved_model_pb2.SavedModel:
    """A frozen graph as a SavedModel: one meta graph, tag `serve`, signature `serving_default`."""
    inputs, outputs = signature(graph)
    model = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    meta = model.meta_graphs.add()
    meta.meta_info_def.tags.append(TAG)
    meta.graph_def.CopyFrom(graph)
    definition = meta.signature_def[SIGNATURE]
    definition.method_name = METHOD
    for tensors, name, shape in ((definition.inputs, INPUT, inputs), (definition.outputs, OUTPUT, outputs)):
        tensors[name].name = f"{name}:0"
        tensors[name].dtype = tf.float32.as_datatype_enum
        # The plugin reads dimensions from here, not from the graph: -1 is what it pads and tiles.
        tensors[name].tensor_shape.CopyFrom(_every_dimension(shape))
    return model


def _every_dimension(shape: Shape) -> Any:
    return tf.TensorShape(shape).as_proto()


def saved_model_bytes(graph: graph_pb2.GraphDef) -> bytes:
    """Content of `saved_model.pb`."""
    content: bytes = saved_model(graph).SerializeToString(deterministic=True)
    return content


def bundle_bytes(
    graph: graph_pb2.GraphDef, meta: Mapping[str, Any], *, beside: Mapping[str, bytes] = MappingProxyType({})
) -> bytes:
    """The zip, byte for byte the same for the same graph, meta and entries beside them."""
    model = saved_model_bytes(graph)
    text = json.dumps(meta, indent=1, ensure_ascii=False) + "\n"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as file:
        first = {"variables/": b"", SAVED_MODEL: model, META: text.encode()}
        for name, data in (first | dict(beside)).items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3
            entry.external_attr = (0o40755 << 16) | 0x10 if name.endswith("/") else 0o100644 << 16
            entry.compress_type = zipfile.ZIP_STORED if name.endswith("/") else zipfile.ZIP_DEFLATED
            file.writestr(entry, data)
    return content.getvalue()


def check_written(path: Path, source: Source, geometry: Geometry) -> float:
    """Reload a bundle as any TensorFlow 2 program would and compare it with Keras; the largest difference."""
    with scratch_folder() as folder:
        shutil.unpack_archive(path, folder, "zip")
        loaded = tf.saved_model.load(folder, tags=[TAG]).signatures[SIGNATURE]
        difference = 0.0
        for factor in (2, 3):
            shape = [multiple * max(factor, 16 // multiple) for multiple in geometry.size_multiple]
            fixed = source.network.inputs[0].shape[1:-1]
            shape = [size or free for size, free in zip(fixed, shape, strict=True)]
            channels = source.network.inputs[0].shape[-1]
            image = on_scale_of(
                source, np.random.default_rng(factor).random((1, *shape, channels), np.float32)
            )
            expected = np.asarray(source.network(image, training=False))
            received = loaded(**{INPUT: tf.constant(image)})[OUTPUT].numpy()
            span = max(1.0, float(np.ptp(expected)))
            difference = max(difference, float(np.abs(received - expected).max()) / span)
    if not difference <= TOLERANCE:
        raise InputError(
            f"the bundle of {source.name!r} differs from Keras by {difference:.3g} of the output's range "
            f"(at most {TOLERANCE} is accepted); does the network hold layers that act by chance or only in training?"
        )
    return difference


# --- beside the zip


def macro_line(zip_path: Path, meta: Mapping[str, Any]) -> str:
    """The ImageJ macro line that runs the bundle on the active image, every option given."""
    return PluginOptions.told(meta["care_bridge"]["fiji"]).macro_line(model=path_text(zip_path.resolve()))


def careful_macro(zip_path: Path, meta: Mapping[str, Any]) -> str:
    """A macro that runs the bundle on the active image and not the model that the plugin remembers."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("care_bridge", "templates"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    options = PluginOptions.told(meta["care_bridge"]["fiji"])
    # In the macro the path is computed; that ImageJ reads it as it is, is looked at here.
    options.macro_line(model=path_text(zip_path.resolve()), source="care_input")
    return environment.get_template("run_model.ijm.j2").render(
        name=printable(zip_path.name),
        command=COMMAND,
        model=imagej_string(path_text(zip_path.resolve())),
        forget=FORGET,
        line=options.macro_line(model=Code("model"), source="care_input"),
        raw=not options.normalizeInput,
    )


def _numbers(own: Mapping[str, Any], fiji: Mapping[str, Any]) -> list[str]:
    """What the grey levels of the result are."""
    if fiji["normalizeInput"]:
        return [
            "The grey level at the bottom percentile of the image becomes 0, the one at the top percentile 1."
        ]
    if own["normalisation"].get("rule") == "outside":
        mean, std = (
            ", ".join(f"{number:g}" for number in own["normalisation"][key]) for key in ("means", "stds")
        )
        return [
            f"The network wants images from which its mean ({mean}) is subtracted and that are divided by its standard",
            f"deviation ({std}): Process > Math, before and, the other way round, behind it. Normalize image stays off.",
        ]
    return [
        "The network was trained on its own mean and standard deviation (Noise2Void), and both are in it: it takes the",
        "grey levels of the image as they are, and gives such back. Normalize image stays off; percentiles would feed it",
        "another scale.",
    ]


def write_how_to(zip_path: Path, meta: Mapping[str, Any], *, no_onnx: str = "") -> None:
    """Write the text for a Fiji user, and the macro, beside the zip; and why ONNX is not in it."""
    own = meta["care_bridge"]
    fiji = own["fiji"]
    axes = meta["axes"].replace("C", "")
    kind = (
        "a single plane, or a stack of planes that are restored one by one" if axes == "YX" else "a stack (Z)"
    )
    words = {True: "on", False: "off"}
    shown = {
        LABELS[name]: words[value] if isinstance(value, bool) else value
        for name, value in fiji.items()
        if name in LABELS
    }
    tiles = (
        f"If memory runs out, raise the number of tiles and leave multiple {fiji['blockMultiple']} and "
        f"overlap {fiji['overlap']} as they are: with them no seams show."
        if fiji["tiles_allowed"]
        else "Leave the number of tiles at 1: this network needs the whole image at once."
    )
    name = printable(zip_path.name)
    try:
        macro = careful_macro(zip_path, meta)
        as_macro = [
            f"The same as a macro: open {zip_path.with_suffix('.ijm').name} in Fiji and press Run. "
            "A macro of your own needs",
            "these three lines each time: the plugin takes the model of its last run, whatever modelfile= says, "
            "and the first",
            "and the last line make it forget that one. Without windows, use the scripts of care_bridge.",
            FORGET,
            macro_line(zip_path, meta),
            FORGET,
        ]
    except InputError as error:
        macro = ""
        as_macro = [f"There is no macro for it: {printable(str(error))}, and export it again."]
    # In the order of docs/fiji.md, under the same headings.
    lines = [
        f"How to run {name} in Fiji",
        "",
        "You need",
        "1. Fiji with the update site CSBDeep: Help > Update... > Manage Update Sites, tick CSBDeep, Apply, restart. If",
        "   models do not load afterwards, tick TensorFlow too.",
        f"2. The model for Fiji, {name}. Leave it zipped.",
        "3. The scripts of care_bridge, where somebody installed them; without them the plugin alone does.",
        *(
            []
            if no_onnx
            else [
                "With the scripts and ONNX Runtime (care-bridge macros install FIJI --engine onnx, or care-bridge-fiji.zip)",
                "no update site is needed, any machine will do, and no number is typed: Plugins > CARE bridge > Restore,",
                "the model, OK.",
            ]
        ),
        "",
        "One image: four clicks",
        f"1. Open the image: {kind}; {counted(own['n_channel_in'], 'channel')}, not RGB.",
        "2. Plugins > CARE bridge > Restore Image; without the scripts Plugins > CSBDeep > Run your network.",
        "3. Choose the model and type these values:",
        f"      {LABELS['modelFile']:34} {name}",
        *(f"      {label:34} {value}" for label, value in shown.items()),
        "4. OK. The restored image is a new one, in 32 bits. The script keeps pixel size, units and name; the plugin,",
        '   whose image is called "result", loses them: copy them with Image > Properties.',
        "",
        "What the numbers mean",
        *_numbers(own, fiji),
        *own["outside_the_graph"],
        NOT_FOR_QUANTIFICATION,
        tiles,
        "",
        *([f"Not for ONNX Runtime: {printable(no_onnx)}.", ""] if no_onnx else []),
        "In your own macros",
        *as_macro,
        "",
    ]
    write_text(zip_path.with_name(HOW_TO), "\n".join(lines))
    if macro:
        write_text(zip_path.with_suffix(".ijm"), macro)
