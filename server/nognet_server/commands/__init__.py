"""What a coordinator types: `nognet-server`, and what is done beside a running one."""
