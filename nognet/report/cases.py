"""One nodule as a report shows it, and the panels of its central slice.

Cases are drawn only where the images already are: at a hospital, for itself, or from phantoms.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nognet.report.style import BASELINE_INK, PREDICTED_INK, TRUTH_INK, figure_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARGIN_VOX = 9
MIN_EDGE_VOX = 26
ARROWS_ALONG_EDGE = 13
FIELD_VISIBLE_MM = 0.05


@dataclass(frozen=True)
class Case:
    """A pair and its prediction, on the 1 mm ROI grid in the baseline's frame.

    Attributes:
        title: Heading, free of patient text, such as ``alpha, growing, 182 days``.
        baseline: CT ``(D, H, W)`` in [0, 1].
        follow_up: True follow-up CT, as `baseline`.
        predicted: Predicted follow-up CT, as `baseline`.
        baseline_mask: ``(D, H, W)``, {0, 1}.
        follow_up_mask: As `baseline_mask`.
        predicted_mask: Probabilities ``(D, H, W)`` in [0, 1].
        displacement_vox: Pull-back field ``(3, D, H, W)``, components along z, y, x.
        interval_days: Days from baseline to follow-up.
        figures: Name to value (or text), printed under the panels.
    """

    title: str
    baseline: NDArray[Any]
    follow_up: NDArray[Any]
    predicted: NDArray[Any]
    baseline_mask: NDArray[Any]
    follow_up_mask: NDArray[Any]
    predicted_mask: NDArray[Any]
    displacement_vox: NDArray[Any]
    interval_days: float
    figures: Mapping[str, float | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that all arrays lie on one grid and are finite.

        Raises:
            ValueError: a shape differs, or a value is not finite.
        """
        shape = self.baseline.shape
        if len(shape) != 3:
            raise ValueError(f"case '{self.title}': baseline is {shape}, expected (D, H, W)")
        for name in _VOLUMES:
            array = getattr(self, name)
            if array.shape != shape:
                raise ValueError(f"case '{self.title}': {name} is {array.shape}, expected {shape}")
            if not np.isfinite(array).all():
                raise ValueError(f"case '{self.title}': {name} holds a value that is not finite")
        if self.displacement_vox.shape != (3, *shape):
            raise ValueError(
                f"case '{self.title}': displacement_vox is {self.displacement_vox.shape}, expected "
                f"{(3, *shape)}"
            )


_VOLUMES = (
    "baseline",
    "follow_up",
    "predicted",
    "baseline_mask",
    "follow_up_mask",
    "predicted_mask",
)


@dataclass(frozen=True)
class _Slice:
    """The window of the axial slice that is drawn: ``array[index, rows, columns]``."""

    index: int
    rows: slice
    columns: slice

    def of(self, volume: NDArray[Any]) -> NDArray[np.float64]:
        return np.asarray(volume[self.index, self.rows, self.columns], dtype=np.float64)

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom, top in voxels, for matplotlib's `imshow`."""
        return (
            self.columns.start - 0.5,
            self.columns.stop - 0.5,
            self.rows.stop - 0.5,
            self.rows.start - 0.5,
        )


