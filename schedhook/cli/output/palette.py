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
    Tone.BEFORE: "#c9b8e2",
    Tone.AFTER: "#7048b0",
}
"""Blue and orange, which colour-blind readers tell apart; before and after are pale and dark."""
DARK: Mapping[Tone, str] = {
    Tone.HOME: "#4a9bdb",
    Tone.OFF: "#f08a24",
    Tone.SHARED: "#355f80",
    Tone.OTHER: "#4b5661",
    Tone.BEFORE: "#574375",
    Tone.AFTER: "#a488e0",
}
"""The same on a dark page."""
