"""The last conv and the image on CUDA."""
