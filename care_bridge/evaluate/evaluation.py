"""Everything that is measured about a model on pairs with a ground truth, in one value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from care_bridge.evaluate.applications import (
    Application,
    Omission,
    Verdict,
)
from care_bridge.evaluate.baselines import Baseline
from care_bridge.evaluate.conditions import Published
from care_bridge.evaluate.histograms import (
    Saturation,
)
from care_bridge.evaluate.planes import Plane
from care_bridge.evaluate.profiles import Line, PeakMatch
from care_bridge.evaluate.reliability import (
    Calibration,
)
from care_bridge.evaluate.robustness import Point, ValidRange, valid_ranges
from care_bridge.evaluate.scores import (
    METRICS,
    MIN_IMAGES,
    MIN_INTERVAL,
    PairedTest,
    Summary,
    paired_test,
    summarise,
)
from care_bridge.guard import Likeness
from care_bridge.noise import Noise
from care_bridge.words import counted, listed

Array = NDArray[np.float64]

INPUT = "input"
SINGLE = "single net"
OWN, ALIGNED = "each image's own percentiles 2 and 99.8", "truth aligned to the prediction"
SCALES: Mapping[str, str] = {
    "own": OWN,
    "source": "the source's grey levels",
    "fitted": "truth fitted to its source",
}
"""The intensity scale on which a network was trained to answer, by `target_scale`; calibration is stated on it and on
`ALIGNED`."""


@dataclass(frozen=True)
class Row:
    """One image, one method.

    Attributes
    ----------
    image, method : str
    seconds : float
        Time of the restoration; NaN for the input.
    scores : mapping of str to float
        Keys of `scores.METRICS`.
    wasserstein : float
        Distance of the intensity distributions, relative to the truth's range, after the affine fit.
    condition : str
        Of the image; "" where nobody says.
    """

    image: str
    method: str
    seconds: float
    scores: Mapping[str, float]
    wasserstein: float
    condition: str = ""


@dataclass(frozen=True)
class ConditionScores:
    """One method under one condition.

    Attributes
    ----------
    condition, method : str
    images : int
    scores : mapping of str to Summary
        By keys of `scores.METRICS`. Published ones hold what was published, a mean alone.
    seconds : float
        Of an image, mean; NaN where nothing was computed.
    published : bool
        Whether others measured it, on images of their own.
    """

    condition: str
    method: str
    images: int
    scores: Mapping[str, Summary]
    seconds: float
    published: bool = False


@dataclass(frozen=True)
class Peaks:
    """One profile: how many of the truth's peaks a method finds again."""

    image: str
    method: str
    line: Line
    match: PeakMatch


@dataclass(frozen=True)
class Reliability:
    """How sure the model is and whether rightly so.

    Attributes
    ----------
    members : int
    calibrations : tuple of Calibration
        Of the ensemble (or the single net) on each intensity scale, over all images.
    temperature : float, optional
        The model's own, which is in its intervals; None for a model without.
    uncalibrated : tuple of Calibration
        As `calibrations`, without the temperature; empty for a model without.
    mended : Calibration, optional
        On the images that the factor was not taken from; None for a single image.
    factor : float
        Of the first half of the images; multiply scales by it.
    nll_single, nll_ensemble : float
        Mean negative log likelihood of single nets and of their mixture, aligned, percentile units.
    member_nrmse : tuple of float
        Mean over images, a member each.
    by_scale, by_intensity : tuple of mapping
        Predicted scale against error, and against intensity.
    correlation_scale, correlation_d : float
        Spearman's rank correlation with the absolute error over blocks of 8 pixels, mean over images.
    d_mean : mapping of str to float
        Mean disagreement an image; empty for a single net.
    """

    members: int
    calibrations: tuple[Calibration, ...]
    mended: Calibration | None
    factor: float
    nll_single: float
    nll_ensemble: float
    member_nrmse: tuple[float, ...]
    by_scale: tuple[Mapping[str, float], ...]
    by_intensity: tuple[Mapping[str, float], ...]
    correlation_scale: float
    correlation_d: float
    d_mean: Mapping[str, float]
    temperature: float | None = None
    uncalibrated: tuple[Calibration, ...] = ()

    def sentence(self) -> str:
        """What intervals hold, in one line.

        Returns
        -------
        str
            On the scale that the network was trained to answer on, with the model's temperature and without.
        """
        now = self.calibrations[0]
        held = [f"{100 * level:g} % intervals hold {100 * now.at(level):.0f} %" for level in (0.5, 0.9)]
        if self.temperature is None:
            more = "the model has no temperature"
        else:
            before = [f"{100 * self.uncalibrated[0].at(level):.0f}" for level in (0.5, 0.9)]
            more = f"{' and '.join(before)} % without the model's temperature {self.temperature:.3g}"
        return f"{', '.join(held)} of the pixels ({now.scale}; {more})"


