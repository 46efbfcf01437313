"""Label and instance maps: files, colours, drawn maps."""
