"""The look: quiet, warm paper and petrol ink, in light and dark; no font or script from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradio.themes import Base
from gradio.themes.utils import sizes
from gradio.themes.utils.colors import Color

_INK = Color(
    name="petrol", c50="#eef6f6", c100="#d6eaea", c200="#aed5d5", c300="#7dbaba", c400="#4a9a9b",
    c500="#237d7f", c600="#0f6668", c700="#0c5254", c800="#0b4243", c900="#0a3738", c950="#052223",
)  # fmt: skip
_PAPER = Color(
    name="paper", c50="#fbfaf8", c100="#f4f2ee", c200="#e7e4dd", c300="#d3cec4", c400="#a39d91",
    c500="#777166", c600="#57524a", c700="#403c36", c800="#292622", c900="#1c1a17", c950="#12110f",
)  # fmt: skip
_SANS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

THEME = Base(
    primary_hue=_INK,
    secondary_hue=_INK,
    neutral_hue=_PAPER,
    font=list(_SANS),
    font_mono=list(_MONO),
    text_size=sizes.text_md,
    radius_size=sizes.radius_md,
    spacing_size=sizes.spacing_md,
).set(
    body_background_fill="*neutral_50",
    body_background_fill_dark="*neutral_950",
    body_text_color="*neutral_900",
    body_text_color_dark="*neutral_100",
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="#b5afa3",
    background_fill_primary="white",
    background_fill_primary_dark="*neutral_900",
    background_fill_secondary="*neutral_100",
    background_fill_secondary_dark="*neutral_800",
    block_background_fill="white",
    block_background_fill_dark="*neutral_900",
    block_border_width="0px",
    block_padding="0px",
    block_border_color="*neutral_200",
    block_border_color_dark="*neutral_800",
    block_shadow="none",
    block_label_text_color="*neutral_600",
    block_label_text_color_dark="#b5afa3",
    block_title_text_color="*neutral_800",
    block_title_text_color_dark="*neutral_100",
    block_title_text_weight="600",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="#b5afa3",
    border_color_primary="*neutral_200",
    border_color_primary_dark="*neutral_700",
    input_background_fill="white",
    input_background_fill_dark="*neutral_950",
    input_border_width="1px",
    input_border_color="*neutral_300",
    input_border_color_dark="*neutral_700",
    input_border_color_focus="*primary_500",
    input_border_color_focus_dark="*primary_400",
    input_shadow_focus="0 0 0 3px rgba(35,125,127,.25)",
    input_placeholder_color="*neutral_500",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
    button_primary_background_fill_dark="*primary_500",
    button_primary_background_fill_hover_dark="*primary_400",
    button_primary_text_color="white",
    button_primary_text_color_dark="white",
    button_secondary_background_fill="white",
    button_secondary_background_fill_hover="*neutral_100",
    button_secondary_background_fill_dark="*neutral_800",
    button_secondary_background_fill_hover_dark="*neutral_700",
    button_secondary_border_color="*neutral_300",
    button_secondary_border_color_dark="*neutral_700",
    button_border_width="1px",
    button_large_text_weight="600",
    slider_color="*primary_600",
    slider_color_dark="*primary_400",
    link_text_color="*primary_700",
    link_text_color_dark="*primary_300",
)

_HEAD = """
<meta name="color-scheme" content="light dark">
<meta name="viewport" content="width=device-width, initial-scale=1">
"""

LOOK: dict[str, Any] = {
    "theme": THEME,
    "css_paths": [Path(__file__).with_name("look.css")],
    "head": _HEAD,
}
"""Keyword arguments of `launch` and `mount_gradio_app`."""