@dataclass(frozen=True, eq=False)
class Shown:
    """Planes of one image for the report, on the truth's intensities; maps are absolute.

    Attributes
    ----------
    name : str
    planes : mapping of str to ndarray, shape (Y, X)
        `input`, the applications, the best filter, `truth`.
    maps : mapping of str to ndarray, shape (Y, X)
        `error`, and where known `scale`, `D`, `change`.
    pixel_um : float, optional
    """

    name: str
    planes: Mapping[str, Plane]
    maps: Mapping[str, Plane]
    pixel_um: float | None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was found. `to_dict` gives everything but the pictures.

    Attributes
    ----------
    model : str
    images : tuple of str
    methods : tuple of str
        `input`, the applications, for an ensemble `single net`, the filters.
    rows : tuple of Row
    warnings : mapping of str to tuple of str
        Sentences about each image; images without are left out.
    baselines : tuple of Baseline
    series : tuple of tuple of Application
        An image each.
    applications_verdict : Verdict, optional
        None when nothing could be compared.
    omissions : tuple of Omission
        Of the first application, summed over images.
    peaks : tuple of Peaks
    profiles : mapping
        Line and values of the image shown first.
    histograms : tuple of mapping
        Of the image shown first.
    saturations : mapping of str to Saturation
        Over all images, by method.
    reliability : Reliability, optional
    robustness : tuple of Point
    foreign : mapping of str to tuple of str
    settings : mapping
    shown : tuple of Shown
        The middle image first, then the worst and the best.
    trained_on : tuple of str
        Images whose source or truth the model was trained on; with any there is no verdict.
    noise : tuple of (str, int, Noise)
        What was measured of each source: image, channel, noise.
    guard : mapping of str to Likeness
        Whether each source is like what the model was trained on; empty where nobody asked.
    published : tuple of Published
        Scores of others, to stand beside ours condition by condition.
    """

    model: str
    images: tuple[str, ...]
    methods: tuple[str, ...]
    rows: tuple[Row, ...]
    warnings: Mapping[str, tuple[str, ...]]
    baselines: tuple[Baseline, ...]
    series: tuple[tuple[Application, ...], ...]
    applications_verdict: Verdict | None
    omissions: tuple[Omission, ...]
    peaks: tuple[Peaks, ...]
    profiles: Mapping[str, Any]
    histograms: tuple[Mapping[str, float], ...]
    saturations: Mapping[str, Saturation]
    reliability: Reliability | None
    robustness: tuple[Point, ...]
    foreign: Mapping[str, tuple[str, ...]]
    settings: Mapping[str, Any]
    shown: tuple[Shown, ...] = field(default=())
    trained_on: tuple[str, ...] = ()
    noise: tuple[tuple[str, int, Noise], ...] = ()
    guard: Mapping[str, Likeness] = field(default_factory=dict)
    published: tuple[Published, ...] = ()

    def guard_sentences(self) -> list[str]:
        """What is to be said of images that the model was not trained on, or that nothing is known of; each once."""
        known = {name: one.sentence() for name, one in self.guard.items() if one.foreign is not None}
        named = [f"{name}: {said}" for name, said in known.items() if said]
        unknown = [one.sentence() for one in self.guard.values() if one.foreign is None]
        return named + list(dict.fromkeys(unknown))

    def values(self, method: str, metric: str) -> list[float]:
        """Scores of one method, image by image."""
        return [row.scores[metric] for row in self.rows if row.method == method]

    def summary(self, method: str, metric: str) -> Summary:
        """Mean of one score of one method over the images, with its interval."""
        return summarise(self.values(method, metric))

    @property
    def conditions(self) -> list[str]:
        """Conditions of the images, in the order of their names; empty where nobody says."""
        return sorted({row.condition for row in self.rows} - {""})

    def by_condition(self) -> list[ConditionScores]:
        """Every method under every condition, with what was published for it."""
        found = []
        for condition in self.conditions:
            for method in self.methods:
                rows = [row for row in self.rows if (row.condition, row.method) == (condition, method)]
                if rows:
                    scores = {m.key: summarise([row.scores[m.key] for row in rows]) for m in METRICS}
                    seconds = float(np.mean([row.seconds for row in rows]))
                    found.append(ConditionScores(condition, method, len(rows), scores, seconds))
            found += [
                ConditionScores(
                    condition,
                    other.method,
                    0,
                    {key: summarise([value]) for key, value in other.scores.items()},
                    math.nan,
                    published=True,
                )
                for other in self.published
                if other.condition == condition
            ]
        return found

    def condition_sentences(self) -> list[str]:
        """How good under each condition, and which have too few images for an interval."""
        found = []
        counts = {}
        for condition in self.conditions:
            only = replace(self, rows=tuple(row for row in self.rows if row.condition == condition))
            counts[condition] = len(only.values(self.kept, "psnr"))
            standing = [
                f"{'better' if len(only._better_in(rival, kept=self.kept)) == 2 else 'no better'} than "
                f"{_called(rival)} ({only._level(rival)})"
                for rival in self.rivals
                if only.values(rival, "psnr")
            ]
            said = f"{condition} ({counted(counts[condition], 'image')}): {only._level(self.kept)}"
            found.append(f"{said}, {' and '.join(standing)}" if standing else said)
        few = [
            f"{condition} ({counted(number, 'image')})"
            for condition, number in counts.items()
            if number < MIN_INTERVAL
        ]
        if few:
            found.append(f"No interval for {listed(few, 9)}: it takes {MIN_INTERVAL} images")
        return found

    @property
    def kept(self) -> str:
        """The number of applications that is judged, as a method: the recommended one, at least once.

        It is recommended by one plane of each image; never more than the whole images bear out.
        """
        found = self.applications_verdict
        number = max(1, found.applications if found else 1)
        while number > 1 and self._mean(application_name(number)) < self._mean(application_name(number - 1)):
            number -= 1
        return application_name(number)

    @property
    def best_filter(self) -> str | None:
        """The filter with the highest mean PSNR; None without filters."""
        return self._best_filter("psnr")

    def against(self, method: str, *, metric: str = "psnr") -> PairedTest:
        """The kept restoration against another method on the same images."""
        higher = next(m.higher_is_better for m in METRICS if m.key == metric)
        return paired_test(
            self.values(self.kept, metric), self.values(method, metric), higher_is_better=higher
        )

    @property
    def rivals(self) -> list[str]:
        """What the restoration has to beat: its input, and the best filter by PSNR and by SSIM, where they are scored."""
        names = (INPUT, self.best_filter, self._best_filter("ssim"))
        return [name for name in dict.fromkeys(names) if name and self.values(name, "psnr")]

    @property
    def unbeaten(self) -> list[str]:
        """Rivals that do no worse than the restoration, in PSNR or in SSIM."""
        return [rival for rival in self.rivals if len(self._better_in(rival)) < 2]

    @property
    def good(self) -> bool:
        """Whether the mean PSNR and SSIM beat the input's and the best filter's, on images that were not trained on."""
        advised = self.applications_verdict is None or self.applications_verdict.applications > 0
        return advised and not self.trained_on and not self.unbeaten

    @property
    def advice(self) -> str:
        """How often to apply; never a network that loses to something simpler. "" where it could not be asked."""
        found = self.applications_verdict
        if self.trained_on or found is None:
            return ""
        unbeaten = self.unbeaten
        if found.applications < 1 or INPUT in unbeaten:
            return "Do not apply this network to such images"
        if unbeaten:
            return f"Do not apply this network to such images: {_called(unbeaten[0])} does as well or better"
        return f"Apply {self.kept}"

    @property
    def verdict(self) -> str:
        """The answer in a few sentences."""
        if self.trained_on:
            return self._no_verdict()
        parts = [self._standing(rival) for rival in self.rivals]
        text = (
            f"Applied {self.kept}, it gives {self._level(self.kept)}: {' and '.join(parts)}." if parts else ""
        )
        if len(self.images) < MIN_IMAGES:
            number = "one image is" if len(self.images) == 1 else f"{len(self.images)} images are"
            text += f" {number.capitalize()} too few for a test."
        if self.advice:
            text += f" {self.advice}."
        if self.warnings:
            text += f" Read the warnings below: {len(self.warnings)} of {counted(len(self.images), 'pair')} have some."
        return text.strip()

    def _no_verdict(self) -> str:
        count = counted(len(self.images), "image")
        which = "All" if len(self.trained_on) == len(self.images) > 1 else f"{len(self.trained_on)} of"
        were = "was" if len(self.images) == 1 else "were"
        subject = "The image" if len(self.images) == 1 else f"{which} {count}"
        return (
            f"No verdict: {subject[0].lower()}{subject[1:]} {were} in this model's training ({listed(self.trained_on)}; by "
            "the SHA-256 of the files), so the scores say how well it remembers, not how well it restores. Evaluate it "
            "on images that it never saw."
        )

    def _applications(self) -> dict[str, Any] | None:
        """The recommended number of applications and why; 0 of a network that loses to something simpler."""
        found = self.applications_verdict
        if found is None:
            return None
        number = 0 if self.unbeaten else found.applications
        return {"applications": number, "text": self.applications_text, "judged": self.kept}

    @property
    def applications_text(self) -> str:
        """The advice, and what each further application did."""
        if self.applications_verdict is None:
            return ""
        reasons = self.applications_verdict.text.partition(": ")[2]
        return f"{self.advice}: {reasons}" if self.advice else reasons[:1].upper() + reasons[1:]

    def _mean(self, method: str, metric: str = "psnr") -> float:
        return self.summary(method, metric).mean

    def _best_filter(self, metric: str) -> str | None:
        known = {
            baseline.name: self._mean(baseline.name, metric)
            for baseline in self.baselines
            if self.values(baseline.name, metric)
        }
        known = {name: mean for name, mean in known.items() if not math.isnan(mean)}
        return max(known, key=known.__getitem__, default=None)

    def _better_in(self, rival: str, *, kept: str = "") -> list[str]:
        """In which of PSNR and SSIM, as they are shown, the kept restoration beats a rival; unknown SSIM is no objection."""
        better, kept = [], kept or self.kept
        # "Better, 15.7 against 15.7" convinces nobody; an SSIM that both have, near 1, takes nothing from a better PSNR.
        if round(self._mean(kept), 1) > round(self._mean(rival), 1):
            better.append("PSNR")
        ours, theirs = (round(self._mean(method, "ssim"), 3) for method in (kept, rival))
        if not ours < theirs and (ours != theirs or "PSNR" in better):
            better.append("SSIM")
        return better

    def _standing(self, rival: str) -> str:
        better, test = self._better_in(rival), self.against(rival)
        count = f", in PSNR on {test.better} of {test.n} images" if test.n > 1 else ""
        sure = "" if math.isnan(test.p_value) else f", {test}"
        said = f"{'better' if len(better) == 2 else 'no better'} than {_called(rival)}"
        if len(better) == 1:
            worse = "SSIM" if "PSNR" in better else "PSNR"
            said += f" in {worse}, only in {better[0]}"
        return f"{said} ({self._level(rival)}{count}{sure})"

    def _level(self, method: str) -> str:
        ssim = self._mean(method, "ssim")
        return f"{self._mean(method):.1f} dB PSNR" + ("" if math.isnan(ssim) else f", SSIM {ssim:.3f}")

    def to_dict(self) -> dict[str, Any]:
        """All numbers as JSON can hold them; NaN and infinity become null."""
        found = {
            "model": self.model,
            "verdict": self.verdict,
            "good": self.good,
            "images": self.images,
            "methods": self.methods,
            "rows": [
                {
                    "image": r.image,
                    "method": r.method,
                    "seconds": r.seconds,
                    "wasserstein": r.wasserstein,
                    "condition": r.condition,
                    **r.scores,
                }
                for r in self.rows
            ],
            "summary": {
                method: {m.key: asdict(self.summary(method, m.key)) for m in METRICS}
                for method in self.methods
            },
            "against": {
                method: asdict(self.against(method)) for method in self.methods if method != self.kept
            },
            "conditions": [asdict(one) for one in self.by_condition()],
            "warnings": self.warnings,
            "baselines": [asdict(baseline) for baseline in self.baselines],
            "applications": [[step.as_dict() for step in series] for series in self.series],
            "applications_verdict": self._applications(),
            "trained_on": self.trained_on,
            "omissions": [asdict(omission) for omission in self.omissions],
            "peaks": [
                {"image": p.image, "method": p.method, "line": asdict(p.line), **asdict(p.match)}
                for p in self.peaks
            ],
            "profiles": self.profiles,
            "histograms": self.histograms,
            "saturations": {name: asdict(value) for name, value in self.saturations.items()},
            "reliability": asdict(self.reliability) if self.reliability else None,
            "robustness": [asdict(point) for point in self.robustness],
            "valid_ranges": [asdict(found) for found in self.valid_ranges],
            "foreign": self.foreign,
            "noise": [
                {"image": name, "channel": number, **one.as_dict()} for name, number, one in self.noise
            ],
            "guard": {name: one.as_dict() for name, one in self.guard.items()},
            "settings": self.settings,
        }
        plain: dict[str, Any] = _jsonable(found)
        return plain

    @property
    def valid_ranges(self) -> list[ValidRange]:
        return valid_ranges(self.robustness)


def application_name(application: int) -> str:
    """What a number of applications is called in tables."""
    return {1: "once", 2: "twice"}.get(application, f"{application} times")


def _called(rival: str) -> str:
    return "its input" if rival == INPUT else f"the best filter ({rival})"


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(part) for part in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value
