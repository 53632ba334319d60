"""A site's part in a secure sum: what it answers, what it keeps, whose keys it believes."""
