"""A site's consent (`consent:` in site.yaml), what was done under it, and what is declined."""
