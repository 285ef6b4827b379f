"""Options that several commands share, each declared once: one word has one meaning, one help text, everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from care_bridge.defaults import LEVELS, PRECISIONS, TF1_VERSIONS

ImageAxes = Annotated[
    str | None, Option("--image-axes", help="Axes of the images, e.g. ZYX, where the files do not say.")
]
Series = Annotated[
    int | None,
    Option("--series", min=0, help="Which of several images in a file, from 0; else the full-size ones."),
]
NetworkAxes = Annotated[
    str | None,
    Option("--network-axes", help="Axes that the network works along, e.g. YX; else the images' own."),
]
SourceSuffix = Annotated[
    str | None,
    Option(
        "--source-suffix",
        help="What source names end with where those of a pair differ, e.g. _noisy; found when left out.",
    ),
]
TargetSuffix = Annotated[
    str | None, Option("--target-suffix", help="The same of target names, e.g. _gt; found when left out.")
]
Channel = Annotated[
    int | None, Option("--channel", min=0, help="Take one channel of the images, from 0; else all of them.")
]
Applications = Annotated[int, Option("--applications", min=1, help="How many times in a row.")]
Level = Annotated[
    str, Option("--level", help=f"How much of Fiji: best, {', '.join(LEVELS)}; one named is never lowered.")
]
Tensorflow = Annotated[
    str,
    Option("--tensorflow", help=f"TensorFlow 1.x, where it runs outside of Fiji: {', '.join(TF1_VERSIONS)}."),
]
Fiji = Annotated[
    Path | None,
    Option("--fiji", help="Your Fiji's folder, with the CSBDeep update site; else that of CARE_BRIDGE_FIJI."),
]
Factor = Annotated[
    float | None, Option("--factor", help="Upsampling along Z, for UpsamplingCARE and IsotropicCARE.")
]
Pmin = Annotated[
    float | None,
    Option("--pmin", help="Low percentile of the normalisation, 0-100; else what the model says."),
]
Pmax = Annotated[float | None, Option("--pmax", help="High percentile, 0-100; else likewise.")]
Precision = Annotated[str, Option("--precision", help=f"What Keras computes in: {' or '.join(PRECISIONS)}.")]
PatchesPerImage = Annotated[int, Option("--patches-per-image", min=1, help="Patches cut per image pair.")]
Seed = Annotated[int, Option("--seed", min=0, help="Every random draw comes from it.")]
Settings = Annotated[
    list[str] | None, Option("--set", help="Any setting of config.json, as KEY=VALUE; may be repeated.")
]
Fill = Annotated[
    bool,
    Option(
        "--scale-when-converting",
        help="With an integer --dtype: map each result's least and greatest value to the ends of the type, as Fiji does "
        "by its option of that name, instead of clipping.",
    ),
]
ClusterAddress = Annotated[
    str | None,
    Option(
        "--cluster",
        help="Workers of dask.distributed: local:N for N processes here, tcp://host:port of a scheduler, or its file.",
    ),
]
NoBar = Annotated[bool, Option("--quiet", help="No progress bar.")]
Silent = Annotated[bool, Option("--quiet", help="Say nothing; no progress bar.")]
