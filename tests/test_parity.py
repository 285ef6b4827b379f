"""Two predictors, one image: every figure of the report against cases worked out by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from care_bridge.comparing.parity import OTHER_NETWORK, compare
from care_bridge.comparing.report import ParityReport
from care_bridge.comparing.where import AGREE, NAN, diagnose, residual
from care_bridge.errors import InputError
from care_bridge.images import Image
from care_bridge.network_predictor import NetworkPredictor
from care_bridge.predictor import ImagesOnly, PredictOptions, Runtime, Tensor, UnhintedNetwork


@dataclass(frozen=True)
class Adds(ImagesOnly):
    """Predicts input + amount, plus an error at one place."""

    amount: float = 1.0
    error: float = 0.0
    place: tuple[int, int] = (2, 3)
    runtime: Runtime = field(default_factory=lambda: Runtime("test", {"numpy": np.__version__}))

    def predict(self, image: Image) -> Image:
        data = image.data.astype(np.float32) + np.float32(self.amount)
        data[self.place] += np.float32(self.error)
        return image.replace(data=data)


@dataclass(frozen=True)
class Doubling(UnhintedNetwork):
    """A network that doubles, plus a bias."""

    bias: float = 0.0
    input_shape: tuple[int | None, ...] = (None, None, None, 1)
    output_shape: tuple[int | None, ...] = (None, None, None, 1)
    runtime: Runtime = field(default_factory=lambda: Runtime("test"))
    size_multiple: int = 1
    halo: int = 0

    def __call__(self, tensor: Tensor) -> Tensor:
        return (tensor * 2 + np.float32(self.bias)).astype(np.float32)


@dataclass(frozen=True)
class Curved(Doubling):
    """Another network, whose result is no multiple of the first one's."""

    def __call__(self, tensor: Tensor) -> Tensor:
        return np.sin(7 * tensor).astype(np.float32)


@pytest.fixture
def image() -> Image:
    return Image(np.arange(20, dtype=np.float32).reshape(4, 5), "YX", name="stairs")


def by_title(report: ParityReport) -> dict[str, float]:
    return {row.title: row.max_abs for row in report.rows}


def test_equal_predictors_agree_exactly(image: Image) -> None:
    report = compare(reference=Adds(), candidate=Adds(), image=image)
    assert report.passed
    assert [row.max_abs for row in report.rows] == [0, 0, 0]
    assert "agree in all 3" in report.verdict


def test_networks_of_other_weights_are_not_blamed_on_normalisation(image: Image) -> None:
    here, there = (NetworkPredictor(net, PredictOptions()) for net in (Doubling(), Curved()))
    report = compare(reference=here, candidate=there, image=image, applications=1)
    assert {row.cause for row in report.rows} == {OTHER_NETWORK}
    assert "export it again" in report.verdict


def test_the_verdict_names_the_largest_difference_and_not_the_one_nearest_to_its_tolerance(
    image: Image,
) -> None:
    report = compare(
        reference=Adds(), candidate=Adds(error=0.25), image=image, tolerance=0.3, tolerance_repeated=9
    )
    assert report.passed
    # Fed its own result, the second application has the error of both: 0.25 + 0.25.
    assert "the largest difference is 5.0e-01" in report.verdict


def test_a_row_counts_what_differs_and_says_where(image: Image) -> None:
    row = compare(reference=Adds(), candidate=Adds(error=0.5), image=image, applications=1).rows[0]
    # One of 20 pixels is off by 0.5: mean 0.5/20, RMSE sqrt(0.25/20), 1/20 = 50,000 per million.
    assert row.max_abs == 0.5
    assert row.mean_abs == pytest.approx(0.025)
    assert row.rmse == pytest.approx(np.sqrt(0.0125))
    assert row.mismatched_ppm == pytest.approx(50_000)
    assert row.worst == (2, 3)
    assert not row.passed


def test_the_second_application_tells_new_differences_from_those_handed_on(image: Image) -> None:
    report = compare(reference=Adds(), candidate=Adds(error=0.5), image=image)
    found = by_title(report)
    # Fed its own result the candidate has erred twice; fed the reference's, once.
    assert found["whole prediction, second application, fed the own result"] == pytest.approx(1.0)
    assert found["whole prediction, second application, fed the reference's result"] == pytest.approx(0.5)


def test_networks_are_also_compared_alone_without_normalisation_or_tiles(image: Image) -> None:
    def predictor(bias: float) -> NetworkPredictor:
        return NetworkPredictor(Doubling(bias), PredictOptions(denormalize=False))

    report = compare(reference=predictor(0), candidate=predictor(0.25), image=image)
    found = by_title(report)
    assert found["network alone, first application, fed the image"] == pytest.approx(0.25)
    # 2 (2 x + 0.25) + 0.25 - 2 (2 x) = 0.75
    assert found["network alone, second application, fed the own result"] == pytest.approx(0.75)
    assert found["network alone, second application, fed the reference's result"] == pytest.approx(0.25)


def test_later_applications_have_a_tolerance_of_their_own(image: Image) -> None:
    report = compare(
        reference=Adds(), candidate=Adds(error=0.5), image=image, tolerance=0.6, tolerance_repeated=0.9
    )
    assert [row.passed for row in report.rows] == [True, False, True]
    assert "1 of 3" in report.verdict


