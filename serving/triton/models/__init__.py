"""The code that Triton's Python backend runs; `serving.triton.model_config` copies each model.py."""
