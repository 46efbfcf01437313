"""The studio: a page to paint label maps in. Plain ES modules, which load nothing from elsewhere."""
