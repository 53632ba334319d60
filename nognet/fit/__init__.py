"""One site's work: train a round, evaluate, predict; the model file."""
