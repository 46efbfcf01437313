"""The report of a benchmark: JSON, Markdown, a page with plots, noise, and the comparison with an older report."""
