"""The mathematics of SPADE in PyTorch and NumPy. Knows no server and no file format but its own."""
