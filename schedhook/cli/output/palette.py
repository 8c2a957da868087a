"""The colours of pictures and pages: a tone has the same one in each of them."""

from __future__ import annotations

from collections.abc import Mapping

from schedhook.cli.output.charts import Tone

INK = "#1f2933"
FAINT = "#616e7c"
LINE = "#d5dae0"

LIGHT: Mapping[Tone, str] = {
    Tone.HOME: "#2b7bba",
    Tone.OFF: "#e06c00",
    Tone.SHARED: "#8fb8d6",
    Tone.OTHER: "#c3cad2",
    Tone.BEFORE: "#9aa5b1",
    Tone.AFTER: "#2b7bba",
}
"""Blue and orange, which colour-blind readers tell apart."""
DARK: Mapping[Tone, str] = {
    Tone.HOME: "#4a9bdb",
    Tone.OFF: "#f08a24",
    Tone.SHARED: "#355f80",
    Tone.OTHER: "#4b5661",
    Tone.BEFORE: "#6b7683",
    Tone.AFTER: "#4a9bdb",
}
"""The same on a dark page."""
