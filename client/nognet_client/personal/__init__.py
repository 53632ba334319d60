"""What of a run's model is a site's own, and stays there."""
