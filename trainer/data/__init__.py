"""Data sets of label maps and photos: layouts, preprocessing, batches."""
