"""SPADE by codebook in networks of other libraries. See docs/accelerate.md."""
