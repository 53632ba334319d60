"""Two times of one nodule: registered, matched, judged, cut to one region of interest."""
