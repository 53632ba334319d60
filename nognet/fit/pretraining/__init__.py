"""Pre-training on phantoms: what a run may begin with. No patient is used, no privacy spent."""
