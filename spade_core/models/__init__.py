"""The networks of the SPADE family: generators and their registry, encoder, discriminator."""
