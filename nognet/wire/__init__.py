"""What travels between sites and coordinator: flat weights, contract, messages."""
