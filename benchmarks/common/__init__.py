"""Code that the benchmarks share: load, maps, options, reports, processes."""
