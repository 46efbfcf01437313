"""Files that the project writes: checkpoints, manifests, and how a file is written whole."""
