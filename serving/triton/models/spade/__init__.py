"""Model `spade`: label maps as tensors in, images as tensors out."""
