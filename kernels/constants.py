"""The numbers that every implementation of SPADE shares, native kernels included."""

from __future__ import annotations

HIDDEN = 128
"""Channels between the two convs of a SPADE norm."""

SLOPE = 0.2
"""Slope of the leaky ReLU below zero."""

EPSILON = 1e-5
"""Added to the variance by every norm."""

DONT_CARE = 255
"""The "don't care" label of a label map file."""
