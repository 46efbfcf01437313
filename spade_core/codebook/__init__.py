"""The codebook form: gamma and beta once per distinct label patch."""
