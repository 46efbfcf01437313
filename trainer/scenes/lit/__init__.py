"""The look `lit` of scenes: surfaces with relief in the sun's light, cast shadows, soft clouds, reflections."""