def case_png(case: Case) -> str:
    """Draw a case's six panels and give the PNG as base64 text."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with figure_style():
        canvas = Figure(figsize=(12, 2.35), layout="constrained")
        FigureCanvasAgg(canvas)
        axes = canvas.subplots(1, 6)
        window = _central_slice(case)
        _draw_images(axes[:3], case, window)
        _draw_changes(axes[3:5], case, window)
        _draw_field(axes[5], case, window)
        buffer = io.BytesIO()
        canvas.savefig(buffer, format="png", dpi=170, metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _central_slice(case: Case) -> _Slice:
    """Choose the axial slice through the nodule's centre, cut square around the masks."""
    nodule = (case.baseline_mask > 0.5) | (case.follow_up_mask > 0.5) | (case.predicted_mask > 0.5)
    depth, height, width = nodule.shape
    if not nodule.any():
        return _Slice(depth // 2, slice(0, height), slice(0, width))
    where = np.argwhere(nodule)
    index = round(float(where[:, 0].mean()))
    (_, top, left), (_, bottom, right) = where.min(axis=0), where.max(axis=0)
    edge = max(bottom - top + 1, right - left + 1, MIN_EDGE_VOX - 2 * MARGIN_VOX) + 2 * MARGIN_VOX
    return _Slice(
        index, _span((top + bottom) / 2, edge, height), _span((left + right) / 2, edge, width)
    )


def _span(centre: float, edge: int, size: int) -> slice:
    edge = min(int(edge), size)
    start = min(max(round(centre - edge / 2), 0), size - edge)
    return slice(start, start + edge)


def _draw_images(axes: NDArray[Any], case: Case, window: _Slice) -> None:
    panels = (
        ("Baseline", case.baseline, ((case.baseline_mask, BASELINE_INK, "-"),)),
        ("True follow-up", case.follow_up, ((case.follow_up_mask, TRUTH_INK, "-"),)),
        (
            "Predicted",
            case.predicted,
            ((case.follow_up_mask, TRUTH_INK, "-"), (case.predicted_mask, PREDICTED_INK, "--")),
        ),
    )
    for axis, (title, volume, outlines) in zip(axes, panels, strict=True):
        axis.imshow(window.of(volume), cmap="gray", vmin=0, vmax=1, extent=window.extent)
        for mask, ink, dashes in outlines:
            _outline(axis, window, mask, ink, dashes)
        _finish(axis, title)
    _scale_bar(axes[0], window)


def _draw_changes(axes: NDArray[Any], case: Case, window: _Slice) -> None:
    changes = (
        ("True change", window.of(case.follow_up) - window.of(case.baseline)),
        ("Error of prediction", window.of(case.predicted) - window.of(case.follow_up)),
    )
    # Both on one scale, so that the colours may be compared.
    limit = max(float(np.abs(change).max()) for _, change in changes) or 1.0
    for axis, (title, change) in zip(axes, changes, strict=True):
        image = axis.imshow(change, cmap="RdBu_r", vmin=-limit, vmax=limit, extent=window.extent)
        _outline(axis, window, case.follow_up_mask, "#333333", "-")
        _finish(axis, title)
    bar = axes[1].figure.colorbar(image, ax=axes[1], fraction=0.045, pad=0.03, shrink=0.72)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=6, length=2)


def _draw_field(axis: Axes, case: Case, window: _Slice) -> None:
    """Draw where tissue moves: from p + u, its place at baseline, to p (u is pull-back)."""
    _, u_y, u_x = (window.of(component) for component in case.displacement_vox)
    length = np.sqrt(sum(window.of(component) ** 2 for component in case.displacement_vox))
    longest = float(length.max())
    image = axis.imshow(
        length,
        cmap="cividis",
        vmin=0,
        vmax=max(longest, FIELD_VISIBLE_MM),
        extent=window.extent,
    )
    _outline(axis, window, case.baseline_mask, "#ffffff", "-")
    step = max(1, round(length.shape[0] / ARROWS_ALONG_EDGE))
    rows = np.arange(window.rows.start, window.rows.stop)[step // 2 :: step]
    columns = np.arange(window.columns.start, window.columns.stop)[step // 2 :: step]
    in_plane = float(np.hypot(u_y, u_x).max())
    magnified = max(1, round(0.9 * step / in_plane)) if in_plane > FIELD_VISIBLE_MM else 1
    picked = (slice(step // 2, None, step),) * 2
    axis.quiver(
        columns[None, :] + u_x[picked] * magnified,
        rows[:, None] + u_y[picked] * magnified,
        -u_x[picked] * magnified,
        -u_y[picked] * magnified,
        angles="xy",
        scale_units="xy",
        scale=1,
        color="#ffffff",
        width=0.008,
        headwidth=3.6,
        headlength=4,
        headaxislength=3.6,
    )
    axis.set_xlim(window.extent[0], window.extent[1])
    axis.set_ylim(window.extent[2], window.extent[3])
    _finish(axis, f"Motion (mm), arrows x{magnified}" if magnified > 1 else "Motion (mm)")
    bar = axis.figure.colorbar(image, ax=axis, fraction=0.045, pad=0.03, shrink=0.72)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=6, length=2)


def _outline(axis: Axes, window: _Slice, mask: NDArray[Any], ink: str, dashes: str) -> None:
    section = window.of(mask)
    if section.max() > 0.5 >= section.min():
        axis.contour(
            np.arange(window.columns.start, window.columns.stop),
            np.arange(window.rows.start, window.rows.stop),
            section,
            levels=[0.5],
            colors=[ink],
            linewidths=1.1,
            linestyles=dashes,
        )


def _scale_bar(axis: Axes, window: _Slice) -> None:
    left, _, bottom, _ = window.extent
    axis.plot([left + 1.5, left + 11.5], [bottom - 1.8] * 2, color="white", linewidth=1.6)
    axis.text(left + 6.5, bottom - 2.6, "10 mm", color="white", fontsize=6, ha="center")


def _finish(axis: Axes, title: str) -> None:
    axis.set_title(title, fontsize=8)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
