"""From a hospital's files to prepared pairs: read, check, register, cut the ROI, store."""
