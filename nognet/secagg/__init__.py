"""Secure aggregation: the coordinator learns the sum of the sites' updates and no single one.

Bonawitz et al. 2017 (CCS), "Practical secure aggregation for privacy-preserving machine learning",
with double masks, Shamir shares for sites that drop out, signed keys and the consistency check.
Pure functions over frozen values; nothing here sends, waits or writes.

    session -> keys -> derivation -> site_state -> site_side, coordinator_side
    shares, masks, quantise: secrets in parts, keys as words, updates as words
"""
