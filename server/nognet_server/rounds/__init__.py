"""One round: ask the sites, check what they sent, aggregate, and say what each did."""
