"""One comparison of two results, as a row of the report."""

from __future__ import annotations

from dataclasses import dataclass

from care_bridge.comparing.where import Finding, distances_of, place_of


@dataclass(frozen=True)
class ParityRow:
    """One comparison of two results.

    Attributes
    ----------
    stage : str
        What was compared: the network alone, or the whole prediction.
    application : int
        1 = the first.
    fed : str
        What the candidate was given: `image`, `own result` or `reference's result`.
    max_abs, mean_abs, rmse : float
        Differences candidate - reference, in units of the output.
    mismatched_ppm : float
        Elements that differ by more than the tolerance, per million.
    worst : tuple of int
        Index of the largest difference, in the order of `axes`.
    axes : str
        Axes of the results.
    tolerance : float
    passed : bool
        Whether `max_abs` is within the tolerance; NaN at one side only never is.
    to_seam_px, to_border_px : int
        From the worst place to the nearest border between tiles (None where nothing was cut) and to the nearest
        border of the image.
    cause, diagnosis : str
        What the difference comes from, in a word and in a sentence; see `where.diagnose`.
    """

    stage: str
    application: int
    fed: str
    max_abs: float
    mean_abs: float
    rmse: float
    mismatched_ppm: float
    worst: tuple[int, ...]
    axes: str
    tolerance: float
    passed: bool
    to_seam_px: int | None
    to_border_px: int
    cause: str
    diagnosis: str

    @classmethod
    def of(cls, found: Finding, *, stage: str, application: int, fed: str) -> ParityRow:
        """A row with everything that was found."""
        return cls(
            stage=stage,
            application=application,
            fed=fed,
            max_abs=found.max_abs,
            mean_abs=found.mean_abs,
            rmse=found.rmse,
            mismatched_ppm=found.mismatched_ppm,
            worst=found.worst,
            axes=found.axes,
            tolerance=found.tolerance,
            passed=found.passed,
            to_seam_px=found.to_seam_px,
            to_border_px=found.to_border_px,
            cause=found.cause,
            diagnosis=found.words,
        )

    @property
    def title(self) -> str:
        """What was compared, in words."""
        return f"{self.stage}, {ordinal(self.application)} application, fed the {self.fed}"

    @property
    def place(self) -> str:
        """The worst place as people read it: "y=2 x=3"."""
        return place_of(self.axes, self.worst)

    @property
    def distances(self) -> str:
        """How far the worst place is from where tiles and the image end."""
        return distances_of(self.to_seam_px, self.to_border_px)


def ordinal(number: int) -> str:
    """The number of an application in words: 1 is the first."""
    return {1: "first", 2: "second", 3: "third"}.get(number, f"{number}th")
