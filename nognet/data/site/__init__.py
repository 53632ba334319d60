"""A hospital's table of studies, its pseudonyms and splits, and the preparation of it all."""