def test_nan_on_one_side_only_fails_and_on_both_agrees(image: Image) -> None:
    assert not compare(reference=Adds(), candidate=Adds(error=np.nan), image=image, applications=1).passed
    both = compare(reference=Adds(error=np.nan), candidate=Adds(error=np.nan), image=image, applications=1)
    assert both.passed


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_infinite_or_nan_on_both_sides_is_no_difference(image: Image, value: float) -> None:
    both = Adds(error=value)
    report = compare(reference=both, candidate=both, image=image, applications=1)
    row = report.rows[0]
    assert (row.passed, row.max_abs, row.mean_abs, row.rmse, row.mismatched_ppm) == (True, 0, 0, 0, 0)
    assert row.cause == AGREE


@pytest.mark.parametrize(
    "pair", [(0.0, np.nan), (np.nan, 0.0), (np.inf, np.nan), (-np.inf, np.inf), (0.0, np.inf)]
)
@pytest.mark.parametrize("tolerance", [1e-5, np.inf])
def test_what_is_infinite_or_nan_on_one_side_only_never_passes(
    image: Image, pair: tuple[float, float], tolerance: float
) -> None:
    here, there = (Adds(error=value) for value in pair)
    report = compare(reference=here, candidate=there, image=image, applications=1, tolerance=tolerance)
    row = report.rows[0]
    assert (row.passed, row.cause, row.worst) == (False, NAN, (2, 3))
    # One of 20 pixels, whatever the tolerance; no mean is finite that holds it.
    assert (row.max_abs, row.mean_abs, row.rmse, row.mismatched_ppm) == (np.inf, np.inf, np.inf, 50_000)


@pytest.mark.parametrize("error", [0.0, 1e-6, 0.5, np.inf, np.nan])
def test_a_row_passes_exactly_where_its_cause_is_agreement(image: Image, error: float) -> None:
    report = compare(reference=Adds(), candidate=Adds(error=error), image=image)
    assert all(row.passed == (row.cause == AGREE) for row in report.rows)
    bare = diagnose(Adds().predict(image), Adds(error=error).predict(image), tolerance=1e-5)
    row = report.rows[0]
    assert (row.max_abs, row.rmse, row.worst) == (bare.max_abs, bare.rmse, bare.worst)


def test_results_of_different_shape_cannot_be_compared(image: Image) -> None:
    class Crops(Adds):
        def predict(self, image: Image) -> Image:
            return image.replace(data=image.data[:-1])

    with pytest.raises(InputError, match=r"shape \(4, 5\).*\(3, 5\)"):
        compare(reference=Adds(), candidate=Crops(), image=image)


def test_no_application_is_refused(image: Image) -> None:
    with pytest.raises(InputError, match="at least 1; received 0"):
        compare(reference=Adds(), candidate=Adds(), image=image, applications=0)


def test_the_report_names_both_runtimes_with_versions(image: Image) -> None:
    text = str(compare(reference=Adds(), candidate=Adds(), image=image))
    assert text.count(f"test (numpy {np.__version__})") == 2


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_the_page_can_show_what_is_infinite_or_nan(image: Image, tmp_path: Path, value: float) -> None:
    for reference in (Adds(error=value), Adds()):
        report = compare(reference=reference, candidate=Adds(error=value), image=image)
        page = report.save(tmp_path / "parity.html").read_text(encoding="utf-8")
        assert report.verdict in page


@pytest.mark.parametrize("suffix", [".html", ".json", ".md", ".txt"])
def test_every_rendering_holds_the_verdict_and_the_worst_place(
    image: Image, tmp_path: Path, suffix: str
) -> None:
    report = compare(reference=Adds(), candidate=Adds(error=0.5), image=image)
    text = report.save(tmp_path / f"parity{suffix}").read_text(encoding="utf-8")
    if suffix == ".json":
        content = json.loads(text)
        assert content["passed"] is False
        assert content["rows"][0]["worst"] == [2, 3]
    else:
        assert "3 of 3 comparisons differ" in text
        assert "y=2 x=3" in text


def test_another_suffix_is_refused_with_the_known_ones(image: Image, tmp_path: Path) -> None:
    report = compare(reference=Adds(), candidate=Adds(), image=image)
    with pytest.raises(InputError, match=r"\.html, \.json, \.md or \.txt; received '\.pdf'"):
        report.save(tmp_path / "parity.pdf")
    assert not list(tmp_path.iterdir())


def test_every_row_says_where_and_why(image: Image) -> None:
    report = compare(reference=Adds(), candidate=Adds(error=0.5, place=(1, 4)), image=image, applications=1)
    row = report.rows[0]
    # Pixel (1, 4) of a 4 x 5 image lies in the last column.
    assert row.to_border_px == 0
    assert row.to_seam_px is None
    assert row.cause
    assert row.diagnosis in str(report)


def test_results_in_another_order_of_axes_are_compared_by_letter(image: Image) -> None:
    class Turns(Adds):
        def predict(self, image: Image) -> Image:
            result = super().predict(image)
            return result.replace(data=result.data.T, axes="XY") if result.axes == "YX" else result

    report = compare(reference=Adds(), candidate=Turns(), image=image, applications=1)
    assert report.passed
    assert not residual(report.results["reference 1"], report.results["candidate 1"]).any()
