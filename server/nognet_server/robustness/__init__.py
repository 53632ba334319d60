"""What one bad site does to a federation, strategy by strategy: `make bench-robustness`.

phantom hospitals -> one of them attacks -> a simulated run a strategy -> figures of the honest
"""
