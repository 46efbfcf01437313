"""Networks that judge images, and the scores they give."""
