"""`care-bridge advise`: what to type into Fiji's dialog for a model and an image."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from care_bridge.cli import _options as options
from care_bridge.cli._run import DONE, command, progress_bar
from care_bridge.cli._tensorflow import load_tensorflow
from care_bridge.cli._typer import old_spellings
from care_bridge.errors import InputError
from care_bridge.model_names import model_path

if TYPE_CHECKING:
    from care_bridge.network_predictor import NetworkPredictor
    from care_bridge.noise import Noise
    from care_bridge.plugin.advice import Advice, Expected

_UNITS = {"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


LEAST_BYTES = 1 << 20
"""Less than this is a number without its unit rather than memory."""


def register(app: typer.Typer) -> None:
    app.command("advise", context_settings=old_spellings({"--axes": "--image-axes"}))(command(advise))


def advise(
    model: Path = typer.Argument(..., help="Model folder, a bundle (.zip), or a name of `zoo list`."),
    image: Path = typer.Argument(..., help="TIFF or OME-Zarr that is to be restored in Fiji."),
    *,
    image_axes: options.ImageAxes = None,
    memory: str = typer.Option("2GiB", "--memory", help="What the network may take, e.g. 900MB or 4GiB."),
    n_first: int | None = typer.Option(
        None, "--n-first", min=1, help="Features of the first level; read from a model folder, else 32."
    ),
    compare: bool = typer.Option(
        True,
        "--compare/--no-compare",
        help="Also run the network here and say how far Fiji will be from Python.",
    ),
    json_output: bool = typer.Option(False, "--json", help="Print JSON."),
    quiet: options.NoBar = False,
) -> int:
    """Find the tile settings without seams and lost rows in Fiji.

    Says which nTiles, blockMultiple and overlap to type for this image, how noisy it is, and where the model was trained
    for another kind of noise.
    """
    from care_bridge.images import read_image
    from care_bridge.model_files import stated_noise
    from care_bridge.noise import measure_channels, unlike
    from care_bridge.opening import own_plugin_options
    from care_bridge.plugin import advice as advising

    model = model_path(model)
    predictor, features = _open(model)
    picture = read_image(image, axes=image_axes)
    noise = measure_channels(picture)
    other = unlike(picture, stated_noise(model), measured=noise)
    found = advising.advise(
        picture.shape,
        picture.axes,
        size_multiple=predictor.size_multiple,
        halo=predictor.halo,
        n_first=n_first or features or 32,
        n_channel_out=predictor.network.output_shape[-1] or 1,
        space=predictor.space,
        output_rank_lost=1 if predictor.lost_axis else 0,
        memory_bytes=_bytes(memory),
        options=own_plugin_options(model),
    )
    found = dataclasses.replace(found, notes=(*found.notes, *([other] if other else [])))
    expected: tuple[Expected, ...] = ()
    if compare:
        with progress_bar(quiet=quiet or json_output) as progress:
            expected = advising.expected_differences(predictor, picture, found.options, progress=progress)
    typer.echo(_json(found, expected, noise) if json_output else _text(found, expected, noise))
    return DONE


def _open(model: Path) -> tuple[NetworkPredictor, int | None]:
    load_tensorflow()
    from care_bridge.config import read_config
    from care_bridge.opening import open_network_predictor

    features = None
    if (model / "config.json").is_file():
        config = read_config(model)
        # For each pixel of the image: a coarser first level holds its features for a block of them.
        features = max(1, config.unet_n_first // math.prod(config.stride))
    return open_network_predictor(model), features


def _bytes(text: str) -> int:
    number = text.strip().upper().rstrip("BIKMG")
    unit = text.strip().upper()[len(number) :].strip()
    try:
        count = int(float(number) * (_UNITS[unit] if unit else 1))
    except (ValueError, KeyError, OverflowError):
        count = 0
    if count < 1:
        raise InputError(f"--memory {text!r} is no amount; use e.g. 900MB or 2GiB")
    if count < LEAST_BYTES:
        meant = "" if unit else f" ({count} bytes); {text.strip()}GiB may be meant"
        raise InputError(f"--memory {text!r} is less than any network takes{meant}; use e.g. 900MB or 2GiB")
    return count


def _text(found: Advice, expected: tuple[Expected, ...], noise: Sequence[Noise]) -> str:
    options, plan = found.options, found.plan
    lines = [
        "Type into Plugins > CSBDeep > Run your network:",
        f"  Bottom percentile (percentileBottom)              {options.percentileBottom:g}",
        f"  Top percentile (percentileTop)                    {options.percentileTop:g}",
        f"  Number of tiles (nTiles)                          {options.nTiles}",
        f"  Tile size has to be multiple of (blockMultiple)   {options.blockMultiple}",
        f"  Overlap between tiles (overlap)                   {options.overlap}",
        f"  Batch size (batchSize)                            {options.batchSize}",
        "",
        f"The network looks {found.halo_px} pixels far and takes multiples of {found.size_multiple}; "
        f"{plan.n_tiles} tile{'s' * (plan.n_tiles != 1)}, no seams, "
        + ("no lost rows." if not plan.lost else f"lost rows: {plan.lost}."),
        f"About {found.network_bytes / 2**20:.0f} MiB for the network and {found.image_bytes / 2**20:.0f} MiB "
        "for the image.",
        *(
            f"Noise{f' of channel {number}' if len(noise) > 1 else ''}: {one}."
            for number, one in enumerate(noise)
        ),
        *(f"Note: {note}." for note in found.notes),
    ]
    if expected:
        lines += [
            "",
            "Expected difference Fiji - Python, in normalised units:",
            f"  {'':<18} {'same percentiles':>28}   {'csbdeep as it is':>18}",
            f"  {'':<18} {'max':>8}  {'RMS':>8}  {'interior':>8}   {'max':>8}  {'RMS':>8}",
        ]
    for row in expected:
        if row.reason:
            lines.append(f"  {row.what:<18} no result: {row.reason}")
            continue
        numbers = (row.tiles_max, row.tiles_rmse, row.interior_max, row.csbdeep_max, row.csbdeep_rmse)
        cells = [f"{number:8.1e}" for number in numbers]
        lines.append(f"  {row.what:<18} {'  '.join(cells[:3])}   {'  '.join(cells[3:])}")
    return "\n".join(lines)


def _json(found: Advice, expected: tuple[Expected, ...], noise: Sequence[Noise]) -> str:
    import json

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(one) for key, one in value.items()}
        return None if isinstance(value, float) and math.isnan(value) else value

    return json.dumps(
        {
            "options": dataclasses.asdict(found.options),
            "tiles": found.plan.n_tiles,
            "lost_rows": found.plan.lost,
            "halo_px": found.halo_px,
            "size_multiple": found.size_multiple,
            "network_bytes": found.network_bytes,
            "image_bytes": found.image_bytes,
            "fits": found.fits,
            "notes": list(found.notes),
            "noise": [one.as_dict() for one in noise],
            "expected": [clean(dataclasses.asdict(row)) for row in expected],
        },
        indent=2,
    )
