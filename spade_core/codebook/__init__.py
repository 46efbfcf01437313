"""The codebook form: gamma and beta are computed once for each distinct label patch."""
