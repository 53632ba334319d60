"""CT files, nothing in them trusted, to a volume in Hounsfield units."""
