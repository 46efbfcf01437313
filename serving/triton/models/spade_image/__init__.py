"""Model `spade_image`: label maps as PNG files in, images as PNG, JPEG or WebP files out."""
