"""Networks of the SPADE family: generator, encoder, discriminator, baselines, and their registry."""
