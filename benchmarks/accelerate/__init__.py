"""`accelerate` on networks of other libraries."""
