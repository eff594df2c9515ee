"""Draw the report's figures with matplotlib. ``draw.py`` draws all of them."""
