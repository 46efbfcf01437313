"""The code that Triton's Python backend runs; `serving.repository` copies each model.py into a model repository."""
