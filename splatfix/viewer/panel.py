"""The controls of the viewer in one browser."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np

from splatfix.evaluation.error_maps import error_legend
from splatfix.viewer.drawing import MAX_STILL_SIDE_PX, STILL_SIDE_PX, DrawnSplat
from splatfix.viewer.scene import MEANINGS, ShownView

Show = Literal["in the browser", "exact, at rest", "difference, at rest"]
LIVE, EXACT, DIFFERENCE = get_args(Show)
FREE = "(free)"
NO_SPLAT = "(none yet)"
NEWEST = "(newest)"
DIFFERENCE_PEAK = 0.15
MAX_KEYS = 9
COLORS = {  # of the frustums by role
    "photo": (217, 88, 22),
    "training": (217, 88, 22),
    "test": (47, 102, 201),
    "other": (123, 128, 139),
    "repaired": (10, 140, 90),
}
SHORTCUTS = (
    "Keys: 1 to 9 choose the splat, N the next one; M shows the difference, R the exact render, B the browser's own; "
    "C hides and shows the cameras."
)  # W, A, S, D, Q, E and the arrows move viser's camera
ROLES = ("photo", "training", "test", "other", "repaired")  # in the order of the legend


@dataclass(frozen=True)
class Group:
    """Views that are shown and hidden together."""

    name: str
    role: str
    num: int


class Panel:
    """The controls, and what the user has chosen. Callbacks run in viser's threads and change nothing else."""

    def __init__(
        self,
        client: Any,  # viser.ClientHandle
        title: str,
        names: Sequence[str],
        *,
        first: str | None,
        is_live: bool,
    ) -> None:
        self._gui = client.gui
        self._is_live = is_live
        self._names: tuple[str, ...] = ()
        self._newest: str | None = None
        self.title = self._gui.add_markdown(f"**{_plain(title)}**")
        self.status = self._gui.add_markdown("", visible=is_live)
        self.splat = self._gui.add_dropdown("splat", (NO_SPLAT,), hint="keys 1 to 9, or N for the next one")
        self.about = self._gui.add_markdown("")
        self.by_direction = self._gui.add_checkbox(
            "color by direction", True, hint="computes the view-dependent colors for this camera when it moves"
        )
        self.color_note = self._gui.add_markdown("")
        self.show = self._gui.add_dropdown("show", (LIVE, EXACT, DIFFERENCE), hint="keys B, R and M")
        self.other = self._gui.add_dropdown("minus", (NO_SPLAT,), visible=False)
        self.peak = self._gui.add_slider("brightest at", 0.02, 0.5, 0.01, DIFFERENCE_PEAK, visible=False)
        self.side_px = self._gui.add_slider("size, px", 240, MAX_STILL_SIDE_PX, 80, STILL_SIDE_PX, visible=False)
        self.legend = self._gui.add_html(_difference_legend(DIFFERENCE_PEAK), visible=False)
        self.still_note = self._gui.add_markdown("", visible=False)
        self.groups: dict[str, Any] = {}
        with self._gui.add_folder("cameras") as self.cameras:
            self.camera_legend = self._gui.add_html("")
            self.shows_cameras = self._gui.add_checkbox("show them", True, hint="key C")
            self.size = self._gui.add_slider("their size", 0.25, 4.0, 0.25, 1.0)
            self.look_from = self._gui.add_dropdown("look from", (FREE,))
            self.picture = self._gui.add_image(np.full((1, 1, 3), 255, np.uint8), visible=False)
        self.cameras.visible = False
        self._shortcuts = self._gui.add_markdown(SHORTCUTS)
        self.list_splats(names)
        if first in self.splat.options:
            self.splat.value = first

    @property
    def chosen(self) -> str | None:
        """Name of the chosen splat; None for none."""
        value = self._newest if self.splat.value == NEWEST else self.splat.value
        return value if value in self._names else None

    @property
    def compared(self) -> str | None:
        """Name of the splat that is subtracted; None for none."""
        return self.other.value if self.other.value in self._names else None

    def list_splats(self, names: Sequence[str], newest: str | None = None) -> None:
        """Offer these splats; of a live run also the one that was saved last, whichever it is."""
        self._newest = newest
        if tuple(names) == self._names:
            return
        added = [name for name in names if name not in self._names]
        was_empty, self._names = not self._names, tuple(names)
        self.splat.options = (*((NEWEST,) if self._is_live else ()), *names) or (NO_SPLAT,)
        if was_empty:
            self.splat.value = self.splat.options[0]
        self.other.options = self._names or (NO_SPLAT,)
        self._choose_other()
        for name in added:
            self._add_key(name)

    def is_shown(self, group: str) -> bool:
        """Whether the cameras of a group are shown."""
        return bool(self.shows_cameras.value and (group not in self.groups or self.groups[group].value))

    def list_groups(self, groups: Mapping[str, Group], views: Sequence[ShownView]) -> None:
        """Offer to show and hide groups of views, and to look from each view."""
        hides_others = any(group.role == "training" for group in groups.values())
        with self.cameras:
            for name, group in groups.items():
                if name not in self.groups:
                    shown = not (group.role == "other" and hides_others)
                    box = self._gui.add_checkbox(name, shown, order=self.size.order - 0.5)
                    box.on_update(lambda _: self._on_toggle())
                    self.groups[name] = box
        self.camera_legend.content = _camera_legend(list(groups.values()))
        self.look_from.options = (FREE, *(view.name for view in views))
        self.cameras.visible = bool(groups)

    def describe(self, name: str, drawn: DrawnSplat) -> None:
        """Describe the splat that is shown."""
        degree = drawn.splat.gaussians.sh_degree
        lines = [f"{len(drawn):,} Gaussians"]
        meaning = MEANINGS.get(name, MEANINGS.get(name.partition(" ")[0]))  # of "round 2" that of "round"
        if meaning is not None:
            lines.append(meaning)
        if drawn.splat.mode == "antialiased":
            lines.append("the browser draws without antialiasing: thin parts look bolder than in an exact render")
        self.about.content = "; ".join(lines)
        self.by_direction.disabled = degree == 0
        if degree == 0:
            self.color_note.content = "It stores one color per Gaussian (SH degree 0)."

    def describe_run(self, text: str) -> None:
        """Say what a watched run has saved."""
        if self.status.content != text:
            self.status.content = text

    def describe_colors(self, drawn: DrawnSplat, seconds: float | None) -> None:
        """Say what the colors are, and what their last update cost; None for the base colors."""
        degree = drawn.splat.gaussians.sh_degree
        if degree == 0:
            return
        if seconds is None:
            self.color_note.content = f"Base color only: SH degree 0 of the stored degree {degree}."
        else:
            self.color_note.content = f"SH degree {degree}. The last update took {1000 * seconds:.0f} ms."

    def describe_still(self, text: str) -> None:
        """Say what the render at rest is, or that it is on its way."""
        if self.still_note.content != text:
            self.still_note.content = text

    def choose_view(self, name: str) -> None:
        """Look from a view, as if it had been chosen in the list."""
        self.look_from.value = name
        self._on_view(name)

    def connect(self, *, on_view: Callable[[str], None], on_toggle: Callable[[], None]) -> None:
        """Call ``on_view`` with the view to look from, and ``on_toggle`` when other cameras are to be shown."""
        self._on_view, self._on_toggle = on_view, on_toggle

        @self.show.on_update
        def _(_event: Any) -> None:
            self._toggle_parts()

        @self.size.on_update
        @self.shows_cameras.on_update
        def _(_event: Any) -> None:
            self._on_toggle()

        @self.peak.on_update
        def _(_event: Any) -> None:
            self.legend.content = _difference_legend(float(self.peak.value))

        @self.splat.on_update
        def _(_event: Any) -> None:
            self._choose_other()

        @self.look_from.on_update
        def _(_event: Any) -> None:
            if self.look_from.value != FREE:
                self._on_view(self.look_from.value)

        keys = {"B": LIVE, "R": EXACT, "M": DIFFERENCE}
        for key, value in keys.items():
            self._on_key(f"show: {value}", key, partial(self._show, value))
        self._on_key("the next splat", "N", self._choose_next)
        self._on_key("hide or show the cameras", "C", self._toggle_cameras)

    def _show(self, value: str) -> None:
        self.show.value = value
        self._toggle_parts()

    def _toggle_parts(self) -> None:
        is_difference = self.show.value == DIFFERENCE
        for part in (self.other, self.peak, self.legend):
            part.visible = is_difference
        for part in (self.side_px, self.still_note):
            part.visible = self.show.value != LIVE

    def _choose_other(self) -> None:
        """Compare with another splat than the chosen one: with the one before it, where there is one."""
        chosen = self.chosen
        if chosen is None or (self.compared is not None and self.compared != chosen):
            return
        others = [name for name in self._names if name != chosen]
        if others:
            index = self._names.index(chosen)
            self.other.value = self._names[index - 1] if index > 0 else others[0]

    def _choose_next(self) -> None:
        if self._names:
            at = self._names.index(self.chosen) if self.chosen is not None else -1
            self.splat.value = self._names[(at + 1) % len(self._names)]
            self._choose_other()

    def _toggle_cameras(self) -> None:
        self.shows_cameras.value = not self.shows_cameras.value
        self._on_toggle()

    def _add_key(self, name: str) -> None:
        """Give a splat the key of its place among the options."""
        number = self._names.index(name) + 1

        def choose() -> None:
            if name in self._names:
                self.splat.value = name
                self._choose_other()

        if number <= MAX_KEYS:
            self._on_key(f"splat: {name}", str(number), choose)

    def _on_key(self, label: str, key: str, act: Callable[[], None]) -> None:
        """Bind a key, where this version of viser can."""
        if hasattr(self._gui, "add_command"):
            self._gui.add_command(label, hotkey=key).on_trigger(lambda _: act())


def _difference_legend(peak: float) -> str:
    stops = ", ".join(error_legend())
    return (
        '<div style="padding: 0 0.9em; font-size: 0.85em">mean absolute difference of the channels (0 to 1)'
        f'<div style="height: 0.8em; border-radius: 3px; background: linear-gradient(to right, {stops})"></div>'
        f'<div style="display: flex; justify-content: space-between"><span>0</span><span>{peak / 2:.3g}</span>'
        f"<span>{peak:.2g} or more</span></div></div>"
    )


def _camera_legend(groups: Sequence[Group]) -> str:
    rows = "".join(
        f'<div><span style="display: inline-block; width: 0.8em; height: 0.8em; margin-right: 0.5em; '
        f'background: rgb{COLORS[group.role]}"></span>{group.num} {group.name}</div>'
        for group in groups
    )
    return f'<div style="padding: 0 0.9em; font-size: 0.85em">{rows}Click a camera to look from there.</div>'


def _plain(text: str) -> str:
    """Keep a name from being read as markup."""
    return "".join(f"\\{letter}" if letter in r"\`*_{}[]()<>#+-.!|" else letter for letter in text)
