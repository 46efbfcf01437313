"""The cost of an edit: a session against drawing anew."""
