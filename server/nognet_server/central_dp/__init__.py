"""Site-level differential privacy, between the checked replies of a round and its strategy.

    replies -> charge (on disk first) -> clip each -> sum by bounded weights -> noise, once
            -> divide by a fixed number -> one reply that stands for all -> the strategy

The strategy sees the noised mean and nothing else, so that what it does (momentum, Adam) is
post-processing. `nognet.privacy.central` has the numbers, `charges` what was released so far.
"""
